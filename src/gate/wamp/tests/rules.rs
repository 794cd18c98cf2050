//! What a client may not do is refused, and everything else goes on.

use super::*;
use crate::rules::testing::permissions;

/// Runs a script with a client that may do this, after WELCOME.
fn check_with(rules: &[&str], script: &str) {
    for serializer in Serializer::ALL {
        let mut gate = open(serializer);
        *gate.permissions() = permissions(rules);
        run(&mut gate, script);
    }
}

#[test]
fn publishes_are_refused_one_by_one() {
    check_with(
        &["allow publish a.#", "allow retain a.x", "deny publish a.b"],
        r#"
        > [16,1,{"acknowledge":true},"b",[1]]
        < [8,16,1,{},"wamp.error.not_authorized",["the user may not publish this there"]]
        > [16,2,{"acknowledge":true},"a.b",[1]]
        < [8,16,2,{},"wamp.error.not_authorized",["the user may not publish this there"]]
        > [16,3,{"acknowledge":true,"retain":true},"a.y",[1]]
        < [8,16,3,{},"wamp.error.not_authorized",["the user may not publish this there"]]
        > [16,4,{},"b",[1]]
        ~ PUBLISH 4: the user may not publish this there
        > [16,5,{},"a.y",[1]]
        ! publish a/y [1]
        > [16,6,{"retain":true},"a.x",[1]]
        ! publish a/x [1] retain
        "#,
    );
}

#[test]
fn subscriptions_and_registrations_are_refused_one_by_one() {
    check_with(
        &["allow subscribe a.#", "allow register p.#", "allow call wamp.session.count"],
        r#"
        > [32,1,{},"b"]
        < [8,32,1,{},"wamp.error.not_authorized",["the user may not subscribe to this"]]
        > [32,2,{"match":"prefix"},"b"]
        < [8,32,2,{},"wamp.error.not_authorized",["the user may not subscribe to this"]]
        > [64,3,{},"q"]
        < [8,64,3,{},"wamp.error.not_authorized",["the user may not register this procedure"]]
        > [64,4,{"match":"prefix"},"p"]
        < [8,64,4,{},"wamp.error.not_authorized",["the user may not register this procedure"]]
        > [48,5,{},"p.x"]
        < [8,48,5,{},"wamp.error.not_authorized",["the user may not call this procedure"]]
        > [48,6,{},"wamp.session.list"]
        < [8,48,6,{},"wamp.error.not_authorized",["the user may not call this procedure"]]
        "#,
    );
}
