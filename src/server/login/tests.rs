//! Logins against users of the realms' state, with the clock stopped.

use bytes::Bytes;
use futures::FutureExt;

use super::*;
use crate::auth::{Cost, Salts, Verifiers};
use crate::realm::testing;
use crate::types::access::{ChangeUsers, Secret, UserChange, ADMIN};
use crate::types::act::Act;

/// A user with this password, as cheap to check as may be.
pub(super) fn user(password: &str, disabled: bool) -> User {
    let password = Password::new(password.as_bytes()).unwrap();
    let verifiers = Verifiers::derive(&password, &Salts::draw(|| 7), &Cost::CHEAP, None).unwrap();
    User { verifier: verifiers.encode().into(), roles: vec![ADMIN.to_owned()], disabled }
}

pub(super) fn logins(users: &[(&str, User)]) -> Logins {
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
    let (method, provider) = ("ticket", "users");
    let joe = Identity { user: "joe".into(), role: ADMIN.into(), method, provider, expires: None };
    for (name, password, outcome) in [
        ("joe", "pencil", Ok(joe.clone())),
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

/// Its roles, say, change while its password is checked: it was refused as wrong.
#[tokio::test(start_paused = true)]
async fn a_user_that_changes_meanwhile_comes_in_with_the_same_password_only() {
    let joe = user("pencil", false);
    let logins = logins(&[("joe", joe.clone())]);
    let name = UserName::new("joe").unwrap();
    let judged = |user: User| {
        let known = Some(Arc::new(KnownUser { user, changed: Position(0) }));
        logins.judged(&Claim { name: name.clone(), known, method: Method::Ticket.name() }, None)
    };
    let found = judged(User { roles: Vec::new(), ..joe.clone() });
    assert_eq!(found.map(|identity| identity.role).as_deref(), Ok(ADMIN), "as it is now");
    let other = User { verifier: "other".into(), ..joe };
    assert_eq!(judged(other), Err(LoginRefusal::Wrong));
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
    let most = limits::LOGINS_OF_A_NAME;
    let all = (0..most + 1).map(|_| check(&logins, "joe", "wrong"));
    // None of them ends before all have come.
    let checks = logins.room.checking.clone().acquire_many_owned(limits::LOGINS_CHECKED as u32);
    let checks = checks.await.unwrap();
    let all_come = async {
        while logins.shared.turns.lock().unwrap().get("joe").map_or(0, Arc::strong_count) <= most {
            tokio::task::yield_now().await;
        }
        tokio::task::yield_now().await;
        drop(checks);
    };
    let (outcomes, ()) = tokio::join!(futures::future::join_all(all), all_come);
    let busy = |outcome: &&Result<_, _>| **outcome == Err(LoginRefusal::Busy);
    assert_eq!(outcomes.iter().filter(busy).count(), 1);
    assert!(check(&logins, "joe", "pencil").await.is_ok());
    assert!(logins.shared.turns.lock().unwrap().is_empty());
    let logins = Logins { room: Room::new(3, 1), ..logins };
    let all = ["a", "b", "c", "d"].map(|name| check(&logins, name, "wrong"));
    let outcomes = futures::future::join_all(all).await;
    assert_eq!(outcomes.iter().filter(busy).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn attempts_for_one_name_wait_for_each_other() {
    let logins = logins(&[("joe", user("pencil", false))]);
    let before = Instant::now();
    futures::future::join_all((0..8).map(|_| check(&logins, "joe", "wrong"))).await;
    assert_eq!(before.elapsed().as_millis() / 100, 1 + 2 + 4 + 8 + 16);
}

#[tokio::test]
async fn a_password_that_was_right_is_recognized_without_a_check() {
    let logins = logins(&[("joe", user("pencil", false))]);
    assert!(check(&logins, "joe", "pencil").await.is_ok());
    let checks = limits::LOGINS_CHECKED as u32;
    let _all = logins.room.checking.clone().acquire_many_owned(checks).await.unwrap();
    assert!(matches!(check(&logins, "joe", "pencil").now_or_never(), Some(Ok(_))));
    assert!(check(&logins, "joe", "wrong").now_or_never().is_none());
    // Operators have room of their own.
    assert!(check(&logins.of_operators(), "joe", "wrong").await.is_err());
}

#[tokio::test]
async fn a_client_that_leaves_frees_no_room_while_its_password_is_checked() {
    let logins = logins(&[("joe", user("pencil", false))]);
    let room = &logins.room;
    assert!(check(&logins, "nobody", "x").now_or_never().is_none());
    assert_eq!(room.checking.available_permits(), limits::LOGINS_CHECKED - 1);
    assert_eq!(room.waiting.available_permits(), limits::LOGINS_WAITING - 1);
    // And what came of it counts.
    let ended = async {
        while room.checking.available_permits() < limits::LOGINS_CHECKED
            || logins.known().failures.is_empty()
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), ended).await.unwrap();
    assert!(logins.shared.turns.lock().unwrap().is_empty());
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
        known.succeeded(&number.to_string(), Some(right));
    }
    assert_eq!(known.right.len(), limits::LOGINS_REMEMBERED);
}

/// As MQTT's password, with or without a user name, and as WAMP's ticket.
#[tokio::test(start_paused = true)]
async fn a_token_is_as_good_as_a_password() {
    let folder = tempfile::tempdir().unwrap();
    let users = [("joe", user("pencil", false)), ("ann", user("x", false))];
    let logins = logins(&users).with_tokens(Some(tokens::tests::files(folder.path())));
    let token = tokens::tests::signed();
    let spoiled = token.replace("joe", "ann") + "A";
    for (name, token, right) in [
        ("joe", &token, true),
        ("", &token, true),
        ("ann", &token, false),
        ("nobody", &token, false),
        ("joe", &spoiled, false),
        ("", &spoiled, false),
    ] {
        let outcome = check(&logins, name, token).await;
        let shown = outcome.map(|found| (found.user, found.method, found.provider, found.expires));
        let expected = ("joe".to_owned(), "ticket", "jwt", Some(4_102_444_800));
        let expected = right.then_some(expected).ok_or(LoginRefusal::Wrong);
        assert_eq!(shown, expected, "{name} {token}");
    }
    assert!(check(&logins, "joe", "pencil").await.is_ok());
    let disabled = self::logins(&[("joe", user("pencil", true)), ("ann", user("x", false))]);
    let disabled = disabled.with_tokens(Some(tokens::tests::files(folder.path())));
    assert_eq!(check(&disabled, "joe", &token).await, Err(LoginRefusal::Wrong));
    // A node without keys takes it for a password.
    let without = self::logins(&users);
    assert_eq!(check(&without, "joe", &token).await, Err(LoginRefusal::Wrong));
}
