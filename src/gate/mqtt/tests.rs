//! The MQTT gate by scripts: each line is an input, or an expected output.
//!
//! ```text
//! in P; P…            packets come           out P; P…       exactly these packets go
//! opened              the realm is open      ask R           exactly this request is made
//! stored 0 2          two publishes, from sequence 0 on, are stored; also: unknown, lost
//! subscribed 1        also: gone 1 7, ahead 1 7, toomany 1, unavailable 1, unsubscribed 1, ended 1
//! decided 0 7         the first publish is accepted at position 7; also: notaccepted 0, linefull 0, sessionended 0
//! deliver T qQ by S to 1,2 X          an event (77 is the session itself, 78 an earlier one of its client);
//!                                     also: change, an event to be retained; retained, a retained value
//! cursor 7 first T qQ by S to 1,2 X   the event at position 7 at the session's cursor; also: doubtful, again:PACKETID
//! resume 5 7:1,9:2 a/b@4q1            a persistent session continues: back at 5, in flight, filters, with received:PACKETID a
//!                                     publish of QoS 2 that is not complete; also: keeps, a new one
//! noted / noroom                      the oldest filter change is done, or there was no room for it
//! givesup 2                           the message under this identifier may not be seen any more
//! leaves 7:1                          the messages in flight for later sessions
//! at 500 / tick       time passes; then the gate's `tick` is called
//! full / room         whether it can deliver
//! dropped X           why a message was dropped without an answer
//! reason X            why it closed
//! ```
//!
//! A packet is its first byte, `|` for the remaining length, then hexadecimal bytes, `"raw text"`, `s"text with
//! length"` (in which a backtick stands for `"`) and `p[list of properties with its length]`. `$NAME` stands for a
//! text from [`SHORT`].
//!
//! Invariant: before each input of a script, the gate has no output left that the script did not expect.

mod bytes_in;
mod deliver;
mod exactly_once;
mod handshake;
mod login;
mod persistent;
mod publish;
mod retained;
mod rules;
mod subscribe;
mod terms;
mod wills;

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use vulpes_raft::ids::{EventId, Position, Slot, Stamp};

use super::packet::publish::put_varint;
use super::{MqttConfig, MqttGate};
use crate::gate::{
    Delivery, EndReason, Gate, OpenRefusal, PersistentReading, Request, Resumed, RetainedMode,
    Sending,
};
use crate::payload::{encode, Serializer};
use crate::segment::StoredEvent;
use crate::types::act::{Act, InFlight, PersistentSubscription, Refusal, Will};
use crate::types::answer::{Answer, PublishError, Stored};
use crate::types::event::{ClientTag, Extensions, Payload, Qos, SessionId};
use crate::types::moment::Moment;
use crate::types::subscription::{SubscribeError, SubscriptionId};
use crate::types::topic::{Realm, Topic};
use crate::types::value::Value;

/// Texts that scripts use often.
const SHORT: &[(&str, &str)] = &[
    ("$CONNECT4", r#"10 | s"MQTT" 04 02 000a s"c""#),
    ("$CONNECT5", r#"10 | s"MQTT" 05 02 000a p[] s"c""#),
    ("$CONNACK4", "20 | 0000"),
    ("$CONNACK5", "20 | 0000 p[21 2000 27 00108000 22 0000 2801 2901 2a00]"),
    ("$ASK", r#"open realm="home" client="c""#),
];

/// An open session of each version, without further input.
const OPEN4: &str = "in $CONNECT4\nask $ASK\nopened\nout $CONNACK4\n";
const OPEN5: &str = "in $CONNECT5\nask $ASK\nopened\nout $CONNACK5\n";

const SESSION: SessionId = SessionId(77);

fn new_gate() -> MqttGate {
    let realms = ["home", "home.lab", "c"].map(|name| Realm::new(name).unwrap());
    let default_realm = realms[0].clone();
    let config = MqttConfig {
        default_realm,
        realms: Arc::new(realms.into()),
        merging: crate::gate::MergingRealms::from_iter([Realm::new("home.lab").unwrap()]),
    };
    MqttGate::new(config, SESSION, Moment(0))
}

/// Runs a script.
fn check(script: &str) {
    check_gate(new_gate(), script);
}

fn check_gate(mut gate: MqttGate, script: &str) {
    let (mut opened, mut refused) = (false, false);
    let mut now = Moment(0);
    for (number, line) in script.lines().map(str::trim).enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut line = line.to_owned();
        for (short, text) in SHORT {
            line = line.replace(short, text);
        }
        let place = format!("line {}: {line}\nof script:\n{script}", number + 1);
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match word {
            "out" => {
                let output = gate.poll_output().unwrap_or_default();
                assert_eq!(hex(&output), hex(&packets(rest)), "{place}");
                refused = !opened && rest.starts_with("20 ");
            }
            "ask" => {
                let request = gate.poll_request().map(|request| show(&request));
                // A client that is refused leaves no will.
                let expected = match rest {
                    "close" if refused => "close dropping the will",
                    rest => rest,
                };
                assert_eq!(request.as_deref(), Some(expected), "{place}");
            }
            _ => {
                opened |= word == "opened";
                refused = false;
                assert_quiet(&mut gate, &place);
                happen(&mut gate, &mut now, word, rest, &place);
            }
        }
    }
    assert_quiet(&mut gate, script);
}

fn assert_quiet(gate: &mut MqttGate, place: &str) {
    let request = gate.poll_request().map(|request| show(&request));
    let output = gate.poll_output().map(|output| hex(&output));
    assert_eq!((request, output), (None, None), "not expected before {place}");
}

fn happen(gate: &mut MqttGate, now: &mut Moment, word: &str, rest: &str, place: &str) {
    let words: Vec<&str> = rest.split_whitespace().collect();
    let number = |at: usize| words[at].parse::<u64>().unwrap_or_else(|_| panic!("{place}"));
    let id = |at: usize| SubscriptionId(number(at));
    match word {
        "in" => gate.receive(packets(rest), *now),
        "login" => login::happen(gate, rest),
        "opened" => gate.opened(Ok(())),
        "norealm" => gate.opened(Err(OpenRefusal::NoSuchRealm)),
        "nonode" => gate.opened(Err(OpenRefusal::Unavailable)),
        "busy" => gate.opened(Err(OpenRefusal::TooManyConnections)),
        "stored" => {
            let (slot, stamp) = (Slot(3), Stamp(0));
            let stored = Stored { position: Position(9), slot, stamp, offset: 0 };
            gate.answered(answer(number(0), number(1), Ok(stored)));
        }
        "decided" => {
            let (slot, stamp) = (Slot(3), Stamp(0));
            let stored = Stored { position: Position(number(1)), slot, stamp, offset: 0 };
            gate.decided(number(0), Ok(stored));
        }
        "notaccepted" => gate.decided(number(0), Err(Refusal::NotAccepted)),
        "linefull" => gate.decided(number(0), Err(Refusal::LineFull)),
        "sessionended" => gate.decided(number(0), Err(Refusal::SessionEnded)),
        "unknown" => gate.answered(answer(number(0), number(1), Err(PublishError::Unknown))),
        "lost" => gate.answered(answer(number(0), number(1), Err(PublishError::NotStored))),
        "subscribed" => gate.subscribed(id(0), Ok(())),
        "gone" => {
            gate.subscribed(id(0), Err(SubscribeError::Gone { oldest: Position(number(1)) }));
        }
        "ahead" => {
            gate.subscribed(id(0), Err(SubscribeError::Ahead { last: Position(number(1)) }));
        }
        "toomany" => gate.subscribed(id(0), Err(SubscribeError::TooMany)),
        "unavailable" => gate.subscribed(id(0), Err(SubscribeError::Unavailable)),
        "unsubscribed" => gate.unsubscribed(id(0)),
        "ended" => gate.ended(id(0)),
        "deliver" | "change" | "retained" | "cursor" => deliver_line(gate, word, rest),
        "resume" | "keeps" => resume_line(gate, word == "resume", &words),
        "givesup" => gate.give_up(number(0) as u16),
        "noted" => gate.noted(true),
        "noroom" => gate.noted(false),
        "leaves" => {
            let left = gate.handover().in_flight;
            let left = left.iter().map(|m| format!("{}:{}", m.position, m.packet_id));
            assert_eq!(left.collect::<Vec<_>>().join(","), rest, "{place}");
        }
        "at" => *now = Moment(number(0)),
        "tick" => gate.tick(*now),
        "alive" => gate.alive(*now),
        "deadline" => {
            let deadline = rest.parse().ok().map(Moment);
            assert_eq!(gate.deadline(), deadline, "{place}");
        }
        "full" => assert!(!gate.can_deliver(), "{place}"),
        "room" => assert!(gate.can_deliver(), "{place}"),
        "dropped" => assert_eq!(gate.poll_dropped().unwrap().reason, rest, "{place}"),
        "oversized" => assert_eq!(gate.oversized(), number(0), "{place}"),
        "reason" if rest == "none" => assert_eq!(gate.close_reason(), None, "{place}"),
        "reason" => assert_eq!(gate.close_reason(), Some(rest), "{place}"),
        "shutdown" => gate.end(EndReason::Shutdown),
        "takenover" => gate.end(EndReason::TakenOver),
        "leaselost" => gate.end(EndReason::Lost),
        "fellbehind" => gate.end(EndReason::FellBehind { oldest: Position(7) }),
        "tooslow" => gate.end(EndReason::TooSlow),
        "unanswerable" => gate.end(EndReason::Unavailable),
        _ => panic!("what is {place}"),
    }
}

fn answer(first: u64, count: u64, outcome: Result<Stored, PublishError>) -> Answer {
    Answer { first, count: count as u32, outcome }
}

fn resume_line(gate: &mut MqttGate, present: bool, words: &[&str]) {
    let mut words = words.iter();
    let back_at = words.next().map_or(0, |word| word.parse().unwrap());
    let in_flight = words.next().copied().unwrap_or_default().split(',');
    let in_flight = in_flight.filter_map(|message| {
        let (position, packet_id) = message.split_once(':')?;
        let (position, packet_id) = (position.parse().unwrap(), packet_id.parse().unwrap());
        Some(InFlight { position: Position(position), packet_id })
    });
    let received = words.clone().filter_map(|word| word.strip_prefix("received:")?.parse().ok());
    let received = received.collect();
    let filters = words.filter(|word| !word.starts_with("received:")).map(|filter| {
        let (text, rest) = filter.split_once('@').unwrap();
        let (from, qos) = rest.split_once('q').unwrap();
        let persistent = PersistentSubscription {
            qos: Qos::from_tag(qos.parse().unwrap()).unwrap(),
            no_local: false,
            retain_as_published: false,
            changes: false,
            identifier: None,
            condition: None,
        };
        (text.to_owned(), persistent, Position(from.parse().unwrap()))
    });
    gate.resume(Resumed {
        present,
        in_flight: in_flight.collect(),
        received,
        filters: filters.collect(),
        back_at: Position(back_at),
    });
}

fn deliver_line(gate: &mut MqttGate, how: &str, line: &str) {
    let (at, line) = match (how, line.split_once(' ')) {
        ("cursor", Some((position, rest))) => {
            let (sending, rest) = rest.split_once(' ').unwrap();
            let sending = match sending.split_once(':') {
                Some(("again", packet_id)) => Sending::Again(packet_id.parse().unwrap()),
                _ if sending == "doubtful" => Sending::Doubtful,
                _ => Sending::First,
            };
            ((Position(position.parse().unwrap()), sending), rest)
        }
        _ => ((Position(1), Sending::Aside), line),
    };
    let mut words = line.splitn(7, ' ');
    let mut word = || words.next().unwrap();
    let topic = Topic::from_mqtt(word()).unwrap();
    let qos = Qos::from_tag(word()[1..].parse().unwrap()).unwrap();
    let (_, publisher, _) = (word(), word().parse().unwrap(), word());
    let subscriptions: Vec<_> =
        word().split(',').flat_map(str::parse).map(SubscriptionId).collect();
    let rest = words.next().unwrap_or_default();
    let (payload, properties) = rest.split_once(" with ").unwrap_or((rest, ""));
    let mut event = stored(publisher, qos, Payload::raw(assemble(payload)), assemble(properties));
    event.retain = matches!(how, "change" | "retained");
    deliver(gate, &topic, &event, (how == "retained", at), &subscriptions);
}

/// To subscription 1, with QoS 1 on topic `a`.
fn deliver_payload(gate: &mut MqttGate, payload: Payload) {
    let event = stored(1, Qos::AtLeastOnce, payload, Bytes::new());
    let how = (false, (Position(1), Sending::Aside));
    deliver(gate, &Topic::from_mqtt("a").unwrap(), &event, how, &[SubscriptionId(1)]);
}

fn stored(publisher: u64, qos: Qos, payload: Payload, properties: Bytes) -> StoredEvent {
    StoredEvent {
        offset: 0,
        topic: 0,
        publisher: SessionId(publisher),
        client: match publisher {
            77 | 78 => ClientTag::of("c"),
            _ => ClientTag::of("other"),
        },
        exclude_me: false,
        disclose_me: false,
        retain: false,
        qos,
        payload,
        properties,
        act: Bytes::new(),
        extensions: Extensions::default(),
    }
}

fn deliver(
    gate: &mut MqttGate,
    topic: &Topic,
    event: &StoredEvent,
    (retained, (position, sending)): (bool, (Position, Sending)),
    subscriptions: &[SubscriptionId],
) {
    gate.deliver(Delivery {
        event,
        topic,
        position,
        id: EventId::new(Stamp(0), Slot(1), 0),
        retained,
        sending,
        subscriptions,
    });
}

fn show(request: &Request) -> String {
    match request {
        Request::Login(step) => login::show(step),
        Request::Open { realm, join, user } => {
            let user = user.as_ref().map(|user| format!(" user={user}")).unwrap_or_default();
            let client = join.client.as_deref().unwrap_or("-");
            assert!(join.details.contains("\"session\":77"), "{}", join.details);
            let will = join.will.as_ref().map(show_will).unwrap_or_default();
            format!("open realm=\"{realm}\" client=\"{client}\"{user}{will}")
        }
        Request::Attach { realm, attach, user } => {
            let user = user.as_ref().map(|user| format!(" user={user}")).unwrap_or_default();
            let client = attach.join.client.as_deref().unwrap_or("-");
            let clean = if attach.clean { " clean" } else { "" };
            let will = attach.join.will.as_ref().map(show_will).unwrap_or_default();
            format!(
                "attach realm=\"{realm}\" client=\"{client}\"{user}{clean} for {}{will}",
                attach.expiry
            )
        }
        Request::Resume(readings) => {
            let readings: Vec<_> = readings.iter().map(show_reading).collect();
            format!("resume {}", readings.join(", ")).trim_end().to_owned()
        }
        Request::Persist { act, subscribe, unsubscribe } => show_keep(act, subscribe, unsubscribe),
        Request::Publish { event, terms, once } => {
            assert_eq!(*once, matches!(Act::decode(&event.act), Some(Act::Once { .. })));
            assert!(*once || event.act == terms.encode());
            assert_eq!((event.realm.as_str(), event.publisher), ("home", SESSION));
            assert_eq!(event.client, ClientTag::of("c"));
            assert!(event.payload.kwargs.is_empty());
            let mut text = format!("publish {} q{}", event.topic, event.qos as u8);
            if !event.payload.is_empty() {
                text += &format!(" {}", String::from_utf8_lossy(&event.payload.args));
            }
            for (set, word) in [(event.exclude_me, " exclude_me"), (event.disclose_me, " disclose")]
            {
                text += if set { word } else { "" };
            }
            text += if event.retain { " retain" } else { "" };
            text += &show_act(&event.act);
            if !event.properties.is_empty() {
                text += &format!(" with {}", hex(&event.properties));
            }
            text
        }
        Request::Subscribe(subscription) => {
            let mut text = format!("subscribe {}", subscription.id.0);
            if let Some(after) = subscription.after {
                text += &format!(" after {after:?}");
            }
            text += if subscription.snapshot { " snapshot" } else { "" };
            text += match subscription.retained {
                RetainedMode::None => "",
                RetainedMode::Changes => " changes",
                RetainedMode::State => " state",
            };
            if let Some(filter) = &subscription.filter {
                text += &format!(" filter {}", json(filter));
            }
            text + &format!(" {:?}", subscription.pattern)
        }
        Request::Unsubscribe(id) => format!("unsubscribe {}", id.0),
        Request::Decide(event) => match Act::decode(&event.act) {
            Some(Act::Complete { packet_id }) => format!("complete {packet_id}"),
            other => unreachable!("MQTT has no calls: {other:?}"),
        },
        Request::Call(_) => unreachable!("MQTT has no calls"),
        Request::Close { drop_will: false } => "close".to_owned(),
        Request::Close { drop_will: true } => "close dropping the will".to_owned(),
    }
}

fn show_keep(act: &Act, subscribe: &[PersistentReading], unsubscribe: &[SubscriptionId]) -> String {
    let subscribe: Vec<_> = subscribe.iter().map(show_reading).collect();
    match act {
        Act::Subscribe(filters) => {
            let filter = |(text, persistent): &(String, PersistentSubscription)| {
                format!("{text} q{}", persistent.qos as u8)
            };
            let filters: Vec<_> = filters.iter().map(filter).collect();
            format!("persist {} as {}", filters.join(", "), subscribe.join(", "))
        }
        Act::Unsubscribe(texts) => format!("drop {texts:?} {unsubscribe:?}"),
        _ => panic!("{act:?}"),
    }
}

fn show_reading(reading: &PersistentReading) -> String {
    let mut text = reading.id.0.to_string();
    if let Some(from) = reading.from {
        text += &format!("@{from}");
    }
    text += match reading.retained {
        RetainedMode::None => "",
        RetainedMode::Changes => " changes",
        RetainedMode::State => " state",
    };
    if let Some(condition) = &reading.condition {
        text += &format!(" filter {}", json(condition));
    }
    text
}

fn show_will(will: &Will) -> String {
    assert_eq!(will.payload, Payload::raw(will.payload.args.clone()));
    let payload = String::from_utf8_lossy(&will.payload.args);
    let mut text = format!(" will {} q{} {payload}", will.topic, will.qos as u8);
    text += if will.retain { " retain" } else { "" };
    if will.delay > 0 {
        text += &format!(" delay {}", will.delay);
    }
    if !will.properties.is_empty() {
        text += &format!(" with {}", hex(&will.properties));
    }
    text
}

fn show_act(act: &[u8]) -> String {
    if act.is_empty() {
        return String::new();
    }
    let (mut text, terms) = match Act::decode(act) {
        Some(Act::Publish(terms)) => (String::new(), terms),
        Some(Act::Once { packet_id, terms }) => (format!(" once {packet_id}"), terms),
        other => panic!("another act: {other:?}"),
    };
    text += if terms.merge { " merge" } else { "" };
    text += &terms.when.map(|when| format!(" when {}", json(&when))).unwrap_or_default();
    text += if terms.watch { " watch" } else { "" };
    if let Some(will) = terms.will {
        assert_eq!(will, Payload::raw(will.args.clone()));
        text += &format!(" will <{}>", String::from_utf8_lossy(&will.args));
    }
    text
}

fn json(value: &Value) -> String {
    String::from_utf8(encode(Serializer::Json, value)).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Packets from their text.
fn packets(text: &str) -> Bytes {
    let mut all = BytesMut::new();
    let mut quoted = false;
    let between = |c: char| {
        quoted ^= c == '"';
        c == ';' && !quoted
    };
    for packet in text.split(between) {
        match packet.split_once('|') {
            Some((first, body)) => {
                let body = assemble(body);
                all.put_slice(&assemble(first));
                put_varint(&mut all, body.len() as u32);
                all.put_slice(&body);
            }
            None => all.put_slice(&assemble(packet)),
        }
    }
    all.freeze()
}

/// Bytes from their text.
fn assemble(text: &str) -> Bytes {
    let mut bytes = BytesMut::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        rest = if let Some(list) = rest.strip_prefix("p[") {
            let mut quoted = false;
            let end = list.find(|c: char| {
                quoted ^= c == '"';
                c == ']' && !quoted
            });
            let (list, behind) = (&list[..end.unwrap()], &list[end.unwrap() + 1..]);
            let list = assemble(list);
            put_varint(&mut bytes, list.len() as u32);
            bytes.put_slice(&list);
            behind
        } else if let Some(quoted) = rest.strip_prefix("s\"") {
            let (quoted, behind) = quoted.split_once('"').unwrap();
            bytes.put_u16(quoted.len() as u16);
            bytes.put_slice(quoted.replace('`', "\"").as_bytes());
            behind
        } else if let Some(quoted) = rest.strip_prefix('"') {
            let (quoted, behind) = quoted.split_once('"').unwrap();
            bytes.put_slice(quoted.as_bytes());
            behind
        } else {
            let byte = u8::from_str_radix(&rest[..2], 16);
            bytes.put_u8(byte.unwrap_or_else(|_| panic!("not bytes: {rest}")));
            &rest[2..]
        };
        rest = rest.trim_start();
    }
    bytes.freeze()
}
