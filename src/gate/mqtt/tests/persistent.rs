//! Persistent sessions.

use super::*;

const CONNECT: &str = r#"in 10 | s"MQTT" 05 00 0000 p[11 0000003c] s"c""#;
const ASK: &str = r#"ask attach realm="home" client="c" for 60"#;
const CONNACK: &str = "20 | 0000 p[21 2000 27 00108000 22 0000 2801 2901 2a00]";
const PRESENT: &str = "20 | 0100 p[21 2000 27 00108000 22 0000 2801 2901 2a00]";

/// A new persistent session.
fn fresh() -> String {
    format!("{CONNECT}\n{ASK}\nkeeps\nopened\nask resume\nout {CONNACK}\n")
}

#[test]
fn a_session_is_asked_to_outlive_its_connection() {
    // 3.1.1 without the clean session flag: for ever.
    check(
        r#"in 10 | s"MQTT" 04 00 0000 s"c"
           ask attach realm="home" client="c" for 4294967295
           keeps
           opened
           ask resume
           out 20 | 0000"#,
    );
    // There is no room: for 3.1.1 the only answer is a refusal, 5 can report it.
    check(
        r#"in 10 | s"MQTT" 04 00 0000 s"c"
           ask attach realm="home" client="c" for 4294967295
           opened
           out 20 | 0003
           ask close dropping the will"#,
    );
    check(&format!(
        "{CONNECT}\n{ASK}\nopened\nout 20 | 0000 p[11 00000000 21 2000 27 00108000 22 0000 2801 2901 2a00]"
    ));
    // Clean start with a new persistent session; and one that continues an old session and ends with its connection.
    check(
        r#"in 10 | s"MQTT" 05 02 0000 p[11 0000003c] s"c"
           ask attach realm="home" client="c" clean for 60"#,
    );
    check(
        r#"in 10 | s"MQTT" 05 00 0000 p[] s"c"
           ask attach realm="home" client="c" for 0"#,
    );
}

#[test]
fn what_was_kept_goes_on() {
    check(&format!(
        r#"{CONNECT}
        {ASK}
        resume 20 7:2,9:1 a/b@4q1 a/#@6q0
        opened
        ask resume 1@4, 2@6
        out {PRESENT}
        leaves 7:2,9:1
        # Again under its own identifier, even if its filter is gone.
        cursor 7 again:2 a/b q1 by 9 to 1,2 "x"
        out 3a | s"a/b" 0002 p[] "x"
        cursor 9 again:1 z q1 by 9 to - "y"
        out 3a | s"z" 0001 p[] "y"
        # At most once is not for the time away.
        cursor 10 first a/c q1 by 9 to 2 "x"
        cursor 11 doubtful a/b q1 by 9 to 1 "x"
        out 3a | s"a/b" 0003 p[] "x"
        cursor 12 first a/b q1 by 9 to 1 "x"
        out 32 | s"a/b" 0004 p[] "x"
        cursor 20 first a/c q1 by 9 to 2 "x"
        out 30 | s"a/c" p[] "x"
        in 40 | 0003; 40 | 0002
        leaves 9:1,12:4
        in e0 | 00 p[11 00000005]
        ask close dropping the will
        leaves 9:1,12:4"#
    ));
}

#[test]
fn what_was_acknowledged_on_its_way_is_not_sent_again() {
    check(&format!(
        r#"{CONNECT}
        {ASK}
        resume 20 7:2 a@4q1
        opened
        ask resume 1@4
        out {PRESENT}
        in 40 | 0002
        cursor 7 again:2 a q1 by 9 to 1 "x"
        leaves"#
    ));
}

#[test]
fn filters_are_kept_before_they_are_answered_for() {
    check(&format!(
        r##"{}in 82 | 0001 p[] s"a" 01 s"$replay/3/b" 01 s"+" 00; a2 | 0002 p[] s"a" s"x"; 82 | 0003 p[] s"a" 01
        ask subscribe 2 after Position(Position(3)) Exact(Topic(b))
        ask persist a q1, + q0 as 1 state, 3 state
        ask drop ["a"] [SubscriptionId(1)]
        ask persist a q1 as 4 state
        full
        noted
        subscribed 2
        out 90 | 0001 p[] 010100
        full
        noted
        out b0 | 0002 p[] 0011
        noted
        out 90 | 0003 p[] 01
        room
        # To subscribe again changes the options and nothing else.
        in 82 | 0004 p[] s"a" 20
        ask persist a q0 as 4
        noted
        out 90 | 0004 p[] 00
        cursor 5 first a q1 by 9 to 4 "x"
        out 30 | s"a" p[] "x""##,
        fresh()
    ));
}

#[test]
fn there_may_be_no_room_for_filters() {
    let text = "there is no room for more persistent filters";
    check(&format!(
        r#"{}in 82 | 0001 p[] s"a" 01
        ask persist a q1 as 1 state
        noroom
        out 90 | 0001 p[1f s"{text}"] 97
        room
        in 82 | 0002 p[] s"a" 01
        ask persist a q1 as 2 state
        noted
        out 90 | 0002 p[] 01
        in 82 | 0003 p[26 s"vulpes-after" s"5"] s"a" 01
        out 90 | 0003 p[1f s"the filter is persistent: to replay it as well, subscribe to $replay/<place>/<filter>"] 83"#,
        fresh()
    ));
}

#[test]
fn only_what_was_to_be_kept_can_be_kept_for_longer() {
    check(&format!(
        r#"{OPEN5} in e0 | 00 p[11 00000005]
        out e0 | 82 p[1f s"a session that ends with its connection can't be persistent after all"]
        ask close"#
    ));
    let mut gate = new_gate();
    gate.receive(packets(&CONNECT[3..]), Moment(0));
    resume_line(&mut gate, false, &[]);
    gate.opened(Ok(()));
    gate.receive(packets("e0 | 00 p[11 00000005]"), Moment(0));
    assert_eq!(gate.handover().expiry, Some(5));
}

/// Rules have changed since an earlier session sent it, or another user has taken the session over.
#[test]
fn a_message_that_may_not_be_seen_any_more_is_given_up() {
    check(&format!(
        "{CONNECT}
        {ASK}
        resume 20 7:2,9:1 a/b@4q1
        opened
        ask resume 1@4
        out {PRESENT}
        givesup 2
        leaves 9:1
        cursor 7 again:2 a/b q1 by 5 to 1 \"x\"
        leaves 9:1"
    ));
}
