//! Scripts of the reader, and random schedules of it.
//!
//! A script has `> input` lines, each followed by all its effects. Its log begins with slot 1 and position 10, and grows only
//! by `> log`; the live stream has what `> live` says.
//!
//! Invariant: a script lists everything that happens; nothing else may happen.
//!
//! Deliberately absent: what is handed to a gate (`delivery`).

mod bench;
mod random;

use self::bench::{check, Bench};
use super::*;

#[test]
fn a_subscription_joins_the_live_stream_and_leaves_it() {
    check(
        "
        > subscribe 1 a
          join 1 anew
        > subscribe 2 b
        > joined at 1
          subscribed 1
          join 2
        > log a b
        > joined at 1
          subscribed 2
        > live 1
          segment 1 from 10 for 1,2
        > unsubscribe 1
          leave 1
        > log b
        > live 2
          segment 2 from 12 for 2
        > is over
          unsubscribed 1
        > unsubscribe 3
          unsubscribed 3
        ",
    );
}

#[test]
fn a_replay_reads_the_log_and_then_joins() {
    check(
        "
        > log a b
        > log a c
        > log c d
        > subscribe 1 a after 10
          start after 10
        > start 1 11
          subscribed 1
          read 1
        > read 1 2
          segment 1 from 11 for 1
          segment 2 from 11 for 1
          read 3
        > log a
        > read unavailable
          read 3 later
        > read 3
          read 4
        > read 4
          segment 4 from 11 for 1
          join 1 at 5 anew
        > joined not 6
          join 1 at 5 anew
        > log a
        > joined at 5
        > live 5
          segment 5 from 17 for 1
        ",
    );
}

#[test]
fn what_can_not_begin_is_refused() {
    check(
        "
        > subscribe 1 a after 3
          start after 3
        > start gone
          subscribed 1 not: the log is kept only from position 1 on
        > full
        > subscribe 2 a
          subscribed 2 not: this node has no room for more subscriptions; connect to another one
        ",
    );
}

#[test]
fn a_snapshot_ends_at_the_tail_of_its_start() {
    check(
        "
        > log a b
        > subscribe 1 a snapshot
          start after 0
        > subscribe 2 a snapshot retained
        > start 1 10
          subscribed 1
          subscribed 2
          ended 2
          read 1
        > log a
        > read 1 2
          segment 1 from 10 for 1
          ended 1
        ",
    );
}

#[test]
fn who_is_slow_falls_behind_and_comes_back() {
    check(
        "
        > subscribe 1 a
          join 1 anew
        > joined at 1
          subscribed 1
        > log a b
        > log a
        > log a
        > room off
        > live 1
        > live 2 forgotten
        > left 3
        > room on
          segment 1 from 10 for 1
          read 2
        > read 2 3
          segment 2 from 0 for 1
          segment 3 from 0 for 1
          join 1 at 4 anew
        > joined at 4
        > left 4
          join 1 at 4 anew
        > joined at 4
        ",
    );
}

/// It got again what it had read before it joined, if a segment was dropped from memory that was in the mailbox for others.
#[test]
fn what_joined_later_is_not_shown_anything_again() {
    check(
        "
        > subscribe 1 a
          join 1 anew
        > joined at 1
          subscribed 1
        > log a
        > log a
        > subscribe 2 a after 9
          start after 9
        > start 1 10
          subscribed 2
          read 1
        > read 1 2
          segment 1 from 10 for 2
          segment 2 from 10 for 2
          join 2 at 3
        > room off
        > live 1 forgotten
        > joined at 3
        > log a
        > room on
          read 1
        > read 1 2 3
          segment 1 from 0 for 1
          segment 2 from 0 for 1
          segment 3 from 0 for 1,2
          join 1,2 at 4 anew
        > joined at 4
        ",
    );
}

/// Each subscription got its own events in order, but one got all of its own first.
#[test]
fn what_was_live_together_goes_on_together() {
    check(
        "
        > subscribe 1 a
          join 1 anew
        > joined at 1
          subscribed 1
        > log a
        > log a b
        > subscribe 2 b
          join 2
        > joined at 3
          subscribed 2
        > live 1 forgotten
          read 1
        > log a b
        > read 1 2 3
          segment 1 from 0 for 1
          segment 2 from 0 for 1
          segment 3 from 0 for 1,2
          join 1,2 at 4 anew
        > joined at 4
        > left 4
          join 1,2 at 4 anew
        > joined not 4
          join 1,2 at 4 anew
        > unsubscribe 2
        > joined at 4
          leave 2
        > is over
          unsubscribed 2
        ",
    );
}

#[test]
fn what_comes_when_the_others_have_fallen_behind_goes_on_with_them() {
    check(
        "
        > subscribe 1 a
          join 1 anew
        > joined at 1
          subscribed 1
        > log a
        > log a b
        > subscribe 2 b
          join 2
        > left 1
        > joined not 2
          subscribed 2
          read 1
        > read 1 2
          segment 1 from 0 for 1
          segment 2 from 0 for 1,2
          join 1,2 at 3 anew
        > joined at 3
        ",
    );
}

#[test]
fn replays_and_the_live_stream_take_turns() {
    check(
        "
        > log a
        > log a
        > log a
        > subscribe 1 a
          join 1 anew
        > joined at 4
          subscribed 1
        > subscribe 2 a after 9
          start after 9
        > room off
        > start 1 10
          subscribed 2
        > log a
        > log a
        > live 4
        > live 5
        > room on
          segment 4 from 13 for 1
          read 1
          segment 5 from 14 for 1
        > read 1 2 3 4 5
          segment 1 from 10 for 2
          segment 2 from 10 for 2
          segment 3 from 10 for 2
          segment 4 from 10 for 2
          segment 5 from 10 for 2
          join 2 at 6
        > joined at 6
        ",
    );
}

/// It tried to join again and again, for as long as nothing was published, because the dispatcher had put it out of the live
/// stream and it never learned that.
#[test]
fn a_join_that_fails_leaves_the_live_stream_its_turn() {
    for replay_next in [false, true] {
        let mut bench = Bench::new();
        bench.node.log(&["a"]);
        for line in ["subscribe 1 a", "joined at 2", "subscribe 2 a after 10"] {
            bench.input(&line.split(' ').collect::<Vec<_>>());
            bench.outputs();
        }
        bench.input(&["start", "2", "11"]);
        bench.reader.replay_next = replay_next;
        bench.node.live.push_back(Live::Left(Slot(2)));
        let mut joins = 0;
        while bench.reader.has_mailbox() && joins < 10 {
            bench.outputs();
            bench.input(&["joined", "not", "2"]);
            joins += 1;
        }
        assert!(joins <= 2, "it does not listen");
    }
}

#[test]
fn a_segment_that_was_let_go_of_is_read_again() {
    check(
        "
        > log a
        > log a
        > again 1
          read 1
        > again 1
        > read unavailable
          read 1 later
        > read 1 2
          back 1
        > again 2
          read 2
        > read gone
          gone
        ",
    );
}

/// Events that an earlier session had in flight are read again first, then all events from its cursor on.
#[test]
fn a_session_resumes_at_its_cursor() {
    check(
        "
        > log a b
        > log c d
        > log a b
        > log a b
        > resume 14 10 1:a:10 2:b:10
          start at 10
        > start unavailable
          pause
        > is over
          start at 10
        > start 1 10
          read 1
        > read 1
          segment 1 from 10 for 1,2 at cursor
          start at 14
        > start 3 14
          read 3
        > read 3 4
          segment 3 from 14 for 1,2 at cursor
          segment 4 from 14 for 1,2 at cursor
          join 1,2 at 5 anew
        > joined at 5
        > persist 3:c:18
          noted true
          join 1,2,3 at 5 anew
        > log c a
        > joined at 5
        > live 5
          segment 5 from 18 for 3,1 at cursor
        ",
    );
}

#[test]
fn a_node_that_ends_says_so() {
    check(
        "
        > subscribe 1 a
          join 1 anew
        > is stopped
          stopped
        ",
    );
}

/// It took the end of the node for falling behind, and sent everything again from where it had joined.
#[test]
fn a_live_stream_that_ends_with_its_node_repeats_nothing() {
    check(
        "
        > subscribe 1 a
          join 1 anew
        > joined at 1
          subscribed 1
        > log a
        > log a
        > live 1
          segment 1 from 10 for 1
        > ended
          stopped
        ",
    );
}
