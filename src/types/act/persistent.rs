//! Acts of persistent MQTT sessions: changes of their part of the realm's state.
//!
//! Invariant: persisted and sent; the order of fields never changes. New needs get new acts.
//!
//! Deliberately absent: QoS 2, which needs a state for each packet identifier.

use serde::{Deserialize, Serialize};
use vulpes_raft::ids::{OrderTime, Position};

use super::Join;
use crate::types::event::Qos;
use crate::types::value::Value;

/// The expiry of a session that never expires (MQTT 5 section 3.1.2.11.2).
pub const NEVER: u32 = u32::MAX;

/// A persistent session begins, new or continuing an earlier one of its client.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Attach {
    /// Has the client's name.
    pub join: Join,
    /// Earlier state is removed first.
    pub clean: bool,
    /// Seconds until everything expires once the session has ended.
    pub expiry: u32,
}

/// The end of such a session, as its own entry saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detach {
    /// The client asked for its will to be dropped (MQTT 5 section 3.14.4).
    pub drop_will: bool,
    /// The client changed it in its DISCONNECT.
    pub expiry: Option<u32>,
    pub progress: Progress,
}

/// The end of a session's connection, as its own entry saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    /// The client asked for its will to be dropped (MQTT 5 section 3.14.4).
    pub drop_will: bool,
    /// The client changed it in its DISCONNECT.
    pub expiry: Option<u32>,
    /// Its progress, if the session is persistent.
    pub progress: Option<Progress>,
}

/// A session's progress in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Every event before this position that is not in flight is done.
    pub sent: Position,
    /// Sent but unacknowledged events, ascending.
    pub in_flight: Vec<InFlight>,
    /// Events from `sent` to before this position may have been sent as well.
    pub doubt: Position,
}

/// A sent but unacknowledged event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFlight {
    pub position: Position,
    pub packet_id: u16,
}

/// A persistent subscription, without its filter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PersistentSubscription {
    /// The granted quality of service.
    pub qos: Qos,
    pub no_local: bool,
    pub retain_as_published: bool,
    /// Only events that change a retained value.
    pub changes: bool,
    /// MQTT 5's subscription identifier.
    pub identifier: Option<u32>,
    /// Only events whose value matches.
    pub condition: Option<Value>,
}

/// A client's state is to be removed because the client was away too long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expire {
    pub client: String,
    /// When it left.
    pub since: OrderTime,
}

#[cfg(test)]
mod tests {
    use super::super::Act;
    use super::*;
    use crate::types::event::SessionId;

    #[test]
    fn golden_bytes() {
        let in_flight = vec![InFlight { position: Position(7), packet_id: 2 }];
        let progress = Progress { sent: Position(9), in_flight, doubt: Position(0) };
        let subscription = PersistentSubscription {
            qos: Qos::AtLeastOnce,
            no_local: false,
            retain_as_published: true,
            changes: false,
            identifier: Some(5),
            condition: Some(Value::Int(-1)),
        };
        let join = Join { client: Some("c".into()), ..Join::default() };
        let detach = Detach { drop_will: true, expiry: Some(60), progress: progress.clone() };
        let expire = Expire { client: "c".into(), since: OrderTime(3) };
        let gone = Gone { drop_will: true, expiry: None, progress: Some(progress.clone()) };
        let cases: [(Act, &[u8]); 7] = [
            (Act::Attach(Attach { join, clean: true, expiry: 60 }), &[8, 1, 1, b'c', 0, 0, 1, 60]),
            (Act::Detach(detach), &[9, 1, 1, 60, 9, 1, 7, 2, 0]),
            (
                Act::Subscribe(vec![("a".into(), subscription)]),
                &[10, 1, 1, b'a', 1, 0, 1, 0, 1, 5, 1, 2, 1],
            ),
            (Act::Unsubscribe(vec!["a".into()]), &[11, 1, 1, b'a']),
            (Act::Progress(vec![(SessionId(4), progress)]), &[12, 1, 4, 9, 1, 7, 2, 0]),
            (Act::Expire(expire), &[13, 1, b'c', 3]),
            (Act::Gone(gone), &[14, 1, 0, 1, 9, 1, 7, 2, 0]),
        ];
        for (act, bytes) in cases {
            assert_eq!(act.encode(), bytes, "{act:?}");
            assert_eq!(Act::decode(bytes), Some(act));
        }
    }
}
