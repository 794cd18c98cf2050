//! From HELLO to WELCOME in a cluster that has users.

use super::*;

/// What becomes of a login.
pub(super) fn happen(gate: &mut WampGate, what: &[&str]) {
    match what {
        ["wrong"] => gate.logged_in(Err(LoginRefusal::Wrong)),
        ["busy"] => gate.logged_in(Err(LoginRefusal::Busy)),
        ["needed"] => gate.opened(Err(OpenRefusal::LoginNeeded)),
        ["revoked"] => gate.end(EndReason::Revoked),
        [user, role] => {
            let (user, role) = (user.to_string(), role.to_string());
            gate.logged_in(Ok(Identity { user, role }));
        }
        other => panic!("{other:?}"),
    }
}

/// Runs a script from the beginning, in each serializer.
fn check_with_users(script: &str) {
    for serializer in Serializer::ALL {
        run(&mut connect(serializer).with_users(true), script);
    }
}

#[test]
fn a_client_logs_in_with_a_ticket() {
    let agent = env!("CARGO_PKG_VERSION");
    check_with_users(&format!(
        r#"
        > [1,"realm1",{{"authmethods":["wampcra","ticket"],"authid":"joe"}}]
        < [4,"ticket",{{}}]
        > [5,"secret",{{}}]
        ! login joe secret
        = login joe admin
        ! open realm1 user=joe
        = opened
        < [2,77,{{"realm":"realm1","authid":"joe","authrole":"admin","authmethod":"ticket","authprovider":"users","agent":"vulpes/{agent}","roles":{{{ROLES}}}}}]
        "#
    ));
}

#[test]
fn a_login_can_fail() {
    let login = r#"> [1,"realm1",{"authmethods":["ticket","anonymous"],"authid":"joe"}]
        < [4,"ticket",{}]
        > [5,"x",{}]
        ! login joe x"#;
    check_with_users(&format!(
        r#"
        {login}
        = login wrong
        < [3,{{"message":"unknown user, or wrong password"}},"wamp.error.authentication_failed"]
        ! close
        > [5,"secret",{{}}]
        "#
    ));
    // A client that was told why would not come again.
    let text = "vulpes.error.unavailable: too many clients are logging in; try again";
    check_with_users(&format!("{login}\n= login busy\n! close again {text}"));
}

#[test]
fn clients_that_do_not_log_in_are_anonymous() {
    for hello in ["{}", r#"{"authid":"joe"}"#, r#"{"authmethods":["ticket","anonymous"]}"#] {
        check_with_users(&format!(
            r#"
            > [1,"realm1",{hello}]
            ! open realm1
            = login needed
            < [3,{{"message":"this cluster has users: log in as one of them"}},"wamp.error.not_authorized"]
            ! close
            "#
        ));
    }
    for (hello, text) in [
        (r#"{"authmethods":["ticket"]}"#, "name the user with authid"),
        (
            r#"{"authmethods":["wampcra"],"authid":"joe"}"#,
            r#"offer the authmethod \"ticket\" with an authid, or \"anonymous\""#,
        ),
    ] {
        check_with_users(&format!(
            r#"
            > [1,"realm1",{hello}]
            < [3,{{"message":"{text}"}},"wamp.error.no_matching_auth_method"]
            ! close
            "#
        ));
    }
}

#[test]
fn nothing_else_is_taken_during_a_login() {
    let challenged = r#"> [1,"realm1",{"authmethods":["ticket"],"authid":"joe"}]
        < [4,"ticket",{}]"#;
    let logging_in = format!("{challenged}\n> [5,\"x\",{{}}]\n! login joe x");
    for (before, message, text) in [
        (challenged, r#"[1,"realm1",{}]"#, "HELLO before AUTHENTICATE"),
        (challenged, r#"[16,1,{},"a"]"#, "PUBLISH before AUTHENTICATE"),
        (&logging_in, r#"[5,"x",{}]"#, "AUTHENTICATE without a CHALLENGE"),
        (&logging_in, r#"[16,1,{},"a"]"#, "PUBLISH before WELCOME"),
    ] {
        check_with_users(&format!(
            r#"
            {before}
            > {message}
            < [3,{{"message":"{text}"}},"wamp.error.protocol_violation"]
            ! close
            = login joe user
            "#
        ));
    }
}

#[test]
fn a_session_ends_with_its_user() {
    check_open(
        r#"
        = login revoked
        < [6,{"message":"the user was removed or disabled, or has to log in"},"wamp.close.killed"]
        ! close
        "#,
    );
    check_with_users(
        r#"
        > [1,"realm1",{"authmethods":["ticket"],"authid":"joe"}]
        < [4,"ticket",{}]
        > [5,"x",{}]
        ! login joe x
        = login joe user
        ! open realm1 user=joe
        = login revoked
        < [3,{"message":"the user was removed or disabled, or has to log in"},"wamp.error.not_authorized"]
        ! close
        "#,
    );
}
