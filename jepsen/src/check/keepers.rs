//! The part of generated histories about MQTT sessions that outlive their connections.
//!
//! Invariant: as in `ideal`. An acknowledged event comes again only if its connection broke, and is marked.
//!
//! Deliberately absent: connections that are taken over.

use std::collections::BTreeMap;

use serde_json::{json, Value};

use super::ideal::World;
use crate::dice::Dice;

const KEEPERS: usize = 4;

/// A client.
#[derive(Default)]
pub(super) struct Keeper {
    name: String,
    life: u64,
    attached: bool,
    /// Its session's index in the log.
    at: usize,
    /// Unacknowledged events, by their index in the log: the packet identifier, and whether this connection has delivered it.
    held: BTreeMap<usize, (u16, bool)>,
    /// What was acknowledged on this connection.
    acknowledged: Vec<(usize, u16)>,
    packet: u16,
}

/// One of the clients makes a step.
pub(super) fn step(world: &mut World, dice: &mut Dice) {
    if world.keepers.len() < KEEPERS && dice.chance(0.3) {
        let keeper = Keeper { name: format!("s{}", world.keepers.len()), ..Keeper::default() };
        world.keepers.push(keeper);
        return attach(world, KEEPERS.min(world.keepers.len()) - 1);
    }
    if world.keepers.is_empty() {
        return;
    }
    let one = dice.below(world.keepers.len() as u64) as usize;
    match (world.keepers[one].attached, dice.chance(0.3)) {
        (false, _) => attach(world, one),
        (true, true) => leave(world, one, dice),
        (true, false) => hear(world, one, 1 + dice.below(8) as usize, dice),
    }
}

/// All clients receive the remaining events.
pub(super) fn end(world: &mut World, dice: &mut Dice) {
    for one in 0..world.keepers.len() {
        if !world.keepers[one].attached {
            attach(world, one);
        }
        hear(world, one, usize::MAX, dice);
    }
}

fn attach(world: &mut World, one: usize) {
    let end = world.log.len();
    let keeper = &mut world.keepers[one];
    keeper.life += 1;
    keeper.attached = true;
    keeper.acknowledged.clear();
    keeper.held.values_mut().for_each(|(_, seen)| *seen = false);
    let (name, life) = (keeper.name.clone(), keeper.life);
    if life == 1 {
        keeper.at = end;
    }
    let asked = json!({ "client": name, "life": life, "node": 1 });
    let mut answer = asked.clone();
    answer["present"] = (life > 1).into();
    world.at_once("attach", asked, answer);
    if life == 1 {
        let pattern = json!({ "match": "below", "topic": "log" });
        let filter = json!({ "client": name, "life": life, "pattern": pattern });
        world.at_once("filter", filter.clone(), filter);
    }
}

fn hear(world: &mut World, one: usize, most: usize, dice: &mut Dice) {
    let keeper = &mut world.keepers[one];
    let mut events: Vec<Value> = Vec::new();
    for (place, (packet, seen)) in &mut keeper.held {
        if !*seen && events.len() < most {
            let (_, topic, id) = &world.log[*place];
            events.push(json!([topic, id, *packet, true]));
            *seen = true;
        }
    }
    while events.len() < most && keeper.at < world.log.len() {
        let (_, topic, id) = &world.log[keeper.at];
        if topic.starts_with("log.") {
            keeper.packet += 1;
            keeper.held.insert(keeper.at, (keeper.packet, true));
            events.push(json!([topic, id, keeper.packet, false]));
        }
        keeper.at += 1;
    }
    let mut acknowledged = Vec::new();
    while dice.chance(0.8) {
        let Some(first) = keeper.held.first_entry().filter(|first| first.get().1) else { break };
        let (place, (packet, _)) = first.remove_entry();
        acknowledged.push(world.log[place].2.clone());
        keeper.acknowledged.push((place, packet));
    }
    let (name, life) = (keeper.name.clone(), keeper.life);
    let asked = json!({ "client": name, "life": life });
    let answer =
        json!({ "client": name, "life": life, "events": events, "acknowledged": acknowledged });
    world.at_once("hear", asked, answer);
}

fn leave(world: &mut World, one: usize, dice: &mut Dice) {
    let goodbye = dice.chance(0.7);
    let keeper = &mut world.keepers[one];
    keeper.attached = false;
    if !goodbye && dice.chance(0.5) {
        // Its node had no time to record the acknowledgements.
        let lost = std::mem::take(&mut keeper.acknowledged);
        keeper.held.extend(lost.into_iter().map(|(place, packet)| (place, (packet, false))));
    }
    let (name, life) = (keeper.name.clone(), keeper.life);
    let leave = json!({ "client": name, "life": life, "goodbye": goodbye, "closed": goodbye });
    world.at_once("leave", leave.clone(), leave);
}
