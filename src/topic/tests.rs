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
    let deep = "x/".repeat(limits::TOPIC_PARTS);
    for (text, error) in [
        ("", TopicError::Empty),
        ("a/+", TopicError::Wildcard),
        ("a#", TopicError::Wildcard),
        ("a\0", TopicError::ControlCharacter),
        (&long, TopicError::TooLong),
        (&deep, TopicError::TooManyParts),
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
            // Only an empty part has no way to be published to from WAMP.
            prop_assert!(topic.parts().any(str::is_empty));
        }
    }

    #[test]
    fn two_topics_never_share_a_spelling(a in "[a./%25EF]{1,8}", b in "[a./%25EF]{1,8}") {
        let (x, y) = (Topic::from_mqtt(&a).unwrap(), Topic::from_mqtt(&b).unwrap());
        prop_assert_eq!(x.to_wamp() == y.to_wamp(), a == b);
    }
}
