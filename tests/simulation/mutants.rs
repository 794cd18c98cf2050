//! Proof that the checks can fail: each bug that is planted in the product is found within a few seeds.
//!
//! Invariant: the seed that finds a bug passes without it.
//!
//! Deliberately absent: the bugs themselves, which are in the product behind `planted`.

use vulpes_raft::mutant::Mutant;

use crate::plan::Plan;
use crate::run::run;

/// How many seeds a bug may survive.
const BUDGET: u64 = 40;

fn caught(mutant: Mutant, plan: impl Fn(u64) -> Plan) -> String {
    for seed in 0..BUDGET {
        if let Some(reason) = run(&plan(seed), Some(mutant)).failure {
            println!("{mutant:?} is caught by seed {seed}: {reason}");
            assert_eq!(run(&plan(seed), None).failure, None, "without it, too");
            return reason;
        }
    }
    panic!("{mutant:?} survived {BUDGET} seeds");
}

/// Checks that the bug is found, by the check with this text in its message.
fn caught_by(mutant: Mutant, complaint: &str) {
    caught_in(mutant, Plan::new, complaint);
}

fn caught_in(mutant: Mutant, plan: impl Fn(u64) -> Plan, complaint: &str) {
    caught_by_one_of(mutant, plan, &[complaint]);
}

/// Like [`caught_by`], if any of several checks may find the bug first.
fn caught_by_one_of(mutant: Mutant, plan: impl Fn(u64) -> Plan, complaints: &[&str]) {
    let reason = caught(mutant, plan);
    let known = complaints.iter().any(|complaint| reason.contains(complaint));
    assert!(known, "another check was first: {reason}");
}

#[test]
fn acknowledging_before_the_quorum_is_caught() {
    caught_in(Mutant::AcknowledgeBeforeQuorum, Plan::with_votes, "has no quorum of votes");
}

#[test]
fn skipping_the_fsync_is_caught() {
    let complaints = ["and does not hold it", "has less than it has told"];
    caught_by_one_of(Mutant::SkipFsync, Plan::new, &complaints);
}

#[test]
fn taking_part_with_an_older_folder_is_caught() {
    caught_in(Mutant::AcceptOlderDisk, Plan::with_older_folder, "an older copy of its folder");
}

#[test]
fn taking_the_leaders_time_is_caught() {
    caught_in(Mutant::TimeOfTheLeader, Plan::with_wrong_clocks, "ahead of the right clocks");
}

#[test]
fn a_future_that_stands_still_is_caught() {
    let complaints = ["the order's time has grown by", "ms delayed, has not come"];
    caught_by_one_of(Mutant::FutureStandsStill, Plan::with_wrong_clocks, &complaints);
}

#[test]
fn expiring_by_the_stamp_is_caught() {
    // Found by a will that does not come, or by a session that does not expire, once the stamp is in the future.
    let complaints = ["ms delayed, has not come", "ms, and is known"];
    caught_by_one_of(Mutant::ExpireByTheStamp, Plan::with_wrong_clocks, &complaints);
}

#[test]
fn forgetting_a_delay_is_caught() {
    caught_in(Mutant::ForgetDelay, Plan::with_wrong_clocks, "ms delayed, comes after");
}

#[test]
fn expiring_since_the_client_came_is_caught() {
    caught_in(Mutant::ExpireSinceAttached, Plan::with_wrong_clocks, "ms, and is forgotten");
}

#[test]
fn going_by_old_rules_is_caught() {
    caught_in(Mutant::KeepOldRules, Plan::with_rules, "an insider got");
}

#[test]
fn going_by_the_newest_rules_is_caught() {
    caught_in(Mutant::SeeByTheNewest, Plan::with_rules, "an insider");
}

#[test]
fn delivering_what_is_forbidden_is_caught() {
    caught_in(Mutant::DeliverForbidden, Plan::with_rules, "an insider got");
}

#[test]
fn reusing_a_slot_is_caught() {
    // Found by nodes that show two orders, or by a publisher that got another event's position.
    let complaints = ["the order contradicts itself", "which has none", "was told that"];
    caught_by_one_of(Mutant::ReuseSlot, Plan::new, &complaints);
}

#[test]
fn resolving_out_of_order_is_caught() {
    caught_by(Mutant::ResolveOutOfOrder, "is next");
}

#[test]
fn forgetting_the_incarnation_is_caught() {
    caught_by(Mutant::ForgetIncarnation, "opened incarnation");
}

#[test]
fn deleting_what_is_kept_is_caught() {
    caught_by(Mutant::DeleteKept, "has slots from");
}

#[test]
fn dispatching_before_the_commit_is_caught() {
    caught_in(Mutant::DispatchBeforeCommit, Plan::with_votes, "became");
}

#[test]
fn a_gap_behind_retained_values_is_caught() {
    caught_by(Mutant::SkipBehindRetained, "watcher");
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
    // The will of a value, or the will of a session.
    let complaints = ["has not its value from position", "is shown"];
    caught_by_one_of(Mutant::RepeatWill, Plan::new, &complaints);
}

#[test]
fn losing_a_will_is_caught() {
    caught_by(Mutant::LoseWill, "the value of a session that has ended");
}

#[test]
fn ignoring_a_last_word_is_caught() {
    caught_by(Mutant::IgnoreLastWord, "is shown");
}

#[test]
fn a_birth_before_the_will_is_caught() {
    // Found by the session that begins too early, or by the will that comes after its publishes.
    let complaints = ["before its client's will comes", "the will of"];
    caught_by_one_of(Mutant::BirthBeforeWill, Plan::new, &complaints);
}

#[test]
fn losing_state_rows_is_caught() {
    caught_by(Mutant::LoseStateRows, "has another state");
}

#[test]
fn showing_the_refused_is_caught() {
    let complaints =
        ["has not its value from position", "is nothing that anybody published", "is shown"];
    caught_by_one_of(Mutant::ShowRefused, Plan::new, &complaints);
}

#[test]
fn keeping_calls_of_lost_links_is_caught() {
    caught_by(Mutant::KeepCallsOfLostLinks, "is not answered after");
}

#[test]
fn resuming_one_too_far_is_caught() {
    caught_by(Mutant::ResumeOneTooFar, "was next");
}

#[test]
fn a_quorum_off_by_one_is_caught() {
    caught_in(Mutant::QuorumOffByOne, Plan::with_votes, "has no quorum of votes");
}

#[test]
fn taking_one_group_for_all_is_caught() {
    caught_in(Mutant::OneGroupForAll, Plan::with_groups, "has no quorum of votes");
}

#[test]
fn voting_before_the_fsync_is_caught() {
    caught_in(Mutant::VoteBeforeFsync, Plan::with_votes, "and does not hold it");
}

#[test]
fn taking_an_entry_without_its_body_is_caught() {
    caught_by(Mutant::TakeWithoutBody, "a quorum is to have");
}

#[test]
fn calling_an_entry_written_before_its_body_is_caught() {
    caught_by(Mutant::WrittenBeforeBody, "a quorum is to have");
}

#[test]
fn swallowing_an_error_of_the_disk_is_caught() {
    caught_by(Mutant::SwallowEio, "and does not hold it");
}

#[test]
fn forgetting_what_is_damaged_is_caught() {
    // Found by a vote for the body, or by a check of all bodies.
    let complaints = ["and does not hold it", "is missing"];
    caught_by_one_of(Mutant::ForgetDamaged, Plan::with_rot, &complaints);
}

#[test]
fn overlooking_the_witness_is_caught() {
    // Without votes, sync finds a member's log shorter than before, and panics before any check of bodies.
    // With votes, the check finds that log or the bodies to have gone back.
    let plan = |seed| Plan::with_backup(seed).voting();
    caught_by_one_of(Mutant::OverlookWitness, plan, &["and does not hold it", "became"]);
}

#[test]
fn a_snapshot_without_bodies_is_caught() {
    caught_in(Mutant::SnapshotWithoutBodies, Plan::with_absence, "is missing");
}

#[test]
fn stamps_that_run_back_are_caught() {
    caught_by(Mutant::StampsRunBack, "the order contradicts itself");
}

#[test]
fn forgetting_fences_is_caught() {
    let plan = |seed| Plan::with_short_leases(seed).voting();
    // A storage notices when it indexes the row, and so does a reader of the whole order.
    let complaints = ["which the order before it rules out", "which was fenced before"];
    caught_by_one_of(Mutant::ForgetFences, plan, &complaints);
}

#[test]
fn reordering_a_publisher_is_caught() {
    caught_by(Mutant::ReorderPublisher, "of its session");
}

#[test]
fn applying_twice_on_replay_is_caught() {
    // Found by the state after a slot, or by a storage that gets a slot twice.
    let complaints = ["has another state", "the next slot to be indexed is"];
    caught_by_one_of(Mutant::ApplyTwiceOnReplay, Plan::new, &complaints);
}
