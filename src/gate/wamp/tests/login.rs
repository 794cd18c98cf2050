//! From HELLO to WELCOME in a cluster that has users.

use super::*;
use crate::types::access::Identity;
use crate::types::login::{Challenge, Extra, LoginStep, Method};

/// What becomes of a login.
pub(super) fn happen(gate: &mut WampGate, what: &[&str]) {
    match what {
        ["wrong"] => gate.logged_in(Err(LoginRefusal::Wrong)),
        ["busy"] => gate.logged_in(Err(LoginRefusal::Busy)),
        ["needed"] => gate.opened(Err(OpenRefusal::LoginNeeded)),
        ["revoked"] => gate.end(EndReason::Revoked),
        ["barred"] => gate.opened(Err(OpenRefusal::Banned)),
        ["banned"] => gate.end(EndReason::Banned),
        ["expired"] => gate.end(EndReason::Expired),
        ["misused"] => gate.logged_in(Err(LoginRefusal::Misused("the x is wrong".to_owned()))),
        ["ask", method] => {
            let method = Method::named(method).unwrap();
            let extra = match method {
                Method::Ticket => Vec::new(),
                Method::WampCra | Method::Scram | Method::Cryptosign | Method::Tls => {
                    vec![("iterations", Value::Int(7))]
                }
            };
            gate.logged_in(Ok(LoginReply::Challenge(Challenge { method, extra })));
        }
        [user, role, method] => {
            let (user, role) = (user.to_string(), role.to_string());
            let method = Method::named(method).unwrap().name();
            let identity = Identity { user, role, method, provider: "users", expires: None };
            let proof = (method == Method::Scram.name()).then(|| "proof".to_owned());
            gate.logged_in(Ok(LoginReply::Accepted { identity, proof }));
        }
        other => panic!("{other:?}"),
    }
}

/// What the gate asks the driver.
pub(super) fn show(step: &LoginStep) -> String {
    match step {
        LoginStep::Password(_) | LoginStep::Scram(_) | LoginStep::Certificate => {
            panic!("{step:?}")
        }
        LoginStep::Hello { user, methods, extra } => {
            let names: Vec<_> = methods.iter().map(|method| method.name()).collect();
            format!("hello {user} {}{}", names.join(" "), show_extra(extra))
        }
        LoginStep::Answer { signature, extra } => {
            format!("answer {}{}", String::from_utf8_lossy(&signature.0), show_extra(extra))
        }
    }
}

fn show_extra(extra: &Extra) -> String {
    let Extra { nonce, pubkey, channel_binding, cbind_data, kdf } = extra;
    let fields = [
        ("nonce", nonce),
        ("pubkey", pubkey),
        ("binding", channel_binding),
        ("data", cbind_data),
        ("kdf", kdf),
    ];
    let shown = fields.map(|(name, value)| value.as_ref().map(|value| format!(" {name}={value}")));
    shown.into_iter().flatten().collect()
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
        > [1,"realm1",{{"authmethods":["scrum","ticket"],"authid":"joe"}}]
        ! hello joe ticket
        = login ask ticket
        < [4,"ticket",{{}}]
        > [5,"secret",{{}}]
        ! answer secret
        = login joe admin ticket
        ! open realm1 user=joe
        = opened
        < [2,77,{{"realm":"realm1","authid":"joe","authrole":"admin","authmethod":"ticket","authprovider":"users","agent":"vulpes/{agent}","roles":{{{ROLES}}}}}]
        "#
    ));
}

#[test]
fn a_client_signs_a_challenge() {
    let agent = env!("CARGO_PKG_VERSION");
    check_with_users(&format!(
        r#"
        > [1,"realm1",{{"authmethods":["ticket","wampcra","ticket"],"authid":"joe"}}]
        ! hello joe wampcra ticket
        = login ask wampcra
        < [4,"wampcra",{{"iterations":7}}]
        > [5,"signed",{{}}]
        ! answer signed
        = login joe user wampcra
        ! open realm1 user=joe
        = opened
        < [2,77,{{"realm":"realm1","authid":"joe","authrole":"user","authmethod":"wampcra","authprovider":"users","agent":"vulpes/{agent}","roles":{{{ROLES}}}}}]
        "#
    ));
}

#[test]
fn both_sides_prove_who_they_are() {
    let agent = env!("CARGO_PKG_VERSION");
    check_with_users(&format!(
        r#"
        > [1,"realm1",{{"authmethods":["wamp-scram"],"authid":"joe","authextra":{{"nonce":"n","pubkey":"p","kdf":"k","channel_binding":null,"x":1}}}}]
        ! hello joe wamp-scram nonce=n pubkey=p kdf=k
        = login ask wamp-scram
        < [4,"wamp-scram",{{"iterations":7}}]
        > [5,"signed",{{"nonce":"n","channel_binding":"b","cbind_data":"d","kdf":7}}]
        ! answer signed nonce=n binding=b data=d
        = login joe user wamp-scram
        ! open realm1 user=joe
        = opened
        < [2,77,{{"realm":"realm1","authid":"joe","authrole":"user","authmethod":"wamp-scram","authprovider":"users","authextra":{{"verifier":"proof"}},"agent":"vulpes/{agent}","roles":{{{ROLES}}}}}]
        "#
    ));
}

#[test]
fn a_certificate_needs_no_name() {
    for (hello, asked) in [
        (r#"{"authmethods":["tls"]}"#, "hello  tls"),
        (r#"{"authmethods":["ticket","tls"],"authid":"joe"}"#, "hello joe tls ticket"),
    ] {
        check_with_users(&format!(
            r#"
            > [1,"realm1",{hello}]
            ! {asked}
            = login joe user tls
            ! open realm1 user=joe
            "#
        ));
    }
}

#[test]
fn a_login_can_fail() {
    let login = r#"> [1,"realm1",{"authmethods":["ticket","anonymous"],"authid":"joe"}]
        ! hello joe ticket
        = login ask ticket
        < [4,"ticket",{}]
        > [5,"x",{}]
        ! answer x"#;
    check_with_users(&format!(
        r#"
        {login}
        = login misused
        < [3,{{"message":"the x is wrong"}},"wamp.error.authentication_failed"]
        ! close
        "#
    ));
    // Before there was a challenge.
    check_with_users(
        r#"
        > [1,"realm1",{"authmethods":["wampcra"],"authid":"joe"}]
        ! hello joe wampcra
        = login wrong
        < [3,{"message":"unknown user, or wrong password"},"wamp.error.authentication_failed"]
        ! close
        "#,
    );
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
            r#"{"authmethods":["scrum"],"authid":"joe"}"#,
            r#"offer one of the authmethods \"tls\", \"cryptosign\", \"wamp-scram\", \"wampcra\", \"ticket\" with an authid, or \"anonymous\""#,
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
    let asking = r#"> [1,"realm1",{"authmethods":["ticket"],"authid":"joe"}]
        ! hello joe ticket"#;
    let challenged = &format!("{asking}\n= login ask ticket\n< [4,\"ticket\",{{}}]");
    let logging_in = format!("{challenged}\n> [5,\"x\",{{}}]\n! answer x");
    for (before, message, text) in [
        (asking, r#"[5,"x",{}]"#, "AUTHENTICATE without a CHALLENGE"),
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
            = login joe user ticket
            "#
        ));
    }
}

#[test]
fn a_session_ends_with_its_token() {
    check_open(
        r#"
        = login expired
        < [6,{"message":"the token has expired; log in with a new one"},"wamp.close.killed"]
        ! close
        "#,
    );
}

#[test]
fn a_banned_client_is_told_so() {
    check_open(
        r#"
        = login banned
        < [6,{"message":"an administrator has banned this client"},"wamp.close.killed"]
        ! close
        "#,
    );
    for (what, text) in [("banned", "client"), ("barred", "user or client")] {
        check_with_users(&format!(
            r#"
            > [1,"realm1",{{}}]
            ! open realm1
            = login {what}
            < [3,{{"message":"an administrator has banned this {text}"}},"wamp.error.not_authorized"]
            ! close
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
        ! hello joe ticket
        = login ask ticket
        < [4,"ticket",{}]
        > [5,"x",{}]
        ! answer x
        = login joe user ticket
        ! open realm1 user=joe
        = login revoked
        < [3,{"message":"the user was removed or disabled, or has to log in"},"wamp.error.not_authorized"]
        ! close
        "#,
    );
}
