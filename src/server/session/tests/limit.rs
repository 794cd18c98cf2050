//! The largest number of subscriptions of a session, requested at once: each is granted and begins. One more is refused, and
//! the others stay.
//!
//! Deliberately absent: other ways to subscribe, and real sockets (the process tests).

use super::*;

const MOST: usize = limits::SESSION_SUBSCRIPTIONS;

/// What a client sends to subscribe to this many topics.
fn subscribe(protocol: Protocol, count: usize) -> Vec<u8> {
    match protocol {
        Protocol::Wamp => {
            let all = (0..count).map(|n| frame(&format!(r#"[32,{},{{}},"t.{n}"]"#, n + 1)));
            all.flatten().collect()
        }
        Protocol::Mqtt(_) => {
            let mut body = vec![0, 1];
            for number in 0..count {
                let filter = format!("t/{number}");
                body.extend(u16::try_from(filter.len()).unwrap().to_be_bytes());
                body.extend(filter.as_bytes());
                body.push(0);
            }
            packet(0x82, &body)
        }
    }
}

/// How many subscriptions were granted, and how many refused.
fn answers(protocol: Protocol, taken: &[u8], count: usize) -> (usize, usize) {
    match protocol {
        Protocol::Wamp => {
            let text = String::from_utf8_lossy(taken);
            (text.matches("[33,").count(), text.matches("[8,32,").count())
        }
        Protocol::Mqtt(_) => {
            let codes = &taken[taken.len() - count..];
            let refused = codes.iter().filter(|code| **code == 0x80).count();
            (codes.iter().filter(|code| **code == 0).count(), refused)
        }
    }
}

async fn subscribe_and_hear(protocol: Protocol, count: usize) {
    let (node, socket) = (Node::new(), Socket::default());
    socket.take(usize::MAX / 2);
    let _session = connect(protocol, &node, &socket);
    rest().await;
    socket.send(subscribe(protocol, count));
    rest().await;
    let refused = count.saturating_sub(MOST);
    assert_eq!(answers(protocol, &socket.taken(), count), (count - refused, refused));
    let heard = [0, 1, MOST / 2, MOST - 2, MOST - 1];
    for topic in heard.iter().chain(&[MOST]) {
        node.publish(&format!("t/{topic}"), &[message(*topic, 10)]);
    }
    rest().await;
    assert_eq!(numbers(&socket.taken()), heard, "of {count} subscriptions");
}

pub(super) fn check(protocol: Protocol, count: usize) {
    run(subscribe_and_hear(protocol, count));
}

#[test]
fn as_many_subscriptions_as_there_may_be_come_in_one_go() {
    for protocol in [Protocol::Mqtt(0), Protocol::Wamp] {
        check(protocol, MOST);
        check(protocol, MOST + 1);
    }
}
