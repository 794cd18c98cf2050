//! The window of messages of QoS 1 and 2 that a client has not acknowledged yet, and their packet identifiers.
//!
//! Invariant: an identifier is reused only after its PUBACK or PUBCOMP, and the number of messages in flight never exceeds the
//! window. Messages of an earlier session keep their identifiers, and are in flight once they were sent again.
//!
//! Deliberately absent: the messages, which are in the log. QoS 2 in persistent sessions, whose later sessions would have to know
//! each identifier before its message is sent.

use std::collections::VecDeque;

use vulpes_raft::ids::Position;

use crate::types::act::InFlight;

/// Most messages in flight to one client, whatever it would accept.
const WIDEST: u16 = 1024;

/// Packet identifiers 1 to the window's width.
#[derive(Debug)]
pub(crate) struct Window {
    width: u16,
    /// Identifiers up to here were given out at least once.
    fresh: u16,
    /// Those of them that are free again, longest free first.
    free: VecDeque<u16>,
    /// By identifier, beginning with 0, which is unused.
    messages: Vec<Message>,
    on_the_way: u16,
}

/// What an identifier stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Message {
    None,
    /// It was sent; with its position, if later sessions need to know it.
    Sent(Option<Position>),
    /// An earlier session has sent it.
    Earlier(Position),
    /// It was sent with QoS 2.
    Exactly,
    /// Its PUBREC has come.
    Received,
}

impl Window {
    /// `receive_maximum` is what the client accepts at once.
    pub(crate) fn new(receive_maximum: u16) -> Self {
        Self {
            width: receive_maximum.clamp(1, WIDEST),
            fresh: 0,
            free: VecDeque::new(),
            messages: vec![Message::None],
            on_the_way: 0,
        }
    }

    /// Takes over an earlier session's messages in flight.
    pub(crate) fn resume(&mut self, in_flight: &[InFlight]) {
        for InFlight { position, packet_id } in in_flight {
            while self.fresh < *packet_id {
                let next = self.next_fresh();
                self.free.push_back(next);
            }
            self.messages[usize::from(*packet_id)] = Message::Earlier(*position);
        }
        self.free.retain(|id| self.messages[usize::from(*id)] == Message::None);
    }

    fn next_fresh(&mut self) -> u16 {
        self.fresh += 1;
        self.messages.push(Message::None);
        self.fresh
    }

    pub(crate) fn has_room(&self) -> bool {
        self.on_the_way < self.width
    }

    /// Gives a message an identifier, while there is room.
    pub(crate) fn take(&mut self, position: Option<Position>) -> Option<u16> {
        if !self.has_room() {
            return None;
        }
        let packet_id = match self.free.front() {
            Some(_) if self.fresh >= self.width => self.free.pop_front()?,
            _ => self.next_fresh(),
        };
        self.messages[usize::from(packet_id)] = Message::Sent(position);
        self.on_the_way += 1;
        Some(packet_id)
    }

    /// Gives a message of QoS 2 an identifier, while there is room.
    pub(crate) fn take_exactly(&mut self) -> Option<u16> {
        let packet_id = self.take(None)?;
        self.messages[usize::from(packet_id)] = Message::Exactly;
        Some(packet_id)
    }

    /// A PUBREC; returns what to answer: whether the identifier stands for a message. Nothing if the client has failed, which
    /// ends the exchange (MQTT 5 section 4.3.3).
    pub(crate) fn received(&mut self, packet_id: u16, failed: bool) -> Option<bool> {
        let message = self.messages.get_mut(usize::from(packet_id));
        let known = message.filter(|m| matches!(**m, Message::Exactly | Message::Received));
        match known {
            Some(_) if failed => {
                self.completed(packet_id);
                None
            }
            Some(message) => {
                *message = Message::Received;
                Some(true)
            }
            None => (!failed).then_some(false),
        }
    }

    /// A PUBCOMP. An unexpected one changes nothing.
    pub(crate) fn completed(&mut self, packet_id: u16) {
        let Some(message) = self.messages.get_mut(usize::from(packet_id)) else { return };
        if matches!(message, Message::Exactly | Message::Received) {
            *message = Message::None;
            self.on_the_way -= 1;
            self.free.push_back(packet_id);
        }
    }

    /// A message of an earlier session is sent again; `false` if it was acknowledged and must not be.
    pub(crate) fn again(&mut self, packet_id: u16, position: Position) -> bool {
        let Some(message) = self.messages.get_mut(usize::from(packet_id)) else { return false };
        if *message != Message::Earlier(position) {
            return false;
        }
        *message = Message::Sent(Some(position));
        self.on_the_way += 1;
        true
    }

    /// A PUBACK. An unexpected one changes nothing.
    pub(crate) fn acknowledged(&mut self, packet_id: u16) {
        let Some(message) = self.messages.get_mut(usize::from(packet_id)) else { return };
        match message {
            Message::None | Message::Exactly | Message::Received => return,
            Message::Sent(_) => self.on_the_way -= 1,
            Message::Earlier(_) => {}
        }
        *message = Message::None;
        self.free.push_back(packet_id);
    }

    /// The messages that a later session needs to know, by position.
    pub(crate) fn in_flight(&self) -> Vec<InFlight> {
        let mut all: Vec<InFlight> = (0u16..)
            .zip(&self.messages)
            .filter_map(|(packet_id, message)| match message {
                Message::Sent(Some(position)) | Message::Earlier(position) => {
                    Some(InFlight { position: *position, packet_id })
                }
                Message::None | Message::Sent(None) | Message::Exactly | Message::Received => None,
            })
            .collect();
        all.sort_by_key(|message| message.position);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_come_back_only_with_their_acknowledgement() {
        let mut window = Window::new(2);
        assert_eq!(
            (window.take(None), window.take(None), window.take(None)),
            (Some(1), Some(2), None)
        );
        assert!(!window.has_room());
        for unknown in [0, 3, 64, 1025, u16::MAX] {
            window.acknowledged(unknown);
            assert!(!window.has_room(), "{unknown}");
        }
        window.acknowledged(2);
        window.acknowledged(2);
        assert_eq!((window.take(None), window.take(None)), (Some(2), None));
        window.acknowledged(2);
        window.acknowledged(1);
        assert_eq!(
            (window.take(None), window.take(None), window.take(None)),
            (Some(2), Some(1), None)
        );
    }

    #[test]
    fn what_an_earlier_session_sent_keeps_its_identifiers() {
        let at = |position, packet_id| InFlight { position: Position(position), packet_id };
        let mut window = Window::new(2);
        window.resume(&[at(10, 3), at(11, 1)]);
        assert_eq!(window.in_flight(), [at(10, 3), at(11, 1)]);
        assert!(!window.again(3, Position(9)) && !window.again(2, Position(10)));
        assert!(window.again(3, Position(10)) && !window.again(3, Position(10)));
        assert_eq!((window.take(Some(Position(12))), window.has_room()), (Some(2), false));
        // Acknowledged before it was sent again: the PUBACK was on its way when the connection broke.
        window.acknowledged(1);
        assert!(!window.again(1, Position(11)) && !window.has_room());
        window.acknowledged(3);
        assert_eq!(window.take(None), Some(1));
        assert_eq!(window.in_flight(), [at(12, 2)]);
    }

    #[test]
    fn an_exchange_of_qos_2_keeps_its_identifier_until_it_is_complete() {
        let mut window = Window::new(2);
        assert_eq!((window.take_exactly(), window.take_exactly()), (Some(1), Some(2)));
        window.acknowledged(1);
        assert_eq!(window.received(1, false), Some(true));
        assert_eq!(window.received(1, false), Some(true), "the PUBREL is sent again");
        assert!(!window.has_room());
        window.completed(1);
        window.completed(1);
        assert_eq!((window.take(None), window.has_room()), (Some(1), false));
        window.completed(1);
        assert_eq!([0, 1, 3, 9].map(|id| window.received(id, false)), [Some(false); 4]);
        assert_eq!((window.received(1, true), window.received(2, true)), (None, None));
        assert!(window.has_room() && window.in_flight().is_empty());
    }

    #[test]
    fn a_generous_client_gets_our_own_width() {
        let mut window = Window::new(u16::MAX);
        for expected in 1..=WIDEST {
            assert_eq!(window.take(None), Some(expected));
        }
        assert_eq!(window.take(None), None);
        window.acknowledged(WIDEST);
        assert!(window.has_room());
    }
}
