//! What a session delivers while rules change.
//!
//! Deliberately absent: what clients may ask for, which the gates decide.

use std::panic::catch_unwind;

use vulpes_raft::mutant::{plant, Mutant};

use super::bench::check;
use super::WIDE;

/// From the position of a change on, nothing comes that the client may not see, however it reads the log.
const CHANGES: &str = "
    > allow a b
    > 1 says open
    1 submits join
    > order
    1: opened
    > 1 says subscribe 1 #
    1: subscribed 1
    > log a b
    1: event 4 a
    1: event 5 b
    > allow b
    > log a b
    1: event 8 b
    > 1 says subscribe 2 # after 0
    1: subscribed 2
    1: event 5 b
    1: event 8 b
    > allow #
    > log a
    1: event 10 a
";

/// Events that wait for a slow client are not delivered once it may not see them.
const SLOW: &str = "
    > allow a
    > 1 says open
    1 submits join
    > order
    1: opened
    > 1 says subscribe 1 #
    1: subscribed 1
    > log a
    1: event 4 a
    > log a a
    1: event 5 a
    > log a
    > log a
    > allow b
    > 1 takes 1000
    > log a
    > log b
    1: event 11 b
";

/// An event waits for room, chosen for one subscription, when it may not be seen any more: the next one is for another.
const CHOSEN: &str = "
    > allow a b
    > 1 says open
    1 submits join
    > order
    1: opened
    > 1 says subscribe 1 a
    1: subscribed 1
    > 1 says subscribe 2 b
    1: subscribed 2
    > log a b
    > allow b
    > 1 takes 1000
    1: event 5 b
";

/// The client's user is removed, and its session does not know that yet.
const REMOVED: &str = "
    > allow a
    > 1 says open
    1 submits join
    > order
    1: opened
    > 1 says subscribe 1 #
    1: subscribed 1
    > 1 is deaf
    > log a
    1: event 4 a
    > forbid anonymous
    > log a
";

#[test]
fn what_may_not_be_seen_is_not_delivered() {
    check(WIDE, CHANGES);
    check(30, SLOW);
    check(WIDE, REMOVED);
    check(30, CHOSEN);
}

#[test]
fn planted_bugs_are_seen() {
    for bug in [Mutant::KeepOldRules, Mutant::DeliverForbidden] {
        for (limit, script) in [(WIDE, CHANGES), (30, SLOW), (WIDE, REMOVED)] {
            let seen = catch_unwind(|| {
                plant(Some(bug));
                check(limit, script);
            });
            plant(None);
            assert!(seen.is_err(), "{bug:?}");
        }
    }
}
