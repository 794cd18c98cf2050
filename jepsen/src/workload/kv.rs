//! Registers: retained values that clients set, compare and set, and read, one request after the other.
//!
//! Invariant: no value is written twice.
//!
//! Deliberately absent: deletions, which readers could not tell apart.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::asking::{Answer, Asking, Draft, ANSWER};
use crate::stage::Stage;

const CLIENTS: u64 = 5;
const KEYS: u64 = 3;

/// Most operations of one session.
const SESSION: u64 = 150;

/// Longest pause between two operations of one client, in milliseconds.
const PACE: u64 = 40;

pub(super) fn start(stage: &Arc<Stage>, clients: &mut JoinSet<()>) {
    for number in 0..CLIENTS {
        clients.spawn(client(stage.clone(), format!("k{number}")));
    }
}

async fn client(stage: Arc<Stage>, name: String) {
    let mut dice = stage.dice(&name);
    // The client's latest knowledge of each key.
    let mut known: HashMap<String, String> = HashMap::new();
    while stage.works() {
        let (door, other) = (stage.door(&mut dice), stage.door(&mut dice));
        let session = Asking::open(&stage, &name, door).await;
        // It usually reads at another node than the one where it publishes.
        let reader = Asking::open(&stage, &name, other).await;
        let (Some(mut session), Some(mut reader)) = (session, reader) else {
            sleep(Duration::from_millis(PACE)).await;
            continue;
        };
        for _ in 0..dice.between(1, SESSION) {
            if !stage.works() {
                return;
            }
            sleep(Duration::from_millis(dice.below(PACE))).await;
            let topic = format!("j.kv.r{}", dice.below(KEYS));
            if dice.chance(0.4) {
                match session.read(&stage, &mut reader, &topic, "j.kv.marks").await {
                    Some(id) => drop(known.insert(topic, id)),
                    None => break,
                }
                continue;
            }
            let expected = known.get(&topic).cloned().unwrap_or_default();
            let compares = dice.chance(0.7);
            let id = stage.id(&format!("{name}-"));
            let draft = Draft {
                f: if compares { "cas" } else { "write" },
                topic: topic.clone(),
                id: id.clone(),
                retain: true,
                expect: compares.then_some(expected),
                ..Draft::default()
            };
            match session.publish(&stage, draft, ANSWER).await {
                Answer::At(_) => drop(known.insert(topic, id)),
                Answer::Refused => {}
                Answer::Lost => break,
            }
        }
    }
}
