//! Scripts of a session, run in each serializer. Messages are written in JSON:
//!
//! ```text
//! > [1,"realm1",{}]    the client sends
//! < [2,…]              the client is sent
//! ! open realm1        the gate asks the driver
//! = opened             the driver tells the gate
//! ~ PUBLISH 5: …       the gate has dropped something
//! ```
//!
//! `deliver` delivers a live event, `retained` a retained value.
//!
//! Every message and request of the gate has to be in the script.

use proptest::prelude::*;
use vulpes_raft::ids::{EventId, Position, Slot, Stamp};

use super::*;
use crate::gate::Sending;
use crate::gate::{RetainedMode, Subscription};
use crate::payload::{decode, encode, value};
use crate::segment::StoredEvent;
use crate::types::act::Act;
use crate::types::answer::{PublishError, Stored};
use crate::types::event::{ClientTag, Encoding, Extensions, Payload, Qos};
use crate::types::procedure::Invoke;
use crate::types::subscription::After;
use crate::types::topic::{Pattern, Topic};
use crate::types::value::Value;

mod calls;
mod login;
mod rules;
mod scripts;
mod state;
mod values;

const SESSION: SessionId = SessionId(77);

/// The router's roles in WELCOME.
const ROLES: &str = r#""broker":{"features":{"event_retention":true,"pattern_based_subscription":true,"publisher_exclusion":true,"publisher_identification":true}},"dealer":{"features":{"call_canceling":true,"call_timeout":true,"caller_identification":true,"pattern_based_registration":true,"progressive_call_results":true,"shared_registration":true}}"#;

/// Its text is `2611221742b1za3`.
fn event_id() -> EventId {
    EventId::new(Stamp(1_795_369_320_000), Slot(71), 3)
}

fn from_json(serializer: Serializer, text: &str) -> Bytes {
    let value = decode(Serializer::Json, text.as_bytes());
    encode(serializer, &value.unwrap_or_else(|e| panic!("{text}: {e}"))).into()
}

fn to_json(serializer: Serializer, bytes: &[u8]) -> String {
    json(&decode(serializer, bytes).unwrap())
}

fn json(value: &Value) -> String {
    String::from_utf8(encode(Serializer::Json, value)).unwrap()
}

fn connect(serializer: Serializer) -> WampGate {
    WampGate::new(serializer, SESSION, Moment(1000))
}

fn send(gate: &mut WampGate, text: &str) {
    gate.receive(from_json(gate.serializer, text), Moment(1000));
}

/// A session that is open, with nothing left to poll.
fn open(serializer: Serializer) -> WampGate {
    let mut gate = connect(serializer);
    send(&mut gate, "[1,\"realm1\",{}]");
    gate.opened(Ok(()));
    while gate.poll_request().is_some() || gate.poll_output().is_some() {}
    gate
}

fn check(script: &str) {
    for serializer in Serializer::ALL {
        run(&mut connect(serializer), script);
    }
}

/// Like [`check`], starting after WELCOME.
fn check_open(script: &str) {
    for serializer in Serializer::ALL {
        run(&mut open(serializer), script);
    }
}

fn run(gate: &mut WampGate, script: &str) {
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let context = format!("{:?}, at: {line}", gate.serializer);
        match line.split_at(2) {
            ("> ", text) => {
                nothing_left(gate, &context);
                send(gate, text);
            }
            ("= ", call) => {
                nothing_left(gate, &context);
                tell(gate, call);
            }
            ("< ", text) => {
                let message = gate.poll_output().unwrap_or_else(|| panic!("silence: {context}"));
                let expected = from_json(Serializer::Json, text);
                let found = to_json(gate.serializer, &message);
                assert_eq!(found, String::from_utf8_lossy(&expected), "{context}");
            }
            ("! ", text) => {
                let request = gate.poll_request().unwrap_or_else(|| panic!("silence: {context}"));
                let farewell = match gate.farewell() {
                    Farewell::Away(reason) => format!(" away {reason}"),
                    Farewell::Again(reason) => format!(" again {reason}"),
                    Farewell::Said => String::new(),
                };
                assert_eq!(show(&request) + &farewell, text, "{context}");
            }
            ("~ ", text) => {
                let dropped = gate.poll_dropped().unwrap_or_else(|| panic!("taken: {context}"));
                assert_eq!((dropped.count, dropped.reason.as_str()), (1, text), "{context}");
            }
            _ => panic!("not a line of a script: {line}"),
        }
    }
    nothing_left(gate, "the end");
}

fn nothing_left(gate: &mut WampGate, context: &str) {
    assert_eq!(gate.poll_request(), None, "{context}");
    assert_eq!(gate.poll_dropped(), None, "{context}");
    let output = gate.poll_output().map(|message| to_json(gate.serializer, &message));
    assert_eq!(output, None, "{context}");
    assert_eq!(gate.output_size(), 0, "{context}");
}

fn show(request: &Request) -> String {
    match request {
        Request::Login(step) => login::show(step),
        Request::Open { realm, join, user } => {
            assert_eq!((&join.client, &join.will), (&None, &None));
            assert!(join.details.contains("\"session\":77"), "{}", join.details);
            let user = user.as_ref().map(|user| format!(" user={user}")).unwrap_or_default();
            format!("open {realm}{user}")
        }
        Request::Publish { event, .. } | Request::Decide(event) => {
            assert_eq!((event.realm.as_str(), event.publisher), ("realm1", SESSION));
            assert!(event.properties.is_empty());
            match request {
                Request::Publish { terms, .. } => assert_eq!(event.act, terms.encode()),
                _ => assert!(event.topic.is_routers_own()),
            }
            let mut text = format!("publish {}{}", event.topic, show_payload(&event.payload));
            text += if event.exclude_me { "" } else { " include_me" };
            text += if event.disclose_me { " disclose_me" } else { "" };
            text += if event.retain { " retain" } else { "" };
            text + &show_act(&event.act)
        }
        Request::Subscribe(Subscription { id, pattern, after, snapshot, retained, filter }) => {
            let pattern = match pattern {
                Pattern::Exact(topic) => format!("exact {topic}"),
                Pattern::Prefix(text) => format!("prefix {text}"),
                Pattern::Parts(parts) => format!("parts {}", parts.as_str()),
            };
            let after = match after {
                None => String::new(),
                Some(After::Position(position)) => format!(" after {position}"),
                Some(After::Event(id)) => format!(" after {id}"),
            };
            let snapshot = if *snapshot { " snapshot" } else { "" };
            let retained = match retained {
                RetainedMode::None => "",
                RetainedMode::Changes => " retained",
                RetainedMode::State => " retainedState",
            };
            let filter = filter.as_ref().map(|filter| format!(" filter {}", json(filter)));
            let filter = filter.unwrap_or_default();
            format!("subscribe {} {pattern}{after}{snapshot}{retained}{filter}", id.0)
        }
        Request::Unsubscribe(id) => format!("unsubscribe {}", id.0),
        Request::Call(asked) => calls::show_request(asked),
        Request::Close { drop_will: false } => "close".into(),
        Request::Close { drop_will: true } => unreachable!("WAMP sessions have no MQTT will"),
        Request::Attach { .. } | Request::Resume(_) | Request::Persist { .. } => {
            unreachable!("WAMP sessions keep nothing")
        }
    }
}

fn show_payload(payload: &Payload) -> String {
    let ours = |serializer: &Serializer| serializer.encoding() == payload.encoding;
    let serializer = Serializer::ALL.into_iter().find(ours).unwrap();
    let parts = [&payload.args, &payload.kwargs].into_iter().filter(|part| !part.is_empty());
    parts.map(|part| format!(" {}", to_json(serializer, part))).collect()
}

fn show_act(act: &[u8]) -> String {
    if act.is_empty() {
        return String::new();
    }
    let terms = match Act::decode(act) {
        Some(Act::Publish(terms)) => terms,
        Some(Act::Register(register)) => return calls::show_register(&register),
        Some(Act::Unregister(id)) => return format!(" unregister {}", id.0),
        _ => panic!("another act: {act:?}"),
    };
    let mut text = if terms.merge { " merge" } else { "" }.to_owned();
    text += &terms.when.map(|when| format!(" when {}", json(&when))).unwrap_or_default();
    text += if terms.watch { " watch" } else { "" };
    text + &terms.will.map(|will| format!(" will{}", show_payload(&will))).unwrap_or_default()
}

fn tell(gate: &mut WampGate, call: &str) {
    let words: Vec<&str> = call.split(' ').collect();
    let number = |at: usize| words[at].parse::<u64>().unwrap();
    let subscription = || SubscriptionId(number(1));
    match words[..] {
        ["login", ref what @ ..] => login::happen(gate, what),
        ["opened"] => gate.opened(Ok(())),
        ["opened", "no-such-realm"] => gate.opened(Err(OpenRefusal::NoSuchRealm)),
        ["opened", "unavailable"] => gate.opened(Err(OpenRefusal::Unavailable)),
        ["opened", "too-many"] => gate.opened(Err(OpenRefusal::TooManyConnections)),
        ["answered", _, _, outcome] => {
            let outcome = match outcome {
                "unknown" => Err(PublishError::Unknown),
                "not-stored" => Err(PublishError::NotStored),
                _ => Ok(stored_at(number(3))),
            };
            gate.answered(Answer { first: number(1), count: number(2) as u32, outcome });
        }
        ["decided", _, outcome] => {
            let outcome = match outcome {
                "not-accepted" => Err(Refusal::NotAccepted),
                "line-full" => Err(Refusal::LineFull),
                "session-ended" => Err(Refusal::SessionEnded),
                "exists" => Err(Refusal::ProcedureExists),
                "other-policy" => Err(Refusal::OtherPolicy(Invoke::Random)),
                "too-many-registrations" => Err(Refusal::TooManyRegistrations),
                "too-many-callees" => Err(Refusal::TooManyCallees),
                "no-such-registration" => Err(Refusal::NoSuchRegistration),
                _ => Ok(stored_at(number(2))),
            };
            gate.decided(number(1), outcome);
        }
        ["subscribed", _] => gate.subscribed(subscription(), Ok(())),
        ["subscribed", _, "gone", _] => {
            let oldest = Position(number(3));
            gate.subscribed(subscription(), Err(SubscribeError::Gone { oldest }));
        }
        ["subscribed", _, "ahead", _] => {
            let last = Position(number(3));
            gate.subscribed(subscription(), Err(SubscribeError::Ahead { last }));
        }
        ["subscribed", _, "unavailable"] => {
            gate.subscribed(subscription(), Err(SubscribeError::Unavailable));
        }
        ["unsubscribed", _] => gate.unsubscribed(subscription()),
        ["ended", _] => gate.ended(subscription()),
        [how @ ("deliver" | "retained"), ids, position, topic, publisher, ref payload @ ..] => {
            let ids: Vec<_> =
                ids.split(',').map(|id| SubscriptionId(id.parse().unwrap())).collect();
            let position = Position(position.parse().unwrap());
            let event = stored(publisher, payload);
            let topic = Topic::from_canonical(topic);
            let subscriptions = &ids[..];
            let (event, topic, id) = (&event, &topic, event_id());
            let retained = how == "retained";
            let sending = Sending::First;
            gate.deliver(Delivery { event, topic, position, id, retained, sending, subscriptions });
        }
        ["tick", _] => gate.tick(Moment(number(1))),
        ["end", "shutdown"] => gate.end(EndReason::Shutdown),
        ["end", "taken-over"] => gate.end(EndReason::TakenOver),
        ["end", "lost"] => gate.end(EndReason::Lost),
        ["end", "behind"] => gate.end(EndReason::FellBehind { oldest: Position(7) }),
        ["end", "too-slow"] => gate.end(EndReason::TooSlow),
        ["end", "unavailable"] => gate.end(EndReason::Unavailable),
        _ => gate.told(calls::told(&words)),
    }
}

fn stored_at(position: u64) -> Stored {
    Stored { position: Position(position), slot: Slot(1), stamp: Stamp(1), offset: 0 }
}

/// An event with `raw TEXT` or JSON `ARGS KWARGS` as payload, from a session; `!` behind its number: disclosed,
/// `+`: to itself, too.
fn stored(publisher: &str, payload: &[&str]) -> StoredEvent {
    let bytes = |at: usize| Bytes::from(payload.get(at).unwrap_or(&"").to_string());
    let payload = match payload.first() {
        Some(&"raw") => Payload::raw(bytes(1)),
        _ => Payload { encoding: Encoding::Json, args: bytes(0), kwargs: bytes(1) },
    };
    StoredEvent {
        offset: 3,
        topic: 0,
        publisher: SessionId(publisher.trim_matches(['!', '+']).parse().unwrap()),
        client: ClientTag::NONE,
        exclude_me: !publisher.contains('+'),
        disclose_me: publisher.contains('!'),
        retain: false,
        qos: Qos::AtLeastOnce,
        payload,
        properties: Bytes::new(),
        act: Bytes::new(),
        extensions: Extensions::default(),
    }
}

#[test]
fn the_first_subprotocol_spoken_is_chosen() {
    for (offered, chosen) in [
        (&["wamp.2.json", "wamp.2.msgpack"][..], Some(Serializer::Json)),
        (&["wamp.2.cbor.batched", "wamp.2.cbor", "wamp.2.json"], Some(Serializer::Cbor)),
        (&["wamp.2.ubjson", "wamp.2.msgpack"], Some(Serializer::MsgPack)),
        (&["wamp.2.json.batched", "mqtt"], None),
        (&[], None),
    ] {
        assert_eq!(choose_subprotocol(offered), chosen);
        assert!(chosen.is_none_or(|serializer| offered.contains(&subprotocol(serializer))));
    }
    assert!(Serializer::Json.is_text() && !Serializer::Cbor.is_text());
}

#[test]
fn golden_bytes() {
    let sent = |serializer, script: &str| {
        let mut gate = open(serializer);
        send(&mut gate, "[16,9,{\"acknowledge\":true},\"a.b\",[1]]");
        send(&mut gate, "[32,10,{},\"a.b\"]");
        gate.subscribed(SubscriptionId(1), Ok(()));
        while gate.poll_request().is_some() || gate.poll_output().is_some() {}
        tell(&mut gate, script);
        gate.poll_output().unwrap()
    };
    let deliver = "deliver 1 300 a/b 5 [1] {\"k\":2}";
    for (serializer, published, event) in [
        (
            Serializer::Json,
            &b"[17,9,300]"[..],
            &b"[36,1,300,{\"topic\":\"a.b\",\"event_id\":\"2611221742b1za3\"},[1],{\"k\":2}]"[..],
        ),
        (
            Serializer::MsgPack,
            b"\x93\x11\x09\xcd\x01\x2c",
            b"\x96\x24\x01\xcd\x01\x2c\x82\xa5topic\xa3a.b\xa8event_id\xaf2611221742b1za3\x91\x01\x81\xa1k\x02",
        ),
        (
            Serializer::Cbor,
            b"\x83\x11\x09\x19\x01\x2c",
            b"\x86\x18\x24\x01\x19\x01\x2c\xa2\x65topic\x63a.b\x68event_id\x6f2611221742b1za3\x81\x01\xa1\x61k\x02",
        ),
    ] {
        assert_eq!(sent(serializer, "answered 0 1 300"), published);
        assert_eq!(sent(serializer, deliver), event);
    }
}

#[test]
fn a_payload_is_taken_as_it_came_and_not_copied() {
    let mut gate = open(Serializer::Json);
    let input = Bytes::from_static(b"[16,1,{},\"a.b\", [ 1 , {\"x\": 1.0} ] ,{ \"k\" : 2 }]");
    gate.receive(input.clone(), Moment(1000));
    let Some(Request::Publish { event, .. }) = gate.poll_request() else { panic!("no publish") };
    assert_eq!(&event.payload.args[..], b"[ 1 , {\"x\": 1.0} ]");
    assert_eq!(&event.payload.kwargs[..], b"{ \"k\" : 2 }");
    assert!(input.as_ptr_range().contains(&event.payload.args.as_ptr()));
    assert!(input.as_ptr_range().contains(&event.payload.kwargs.as_ptr()));
}

#[test]
fn an_event_has_a_size_limit() {
    for (options, answers) in [("{\"acknowledge\":true}", true), ("{}", false)] {
        for (size, fits) in [(limits::EVENT - 4, true), (limits::EVENT - 3, false)] {
            let mut gate = open(Serializer::Json);
            send(&mut gate, &format!("[16,5,{options},\"a\",[\"{}\"]]", "x".repeat(size)));
            let request = gate.poll_request();
            assert_eq!(matches!(request, Some(Request::Publish { .. })), fits);
            assert_eq!(request.is_some(), fits);
            assert_eq!(gate.poll_dropped().is_some(), !fits && !answers);
            let output = gate.poll_output().map(|m| String::from_utf8_lossy(&m).into_owned());
            let uri = "wamp.error.payload_size_exceeded";
            assert_eq!(output.is_some_and(|text| text.contains(uri)), !fits && answers);
        }
    }
}

#[test]
fn who_does_not_say_hello_is_not_waited_for() {
    let mut gate = connect(Serializer::Json);
    let deadline = Moment(1000 + limits::HANDSHAKE.as_millis() as u64);
    assert_eq!(gate.deadline(), Some(deadline));
    gate.tick(Moment(deadline.0 - 1));
    nothing_left(&mut gate, "before the deadline");
    assert!(!gate.can_deliver());
    gate.tick(deadline);
    let message = gate.poll_output().unwrap();
    assert!(message.starts_with(b"[3,"), "{message:?}");
    assert_eq!(gate.poll_request(), Some(Request::Close { drop_will: false }));
    assert_eq!(gate.deadline(), None);
    gate.tick(Moment(u64::MAX));
    nothing_left(&mut gate, "closed");
    let gate = open(Serializer::Json);
    assert_eq!((gate.deadline(), gate.can_deliver(), gate.session()), (None, true, SESSION));
}

/// Messages that are nearly valid, so that random ones get past the first check.
fn any_message() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        (-1i64..80).prop_map(Value::Int),
        any::<u64>().prop_map(Value::integer),
        "[a-c.*#/%]{0,6}".prop_map(Value::Str),
        prop::sample::select(vec!["exact", "prefix", "wildcard", "2611221742b1za3"])
            .prop_map(|text| Value::Str(text.into())),
        prop::collection::vec(any::<u8>(), 0..4).prop_map(Value::Bytes),
    ];
    let key = prop::sample::select(vec![
        "acknowledge",
        "exclude_me",
        "match",
        "after",
        "snapshot",
        "retain",
        "when",
        "watch",
        "will",
        "retained",
        "filter",
        "authmethods",
        "invoke",
        "concurrency",
        "mode",
        "timeout",
        "progress",
        "x",
    ]);
    let element = scalar.prop_recursive(2, 8, 3, move |inner| {
        let pair = (key.clone().prop_map(str::to_owned), inner.clone());
        prop_oneof![
            prop::collection::vec(inner, 0..3).prop_map(Value::List),
            prop::collection::vec(pair, 0..3).prop_map(Value::Dict),
        ]
    });
    let code = prop::sample::select(vec![1i64, 3, 6, 8, 16, 16, 32, 32, 34, 48, 49, 64, 66, 70]);
    let fitting = (code.clone(), 1i64..4, "[a-c.]{1,5}", prop::collection::vec(element.clone(), 3))
        .prop_map(|(code, request, topic, rest)| {
            let mut items = vec![Value::Int(code), Value::Int(request)];
            items.extend(rest.iter().find(|v| matches!(v, Value::Dict(_))).cloned());
            items.push(Value::Str(topic));
            items.extend(rest.into_iter().filter(|v| matches!(v, Value::List(_))).take(1));
            Value::List(items)
        });
    let any = (code, prop::collection::vec(element, 0..7)).prop_map(|(code, rest)| {
        Value::List(std::iter::once(Value::Int(code)).chain(rest).collect())
    });
    prop_oneof![fitting, any]
}

proptest! {
    #[test]
    fn no_bytes_make_the_gate_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        for serializer in Serializer::ALL {
            for mut gate in [connect(serializer), open(serializer)] {
                gate.receive(bytes.clone().into(), Moment(1000));
                while gate.poll_request().is_some() {}
                while let Some(message) = gate.poll_output() {
                    prop_assert!(decode(serializer, &message).is_ok());
                }
                prop_assert_eq!(gate.output_size(), 0);
            }
        }
    }

    #[test]
    fn no_request_is_swallowed(messages in prop::collection::vec(any_message(), 1..12)) {
        for serializer in Serializer::ALL {
            let mut gate = open(serializer);
            let mut closed = false;
            for message in &messages {
                gate.receive(encode(serializer, message).into(), Moment(1000));
                let mut asked = 0;
                let mut said = 0;
                while let Some(request) = gate.poll_request() {
                    prop_assert!(!closed, "after close: {:?}", request);
                    asked += 1;
                    match request {
                        Request::Close { .. } => closed = true,
                        Request::Subscribe(s) => gate.subscribed(s.id, Ok(())),
                        Request::Unsubscribe(id) => gate.unsubscribed(id),
                        Request::Publish { event, .. } | Request::Decide(event) => {
                            let _ = value(&event.payload);
                        }
                        Request::Call(_) => {}
                        other => prop_assert!(false, "{other:?}"),
                    }
                }
                while let Some(message) = gate.poll_output() {
                    prop_assert!(decode(serializer, &message).is_ok());
                    said += 1;
                }
                let is_cancel = matches!(message, Value::List(l) if l[0] == Value::Int(49));
                let dropped = gate.poll_dropped().is_some();
                let seen = asked + said > 0 || dropped || is_cancel;
                prop_assert!(seen, "swallowed: {:?}", message);
                if closed {
                    break;
                }
            }
        }
    }
}
