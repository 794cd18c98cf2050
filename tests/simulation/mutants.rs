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

fn caught(mutant: Mutant) {
    for seed in 0..BUDGET {
        if let Some(reason) = run(&Plan::new(seed), Some(mutant)).failure {
            println!("{mutant:?} is caught by seed {seed}: {reason}");
            return;
        }
    }
    panic!("{mutant:?} survived {BUDGET} seeds");
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
