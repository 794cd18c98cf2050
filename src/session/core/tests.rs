//! Scripts of a session, and random schedules of it.
//!
//! A script has `> input` lines, each followed by all its effects at both clients of a node. Its log begins with position 1;
//! submitted events get their positions with `> order`.
//!
//! Invariant: a script lists everything that happens; nothing else may happen.
//!
//! Deliberately absent: protocols, for which the gates have scripts.

mod bench;
mod node;
mod random;
mod rules;
mod words;

use self::bench::check;

const WIDE: usize = 1 << 16;

#[test]
fn a_client_connects_publishes_and_leaves() {
    check(
        WIDE,
        "
        > 1 says open
        1 submits join
        > 1 says publish a
        1 submits a
        > order
        1: stored 0+1 at 2
        1: opened
        > 1 says publish b when
        1 submits b when
        > order
        1: stored 1+1 at 3
        1: decided 1 yes
        > 1 says bye
        1 closes
        > after 500
        > after 4000
        1 had its time
        > 1 leaves
        1 submits leave
        ",
    );
}

#[test]
fn who_has_no_room_is_not_opened() {
    check(
        WIDE,
        "
        > full
        > 1 says open
        1: there is no room for more names and wills of this node's clients
        ",
    );
}

/// The requests that a client sent before it hung up are done.
#[test]
fn a_client_that_hangs_up_is_heard_to_its_end() {
    check(
        WIDE,
        "
        > 1 says open
        1 submits join
        > 1 hangs up
        1 goes on
        > order
        1: opened
        > 1 hangs up
        1 is over
        > 1 leaves
        1 submits leave lost
        ",
    );
}

#[test]
fn a_slow_client_falls_behind_replays_and_is_live_again() {
    check(
        40,
        "
        > 1 says open
        1 submits join
        > order
        1: opened
        > 1 says subscribe 1 a
        1: subscribed 1
        > log a
        1: event 2 a
        > log a
        1: event 3 a
        > log a
        1: event 4 a
        > log a
        > log b
        > log b
        > 1 takes 10
        1: event 5 a
        > 1 takes 10
        > 1 takes 100
        > log a
        1: event 8 a
        ",
    );
}

#[test]
fn a_frozen_client_is_asked_and_then_dead() {
    check(
        WIDE,
        "
        > 1 says open
        1 submits join
        > order
        1: opened
        > 1 takes 100
        > after 5000
        > after 5000
        1 is asked
        > after 4000
        > after 1000
        1 is dead
        ",
    );
}

#[test]
fn a_node_that_stops_says_goodbye() {
    check(
        WIDE,
        "
        > 1 says open
        1 submits join
        > order
        1: opened
        > 1 ends
        1: end Shutdown
        1 closes
        > 1 leaves
        1 submits leave lost
        ",
    );
}

/// The second session waits until the first one has reported its final progress, and reads on from there.
#[test]
fn a_session_is_taken_over_and_resumed() {
    check(
        WIDE,
        "
        > 1 says attach
        1 submits attach
        > order
        1: anew
        1: opened
        > 1 says persist 1 a
        1 submits keep a
        > order
        1: persistent
        > log a
        1: event 3 a
        > after 1000
        1 has come to 4
        > 2 says attach
        2 submits attach
        > order
        1 submits detach at 4
        1: end TakenOver
        1 closes
        > log a
        > order
        2: resumed
        2: opened
        2: event 5 a
        > 2 says bye
        2 closes
        > 2 leaves
        2 submits detach at 7 without will
        ",
    );
}

/// Clients that reconnected at once took each other's sessions over, and none of them was ever open.
#[test]
fn who_is_taken_over_before_it_is_open_hears_of_it_later() {
    check(
        WIDE,
        "
        > 1 says attach
        1 submits attach
        > 2 says attach
        2 submits attach
        > order
        1 submits leave
        > order
        2: resumed
        2: opened
        > after 199
        > after 1
        1: end TakenOver
        1 closes
        ",
    );
}

/// The session checked again and again until it got the signal.
#[test]
fn who_is_taken_over_while_it_takes_over_waits_for_nobody_any_more() {
    check(
        WIDE,
        "
        > 1 says attach
        1 submits attach
        > order
        1: anew
        1: opened
        > 1 is deaf
        > 2 says attach
        2 submits attach
        > order
        > after 900
        > 3 says attach
        3 submits attach
        > order
        2 submits leave
        > after 100
        > after 100
        2: end TakenOver
        2 closes
        ",
    );
}

/// The first session's progress never comes: the second begins without it, once the first one's progress is no longer accepted.
#[test]
fn who_is_not_released_begins_without() {
    check(
        WIDE,
        "
        > 1 says attach
        1 submits attach
        > order
        1: anew
        1: opened
        > 1 says persist 1 a
        1 submits keep a
        > order
        1: persistent
        > log a
        1: event 3 a
        > 1 is deaf
        > 2 says attach
        2 submits attach
        > order
        > after 1000
        1 has come to 5
        2 submits progress of 2
        > order
        2: resumed
        2: opened
        2: event 3 a perhaps again
        ",
    );
}
