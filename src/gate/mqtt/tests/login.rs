//! CONNECT in a cluster that has users.

use super::*;
use crate::types::access::{Identity, LoginRefusal};
use crate::types::login::LoginReply;

/// What becomes of a login.
pub(super) fn happen(gate: &mut MqttGate, what: &str) {
    match what {
        "wrong" => gate.logged_in(Err(LoginRefusal::Wrong)),
        "busy" => gate.logged_in(Err(LoginRefusal::Busy)),
        "needed" => gate.opened(Err(OpenRefusal::LoginNeeded)),
        "revoked" => gate.end(EndReason::Revoked),
        user => gate.logged_in(Ok(accepted(user))),
    }
}

/// A client has logged in with its password.
pub(super) fn accepted(user: &str) -> LoginReply {
    let (user, role) = (user.to_owned(), "user".to_owned());
    LoginReply::Accepted(Identity { user, role, method: "ticket", provider: "users" })
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
fn a_session_ends_with_its_user() {
    let text = "the user was removed or disabled, or has to log in";
    check(&format!("{OPEN4} login revoked \n ask close \n reason {text}"));
    check(&format!("{OPEN5} login revoked \n out e0 | 87 p[1f s\"{text}\"] \n ask close"));
}
