use proptest::prelude::*;

use super::*;

#[test]
fn the_same_topic_in_both_spellings() {
    for (wamp, mqtt) in [
        ("app.topic.name", "app/topic/name"),
        ("a/b.c", "a%2Fb/c"),
        ("a%2Eb.c", "a.b/c"),
        ("a%252Eb", "a%2Eb"),
        ("a%2Fb", "a%252Fb"),
        ("a+b", "a%2Bb"),
        ("100%", "100%"),
        ("100%25", "100%25"),
    ] {
        let topic = Topic::from_wamp(wamp).unwrap();
        assert_eq!(topic.as_str(), mqtt);
        assert_eq!(topic.to_wamp(), wamp);
        assert_eq!(Topic::from_mqtt(mqtt), Ok(topic));
    }
}

#[test]
fn bad_topics_are_refused() {
    let long = "x".repeat(limits::TOPIC + 1);
    for (text, error) in [
        ("", TopicError::Empty),
        ("a/+", TopicError::Wildcard),
        ("a#", TopicError::Wildcard),
        ("a\0", TopicError::ControlCharacter),
        (&long, TopicError::TooLong),
    ] {
        assert_eq!(Topic::from_mqtt(text), Err(error));
    }
    for (text, error) in [
        ("a..b", TopicError::EmptyPart),
        (".a", TopicError::EmptyPart),
        ("a b", TopicError::Reserved),
        ("a#b", TopicError::Reserved),
    ] {
        assert_eq!(Topic::from_wamp(text), Err(error));
    }
    for text in ["a/#/b", "a+/b", "a/b#", "#/#"] {
        assert_eq!(Pattern::from_mqtt(text), Err(TopicError::MisplacedWildcard), "{text}");
    }
}

/// The limit is on the canonical text, so that every topic has both spellings.
#[test]
fn topics_may_be_as_long_as_mqtt_has_them() {
    let most = limits::TOPIC;
    let wamp_escapes = "%2E".repeat(most);
    let dots = Topic::from_mqtt(&".".repeat(most)).unwrap();
    assert_eq!(dots.to_wamp(), wamp_escapes);
    assert_eq!(Topic::from_wamp(&wamp_escapes), Ok(dots));
    let slashes = Topic::from_mqtt(&"/".repeat(most)).unwrap();
    assert_eq!((slashes.parts().count(), slashes.to_wamp().len()), (most + 1, most));
    for (text, fits) in [
        ("/".repeat(most / 3), true),
        ("/".repeat(most / 3 + 1), false),
        ("a.".repeat(most / 2) + "a", true),
        ("a.".repeat(most / 2) + "a.a", false),
        (".".repeat(3 * most + 1), false),
    ] {
        assert_eq!(Topic::from_wamp(&text).is_ok(), fits, "{}", text.len());
        for read in [Pattern::from_wamp, Pattern::from_wamp_wildcard] {
            let read = read(&text);
            assert_eq!(read.is_ok(), fits, "{} {:?}", text.len(), read.err());
        }
    }
    let deep = Pattern::from_mqtt(&("+/".repeat(most / 2) + "#")).unwrap();
    assert!(deep.matches(&slashes) && deep.size() == most);
}

#[test]
fn patterns_match_as_their_protocol_says() {
    let mqtt = |text| Pattern::from_mqtt(text).unwrap();
    let fox = |text| Pattern::from_wamp(text).unwrap();
    let wildcard = |text| Pattern::from_wamp_wildcard(text).unwrap();
    let prefix = |text| Pattern::from_wamp_prefix(text).unwrap();
    for (pattern, topic, fits) in [
        (mqtt("a/b"), "a/b", true),
        (mqtt("a/+"), "a/b", true),
        (mqtt("a/+"), "a", false),
        (mqtt("a/+"), "a/b/c", false),
        (mqtt("a/+"), "a/", true),
        (mqtt("a/#"), "a", true),
        (mqtt("a/#"), "a/b/c", true),
        (mqtt("a/#"), "ab", false),
        (mqtt("#"), "a/b", true),
        (mqtt("#"), "$SYS/x", false),
        (mqtt("+/x"), "$SYS/x", false),
        (mqtt("$SYS/#"), "$SYS/x", true),
        (fox("a.*.c"), "a/b/c", true),
        (fox("a.*.c"), "a/b/d", false),
        (fox("a.#"), "a/b/d", true),
        (wildcard("a..c"), "a/b/c", true),
        (wildcard("a."), "a/b", true),
        (wildcard("a."), "a/b/c", false),
        (prefix("a.b"), "a/bc", true),
        (prefix("a.b"), "a/c", false),
    ] {
        assert_eq!(pattern.matches(&Topic::from_canonical(topic)), fits, "{pattern:?} {topic}");
    }
}

#[test]
fn patterns_that_nothing_fits_are_known() {
    let mqtt = |text| Pattern::from_mqtt(text).unwrap();
    let fox = |text| Pattern::from_wamp(text).unwrap();
    let wildcard = |text| Pattern::from_wamp_wildcard(text).unwrap();
    let prefix = |text| Pattern::from_wamp_prefix(text).unwrap();
    for (pattern, silent) in [
        (mqtt("#"), false),
        (mqtt("+/session/on_join"), false),
        (mqtt("a/$SYS/b"), false),
        (mqtt("$other/a"), false),
        (mqtt("$SYS/#"), true),
        (mqtt("$SYS"), true),
        (mqtt("$SYS/broker/#"), true),
        (mqtt("$SYS/broker/connection/#"), false),
        (mqtt("$SYS/broker/connection/a/state"), false),
        (mqtt("$SYS/broker/connection/a/other"), true),
        (mqtt("$SYS/broker/connections/+"), true),
        (mqtt("$share/g/a"), true),
        (mqtt("wamp/#"), false),
        (mqtt("wamp/+/on_join"), false),
        (mqtt("wamp/+/on_create"), true),
        (mqtt("wampx/on_create"), false),
        (fox("wamp.session.on_leave"), false),
        (fox("wamp.registration.on_create"), true),
        (fox("wamp.subscription.*"), true),
        (fox("$SYS.#"), true),
        (wildcard("wamp..on_join"), false),
        (wildcard("wamp..on_register"), true),
        (wildcard("..on_register"), false),
        (prefix("wamp"), false),
        (prefix("wamp."), false),
        (prefix("wamp.s"), false),
        (prefix("wamp.registration"), true),
        (prefix("$SYS.broker"), true),
        (prefix("$SYS.broker.connection."), false),
    ] {
        assert_eq!(pattern.is_silent(), silent, "{pattern:?}");
    }
}

proptest! {
    #[test]
    fn a_wamp_topic_survives_the_way_there_and_back(text in "([a-c/%+25EFB]{1,12}\\.){0,3}[a-c/%+25EFB]{1,12}") {
        let topic = Topic::from_wamp(&text).unwrap();
        prop_assert_eq!(topic.to_wamp(), text.as_str());
        prop_assert_eq!(Topic::from_mqtt(topic.as_str()), Ok(topic.clone()));
    }

    #[test]
    fn an_mqtt_topic_survives_the_way_there_and_back(text in "([a-c.%25EFB]{0,12}/){0,3}[a-c.%25EFB]{1,12}") {
        let topic = Topic::from_mqtt(&text).unwrap();
        let wamp = topic.to_wamp().into_owned();
        if let Ok(back) = Topic::from_wamp(&wamp) {
            prop_assert_eq!(back, topic);
        } else {
            // Only a topic with an empty part can't be published to from WAMP.
            prop_assert!(topic.parts().any(str::is_empty));
        }
    }

    #[test]
    fn two_topics_never_share_a_spelling(a in "[a./%25EF]{1,8}", b in "[a./%25EF]{1,8}") {
        let (x, y) = (Topic::from_mqtt(&a).unwrap(), Topic::from_mqtt(&b).unwrap());
        prop_assert_eq!(x.to_wamp() == y.to_wamp(), a == b);
    }
}
