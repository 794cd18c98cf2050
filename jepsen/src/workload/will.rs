//! Sessions that leave a will and end in every way: with a goodbye, without one, or because their node ends.
//!
//! MQTT clients return under their own name, and publish that they are there as soon as they are connected.
//!
//! Invariant: each session has a unique will, and each WAMP session a separate topic.
//!
//! Deliberately absent: delayed wills.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::asking::{Answer, Asking, Draft, ANSWER};
use crate::client::Said;
use crate::dice::Dice;
use crate::mqtt::Mqtt;
use crate::op::{End, Protocol, Publish, Testament};
use crate::stage::{Stage, OPEN};

const CLIENTS: u64 = 4;

/// Longest duration of a session, in milliseconds.
const STAY: u64 = 3_000;

/// How long a node may take to close a connection after a goodbye.
const CLOSES: Duration = Duration::from_secs(3);

pub(super) fn start(stage: &Arc<Stage>, clients: &mut JoinSet<()>) {
    for number in 0..CLIENTS {
        clients.spawn(client(stage.clone(), format!("w{number}"), number % 2 == 0));
    }
}

async fn client(stage: Arc<Stage>, name: String, wamp: bool) {
    let mut dice = stage.dice(&name);
    while stage.works() {
        if wamp {
            bind(&stage, &name, &mut dice).await;
        } else {
            testament(&stage, &name, &mut dice).await;
        }
    }
}

async fn bind(stage: &Stage, name: &str, dice: &mut Dice) {
    let door = stage.door(dice);
    let Some(mut session) = Asking::open(stage, name, door).await else {
        return sleep(Duration::from_millis(STAY / 10)).await;
    };
    let topic = format!("j.will.{}", session.session.replace('.', "-"));
    let draft = Draft {
        f: "bind",
        topic: topic.clone(),
        id: stage.id("up-"),
        retain: true,
        will: Some(stage.id("down-")),
        ..Draft::default()
    };
    if matches!(session.publish(stage, draft, ANSWER).await, Answer::At(_)) {
        sleep(Duration::from_millis(dice.below(STAY))).await;
        // Some sessions unbind it with a later value.
        if dice.chance(0.3) {
            let id = stage.id("bye-");
            let draft = Draft { f: "publish", topic, id, retain: true, ..Draft::default() };
            session.publish(stage, draft, ANSWER).await;
        }
    }
    let end = End { session: session.session.clone(), clean: false, known: false };
    drop(session);
    stage.journal.note("end", &end);
}

async fn testament(stage: &Stage, name: &str, dice: &mut Dice) {
    let door = stage.door(dice);
    let session = stage.id(&format!("{name}."));
    let mut what = Testament {
        session: session.clone(),
        client: Some(name.to_owned()),
        node: door.node,
        topic: format!("j.will.{name}"),
        will: stage.id("down-"),
        reason: None,
    };
    let open = stage.journal.ask("testament", &what);
    let topic = what.topic.replace('.', "/");
    let will = Some((topic.as_str(), what.will.as_str()));
    let mut client = match timeout(OPEN, Mqtt::connect_as(door.mqtt, name, will)).await {
        Ok(Ok(client)) => client,
        Ok(Err(error)) => {
            what.reason = Some(format!("{error:#}"));
            stage.journal.unknown(open, &what);
            return sleep(Duration::from_millis(STAY / 10)).await;
        }
        Err(_) => {
            what.reason = Some("no answer in time".to_owned());
            return stage.journal.unknown(open, &what);
        }
    };
    stage.journal.ok(open, &what);
    birth(stage, &mut client, &what).await;
    let stay = Duration::from_millis(dice.below(STAY));
    let (clean, known) = if dice.chance(0.4) {
        let witness = Asking::open(stage, name, door).await;
        part(stage, client, witness, stay).await
    } else {
        sit(client, stay).await;
        (false, false)
    };
    stage.journal.note("end", &End { session, clean, known });
}

/// Publishes that the client is there, right after its CONNACK.
async fn birth(stage: &Stage, client: &mut Mqtt, life: &Testament) {
    let mut what = Publish {
        session: life.session.clone(),
        number: 1,
        id: stage.id("up-"),
        topic: life.topic.clone(),
        node: life.node,
        protocol: Protocol::Mqtt,
        retain: true,
        expect: None,
        watch: false,
        will: None,
        position: None,
        reason: None,
    };
    let open = stage.journal.ask("publish", &what);
    let asked = async {
        let request = client.publish_with(&what.topic.replace('.', "/"), &what.id, true).await?;
        loop {
            match client.next().await? {
                Said::Acknowledged { request: of, .. } if of == request => return Ok(()),
                Said::Closed(reason) => anyhow::bail!(reason),
                _ => {}
            }
        }
    };
    let reason = match timeout(ANSWER, asked).await {
        Ok(Ok(())) => return stage.journal.ok(open, &what),
        Ok(Err(error)) => format!("{error:#}"),
        Err(_) => "no answer in time".to_owned(),
    };
    what.reason = Some(reason);
    stage.journal.unknown(open, &what);
}

/// Holds a session open for a while, unless it is closed earlier.
async fn sit(mut client: Mqtt, stay: Duration) -> Option<Mqtt> {
    match timeout(stay, client.next()).await {
        Ok(Ok(Said::Closed(_)) | Err(_)) => None,
        _ => Some(client),
    }
}

/// Ends a session with a goodbye; returns whether the goodbye could be sent, and whether it is certainly in the log.
///
/// A node closes the connection once the session's end is on its way into the log. A publish there by a session that
/// began before the goodbye comes after it, and is acknowledged only by the process that received the goodbye.
async fn part(
    stage: &Stage,
    client: Mqtt,
    witness: Option<Asking>,
    stay: Duration,
) -> (bool, bool) {
    let Some(mut client) = sit(client, stay).await else { return (false, false) };
    if client.goodbye().await.is_err() {
        return (false, false);
    }
    let closed = async { while let Ok(Some(_)) = client.receive().await {} };
    let (Ok(()), Some(mut witness)) = (timeout(CLOSES, closed).await, witness) else {
        return (true, false);
    };
    let (topic, id) = ("j.will.goodbye".to_owned(), stage.id("gone-"));
    let draft = Draft { f: "publish", topic, id, ..Draft::default() };
    (true, matches!(witness.publish(stage, draft, ANSWER).await, Answer::At(_)))
}
