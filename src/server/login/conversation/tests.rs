//! Logins in steps, with the clock stopped.

use tokio::time::Instant;

use super::super::tests::{logins, user};
use super::*;
use crate::auth::testing::{cryptosign as key_pair, scram_last, scram_wamp, sign_cra, text, NONCE};
use crate::types::access::Identity;

/// What a client is asked that has these methods.
async fn asked(
    logins: &Logins,
    name: &str,
    methods: &[Method],
) -> (Box<Conversation>, Result<Challenge, LoginRefusal>) {
    asked_with(logins, name, methods, "").await
}

/// The same for a client that says it has this public key.
async fn asked_with(
    logins: &Logins,
    name: &str,
    methods: &[Method],
    pubkey: &str,
) -> (Box<Conversation>, Result<Challenge, LoginRefusal>) {
    let (nonce, pubkey) = (Some(NONCE.to_owned()), Some(pubkey.to_owned()));
    let conversation = Box::new(logins.conversation(SessionId(77), &Shown::default()));
    let hello = LoginStep::Hello {
        user: name.into(),
        methods: methods.to_vec(),
        extra: Extra { nonce, pubkey, ..Extra::default() },
    };
    let (conversation, reply) = conversation.step(hello).await;
    let challenge = reply.map(|reply| match reply {
        LoginReply::Challenge(challenge) => challenge,
        other => panic!("{other:?}"),
    });
    (conversation, challenge)
}

async fn answer(
    conversation: Box<Conversation>,
    signature: &str,
) -> Result<Identity, LoginRefusal> {
    Ok(answer_with(conversation, signature, Extra::default()).await?.0)
}

async fn answer_with(
    conversation: Box<Conversation>,
    signature: &str,
    extra: Extra,
) -> Result<(Identity, Option<String>), LoginRefusal> {
    let signature = Secret(signature.as_bytes().to_vec().into());
    match conversation.step(LoginStep::Answer { signature, extra }).await.1? {
        LoginReply::Accepted { identity, proof } => Ok((identity, proof)),
        other => panic!("{other:?}"),
    }
}

async fn by_cra(logins: &Logins, name: &str, password: &str) -> Result<Identity, LoginRefusal> {
    let (conversation, challenge) = asked(logins, name, &[Method::WampCra]).await;
    let challenge = challenge?;
    answer(conversation, &sign_cra(password, &challenge)).await
}

#[tokio::test(start_paused = true)]
async fn the_right_signature_of_a_user_lets_in() {
    let logins = logins(&[("joe", user("pencil", false)), ("ann", user("x", true))]);
    let joe = by_cra(&logins, "joe", "pencil").await.unwrap();
    assert_eq!((joe.user.as_str(), joe.method, joe.provider), ("joe", "wampcra", "users"));
    for (name, password) in [("joe", "pencil "), ("ann", "x"), ("nobody", "x"), ("", "x")] {
        let outcome = by_cra(&logins, name, password).await;
        assert_eq!(outcome, Err(LoginRefusal::Wrong), "{name} {password}");
    }
    let (conversation, _) = asked(&logins, "joe", &[Method::WampCra]).await;
    let garbage = answer(conversation, "garbage").await;
    assert!(matches!(garbage, Err(LoginRefusal::Misused(_))), "{garbage:?}");
    let unasked = Box::new(logins.conversation(SessionId(77), &Shown::default()));
    assert_eq!(answer(unasked, "x").await, Err(LoginRefusal::Wrong));
}

#[tokio::test(start_paused = true)]
async fn both_sides_prove_that_they_know_the_password() {
    let logins = logins(&[("joe", user("pencil", false))]);
    for (name, password, right) in
        [("joe", "pencil", true), ("joe", "x", false), ("nobody", "x", false)]
    {
        let (conversation, challenge) = asked(&logins, name, &[Method::Scram]).await;
        let (proof, extra, verifier) = scram_wamp((name, password), &challenge.unwrap(), None);
        let outcome = answer_with(conversation, &proof, extra).await;
        let shown = outcome.map(|(identity, proof)| (identity.method, proof));
        let expected = right.then_some(("wamp-scram", Some(verifier)));
        assert_eq!(shown, expected.ok_or(LoginRefusal::Wrong), "{name} {password}");

        let conversation = Box::new(logins.conversation(SessionId(77), &Shown::default()));
        let bare = format!("n={name},r=abc");
        let first = Secret(format!("n,,{bare}").into());
        let (conversation, reply) = conversation.step(LoginStep::Scram(first)).await;
        let Ok(LoginReply::Data(challenge)) = reply else { panic!("{reply:?}") };
        let (last, verifier) = scram_last(("n,,", &bare), password, &challenge);
        let outcome = answer_with(conversation, &last, Extra::default()).await;
        let shown = outcome.map(|(identity, proof)| (identity.method, proof));
        let expected = right.then_some(("SCRAM-SHA-256", Some(verifier)));
        assert_eq!(shown, expected.ok_or(LoginRefusal::Wrong), "{name} {password}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_of_the_user_lets_in() {
    let (pubkey, sign) = key_pair([7; 32]);
    let (other, sign_other) = key_pair([8; 32]);
    let with_key = |password: &str, disabled| {
        let mut user = user(password, disabled);
        let mut verifiers = crate::auth::Verifiers::decode(&user.verifier).unwrap();
        verifiers.keys = vec![crate::auth::cryptosign::PublicKey::from_hex(&pubkey).unwrap()];
        user.verifier = verifiers.encode().into();
        user
    };
    let logins = logins(&[
        ("joe", with_key("pencil", false)),
        ("ann", with_key("x", true)),
        ("bob", user("x", false)),
    ]);
    let only = [Method::Cryptosign];
    for (name, right) in [("joe", true), ("ann", false), ("bob", false), ("nobody", false)] {
        let (conversation, challenge) = asked_with(&logins, name, &only, &pubkey).await;
        let outcome = answer(conversation, &sign(&challenge.unwrap())).await;
        let method = outcome.map(|identity| identity.method);
        let expected = right.then_some("cryptosign").ok_or(LoginRefusal::Wrong);
        assert_eq!(method, expected, "{name}");
        let (conversation, challenge) = asked_with(&logins, name, &only, &other).await;
        let outcome = answer(conversation, &sign_other(&challenge.unwrap())).await;
        assert_eq!(outcome, Err(LoginRefusal::Wrong), "{name}");
        // Who has no such key is asked for its password, like who does not exist.
        let challenge = asked_with(&logins, name, &Method::ALL, &other).await.1.unwrap();
        assert_eq!(challenge.method, Method::Scram, "{name}");
    }
    let challenge = asked_with(&logins, "joe", &Method::ALL, &pubkey).await.1.unwrap();
    assert_eq!(challenge.method, Method::Cryptosign);
}

#[tokio::test(start_paused = true)]
async fn a_ticket_is_a_password() {
    let logins = logins(&[("joe", user("pencil", false))]);
    for (ticket, method) in [("pencil", Some("ticket")), ("pencil ", None)] {
        let (conversation, challenge) = asked(&logins, "joe", &[Method::Ticket]).await;
        assert_eq!(challenge.unwrap().method, Method::Ticket);
        let identity = answer(conversation, ticket).await;
        assert_eq!(identity.ok().map(|identity| identity.method), method);
    }
}

/// The best method of those that both have is chosen, and nothing tells who exists.
#[tokio::test(start_paused = true)]
async fn challenges_do_not_tell_who_exists() {
    let logins = logins(&[("joe", user("pencil", false)), ("ann", user("x", true))]);
    for name in ["joe", "ann", "nobody"] {
        for (methods, chosen) in [
            (&Method::ALL[..], Method::Scram),
            (&[Method::WampCra, Method::Ticket][..], Method::WampCra),
            (&[Method::Ticket][..], Method::Ticket),
            (&[Method::WampCra][..], Method::WampCra),
        ] {
            let challenge = asked(&logins, name, methods).await.1.unwrap();
            assert_eq!(challenge.method, chosen, "{name}");
        }
        let [one, two] = [(); 2].map(|()| asked(&logins, name, &[Method::WampCra]));
        let (one, two) = (one.await.1.unwrap(), two.await.1.unwrap());
        assert_eq!(text(&one, "salt"), text(&two, "salt"));
        assert_ne!(text(&one, "challenge"), text(&two, "challenge"));
    }
}

/// A password of before there were challenges.
#[tokio::test(start_paused = true)]
async fn old_passwords_are_asked_for() {
    let mut old = user("pencil", false);
    old.verifier.truncate(51);
    let logins = logins(&[("joe", old)]);
    for name in ["joe", "nobody"] {
        let challenge = asked(&logins, name, &Method::ALL).await.1.unwrap();
        assert_eq!(challenge.method, Method::Ticket, "{name}");
    }
    let (conversation, challenge) = asked(&logins, "joe", &[Method::WampCra]).await;
    let signature = sign_cra("pencil", &challenge.unwrap());
    assert_eq!(answer(conversation, &signature).await, Err(LoginRefusal::Wrong));
}

#[tokio::test(start_paused = true)]
async fn failures_slow_down_every_method() {
    let logins = logins(&[("joe", user("pencil", false))]);
    let mut pauses = Vec::new();
    for _ in 0..6 {
        let before = Instant::now();
        assert_eq!(by_cra(&logins, "joe", "wrong").await, Err(LoginRefusal::Wrong));
        pauses.push(before.elapsed().as_millis() / 100);
    }
    assert_eq!(pauses, [0, 0, 0, 1, 2, 4]);
    let before = Instant::now();
    let login = Login { user: "joe".into(), password: Secret("pencil".into()) };
    assert!(logins.check(login).await.is_ok());
    assert_eq!(before.elapsed().as_millis() / 100, 8);
    assert!(by_cra(&logins, "joe", "pencil").await.is_ok());
    assert_eq!(before.elapsed().as_millis() / 100, 8);
    assert!(logins.shared.turns.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_certificate_names_a_user_that_exists() {
    let logins = logins(&[("joe", user("pencil", false)), ("ann", user("x", true))]);
    let shown = |user: &str| Shown { user: Some(user.into()), ..Shown::default() };
    let step = |shown: &Shown, step: LoginStep| {
        let conversation = Box::new(logins.conversation(SessionId(77), shown));
        async move { conversation.step(step).await.1 }
    };
    let hello = |user: &str, methods: &[Method]| LoginStep::Hello {
        user: user.into(),
        methods: methods.to_vec(),
        extra: Extra::default(),
    };
    for (named, right) in
        [("joe", true), ("ann", false), ("nobody", false), ("", false), ("a\u{7}", false)]
    {
        for asks in
            [LoginStep::Certificate, hello("", &[Method::Tls]), hello(named, &[Method::Tls])]
        {
            let outcome = step(&shown(named), asks.clone()).await;
            let shown = outcome.map(|reply| match reply {
                LoginReply::Accepted { identity, .. } => {
                    (identity.user, identity.method, identity.provider)
                }
                other => panic!("{other:?}"),
            });
            let expected = right.then_some(("joe".to_owned(), "tls", "certificate"));
            assert_eq!(shown, expected.ok_or(LoginRefusal::Wrong), "{named} {asks:?}");
        }
    }
    // Nobody has another name than its certificate, or one without.
    let refused = Err(LoginRefusal::Wrong);
    assert_eq!(step(&shown("joe"), hello("ann", &[Method::Tls])).await, refused);
    assert_eq!(step(&Shown::default(), hello("joe", &[Method::Tls])).await, refused);
    assert_eq!(step(&Shown::default(), LoginStep::Certificate).await, refused);
    // By another method, it may be who it says.
    let asked = step(&shown("joe"), hello("ann", &[Method::Tls, Method::Ticket])).await;
    assert!(matches!(asked, Ok(LoginReply::Challenge(asked)) if asked.method == Method::Ticket));
}
