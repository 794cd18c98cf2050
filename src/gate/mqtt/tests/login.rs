//! CONNECT in a cluster that has users.

use super::*;
use crate::types::access::{Identity, LoginRefusal, Secret};
use crate::types::login::{LoginReply, LoginStep};

/// What becomes of a login.
pub(super) fn happen(gate: &mut MqttGate, what: &str) {
    match what {
        "wrong" => gate.logged_in(Err(LoginRefusal::Wrong)),
        "busy" => gate.logged_in(Err(LoginRefusal::Busy)),
        "misused" => gate.logged_in(Err(LoginRefusal::Misused("the x is wrong".to_owned()))),
        "needed" => gate.opened(Err(OpenRefusal::LoginNeeded)),
        "revoked" => gate.end(EndReason::Revoked),
        "barred" => gate.opened(Err(OpenRefusal::Banned)),
        "banned" => gate.end(EndReason::Banned),
        "expired" => gate.end(EndReason::Expired),
        what => gate.logged_in(Ok(match what.split(' ').collect::<Vec<_>>()[..] {
            ["data", data] => LoginReply::Data(data.to_owned()),
            [user, "proof", proof] => accepted(user, Some(proof)),
            [user] => accepted(user, None),
            _ => panic!("{what}"),
        })),
    }
}

/// A client has logged in with its password.
pub(super) fn accepted(user: &str, proof: Option<&str>) -> LoginReply {
    let (user, role) = (user.to_owned(), "user".to_owned());
    let identity = Identity { user, role, method: "ticket", provider: "users", expires: None };
    LoginReply::Accepted { identity, proof: proof.map(str::to_owned) }
}

/// What the gate asks the driver.
pub(super) fn show(step: &LoginStep) -> String {
    let shown = |secret: &Secret| String::from_utf8_lossy(&secret.0).into_owned();
    match step {
        LoginStep::Password(login) => format!("login {} {}", login.user, shown(&login.password)),
        LoginStep::Scram(first) => format!("scram {}", shown(first)),
        LoginStep::Answer { signature, .. } => format!("answer {}", shown(signature)),
        LoginStep::Certificate => "certificate".to_owned(),
        LoginStep::Hello { .. } => panic!("{step:?}"),
    }
}

fn check_with_users(script: &str) {
    check_gate(new_gate().with_users(true), script);
}

#[test]
fn a_client_logs_in_with_its_user_name_and_password() {
    check_with_users(
        r#"in 10 | s"MQTT" 04 c2 0000 s"c" s"joe@home.lab" s"secret"
           ask login joe secret
           login joe
           ask open realm="home.lab" client="c" user=joe
           opened
           out $CONNACK4"#,
    );
    check_with_users(
        r#"in 10 | s"MQTT" 05 c0 0000 p[11 00000009] s"c" s"joe" s"secret"
           ask login joe secret
           login joe
           ask attach realm="home" client="c" user=joe for 9"#,
    );
}

#[test]
fn what_was_sent_behind_the_connect_waits_for_the_login() {
    check_with_users(
        r#"in 10 | s"MQTT" 04 c2 0000 s"c" s"joe" s"secret" ; c0 |
           ask login joe secret
           login joe
           ask open realm="home" client="c" user=joe
           opened
           out $CONNACK4 ; d0 |"#,
    );
}

/// Whatever its CONNECT says, as mosquitto's `use_identity_as_username`.
#[test]
fn a_certificate_names_the_user() {
    for connect in ["02 0000 s\"c\"", "c2 0000 s\"c\" s\"ann\" s\"x\"", "82 0000 s\"c\" s\"ann\""] {
        check_gate(
            new_gate().with_users(true).with_certificate(true),
            &format!(
                r#"in 10 | s"MQTT" 04 {connect}
                   ask certificate
                   login joe
                   ask open realm="home" client="c" user=joe
                   opened
                   out $CONNACK4"#
            ),
        );
    }
    check_gate(
        new_gate().with_certificate(true),
        "in $CONNECT4 \n ask $ASK \n opened \n out $CONNACK4",
    );
}

#[test]
fn a_login_can_fail() {
    for (outcome, code, reason, text) in [
        ("wrong", "04", "86", "unknown user, or wrong password"),
        ("busy", "03", "89", "too many clients are logging in; try again"),
    ] {
        check_with_users(&format!(
            r#"in 10 | s"MQTT" 04 c2 0000 s"c" s"joe" s"x"
               ask login joe x
               login {outcome}
               out 20 | 00{code}
               ask close
               reason {text}"#
        ));
        check_with_users(&format!(
            r#"in 10 | s"MQTT" 05 c2 0000 p[] s"c" s"joe" s"x"
               ask login joe x
               login {outcome}
               out 20 | 00{reason} p[1f s"{text}"]
               ask close"#
        ));
    }
    let text = "this cluster has users: a user name needs its password";
    check_with_users(&format!(
        r#"in 10 | s"MQTT" 05 82 0000 p[] s"c" s"joe"
           out 20 | 0086 p[1f s"{text}"]
           ask close"#
    ));
    check_with_users(&format!(
        r#"in 10 | s"MQTT" 04 82 0000 s"c" s"joe"
           out 20 | 0004
           ask close
           reason {text}"#
    ));
}

#[test]
fn clients_without_a_user_name_are_anonymous() {
    let text = "home: this cluster has users: log in as one of them";
    check_with_users(&format!(
        r#"in $CONNECT4
           ask $ASK
           login needed
           out 20 | 0005
           ask close
           reason {text}"#
    ));
    check_with_users(&format!(
        r#"in $CONNECT5
           ask $ASK
           login needed
           out 20 | 0087 p[1f s"{text}"]
           ask close"#
    ));
}

#[test]
fn a_session_ends_with_its_token() {
    let text = "the token has expired; log in with a new one";
    check(&format!("{OPEN4} login expired \n ask close \n reason {text}"));
    check(&format!("{OPEN5} login expired \n out e0 | 87 p[1f s\"{text}\"] \n ask close"));
}

#[test]
fn a_banned_client_is_told_so_and_leaves_no_will() {
    let text = "an administrator has banned this client";
    check(&format!("{OPEN4} login banned \n ask close dropping the will \n reason {text}"));
    check(&format!(
        "{OPEN5} login banned \n out e0 | 98 p[1f s\"{text}\"] \n ask close dropping the will"
    ));
    // Before its session is open, by the order or by its node.
    let refusal = "home: an administrator has banned this user or client";
    for (what, text) in [("banned", text), ("barred", refusal)] {
        check(&format!(
            "in $CONNECT4 \n ask $ASK \n login {what} \n out 20 | 0005 \n ask close \n reason {text}"
        ));
        check(&format!(
            "in $CONNECT5 \n ask $ASK \n login {what} \n out 20 | 008a p[1f s\"{text}\"] \n ask close"
        ));
    }
}

#[test]
fn a_session_ends_with_its_user() {
    let text = "the user was removed or disabled, or has to log in";
    check(&format!("{OPEN4} login revoked \n ask close \n reason {text}"));
    check(&format!("{OPEN5} login revoked \n out e0 | 87 p[1f s\"{text}\"] \n ask close"));
}

/// A CONNECT with SCRAM's first message, and all that follows until the session is open.
const CONNECT: &str = r#"in 10 | s"MQTT" 05 02 0000 p[15 s"SCRAM-SHA-256" 16 s"first"] s"c"
    ask scram first"#;
const CHALLENGED: &str = r#"login data second
    out f0 | 18 p[15 s"SCRAM-SHA-256" 16 s"second"]"#;
const ANSWERED: &str = r#"in f0 | 18 p[15 s"SCRAM-SHA-256" 16 s"third"]
    ask answer third"#;
const OPENED: &str = r#"login joe proof fourth
    ask open realm="home" client="c" user=joe
    opened
    out 20 | 0000 p[21 2000 27 00108000 15 s"SCRAM-SHA-256" 16 s"fourth" 22 0000 28 01 29 01 2a 00]"#;

#[test]
fn a_client_logs_in_by_scram() {
    check_with_users(&format!("{CONNECT}\n{CHALLENGED}\n{ANSWERED}\n{OPENED}"));
}

#[test]
fn an_open_session_logs_in_again() {
    let again = r#"in f0 | 19 p[15 s"SCRAM-SHA-256" 16 s"1"]
        ask scram 1
        login data 2
        out f0 | 18 p[15 s"SCRAM-SHA-256" 16 s"2"]
        in c0 |
        out d0 |
        in f0 | 18 p[15 s"SCRAM-SHA-256" 16 s"3"]
        ask answer 3"#;
    let open = format!("{CONNECT}\n{CHALLENGED}\n{ANSWERED}\n{OPENED}\n{again}");
    let twice = r#"login joe proof 4
        out f0 | 00 p[15 s"SCRAM-SHA-256" 16 s"4"]"#;
    check_with_users(&format!("{open}\n{twice}\n{again}\n{twice}"));
    for (outcome, code, text) in [
        ("ann proof 4", "87", "a session can't become another user's"),
        ("wrong", "87", "unknown user, or wrong password"),
        ("busy", "89", "too many clients are logging in; try again"),
    ] {
        check_with_users(&format!(
            "{open}\nlogin {outcome}\nout e0 | {code} p[1f s\"{text}\"]\nask close"
        ));
    }
}

#[test]
fn scram_can_fail() {
    for (before, outcome, code, text) in [
        (CONNECT, "login wrong", "86", "unknown user, or wrong password"),
        (ANSWERED, "login wrong", "86", "unknown user, or wrong password"),
        (ANSWERED, "login misused", "87", "the x is wrong"),
        (CHALLENGED, "in c0 |", "82", "a packet before the login has ended"),
        (CHALLENGED, "in f0 | 19 p[15 s\"SCRAM-SHA-256\"]", "82", UNEXPECTED),
        (CHALLENGED, "in f0 | 18 p[15 s\"m\"]", "82", OTHER),
        (CHALLENGED, "in f0 | 18 p[]", "82", "an AUTH names no authentication method"),
        (
            CHALLENGED,
            "in f0 | 00 p[15 s\"m\"]",
            "82",
            "an AUTH has a reason code that no client sends",
        ),
        (CHALLENGED, "in f0 |", "81", "a field reaches beyond the packet's end"),
        (CHALLENGED, "at 10000 \n tick", "88", "the session was not opened in time"),
    ] {
        let steps = [CONNECT, CHALLENGED, ANSWERED];
        let until = steps.iter().position(|step| *step == before).unwrap();
        let before = steps[..=until].join("\n");
        check_with_users(&format!(
            "{before}\n{outcome}\nout 20 | 00{code} p[1f s\"{text}\"]\nask close"
        ));
    }
    check_with_users(&format!("{CONNECT}\n{CHALLENGED}\nin e0 | 00\nask close"));
    check_with_users(
        r#"in 10 | s"MQTT" 05 02 0000 p[15 s"PLAIN"] s"c"
           out 20 | 008c p[1f s"the only authentication method is SCRAM-SHA-256"]
           ask close"#,
    );
}

const UNEXPECTED: &str = "an AUTH at a time when none is expected";
const OTHER: &str = "an AUTH names another authentication method than the CONNECT";
