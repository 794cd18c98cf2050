//! Small histories written by hand: what each check must find, and what it must accept.
//!
//! Invariant: each bad history is next to a good one that differs in one answer.
//!
//! Deliberately absent: whole runs; see `ideal` and `damage`.

use serde_json::{json, Value};

use super::{judge, Story};
use crate::dice::Dice;
use crate::op::{Kind, Op, Process};

/// A history under construction.
#[derive(Default, Clone)]
struct Tale(Vec<Op>);

impl Tale {
    fn say(mut self, kind: Kind, process: u64, f: &str, value: Value) -> Self {
        let index = self.0.len() as u64;
        let process = Process::Client(process);
        self.0.push(Op { index, time: index, kind, process, f: f.to_owned(), value });
        self
    }

    fn ask(self, process: u64, f: &str, value: Value) -> Self {
        self.say(Kind::Invoke, process, f, value)
    }

    fn ok(self, process: u64, f: &str, value: Value) -> Self {
        self.say(Kind::Ok, process, f, value)
    }

    fn fail(self, process: u64, f: &str, value: Value) -> Self {
        self.say(Kind::Fail, process, f, value)
    }

    /// A line about a fault of the first node.
    fn nemesis(self, f: &str) -> Self {
        self.nemesis_of(1, f)
    }

    fn nemesis_of(mut self, number: u64, f: &str) -> Self {
        let index = self.0.len() as u64;
        let value = json!({ "number": number, "nemesis": "kill", "how": "one", "nodes": [1] });
        let (kind, process) = (Kind::Info, Process::Nemesis);
        self.0.push(Op { index, time: index, kind, process, f: f.to_owned(), value });
        self
    }

    /// A complete read of the log.
    fn log(self, events: Value) -> Self {
        let asked = json!({ "consumer": "drain", "life": 1, "node": 1, "protocol": "wamp", "drain": true,
                            "pattern": { "match": "below", "topic": "x" }, "mode": "events" });
        let poll = json!({ "consumer": "drain", "life": 1, "events": events, "ended": true });
        self.ask(90, "subscribe", asked.clone())
            .ok(90, "subscribe", asked)
            .ask(90, "poll", json!({ "consumer": "drain", "life": 1 }))
            .ok(90, "poll", poll)
    }

    /// Names of the checks that are red.
    fn red(&self) -> Vec<&'static str> {
        judge(&Story::new(&self.0).unwrap()).red()
    }
}

/// A publish by session `s`, or its answer, if there is a position.
fn event(number: u64, id: &str, topic: &str, position: Option<u64>) -> Value {
    let mut value = json!({ "session": "s", "number": number, "id": id, "topic": topic, "node": 1,
                            "protocol": "wamp", "retain": true });
    if let Some(position) = position {
        value["position"] = position.into();
    }
    value
}

fn expecting(mut value: Value, expected: &str) -> Value {
    value["expect"] = expected.into();
    value
}

fn read(id: Option<&str>) -> Value {
    json!({ "topic": "r", "node": 1, "id": id })
}

/// Two values written one after the other to a register, followed by the rest.
fn register(then: impl FnOnce(Tale) -> Tale) -> Vec<&'static str> {
    let tale = Tale::default()
        .ask(1, "write", event(1, "a", "r", None))
        .ok(1, "write", event(1, "a", "r", Some(1)))
        .ask(1, "write", event(2, "b", "r", None))
        .ok(1, "write", event(2, "b", "r", Some(2)));
    then(tale).log(json!([[1, "r", "a", false], [2, "r", "b", false]])).red()
}

#[test]
fn registers() {
    let clean: [&str; 0] = [];
    let reads = |id| register(|tale| tale.ask(2, "read", read(None)).ok(2, "read", read(Some(id))));
    assert_eq!(reads("b"), clean);
    assert_eq!(reads("a"), ["register"]);
    assert_eq!(reads("c"), ["register"]);
    assert_eq!(reads(""), ["register"]);
    let refused = |expected| {
        let asked = expecting(event(3, "c", "r", None), expected);
        register(|tale| tale.ask(1, "cas", asked.clone()).fail(1, "cas", asked))
    };
    assert_eq!(refused("a"), clean);
    assert_eq!(refused("b"), ["register"]);
    assert_eq!(refused(""), clean);
    // A read that overlaps a write may see either value, but not the old one after another read has seen the new one.
    let overlapping = |first, second| {
        Tale::default()
            .ask(1, "write", event(1, "a", "r", None))
            .ask(2, "read", read(None))
            .ok(2, "read", read(Some(first)))
            .ask(2, "read", read(None))
            .ok(2, "read", read(Some(second)))
            .ok(1, "write", event(1, "a", "r", Some(1)))
            .log(json!([[1, "r", "a", false]]))
            .red()
    };
    assert_eq!(overlapping("", "a"), clean);
    assert_eq!(overlapping("a", "a"), clean);
    assert_eq!(overlapping("", ""), clean);
    let late = register(|tale| {
        tale.ask(2, "read", read(None))
            .ask(1, "write", event(3, "c", "r", None))
            .ask(3, "read", read(None))
            .ok(3, "read", read(Some("b")))
            .ok(2, "read", read(Some("a")))
    });
    assert_eq!(late, ["register"]);
}

/// Whether any order of all operations explains a register's history: tries every order.
fn explained(ops: &[(usize, usize, Value)], writes: &[Value]) -> bool {
    fn go(
        ops: &[(usize, usize, Value)],
        writes: &[Value],
        done: u32,
        now: &str,
        at: usize,
    ) -> bool {
        (0..ops.len()).all(|op| done & (1 << op) != 0)
            || (0..ops.len()).filter(|op| done & (1 << op) == 0).any(|op| {
                let (begin, _, value) = &ops[op];
                let first = (0..ops.len())
                    .all(|other| done & (1 << other) != 0 || ops[other].1 > *begin || other == op);
                let id = value["id"].as_str().unwrap_or_default();
                let (fits, next, at) = match value["f"].as_str() {
                    Some("read") => (id == now, now, at),
                    _ => (writes.get(at) == Some(&value["id"]), id, at + 1),
                };
                first && fits && go(ops, writes, done | (1 << op), next, at)
            })
    }
    go(ops, writes, 0, "", 0)
}

#[test]
fn registers_are_judged_as_by_trying_every_order() {
    let mut verdicts = [0, 0];
    for seed in 0..3_000 {
        let mut dice = Dice::new(seed);
        let count = dice.between(2, 6) as usize;
        // Each operation begins and ends at some of these moments.
        let mut moments: Vec<usize> = (0..2 * count).collect();
        dice.shuffle(&mut moments);
        let mut writes = Vec::new();
        let mut ops = Vec::new();
        for (number, ends) in moments.chunks(2).enumerate() {
            let (begin, end) = (ends[0].min(ends[1]), ends[0].max(ends[1]));
            let write = number == 0 || dice.chance(0.5);
            let id = format!("v{}", if write { number } else { dice.below(count as u64) as usize });
            if write {
                writes.push(json!(id));
            }
            ops.push((begin, end, json!({ "f": if write { "write" } else { "read" }, "id": id })));
        }
        dice.shuffle(&mut writes);
        let place = |id: &Value| writes.iter().position(|w| w == id).map(|place| place as u64 + 1);
        let mut lines: Vec<(usize, Kind, usize)> = Vec::new();
        for (number, (begin, end, _)) in ops.iter().enumerate() {
            lines.extend([(*begin, Kind::Invoke, number), (*end, Kind::Ok, number)]);
        }
        lines.sort_by_key(|(moment, ..)| *moment);
        let mut tale = Tale::default();
        for (_, kind, number) in lines {
            let value = &ops[number].2;
            let id = value["id"].as_str().unwrap_or_default();
            let said = match value["f"].as_str() {
                Some("read") => read((kind == Kind::Ok).then_some(id)),
                _ => {
                    let position = place(&value["id"]).filter(|_| kind == Kind::Ok);
                    let mut said = event(1, id, "r", position);
                    said["session"] = id.into();
                    said
                }
            };
            tale = tale.say(kind, number as u64, value["f"].as_str().unwrap_or_default(), said);
        }
        let log: Vec<Value> = writes.iter().map(|id| json!([place(id), "r", id, false])).collect();
        let clean = !tale.log(json!(log)).red().contains(&"register");
        assert_eq!(clean, explained(&ops, &writes), "seed {seed}: {ops:?}, log {writes:?}");
        verdicts[usize::from(clean)] += 1;
    }
    assert!(verdicts[0] > 500 && verdicts[1] > 300, "{verdicts:?}");
}

#[test]
fn unknown_outcomes_are_right_either_way() {
    let clean: [&str; 0] = [];
    let asked = event(1, "a", "t", None);
    for log in [json!([]), json!([[1, "t", "a", false]])] {
        let info = Tale::default().ask(1, "publish", asked.clone());
        assert_eq!(info.clone().log(log.clone()).red(), clean);
        assert_eq!(info.say(Kind::Info, 1, "publish", asked.clone()).log(log).red(), clean);
    }
    let refused = Tale::default().ask(1, "publish", asked.clone()).fail(1, "publish", asked);
    assert_eq!(refused.clone().log(json!([])).red(), clean);
    assert_eq!(refused.log(json!([[1, "t", "a", false]])).red(), ["phantom"]);
}

#[test]
fn logs() {
    let both = Tale::default()
        .ask(1, "publish", event(1, "a", "t", None))
        .ok(1, "publish", event(1, "a", "t", Some(3)))
        .ask(1, "publish", event(2, "b", "t", None))
        .ok(1, "publish", event(2, "b", "t", Some(5)));
    let (a, b) = (json!([3, "t", "a", false]), json!([5, "t", "b", false]));
    let clean: [&str; 0] = [];
    let table = [
        (json!([a, b]), &clean[..]),
        (json!([a]), &["loss"]),
        (json!([b, a]), &["consumers"]),
        (json!([a, b, [6, "t", "c", false]]), &["phantom"]),
        (json!([a, b, [6, "t", "a", false]]), &["positions"]),
        (json!([[3, "u", "a", false], b]), &["loss", "phantom", "positions"]),
        (
            json!([[5, "t", "a", false], [3, "t", "b", false]]),
            &["loss", "positions", "consumers", "publishers", "real-time"],
        ),
    ];
    for (log, red) in table {
        assert_eq!(both.clone().log(log.clone()).red(), red, "{log}");
    }
}

#[test]
fn locks() {
    let acquire = |session: &str, id: &str, position: Option<u64>| {
        let mut value = expecting(event(1, id, "l", position), "");
        value["session"] = session.into();
        value["watch"] = true.into();
        value["will"] = "".into();
        value
    };
    let used = |session: &str, token| json!({ "topic": "l", "session": session, "token": token });
    let two = Tale::default()
        .ask(1, "acquire", acquire("s", "a", None))
        .ok(1, "acquire", acquire("s", "a", Some(1)))
        .ask(2, "acquire", acquire("z", "b", None))
        .ok(2, "acquire", acquire("z", "b", Some(4)));
    let (a, free, b) =
        (json!([1, "l", "a", false]), json!([3, "l", "", false]), json!([4, "l", "b", false]));
    let clean: [&str; 0] = [];
    // The first holder's session may have ended: nothing proves that it had not.
    assert_eq!(two.clone().log(json!([a, free, b])).red(), clean);
    assert_eq!(two.clone().log(json!([a, b])).red(), ["locks"]);
    // It had not ended, because it publishes later.
    let lives = two.clone().ask(1, "publish", event(2, "c", "t", None));
    let lives = lives.ok(1, "publish", event(2, "c", "t", Some(6)));
    assert_eq!(lives.log(json!([a, free, b, [6, "t", "c", false]])).red(), ["locks"]);
    let uses = |first: Value, second: Value| {
        let tale = two.clone().ask(1, "use", first.clone()).ok(1, "use", first);
        tale.ask(2, "use", second.clone()).ok(2, "use", second).log(json!([a, free, b])).red()
    };
    assert_eq!(uses(used("s", 1), used("z", 4)), clean);
    assert_eq!(uses(used("z", 4), used("s", 1)), ["locks"]);
    assert_eq!(uses(used("s", 1), used("z", 2)), ["locks"]);
}

#[test]
fn calls() {
    let call = |result: Option<u64>| {
        let mut value = json!({ "id": "c", "node": 1, "argument": 5 });
        if let Some(result) = result {
            value["result"] = result.into();
        }
        value
    };
    let invoked = |id: &str| json!({ "id": id, "node": 2 });
    let made = |times: usize, answer: &dyn Fn(Tale) -> Tale| {
        let mut tale = Tale::default().ask(1, "call", call(None));
        for process in 0..times as u64 {
            tale = tale.say(Kind::Info, 10 + process, "invoked", invoked("c"));
        }
        answer(tale).red()
    };
    let clean: [&str; 0] = [];
    let right = |tale: Tale| tale.ok(1, "call", call(Some(6)));
    let refused = |tale: Tale| tale.fail(1, "call", call(None));
    let unknown = |reason: &'static str| {
        move |tale: Tale| {
            let mut value = call(None);
            value["reason"] = reason.into();
            tale.say(Kind::Info, 1, "call", value)
        }
    };
    assert_eq!(made(1, &right), clean);
    assert_eq!(made(0, &right), ["calls"]);
    assert_eq!(made(2, &right), ["calls"]);
    assert_eq!(made(1, &|tale: Tale| tale.ok(1, "call", call(Some(5)))), ["calls"]);
    assert_eq!(made(0, &refused), clean);
    assert_eq!(made(1, &refused), ["calls"]);
    assert_eq!(made(0, &unknown("wamp.error.canceled")), clean);
    assert_eq!(made(1, &unknown("wamp.error.canceled")), clean);
    assert_eq!(made(2, &unknown("wamp.error.canceled")), ["calls"]);
    assert_eq!(made(0, &unknown("unanswered")), ["calls"]);
    let again = |tale: Tale| right(tale).say(Kind::Info, 2, "answer", call(Some(6)));
    assert_eq!(made(1, &again), ["calls"]);
    let nobody = Tale::default().say(Kind::Info, 1, "invoked", invoked("d"));
    assert_eq!(nobody.red(), ["calls"]);
    // The callee's node, or the caller's, is killed during the call, and the caller gets the error this much later.
    let killed = |node: u64, seconds: u64, meanwhile: &[&str]| {
        let mut tale = Tale::default().ask(1, "call", call(None));
        let invoked = json!({ "id": "c", "node": node });
        tale = tale.say(Kind::Info, 2, "invoked", invoked);
        tale = tale.nemesis("strike").nemesis("start");
        tale = meanwhile.iter().fold(tale, |tale, f| tale.nemesis_of(2, f));
        let mut lost = call(None);
        lost["node"] = 3.into();
        lost["reason"] = "wamp.error.canceled".into();
        tale.0[0].value["node"] = 3.into();
        tale = tale.say(Kind::Info, 1, "call", lost);
        tale.0.last_mut().unwrap().time = seconds * 1_000_000_000;
        tale.red()
    };
    assert_eq!(killed(1, 1, &[]), clean);
    assert_eq!(killed(1, 3, &[]), ["calls"]);
    assert_eq!(killed(2, 3, &[]), clean, "another node died");
    assert_eq!(killed(1, 3, &["strike", "start"]), clean, "something else is wrong");
}

#[test]
fn sessions() {
    let attach = |life: u64, present: Option<bool>| json!({ "client": "s", "life": life, "node": 1, "present": present });
    let hear = |life: u64, events: Value, acknowledged: Value| json!({ "client": "s", "life": life, "events": events, "acknowledged": acknowledged });
    let event_of = |id: &str, packet: u64, again: bool| json!(["t.k", id, packet, again]);
    let pattern = json!({ "match": "below", "topic": "t" });
    let filter = json!({ "client": "s", "life": 1, "pattern": pattern });
    let published = |tale: Tale, number: u64, id: &str| {
        tale.ask(1, "publish", event(number, id, "t.k", None)).ok(
            1,
            "publish",
            event(number, id, "t.k", Some(number)),
        )
    };
    // Two events reach the first connection, which acknowledges the first; a third comes while it is away.
    let tale = |goodbye: bool, present: bool, second: Value, meanwhile: &[&str]| {
        let tale = Tale::default().ask(2, "attach", attach(1, None));
        let tale = tale.ok(2, "attach", attach(1, Some(false)));
        let tale = tale.ask(2, "filter", filter.clone()).ok(2, "filter", filter.clone());
        let tale = published(published(tale, 1, "a"), 2, "b");
        let seen = json!([event_of("a", 1, false), event_of("b", 2, false)]);
        let heard = hear(1, seen, json!(["a"]));
        let tale = tale.ask(2, "hear", heard.clone()).ok(2, "hear", heard);
        let left = json!({ "client": "s", "life": 1, "goodbye": goodbye, "closed": goodbye });
        let tale = tale.ask(2, "leave", left.clone()).ok(2, "leave", left);
        let tale = meanwhile.iter().fold(tale, |tale, f| tale.nemesis(f));
        let tale = published(tale, 3, "c").ask(2, "attach", attach(2, None));
        let tale = tale.ok(2, "attach", attach(2, Some(present)));
        let heard = hear(2, second, json!([]));
        let tale = tale.ask(2, "hear", heard.clone()).ok(2, "hear", heard);
        let log = ["a", "b", "c"].iter().zip(1..).map(|(id, at)| json!([at, "t.k", id, false]));
        tale.log(log.collect())
    };
    let run =
        |goodbye: bool, present: bool, second: Value| tale(goodbye, present, second, &[]).red();
    let clean: [&str; 0] = [];
    let (b, c) = (event_of("b", 2, true), event_of("c", 3, false));
    assert_eq!(run(true, true, json!([b, c])), clean);
    assert_eq!(run(true, true, json!([])), clean);
    assert_eq!(run(true, false, json!([b, c])), ["sessions"]);
    assert_eq!(run(true, true, json!([c])), ["sessions"], "one that was not acknowledged is gone");
    assert_eq!(run(true, true, json!([event_of("b", 2, false), c])), ["sessions"], "no mark");
    assert_eq!(run(true, true, json!([event_of("b", 9, true), c])), ["sessions"], "another packet");
    assert_eq!(run(true, true, json!([c, b])), ["sessions"], "in the wrong order");
    assert_eq!(run(true, true, json!([b, b])), ["sessions"], "twice on one connection");
    assert_eq!(run(true, true, json!([b, event_of("d", 3, false)])), ["sessions"], "no such event");
    // An acknowledged event may come again only if the node may not know of the acknowledgement.
    let a = event_of("a", 1, true);
    assert_eq!(run(true, true, json!([a, b, c])), ["sessions"]);
    for (number, meanwhile) in
        [&["strike", "start"][..], &["strike"], &["strike", "failed"]].iter().enumerate()
    {
        assert_eq!(tale(true, true, json!([a, b, c]), meanwhile).red(), clean, "{number}");
    }
    // A fault after the client is back excuses nothing, however soon it comes.
    let late = tale(true, true, json!([a, b, c]), &[]).nemesis("strike").nemesis("start");
    assert_eq!(late.red(), ["sessions"]);
    assert_eq!(run(false, true, json!([a, b, c])), clean);
    assert_eq!(run(false, true, json!([event_of("a", 1, false), b, c])), ["sessions"]);
    assert_eq!(run(false, true, json!([event_of("b", 9, true), c])), clean);
}

#[test]
fn wills() {
    let left = json!({ "session": "m", "node": 1, "topic": "w", "will": "down" });
    let run = |end: Value, log: Value| {
        let tale =
            Tale::default().ask(2, "testament", left.clone()).ok(2, "testament", left.clone());
        tale.say(Kind::Info, 3, "end", end).log(log).red()
    };
    let (came, none) = (json!([[1, "w", "down", false]]), json!([]));
    let end = |clean: bool, known: bool| json!({ "session": "m", "clean": clean, "known": known });
    let clean: [&str; 0] = [];
    assert_eq!(run(end(false, false), came.clone()), clean);
    assert_eq!(run(end(false, false), none.clone()), ["wills"]);
    assert_eq!(run(end(true, true), none.clone()), clean);
    assert_eq!(run(end(true, true), came.clone()), ["wills"]);
    // The node may have died before it recorded the goodbye.
    assert_eq!(run(end(true, false), none), clean);
    assert_eq!(run(end(true, false), came), clean);
}

#[test]
fn wills_come_before_what_their_client_says_next() {
    let life = |session: &str| json!({ "session": session, "client": "c", "node": 1, "topic": "w", "will": format!("down-{session}") });
    let birth = |session: &str, position| {
        let mut value = event(1, &format!("up-{session}"), "w", position);
        value["session"] = session.into();
        value
    };
    let end = |session: &str| json!({ "session": session, "clean": false });
    let run = |known: bool, log: Value| {
        let mut tale = Tale::default().ask(2, "testament", life("a"));
        tale = match known {
            true => tale.ok(2, "testament", life("a")),
            false => tale.say(Kind::Info, 2, "testament", life("a")),
        };
        tale.say(Kind::Info, 3, "end", end("a"))
            .ask(4, "testament", life("b"))
            .ok(4, "testament", life("b"))
            .ask(4, "publish", birth("b", None))
            .ok(4, "publish", birth("b", Some(5)))
            .log(log)
            .red()
    };
    let clean: [&str; 0] = [];
    let up = json!([5, "w", "up-b", false]);
    let before = json!([[4, "w", "down-a", false], up]);
    let behind = json!([up, [6, "w", "down-a", false]]);
    assert_eq!(run(true, before.clone()), clean);
    assert_eq!(run(true, behind.clone()), ["wills"]);
    // A connection that the client did not know to be open may have been opened later.
    assert_eq!(run(false, before), clean);
    assert_eq!(run(false, behind), clean);
}

#[test]
fn histories_that_break_their_rules_are_refused() {
    let asked = || event(1, "a", "t", None);
    let bad = [
        Tale::default().ok(1, "publish", asked()),
        Tale::default().ask(1, "publish", asked()).ask(1, "publish", asked()),
        Tale::default().ask(1, "publish", asked()).ok(1, "write", asked()),
        Tale::default().ask(1, "dance", json!({})).ok(1, "dance", json!({})),
        Tale::default().nemesis("start"),
        Tale::default().ask(1, "publish", json!({})).ok(1, "publish", json!({})),
        Tale::default().ask(1, "publish", asked()).say(Kind::Info, 1, "publish", asked()).ask(
            1,
            "publish",
            asked(),
        ),
        Tale::default().ask(1, "poll", json!({})).ok(
            1,
            "poll",
            json!({ "consumer": "c", "life": 1 }),
        ),
    ];
    for (number, tale) in bad.iter().enumerate() {
        assert!(Story::new(&tale.0).is_err(), "{number}");
    }
}
