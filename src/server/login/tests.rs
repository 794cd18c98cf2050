//! Logins against users of the realms' state, with the clock stopped.

use bytes::Bytes;

use super::*;
use crate::auth::{Cost, Verifier};
use crate::realm::testing;
use crate::types::access::{ChangeUsers, Secret, UserChange, ADMIN};
use crate::types::act::Act;

/// A user with this password, as cheap to check as may be.
fn user(password: &str, disabled: bool) -> User {
    let password = Password::new(password.as_bytes()).unwrap();
    let verifier = Verifier::derive(&password, [7; 16], Cost::CHEAP).unwrap();
    User { verifier: wire::encode(&verifier).into(), roles: vec![ADMIN.to_owned()], disabled }
}

fn logins(users: &[(&str, User)]) -> Logins {
    let add =
        |(name, user): &(&str, User)| UserChange::Add { name: (*name).into(), user: user.clone() };
    let changes = users.iter().map(add).collect();
    let act = Act::ChangeUsers(ChangeUsers { author: String::new(), changes });
    let realms = SharedRealms::new(testing::after(&[act]));
    Logins::new(realms, &Host::real())
}

async fn check(logins: &Logins, user: &str, password: &str) -> Result<Identity, LoginRefusal> {
    let password = Secret(Bytes::copy_from_slice(password.as_bytes()));
    logins.check(Login { user: user.into(), password }).await
}

#[tokio::test(start_paused = true)]
async fn the_right_password_of_a_user_lets_in() {
    let logins = logins(&[("joe", user("pencil", false)), ("ann", user("x", true))]);
    let joe = Identity { user: "joe".into(), role: ADMIN.into() };
    for (name, password, outcome) in [
        ("joe", "pencil", Ok(joe.clone())),
        // It is recognized, and a wrong one still is not.
        ("joe", "pencil", Ok(joe.clone())),
        ("joe", "pencil ", Err(LoginRefusal::Wrong)),
        ("joe", "", Err(LoginRefusal::Wrong)),
        ("Joe", "pencil", Err(LoginRefusal::Wrong)),
        ("", "pencil", Err(LoginRefusal::Wrong)),
        ("nobody", "pencil", Err(LoginRefusal::Wrong)),
        ("ann", "x", Err(LoginRefusal::Wrong)),
    ] {
        assert_eq!(check(&logins, name, password).await, outcome, "{name} {password}");
    }
}

#[tokio::test(start_paused = true)]
async fn failures_slow_down_further_attempts_for_that_name() {
    let logins = logins(&[("joe", user("pencil", false))]);
    let mut pauses = Vec::new();
    for _ in 0..9 {
        let before = Instant::now();
        assert_eq!(check(&logins, "joe", "wrong").await, Err(LoginRefusal::Wrong));
        pauses.push(before.elapsed().as_millis() / 100);
    }
    assert_eq!(pauses, [0, 0, 0, 1, 2, 4, 8, 16, 30]);
    // Others don't wait, and nor does one who was forgiven.
    let before = Instant::now();
    assert_eq!(check(&logins, "ann", "wrong").await, Err(LoginRefusal::Wrong));
    assert_eq!(before.elapsed().as_millis(), 0);
    tokio::time::advance(FORGIVEN).await;
    let before = Instant::now();
    assert!(check(&logins, "joe", "pencil").await.is_ok());
    assert_eq!(before.elapsed().as_millis(), 0);
}

#[tokio::test(start_paused = true)]
async fn only_so_many_logins_wait() {
    let logins = logins(&[("joe", user("pencil", false))]);
    let all = (0..limits::LOGINS_WAITING + 1).map(|_| check(&logins, "joe", "wrong"));
    let outcomes = futures::future::join_all(all).await;
    let busy = outcomes.iter().filter(|outcome| **outcome == Err(LoginRefusal::Busy)).count();
    assert_eq!(busy, 1);
    assert!(check(&logins, "joe", "pencil").await.is_ok());
}

#[test]
fn only_so_many_names_are_remembered() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _within = runtime.enter();
    let mut known = Known::default();
    for number in 0..limits::LOGIN_FAILURES + 1 {
        known.failed(&number.to_string());
    }
    assert_eq!(
        (known.failures.len(), known.order.len()),
        (limits::LOGIN_FAILURES, limits::LOGIN_FAILURES)
    );
    assert!(!known.failures.contains_key("0"));
    let name = UserName::new("joe").unwrap();
    let password = Password::new(b"pencil").unwrap();
    let right = (Position(1), Fingerprint::of(&[1; 64], &name, &password));
    for number in 0..limits::LOGINS_REMEMBERED + 1 {
        known.succeeded(&number.to_string(), right);
    }
    assert_eq!(known.right.len(), limits::LOGINS_REMEMBERED);
}
