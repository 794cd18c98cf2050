//! A client's unanswered publishes, and their answers in the order in which they were made (MQTT-4.6.0-2). A
//! conditional one is answered when it is decided, which may be much later: it leaves the queue, and the PUBACKs of
//! the others overtake its own.
//!
//! Invariant: a PUBACK with success is written only for an event that is durable, has its position, and was accepted there. If
//! the outcome is unknown, there is no PUBACK, and the connection ends.
//!
//! A packet identifier that is reused while it is unanswered is a new message: the protocol allows a QoS 1 receiver
//! to do so, and a client that repeats itself on one connection gets what it asked for.
//!
//! Deliberately absent: a limit for MQTT 3.1.1, which has no Receive Maximum. The driver stops reading from a socket
//! with [`limits::SESSION_UNANSWERED`] publishes unanswered.

use std::collections::VecDeque;

use super::outbox::Outbox;
use super::packet::codec::write_puback;
use super::packet::{Reason, Version, Violation};
use crate::gate::waits::{Allowed, TooMany, Waits};
use crate::types::act::Refusal;
use crate::types::act::Terms;
use crate::types::answer::{Answer, PublishError};
use crate::types::limits;

/// How many QoS 1 publishes a client may have unanswered: our Receive Maximum.
pub(crate) const RECEIVE_MAXIMUM: u16 = limits::SESSION_UNANSWERED as u16;

const _: () =
    assert!(limits::SESSION_UNANSWERED > 0 && limits::SESSION_UNANSWERED <= u16::MAX as usize);

#[derive(Debug)]
enum Unanswered {
    /// The node has taken it. 0: QoS 0, without an answer.
    Event { packet_id: u16, conditional: bool },
    /// Was never published; its refusal waits for its turn.
    Refused { packet_id: u16, why: Box<Violation> },
}

/// The publishes that a client waits for.
#[derive(Debug)]
pub(crate) struct Publishes {
    version: Version,
    /// The client accepts reason strings in a PUBACK.
    explain: bool,
    unanswered: VecDeque<Unanswered>,
    /// Sequence number of the first event in the queue.
    next: u64,
    /// Sequence number of the next event.
    begins: u64,
    /// Undecided conditional publishes, stored or not: packet identifiers.
    undecided: Waits<u16>,
    /// How many want a PUBACK, in both.
    waiting: usize,
}

impl Publishes {
    pub(crate) fn new(version: Version, explain: bool) -> Self {
        Self {
            version,
            explain,
            unanswered: VecDeque::new(),
            next: 0,
            begins: 0,
            undecided: Waits::default(),
            waiting: 0,
        }
    }

    pub(crate) fn allow(&mut self, allowed: Allowed) {
        self.undecided.allow(allowed);
    }

    /// Whether there is room for a publish of this size on these terms.
    pub(crate) fn check(&self, terms: &Terms, bytes: usize) -> Result<(), TooMany> {
        self.undecided.check(terms, bytes)
    }

    /// An event was handed to the node. `packet_id` is 0 with QoS 0. A conditional one comes with its size.
    pub(crate) fn begin(
        &mut self,
        packet_id: u16,
        conditional: Option<usize>,
    ) -> Result<(), Violation> {
        self.count(packet_id)?;
        let is_conditional = conditional.is_some();
        self.unanswered.push_back(Unanswered::Event { packet_id, conditional: is_conditional });
        if let Some(bytes) = conditional {
            self.undecided.insert(self.begins, packet_id, bytes);
        }
        self.begins += 1;
        Ok(())
    }

    /// A QoS 1 publish is refused: MQTT 5 only.
    pub(crate) fn refuse(
        &mut self,
        packet_id: u16,
        why: Violation,
        out: &mut Outbox,
    ) -> Result<(), Violation> {
        self.count(packet_id)?;
        self.unanswered.push_back(Unanswered::Refused { packet_id, why: Box::new(why) });
        self.settle_refused(out)
    }

    fn count(&mut self, packet_id: u16) -> Result<(), Violation> {
        if packet_id == 0 {
            return Ok(());
        }
        if self.version.is_5() && self.waiting >= usize::from(RECEIVE_MAXIMUM) {
            return Err(Violation::new(
                Reason::ReceiveMaximumExceeded,
                "more messages are unanswered than the Receive Maximum allows",
            ));
        }
        self.waiting += 1;
        Ok(())
    }

    /// The outcome of events.
    pub(crate) fn answered(&mut self, answer: Answer, out: &mut Outbox) -> Result<(), Violation> {
        assert_eq!(answer.first, self.next, "publishes are answered in their order, each once");
        self.next += u64::from(answer.count);
        for sequence in answer.first..self.next {
            self.settle_refused(out)?;
            let Some(Unanswered::Event { packet_id, conditional }) = self.unanswered.pop_front()
            else {
                panic!("an answer came for a publish that was never made");
            };
            if conditional {
                if answer.outcome.is_ok() {
                    continue;
                }
                self.undecided.remove(sequence);
            }
            if packet_id != 0 {
                self.waiting -= 1;
                self.settle(packet_id, answer.outcome.err(), out)?;
            }
        }
        self.settle_refused(out)
    }

    /// A conditional event was decided.
    pub(crate) fn decided(
        &mut self,
        sequence: u64,
        refusal: Option<Refusal>,
        out: &mut Outbox,
    ) -> Result<(), Violation> {
        let Some(packet_id) = self.undecided.remove(sequence).filter(|id| *id != 0) else {
            return Ok(());
        };
        self.waiting -= 1;
        match refusal {
            None => self.settle(packet_id, None, out),
            Some(refusal) => {
                let why = Violation::new(reason(refusal), refusal.to_string());
                self.write_refusal(packet_id, &why, out)
            }
        }
    }

    fn settle(
        &mut self,
        packet_id: u16,
        error: Option<PublishError>,
        out: &mut Outbox,
    ) -> Result<(), Violation> {
        match (error, self.version) {
            (None, version) => out.put(|output| write_puback(version, packet_id, None, output)),
            (Some(PublishError::NotStored), Version::V5) => {
                let text = PublishError::NotStored.to_string();
                self.write_refusal(packet_id, &Violation::new(Reason::Unspecified, text), out)
            }
            (Some(error), _) => Err(Violation::new(Reason::ServerBusy, error.to_string())),
        }
    }

    fn settle_refused(&mut self, out: &mut Outbox) -> Result<(), Violation> {
        while let Some(Unanswered::Refused { .. }) = self.unanswered.front() {
            if let Some(Unanswered::Refused { packet_id, why }) = self.unanswered.pop_front() {
                self.waiting -= 1;
                self.write_refusal(packet_id, &why, out)?;
            }
        }
        Ok(())
    }

    fn write_refusal(
        &self,
        packet_id: u16,
        why: &Violation,
        out: &mut Outbox,
    ) -> Result<(), Violation> {
        let text = self.explain.then_some(why.text.as_ref());
        out.put_explained(text, |text, output| {
            write_puback(self.version, packet_id, Some((why, text.is_some())), output);
        })
    }
}

/// The nearest reason code that a PUBACK can have.
fn reason(refusal: Refusal) -> Reason {
    match refusal {
        Refusal::NotAccepted | Refusal::NotAllowed => Reason::NotAuthorized,
        Refusal::LineFull => Reason::QuotaExceeded,
        Refusal::SessionEnded
        // MQTT has no registrations.
        | Refusal::ProcedureExists
        | Refusal::OtherPolicy(_)
        | Refusal::TooManyRegistrations
        | Refusal::TooManyCallees
        | Refusal::NoSuchRegistration => Reason::Unspecified,
    }
}
