//! A client's publishes of QoS 2 whose exchange is not complete (MQTT 5 section 4.3.3).
//!
//! ```text
//! PUBLISH → Publishing → (durable) PUBREC → Received → PUBREL → Completing → PUBCOMP
//! ```
//!
//! Invariant: while a packet identifier stands for a publish, another PUBLISH with it publishes nothing (MQTT-4.3.3-10).
//! PUBRECs are in the order of the publishes (MQTT-4.6.0-3).
//!
//! Deliberately absent: how long the identifiers of a persistent session are known, which the realms' state decides.

use std::collections::{BTreeMap, VecDeque};

use super::packet::Violation;

/// How far an exchange has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Publishing,
    /// PUBREC was sent.
    Received,
    /// PUBREL has come, and all nodes have to know of it before PUBCOMP.
    Completing,
}

/// What a PUBREC says.
pub(super) type Receipt = Result<(), Violation>;

/// An exchange.
#[derive(Debug, Clone, Copy)]
struct Exchange {
    stage: Stage,
    /// Its PUBLISH came on this connection, so it counts towards the Receive Maximum (MQTT 5 section 4.9).
    counts: bool,
}

#[derive(Debug, Default)]
pub(super) struct Exchanges {
    all: BTreeMap<u16, Exchange>,
    /// Publishes without a PUBREC, in their order, with what it will say once that is known.
    unreceived: VecDeque<(u16, Option<Receipt>)>,
    /// The number of the first of them.
    first: u64,
}

impl Exchanges {
    /// Takes over publishes that were received on earlier connections of the session.
    pub(super) fn resume(&mut self, received: Vec<u16>) {
        let exchange = Exchange { stage: Stage::Received, counts: false };
        self.all.extend(received.into_iter().map(|packet_id| (packet_id, exchange)));
    }

    /// How far the exchange with this packet identifier has come, if there is one.
    pub(super) fn stage(&self, packet_id: u16) -> Option<Stage> {
        self.all.get(&packet_id).map(|exchange| exchange.stage)
    }

    /// A publish begins; returns its number.
    pub(super) fn begin(&mut self, packet_id: u16) -> u64 {
        self.begin_aside(packet_id);
        self.unreceived.push_back((packet_id, None));
        self.first + self.unreceived.len() as u64 - 1
    }

    /// A publish begins whose PUBREC the others do not wait for: it may be decided much later.
    pub(super) fn begin_aside(&mut self, packet_id: u16) {
        self.all.insert(packet_id, Exchange { stage: Stage::Publishing, counts: true });
    }

    /// It is known what a publish's PUBREC says.
    pub(super) fn settle(&mut self, number: u64, receipt: Receipt) {
        let place = number.checked_sub(self.first).map(|place| place as usize);
        if let Some((_, known)) = place.and_then(|place| self.unreceived.get_mut(place)) {
            *known = Some(receipt);
        }
    }

    /// The next PUBREC, if all before it were sent.
    pub(super) fn next_receipt(&mut self) -> Option<(u16, Receipt)> {
        self.unreceived.front().filter(|(_, receipt)| receipt.is_some())?;
        let (packet_id, receipt) = self.unreceived.pop_front()?;
        self.first += 1;
        let receipt = receipt?;
        self.received(packet_id, &receipt);
        Some((packet_id, receipt))
    }

    /// A PUBREC is sent.
    pub(super) fn received(&mut self, packet_id: u16, receipt: &Receipt) {
        match receipt {
            Ok(()) => self.advance(packet_id, Stage::Received),
            // A PUBREC with an error ends the exchange (MQTT 5 section 4.3.3).
            Err(_) => drop(self.all.remove(&packet_id)),
        }
    }

    /// All nodes have to know that the exchange completes.
    pub(super) fn completing(&mut self, packet_id: u16) {
        self.advance(packet_id, Stage::Completing);
    }

    fn advance(&mut self, packet_id: u16, stage: Stage) {
        if let Some(exchange) = self.all.get_mut(&packet_id) {
            exchange.stage = stage;
        }
    }

    /// The exchange is complete; returns whether it counted.
    pub(super) fn complete(&mut self, packet_id: u16) -> bool {
        self.all.remove(&packet_id).is_some_and(|exchange| exchange.counts)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::Reason;
    use super::*;

    #[test]
    fn receipts_keep_the_order_of_publishes() {
        let mut exchanges = Exchanges::default();
        let numbers: Vec<u64> = [7, 3, 5].map(|packet_id| exchanges.begin(packet_id)).into();
        assert_eq!(numbers, [0, 1, 2]);
        let refused = || Err(Violation::new(Reason::NotAuthorized, "no"));
        exchanges.settle(1, refused());
        exchanges.settle(2, Ok(()));
        assert_eq!(exchanges.next_receipt(), None, "the first one is not known");
        exchanges.settle(0, Ok(()));
        let receipts: Vec<_> = std::iter::from_fn(|| exchanges.next_receipt()).collect();
        assert_eq!(receipts, [(7, Ok(())), (3, refused()), (5, Ok(()))]);
        assert_eq!(
            [7, 3, 5].map(|id| exchanges.stage(id)),
            [Some(Stage::Received), None, Some(Stage::Received)]
        );
        assert_eq!(exchanges.begin(3), 3);
        exchanges.completing(7);
        assert!(exchanges.complete(7) && !exchanges.complete(7) && exchanges.complete(5));
        exchanges.resume(vec![1, 2]);
        assert_eq!((exchanges.stage(2), exchanges.complete(2)), (Some(Stage::Received), false));
        exchanges.completing(1);
        assert_eq!((exchanges.stage(1), exchanges.complete(1)), (Some(Stage::Completing), false));
        exchanges.begin_aside(4);
        exchanges.settle(9, Ok(()));
        exchanges.settle(0, Ok(()));
        assert_eq!((exchanges.next_receipt(), exchanges.is_empty()), (None, false));
    }
}
