//! An entry that is fenced, loses its lease, or cannot know the outcome of its segments.

use super::bench::{check, check_open};

#[test]
fn a_fenced_entry_opens_anew_without_what_came_before() {
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
        > vote 1 1/0
        > vote 2 1/0
          sealed 1/2 1
          append 1/2 at 1
          append 1/2 at 2
          append 1/2 at 3
          propose #0 1/0
        > submit b 1 of 1
        > proposed 0 fenced
        > submit d 1 of 1
        > submit c 1
        > after 1000
          open 1
        > opened 3
          begin 1 of 3
          begin 2 of 3
          begin 3 of 3
        > begun 1 2
        > begun 2 2
        > log 2 1/0
          answer a 0+1 stored at 2
        > log 3 opened 2
          answer a 1+1 not stored
          answer a 2+1 not stored
          answer b 0+1 not stored
          answer d 0+1 not stored
        > vote 1 1/1
        > vote 1 1/2
        > vote 2 1/1
          sealed 3/0 1
          append 3/0 at 1
          append 3/0 at 2
        > vote 1 3/0
        > vote 2 3/0
          propose #1 3/0
        > proposed 1 5
          answer c 0+1 stored at 5
        ",
    );
}

#[test]
fn a_hole_in_the_log_leaves_the_outcome_unknown() {
    check_open(
        "
        > submit a 1
          sealed 1/0 1
          append 1/0 at 1
          append 1/0 at 2
          append 1/0 at 3
        > log 9 closed 1
          answer a 0+1 unknown
        > log 9 closed 1
        > after 1000
          open 1
        ",
    );
}

#[test]
fn a_lease_is_renewed_and_its_loss_noticed() {
    check_open(
        "
        > after 3000
          renew 1
        > renewed 1 unknown
        > after 200
          renew 1
        > renewed 1 held
        > after 2999
        > after 1
          renew 1
        > renewed 1 lost
          open 1
        > open unavailable
        > after 50
          open 1
        > opened 2
          begin 1 of 2
          begin 2 of 2
          begin 3 of 2
        ",
    );
}

#[test]
fn an_incarnation_that_ended_before_its_grant_arrived_is_not_used() {
    check(
        "
        > turn
          open 0
        > log 1 opened 1
        > log 2 opened 2
        > opened 1
        > submit a 1
        > after 1000
          open 1
        > opened 3
          begin 1 of 3
          begin 2 of 3
          begin 3 of 3
        ",
    );
}

#[test]
fn a_late_vote_from_before_a_failure_is_no_credit() {
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
        > vote 2 1/0 unreachable
        > vote 3 1/0 unreachable
        > vote 2 1/1
        > vote 3 1/1
        > vote 1 1/0
        > vote 1 1/1
        > submit a 1
        > after 50
          begin 2 of 1
          begin 3 of 1
        > begun 2 2
          append 1/0 at 2
          sealed 1/2 1
          append 1/2 at 1
          append 1/2 at 2
        ",
    );
}

#[test]
fn two_writers_under_one_incarnation_are_told_apart() {
    for sign in ["log 2 1/0 of another", "vote 3 1/0 conflict", "proposed 0 forgotten"] {
        check_open(&format!(
            "
            > submit a 1
              sealed 1/0 1
              append 1/0 at 1
              append 1/0 at 2
              append 1/0 at 3
            > vote 1 1/0
            > vote 2 1/0
              propose #0 1/0
            > {sign}
            > submit a 1
            > after 1000
              open 1
            > opened 2
              begin 1 of 2
              begin 2 of 2
              begin 3 of 2
            > begun 1 2
            > begun 2 2
            > log 2 1/0 of another
            > log 3 opened 2
              answer a 0+1 not stored
              sealed 2/0 1
              append 2/0 at 1
              append 2/0 at 2
            "
        ));
    }
}
