//! Proof that the checks can fail: each bug that is planted in the product is found within a few seeds.
//!
//! Invariant: the seeds used here pass in a clean build, which the tests over all seeds show.
//!
//! Deliberately absent: the bugs themselves, which stand in the product behind `planted`.

use vulpes_raft::mutant::Mutant;

use crate::plan::Plan;
use crate::run::run;

/// How many seeds a bug may survive. All of them are run clean elsewhere.
const BUDGET: u64 = 40;

fn caught(mutant: Mutant) -> String {
    for seed in 0..BUDGET {
        if let Some(reason) = run(&Plan::new(seed), Some(mutant)).failure {
            println!("{mutant:?} is caught by seed {seed}: {reason}");
            return reason;
        }
    }
    panic!("{mutant:?} survived {BUDGET} seeds");
}

/// It is caught by the check whose complaint has these words.
fn caught_by(mutant: Mutant, complaint: &str) {
    let reason = caught(mutant);
    assert!(reason.contains(complaint), "another check was first: {reason}");
}

#[test]
fn acknowledging_before_the_quorum_is_caught() {
    caught(Mutant::AcknowledgeBeforeQuorum);
}

#[test]
fn skipping_the_fsync_is_caught() {
    caught(Mutant::SkipFsync);
}

#[test]
fn reusing_a_slot_is_caught() {
    caught(Mutant::ReuseSlot);
}

#[test]
fn resolving_out_of_order_is_caught() {
    caught(Mutant::ResolveOutOfOrder);
}

#[test]
fn forgetting_the_incarnation_is_caught() {
    caught(Mutant::ForgetIncarnation);
}

#[test]
fn deleting_what_is_kept_is_caught() {
    caught(Mutant::DeleteKept);
}

#[test]
fn dispatching_before_the_commit_is_caught() {
    caught(Mutant::DispatchBeforeCommit);
}

#[test]
fn a_gap_behind_retained_values_is_caught() {
    caught_by(Mutant::SkipBehindRetained, "a watcher was misled");
}

#[test]
fn reading_without_waiting_is_caught() {
    caught_by(Mutant::ReadWithoutWaiting, "no order of these operations explains");
}

#[test]
fn overlooking_the_own_slot_is_caught() {
    caught_by(Mutant::OverlookOwnSlot, "has not its value from position");
}

#[test]
fn telling_an_old_token_is_caught() {
    caught_by(Mutant::TellOldToken, "was told");
}

#[test]
fn serving_the_last_first_is_caught() {
    caught_by(Mutant::LastComeFirstServed, "$lock");
}

#[test]
fn pushing_in_is_caught() {
    caught_by(Mutant::PushIn, "$lock has not its value from position");
}

#[test]
fn repeating_a_will_is_caught() {
    caught_by(Mutant::RepeatWill, "has not its value from position");
}

#[test]
fn losing_a_will_is_caught() {
    caught_by(Mutant::LoseWill, "the value of a session that has ended");
}

#[test]
fn losing_state_rows_is_caught() {
    caught_by(Mutant::LoseStateRows, "has another state");
}

#[test]
fn showing_the_refused_is_caught() {
    caught_by(Mutant::ShowRefused, "has not its value from position");
}

#[test]
fn keeping_calls_of_lost_links_is_caught() {
    caught(Mutant::KeepCallsOfLostLinks);
}

#[test]
fn resuming_one_too_far_is_caught() {
    caught(Mutant::ResumeOneTooFar);
}
