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

/// A slow client is sent what it could see at each event's own position, and no more.
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
    > log a b a
    1: event 5 a
    > allow b
    > log a b
    > allow a
    > log b a
    > allow b
    > log a b
    > 1 takes 1000
    1: event 7 a
    1: event 10 b
    1: event 13 a
    1: event 16 b
    > 1 takes 1000
    > log a
    > log b
    1: event 18 b
";

/// What the client asks to read again goes by the rules as of then, also where it could see less or more before.
const AGAIN: &str = "
    > allow a
    > 1 says open
    1 submits join
    > order
    1: opened
    > log a b
    > allow b
    > 1 says subscribe 1 # after 0
    1: subscribed 1
    1: event 5 b
    > allow a
    > 1 says subscribe 2 # after 0
    1: subscribed 2
    1: event 4 a
";

/// An event waits for room, chosen for one subscription, when rules change: the next one is for another.
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
    > log a a b
    > allow b
    > log a b
    > 1 takes 1000
    1: event 4 a
    1: event 5 a
    1: event 6 b
    1: event 9 b
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
    check(WIDE, AGAIN);
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
    let seen = catch_unwind(|| {
        plant(Some(Mutant::SeeByTheNewest));
        check(30, SLOW);
    });
    plant(None);
    assert!(seen.is_err(), "it goes by the newest rules");
}
