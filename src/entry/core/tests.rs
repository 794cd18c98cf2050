//! Scripts of the core: `> input` lines, each followed by the core's requests.
//!
//! Invariant: a script lists everything that happens; nothing else may happen.
//!
//! Deliberately absent: random schedules (`model`).

use std::fmt::Write;

mod bench;
mod failures;

pub(super) use self::bench::event;
use self::bench::{check, check_early, check_open};

#[test]
fn an_idle_entry_goes_straight_through() {
    check_open(
        "
        > submit a 3
          sealed 1/0 3
          append 1/0 at 1
          append 1/0 at 2
          append 1/0 at 3
        > vote 2 1/0
        > vote 3 1/0
          propose #0 1/0
        > proposed 0 5
          answer a 0+3 stored at 5
        > log 5 1/0
        > vote 1 1/0
        ",
    );
}

#[test]
fn an_early_segment_is_proposed_while_it_is_being_kept() {
    check_early(
        "
        > submit a 3
          sealed 1/0 3
          append 1/0 at 1
          append 1/0 at 2
          append 1/0 at 3
          propose #0 1/0
        > vote 2 1/0
        > proposed 0 5
          answer a 0+3 stored at 5
        > vote 1 1/0 unreachable
        > after 50
          begin 1 of 1
        > begun 1 2
        > submit a 1
          sealed 1/1 1
          append 1/1 at 1
          append 1/1 at 2
          append 1/1 at 3
          propose #1 1/1
        > vote 1 1/1 unreachable
        > vote 2 1/1
        > vote 3 1/1
        > after 50
          begin 1 of 1
        > begun 1 2
          append 1/1 at 1
        ",
    );
}

/// The slowest storage is sent as much as it has room for, which is more than its credit, and gets a skip notice for the rest.
#[test]
fn a_storage_without_room_is_told_what_it_is_not_sent() {
    let mut script = String::new();
    for number in 0..8 {
        write!(
            script,
            "
            > submit a 1 1040000
              sealed 1/{number} 1
              append 1/{number} at 1
              append 1/{number} at 2
              append 1/{number} at 3
              propose #{number} 1/{number}
            > vote 1 1/{number}
            > vote 2 1/{number}
            > proposed {number} {}
              answer a {number}+1 stored at {}",
            number + 5,
            number + 5
        )
        .unwrap();
    }
    script.push_str(
        "
        > submit a 1 1040000
          sealed 1/8 1
          append 1/8 at 1
          append 1/8 at 2
          skip through 1/8 at 3
          propose #8 1/8
        > submit a 1 1040000
          sealed 1/9 1
          append 1/9 at 1
          append 1/9 at 2
          propose #9 1/9
        > told 3 1/8
          skip through 1/9 at 3
        > told 3 1/9
        > vote 3 1/0
          append 1/8 at 3
        > vote 1 1/8
        > vote 1 1/9
        > vote 2 1/8
        > vote 2 1/9
        > submit a 1 1040000
          sealed 1/10 1
          append 1/10 at 1
          append 1/10 at 2
          skip through 1/10 at 3
          propose #10 1/10
        > told 3 1/10 failed
        > after 50
          begin 3 of 1
        > vote 3 1/1
        > vote 3 1/2
        > begun 3 2
          append 1/9 at 3
          append 1/10 at 3
          skip through 1/10 at 3
        > told 3 1/10
        ",
    );
    check_early(&script);
}

#[test]
fn what_sync_does_not_take_early_waits_for_votes() {
    check_early(
        "
        > submit a 1
          sealed 1/0 1
          append 1/0 at 1
          append 1/0 at 2
          append 1/0 at 3
          propose #0 1/0
        > submit a 1
          sealed 1/1 1
          append 1/1 at 1
          append 1/1 at 2
          append 1/1 at 3
          propose #1 1/1
        > proposed 0 no-quorum
        > proposed 1 gap
        > vote 3 1/0
        > vote 1 1/0
          propose #2 1/0 1/1
        > proposed 2 no-quorum gap
          regroup
        > regrouped 1,2,3
        > after 50
          propose #3 1/0 1/1
        > proposed 3 4 5
          answer a 0+1 stored at 4
          answer a 1+1 stored at 5
        ",
    );
}

#[test]
fn the_log_may_be_first_and_one_storage_may_miss() {
    check_open(
        "
        > take a 1
        > take b 2
        > submit a 1
          sealed 1/0 4
          append 1/0 at 1
          append 1/0 at 2
          append 1/0 at 3
        > vote 1 1/0 unreachable
        > vote 2 1/0
        > vote 3 1/0 wrong
        > after 50
          begin 1 of 1
          begin 3 of 1
        > begun 3 2
          append 1/0 at 3
        > begun 1 failed
        > vote 3 1/0
          propose #0 1/0
        > log 2 1/0
          answer a 0+1 stored at 2
          answer b 0+2 stored at 3
          answer a 1+1 stored at 5
        > proposed 0 2
        ",
    );
}

#[test]
fn without_credit_the_segment_grows() {
    check_open(
        "
        > submit a 1
          sealed 1/0 1
          append 1/0 at 1
          append 1/0 at 2
          append 1/0 at 3
        > submit a 1
          sealed 1/1 1
          append 1/1 at 1
          append 1/1 at 2
          append 1/1 at 3
        > submit a 1
        > submit b 2
        > vote 1 1/0
        > vote 2 1/0
          sealed 1/2 3
          append 1/2 at 1
          append 1/2 at 2
          append 1/2 at 3
          propose #0 1/0
        > vote 3 1/1
        > vote 2 1/2
        > vote 3 1/2
        > vote 1 1/1
          propose #1 1/1 1/2
        > proposed 1 11 12
        > proposed 0 10
          answer a 0+1 stored at 10
          answer a 1+1 stored at 11
          answer a 2+1 stored at 12
          answer b 0+2 stored at 13
        ",
    );
}

#[test]
fn a_batch_may_span_segments_and_waits_for_room() {
    check_open(
        "
        > submit a 4 100000
          sealed 1/0 3
          append 1/0 at 1
          append 1/0 at 2
          append 1/0 at 3
          sealed 1/1 1
          append 1/1 at 1
          append 1/1 at 2
          append 1/1 at 3
        > submit a 4 100000
        > vote 1 1/0
        > vote 2 1/0
          sealed 1/2 3
          append 1/2 at 1
          append 1/2 at 2
          append 1/2 at 3
          propose #0 1/0
        > proposed 0 10
          answer a 0+3 stored at 10
        > after 10000
          answer a 3+1 unknown
          answer a 4+3 unknown
          answer a 7+1 unknown
          renew 1
        > log 13 1/0
        > vote 1 1/1
        > vote 2 1/1
          sealed 1/3 1
          append 1/3 at 1
          append 1/3 at 2
          append 1/3 at 3
          propose #1 1/1
        ",
    );
}

#[test]
fn unknown_and_overtaken_proposals_go_again() {
    check_open(
        "
        > submit a 1
          sealed 1/0 1
          append 1/0 at 1
          append 1/0 at 2
          append 1/0 at 3
        > submit a 1
          sealed 1/1 1
          append 1/1 at 1
          append 1/1 at 2
          append 1/1 at 3
        > vote 1 1/0
        > vote 2 1/0
          propose #0 1/0
        > vote 1 1/1
        > vote 2 1/1
          propose #1 1/1
        > proposed 1 gap
        > proposed 0 unknown
        > after 50
          propose #2 1/0 1/1
        > proposed 2 unavailable
        > after 50
        > after 50
          propose #3 1/0 1/1
        > proposed 3 10 11
          answer a 0+1 stored at 10
          answer a 1+1 stored at 11
        ",
    );
}

#[test]
fn a_stale_group_is_refreshed() {
    check_open(
        "
        > submit a 1
          sealed 1/0 1
          append 1/0 at 1
          append 1/0 at 2
          append 1/0 at 3
        > vote 1 1/0
        > vote 2 1/0
          propose #0 1/0
        > proposed 0 no-quorum
          regroup
        > regrouped 2,3,4
          begin 4 of 1
        > begun 4 1
          append 1/0 at 4
        > vote 4 1/0
        > after 50
          propose #1 1/0
        > proposed 1 10
          answer a 0+1 stored at 10
        ",
    );
}

#[test]
fn segments_go_to_the_groups_by_turns_and_past_one_that_has_no_room() {
    check(
        "
        > turn
          open 0
        > opened 1 groups 1,2,3+4
          begin 1 of 1
          begin 2 of 1
          begin 3 of 1
          begin 4 of 1
        > begun 1 1
        > begun 4 2
        > log 1 opened 1
        > submit a 1
          sealed 1/0 1
          append 1/0 at 4
        > vote 4 1/0 credit 1
          propose #0 1/0
        > proposed 0 2
          answer a 0+1 stored at 2
        > begun 3 1
        > submit a 1
          sealed 1/1 1
          append 1/1 at 1
          append 1/1 at 3
        > submit a 1
          sealed 1/2 1
          append 1/2 at 4
        > submit a 1
        > vote 4 1/2
          sealed 1/3 1
          append 1/3 at 4
        > vote 3 1/1
        > vote 1 1/1
          propose #1 1/1 1/2
        > vote 4 1/3
          propose #2 1/3
        > proposed 1 3 4
          answer a 1+1 stored at 3
          answer a 2+1 stored at 4
        > proposed 2 5
          answer a 3+1 stored at 5
        ",
    );
}

#[test]
fn a_group_without_a_quorum_is_passed_by() {
    check(
        "
        > turn
          open 0
        > opened 1 groups 1,2,3+4
          begin 1 of 1
          begin 2 of 1
          begin 3 of 1
          begin 4 of 1
        > begun 1 2
        > begun 3 2
        > begun 4 2
        > log 1 opened 1
        > submit a 1
          sealed 1/0 1
          append 1/0 at 1
          append 1/0 at 3
        > vote 1 1/0
        > after 9000
          renew 1
        > renewed 1 held
        > submit b 1
          sealed 1/1 1
          append 1/1 at 4
        > vote 4 1/1
        > after 1000
          answer a 0+1 unknown
          open 1
        > opened 2 groups 1,2,3+4
          begin 1 of 2
          begin 2 of 2
          begin 3 of 2
          begin 4 of 2
        > begun 4 2
        > submit b 1
        > log 2 opened 2
          answer b 0+1 not stored
          sealed 2/0 1
          append 2/0 at 4
        > vote 4 2/0
          propose #0 2/0
        > proposed 0 3
          answer b 1+1 stored at 3
        ",
    );
}
