//! The client against a scripted router in memory.

use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

use super::*;

const URL: &str = "ws://node.example:9031/";

/// Runs a router that answers each incoming message with the next messages of its script.
fn router(script: Vec<Vec<Value>>) -> BoxStream {
    let (near, far) = tokio::io::duplex(64 << 10);
    tokio::spawn(async move {
        // The library dictates the callback's type.
        #[allow(clippy::result_large_err)]
        let choose = |_: &Request, mut response: Response| {
            let protocol = HeaderValue::from_static("wamp.2.json");
            response.headers_mut().insert("Sec-WebSocket-Protocol", protocol);
            Ok(response)
        };
        let mut stream = tokio_tungstenite::accept_hdr_async(far, choose).await.unwrap();
        for answers in script {
            let Some(Ok(Message::Text(_))) = stream.next().await else { return };
            for answer in answers {
                stream.send(Message::text(answer.to_string())).await.unwrap();
            }
        }
    });
    Box::new(near)
}

fn event(position: u64) -> Value {
    json!([36, 7, position, {"event_id": "2611221742b1za3", "topic": "a.b"}, [position]])
}

#[tokio::test]
async fn events_before_an_answer_are_kept_in_order() {
    let welcome = json!([2, 99, {"roles": {}}]);
    let script = vec![
        vec![welcome],
        vec![json!([33, 1, 7]), event(1)],
        vec![event(2), json!([17, 2, 55]), event(3), json!([35, 0, {"subscription": 7}])],
    ];
    let mut client = WampClient::over(router(script), URL, "realm1").await.unwrap();
    assert_eq!(client.session(), 99);
    assert_eq!(client.subscribe("a", Map::new()).await.unwrap(), 7);
    let arguments = Arguments { args: vec![json!(1)], kwargs: Map::new() };
    assert_eq!(client.publish("a.b", Map::new(), &arguments).await.unwrap(), Position(55));
    for expected in 1..=3 {
        let Incoming::Event(event) = client.next().await.unwrap() else { panic!("ended early") };
        assert_eq!(event.position, Position(expected));
        assert_eq!(event.event_id.as_deref(), Some("2611221742b1za3"));
        assert_eq!(event.topic.as_deref(), Some("a.b"));
        assert_eq!(event.arguments.args, [json!(expected)]);
    }
    assert_eq!(client.next().await.unwrap(), Incoming::Ended { subscription: 7 });
    assert!(matches!(client.next().await, Err(WampError::Closed(_))));
}

#[tokio::test]
async fn refusals_come_with_their_reason() {
    let abort = json!([3, {"message": "realm1 it has"}, "wamp.error.no_such_realm"]);
    let error = WampClient::over(router(vec![vec![abort]]), URL, "x").await.err().unwrap();
    assert_eq!(
        error.to_string(),
        "the node refused the session: wamp.error.no_such_realm: realm1 it has"
    );
    let script = vec![
        vec![json!([2, 99, {"roles": {}}])],
        vec![json!([8, 32, 1, {}, "wamp.error.invalid_uri", ["a topic must not be empty"]])],
    ];
    let mut client = WampClient::over(router(script), URL, "realm1").await.unwrap();
    let error = client.subscribe("", Map::new()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the node refused: wamp.error.invalid_uri: a topic must not be empty"
    );
}

#[tokio::test]
async fn a_router_that_breaks_the_protocol_is_an_error() {
    for first in [json!([2]), json!([2, "x", {}]), json!([36, 1]), json!({}), json!([])] {
        let outcome = WampClient::over(router(vec![vec![first.clone()]]), URL, "r").await;
        assert!(matches!(outcome, Err(WampError::Protocol(_))), "{first}");
    }
    let outcome = WampClient::over(router(Vec::new()), URL, "r").await;
    assert!(matches!(outcome, Err(WampError::Closed(_))));
}

#[tokio::test(start_paused = true)]
async fn a_silent_router_is_not_waited_for() {
    let script = vec![vec![json!([2, 99, {"roles": {}}])], Vec::new(), vec![Value::Null]];
    let mut client = WampClient::over(router(script), URL, "realm1").await.unwrap();
    let outcome = client.publish("a", Map::new(), &Arguments::default()).await;
    assert!(matches!(outcome, Err(WampError::Timeout)));
}

#[test]
fn urls() {
    for (url, address) in [
        ("ws://127.0.0.1:9031/", "127.0.0.1:9031"),
        ("ws://node.example", "node.example:80"),
        ("ws://[::1]:9031/ws", "[::1]:9031"),
        ("wss://node.example", "node.example:443"),
        ("wss://node.example:9443/", "node.example:9443"),
    ] {
        assert_eq!(url_address(url).unwrap().as_str(), address);
    }
    for url in ["", "http://x/", "https://x/", "127.0.0.1:9031", "ws://"] {
        assert!(url_address(url).is_err(), "{url}");
    }
}
