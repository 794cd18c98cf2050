//! Events of a newer release that this one must not show: replayed, live and retained, nobody gets them.

use super::super::testing::event;
use super::*;
use crate::types::event::{Event, Extensions, Field, Tag};
use vulpes_raft::ids::Position;

/// An event that restricts who may see it, or how to read it, in a field that this release does not know.
#[tokio::test(start_paused = true)]
async fn an_event_with_an_unknown_critical_field_is_withheld_and_counted() {
    let extended = |number: usize, tag: u32| Event {
        retain: true,
        extensions: Extensions::new(&[Field { tag: Tag(tag), value: b"x" }]).unwrap(),
        ..event(&format!("t/{number}"), &message(number, 0))
    };
    let [critical, optional] = [9_998, 9_999];
    for protocol in [Protocol::Mqtt(0), Protocol::Wamp] {
        let (node, socket) = (Node::new(), Socket::default());
        node.publish_events(&[extended(1, optional), extended(2, critical), extended(3, optional)]);
        let _session = connect(protocol, &node, &socket);
        socket.send(replay(protocol));
        socket.take(1 << 20);
        rest().await;
        assert_eq!(numbers(&socket.taken()), [1, 3], "{protocol:?} replays");
        node.publish_events(&[extended(4, critical), event("t/5", &message(5, 0))]);
        rest().await;
        assert_eq!(numbers(&socket.taken()), [1, 3, 5], "{protocol:?} is live");
        let next = node.log.tail().next_position;
        assert_eq!(next, Position(6), "positions stay as they are");
        assert_eq!(node.log.withheld_events(), 2);
        if matches!(protocol, Protocol::Mqtt(_)) {
            socket.send(packet(0x82, b"\0\x02\0\x01#\0"));
            rest().await;
            assert_eq!(numbers(&socket.taken())[3..], [1, 3], "what topics have kept");
        }
    }
}
