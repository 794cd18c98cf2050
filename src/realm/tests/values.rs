//! Scripted tests of what topics retain: values, keywords, and nothing.

use super::*;
use crate::types::event::{Field, Tag};

#[test]
fn retained_objects_merge_where_asked_and_a_later_publish_unbinds() {
    let mut story = Story::at_entries();
    story.join(11, 1);
    let merge = Act::Publish(Terms { merge: true, ..Terms::default() }).encode();
    story.event(1, event(11, "t", r#"{"a":1}"#));
    story.event(1, Event { act: merge, ..event(11, "t", r#"{"b":2}"#) });
    assert_eq!(story.value("t"), json(r#"{"a":1,"b":2}"#));
    let bound = Terms { will: Some(payload("0")), ..Terms::default() };
    story.event(1, Event { act: Act::Publish(bound).encode(), ..event(11, "t", "5") });
    assert_eq!(story.realms.bonds.len(), 1);
    story.event(2, event(12, "t", "6"));
    assert!(story.realms.bonds.is_empty());
    story.leave(11, 1);
    assert_eq!(story.realms.due().count(), 0);
    let view = story.realms.view();
    story.event(2, event(12, "t", "null"));
    let realm = Realm::new(REALM).unwrap();
    assert_eq!(view.realm(&realm).len(), 1, "a view stays as it was");
    assert!(story.realms.view().realm(&realm).is_empty());
}

/// fox-wamp frees a lock with keyword arguments alone.
#[test]
fn a_lock_is_free_again_when_its_holder_leaves_keywords_alone() {
    for args in ["", "[]", "[null]"] {
        let mut story = Story::at_entries();
        story.join(11, 1);
        story.join(12, 2);
        story.event(1, lock(11, true));
        let (waiting, _) = story.event(2, lock(12, true));
        story.told();
        let mut unlock = event(11, "lock", "");
        unlock.payload.args = args.into();
        unlock.payload.kwargs = r#"{"header":"any"}"#.into();
        let (_, shown) = story.event(1, unlock.clone());
        assert!(shown);
        let turn_of_12 = Notice::Turn { session: SessionId(12), waiting: Position(waiting) };
        assert_eq!(story.told(), [turn_of_12], "{args}");
        // It is the topic's last event, and there is no value.
        story.restart();
        let realm = Realm::new(REALM).unwrap();
        let persistent = story.realms.view().realm(&realm);
        let persistent = persistent.get(&Topic::from_canonical("lock")).unwrap();
        assert_eq!((&persistent.payload, &persistent.bound), (&unlock.payload, &None));
        assert_eq!(story.value("lock"), Value::Null);
        assert!(story.event(2, turn(12, waiting)).1);
        assert_eq!(story.value("lock"), json(r#"{"holder":12}"#));
    }
}

#[test]
fn an_mqtt_payload_deletes_only_without_bytes() {
    let mut story = Story::at_entries();
    story.join(11, 1);
    let mqtt =
        |bytes: &'static str| Event { payload: Payload::raw(bytes.into()), ..event(11, "t", "") };
    for (bytes, persistent) in [("null", 1), (" null", 1), ("", 0), ("0", 1), ("", 0), ("null", 1)]
    {
        story.event(1, mqtt(bytes));
        assert_eq!(story.realms.retained(), persistent, "{bytes:?}");
    }
    // For conditions its value is null.
    let terms = Terms { when: Some(Value::Null), ..Terms::default() };
    let when_null = Act::Publish(terms).encode();
    assert!(story.event(1, Event { act: when_null, ..event(11, "t", "1") }).1);
    // A will is a message like any other.
    let will = Will {
        topic: Topic::from_canonical("t"),
        payload: Payload::raw("null".into()),
        properties: Bytes::new(),
        qos: Qos::AtLeastOnce,
        retain: true,
        delay: 0,
    };
    let join = Join { will: Some(will.clone()), ..Join::default() };
    story.event(1, act(12, "wamp/session/on_join", &Act::Join(join)));
    story.leave(12, 1);
    let id = DueId { session: SessionId(12), number: 0 };
    let published = Event { retain: true, payload: will.payload, ..act(12, "t", &Act::Due(id)) };
    assert!(story.event(1, published).1);
    assert_eq!(story.realms.retained(), 1);
}

/// The fold carries unknown fields: nodes that know them come to the same state.
#[test]
fn retained_values_keep_extension_fields_unaltered() {
    let extensions = |tag| Extensions::new(&[Field { tag: Tag(tag), value: b"x" }]).unwrap();
    let mut story = Story::at_entries();
    story.event(1, event(1, "plain", "1"));
    let plain = story.realms.hash();
    for (topic, tag) in [("critical", 9_998), ("optional", 9_999)] {
        let (_, shown) =
            story.event(1, Event { extensions: extensions(tag), ..event(1, topic, "1") });
        assert!(shown, "what is not hidden by the fold is for each node to withhold");
        story.restart();
        let view = story.realms.view().realm(&Realm::new(REALM).unwrap());
        let persistent = view.get(&Topic::from_canonical(topic)).unwrap();
        assert_eq!(persistent.extensions, extensions(tag));
        let low = tag as u8 | 0x80;
        assert!(story.rows.values().any(|row| row.ends_with(&[4, low, 0x4e, 1, b'x'])));
        story.event(1, event(1, topic, "null"));
    }
    story.restart();
    assert_eq!(story.realms.hash(), plain);
}

#[test]
fn a_value_with_a_critical_field_is_replaced_and_not_merged() {
    for (tag, merged) in [(9_999, r#"{"a": 1, "b": 2}"#), (9_998, r#"{"b": 2}"#)] {
        let extensions = Extensions::new(&[Field { tag: Tag(tag), value: b"x" }]).unwrap();
        let mut story = Story::at_entries();
        story.event(1, Event { extensions, ..event(1, "t", r#"{"a": 1}"#) });
        let merge = Act::Publish(Terms { merge: true, ..Terms::default() }).encode();
        story.event(1, Event { act: merge, ..event(1, "t", r#"{"b": 2}"#) });
        assert_eq!(story.value("t"), json(merged), "{tag}");
    }
}
