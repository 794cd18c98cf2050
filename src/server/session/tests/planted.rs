//! Proof that the checks of a session can fail: each planted bug makes one of them fail.
//!
//! Deliberately absent: that they pass without a bug, which they show themselves.

use std::panic::{catch_unwind, AssertUnwindSafe};

use vulpes_raft::mutant::{plant, Mutant};

use super::*;

/// The check fails with the bug, and with this message.
fn caught(mutant: Mutant, complaint: &str, check: impl Fn()) {
    plant(Some(mutant));
    let ran = catch_unwind(AssertUnwindSafe(check));
    plant(None);
    let panic = ran.expect_err("the bug was not seen");
    let reason = panic.downcast_ref::<String>().map(String::as_str);
    let reason = reason.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
    assert!(reason.contains(complaint), "another check was first: {reason}");
}

#[test]
fn a_wake_up_that_is_lost_is_caught() {
    let half = limits::SESSION_OUTPUT / 2;
    for protocol in [Protocol::Mqtt(0), Protocol::Wamp] {
        caught(Mutant::LoseWakeUp, "the socket would take", || {
            super::check(protocol, &[1000], &[Step::Take(half + 2000), Step::Take(half + 2000)]);
        });
    }
}

#[test]
fn judging_a_client_only_while_reading_is_caught() {
    for protocol in alive::PROTOCOLS {
        caught(Mutant::JudgeWhileReading, "a frozen client is still there", || {
            alive::check(protocol, &[]);
        });
    }
}

#[test]
fn overlooking_what_a_slow_client_takes_is_caught() {
    for protocol in alive::PROTOCOLS {
        caught(Mutant::OverlookTaken, "it was cut", || alive::check(protocol, &[(950, 1); 10]));
    }
}

#[test]
fn a_subscription_past_the_limit_is_caught() {
    for protocol in [Protocol::Mqtt(0), Protocol::Wamp] {
        let most = limits::SESSION_SUBSCRIPTIONS;
        caught(Mutant::OneSubscriptionTooMany, "left == right", || {
            limit::check(protocol, most + 1);
        });
    }
}

#[test]
fn a_subscription_that_is_lost_at_the_limit_is_caught() {
    for protocol in [Protocol::Mqtt(0), Protocol::Wamp] {
        let most = limits::SESSION_SUBSCRIPTIONS;
        caught(Mutant::LoseLastSubscription, "subscriptions", || limit::check(protocol, most));
    }
}
