//! A client's unanswered publishes, and their answers in the order in which they were made (MQTT-4.6.0-2). A
//! conditional one is answered when it is decided, which may be much later: it leaves the queue, and the PUBACKs of
//! the others overtake its own.
//!
//! Invariant: a PUBACK or PUBREC with success is written only for an event that is durable, has its position, and was accepted
//! there. If the outcome is unknown, there is none, and the connection ends.
//!
//! A packet identifier of QoS 1 that is reused while it is unanswered is a new message: the protocol allows a receiver
//! to do so, and a client that repeats itself on one connection gets what it asked for. With QoS 2, `exchanges` knows it.
//!
//! Deliberately absent: a limit of QoS 1 for MQTT 3.1.1, which has no Receive Maximum. The driver stops reading from a socket
//! with [`limits::SESSION_UNANSWERED`] publishes unanswered.

use std::collections::{BTreeMap, VecDeque};

use super::exchanges::{Exchanges, Receipt, Stage};
use super::outbox::Outbox;
use super::packet::codec::{write_puback, write_pubcomp, write_pubrec};
use super::packet::{Reason, Version, Violation};
use crate::gate::waits::{Allowed, TooMany, Waits};
use crate::types::act::Refusal;
use crate::types::act::Terms;
use crate::types::answer::{Answer, PublishError};
use crate::types::event::Qos;
use crate::types::limits;

/// How many publishes of QoS 1 and 2 a client may have unanswered: our Receive Maximum.
pub(crate) const RECEIVE_MAXIMUM: u16 = limits::SESSION_UNANSWERED as u16;

const _: () =
    assert!(limits::SESSION_UNANSWERED > 0 && limits::SESSION_UNANSWERED <= u16::MAX as usize);

/// What an event's outcome is told with.
#[derive(Debug, Clone, Copy)]
enum Reply {
    /// QoS 0.
    None,
    /// A PUBACK for this packet identifier.
    Puback(u16),
    /// A PUBREC for the publish of this number.
    Pubrec(u64),
    /// A PUBREC for this packet identifier, which those of others overtake.
    PubrecAside(u16),
    /// A PUBCOMP for this packet identifier.
    Pubcomp(u16),
}

#[derive(Debug)]
enum Unanswered {
    /// The node has taken it. If it is decided, its reply waits for that.
    Event { reply: Reply, decided: bool },
    /// Was never published; its refusal waits for its turn.
    Refused { reply: Reply, why: Box<Violation> },
}

/// How the outcome of a publish comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is stored.
    Stored,
    /// The order decides whether it is new.
    Once,
    /// The order decides by a condition; its size.
    Conditional(usize),
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
    /// Undecided conditional publishes, stored or not.
    undecided: Waits<Reply>,
    /// How many count towards the Receive Maximum: of QoS 1 in MQTT 5, and of QoS 2.
    waiting: usize,
    /// There once the client publishes with QoS 2.
    twice: Option<Box<ExactlyOnce>>,
}

/// Publishes of QoS 2.
#[derive(Debug, Default)]
struct ExactlyOnce {
    exchanges: Exchanges,
    /// What the order has still to decide, by sequence number.
    undecided: BTreeMap<u64, Reply>,
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
            twice: None,
        }
    }

    /// Takes over publishes of QoS 2 that were received on earlier connections of the session.
    pub(crate) fn resume(&mut self, received: Vec<u16>) {
        if !received.is_empty() {
            self.twice.get_or_insert_default().exchanges.resume(received);
        }
    }

    pub(crate) fn allow(&mut self, allowed: Allowed) {
        self.undecided.allow(allowed);
    }

    /// Whether there is room for a publish of this size on these terms.
    pub(crate) fn check(&self, terms: &Terms, bytes: usize) -> Result<(), TooMany> {
        self.undecided.check(terms, bytes)
    }

    /// Whether this packet identifier stands for a publish of QoS 2 already: then its client is told how far that is.
    pub(crate) fn is_repeated(
        &mut self,
        packet_id: u16,
        out: &mut Outbox,
    ) -> Result<bool, Violation> {
        let exchanges = self.twice.as_ref().map(|twice| &twice.exchanges);
        match exchanges.and_then(|exchanges| exchanges.stage(packet_id)) {
            None => Ok(false),
            Some(Stage::Publishing) => Ok(true),
            Some(Stage::Received) => {
                out.put(|output| write_pubrec(self.version, packet_id, None, output))?;
                Ok(true)
            }
            Some(Stage::Completing) => {
                let text = "a packet identifier is used again before its PUBCOMP";
                Err(Violation::protocol(text))
            }
        }
    }

    /// An event was handed to the node.
    pub(crate) fn begin(
        &mut self,
        (qos, packet_id): (Qos, u16),
        outcome: Outcome,
    ) -> Result<(), Violation> {
        let is_conditional = matches!(outcome, Outcome::Conditional(_));
        let reply = self.reply((qos, packet_id), is_conditional)?;
        self.push(reply, outcome);
        Ok(())
    }

    fn push(&mut self, reply: Reply, outcome: Outcome) {
        let decided = outcome != Outcome::Stored;
        self.unanswered.push_back(Unanswered::Event { reply, decided });
        match outcome {
            Outcome::Stored => {}
            Outcome::Once => {
                self.twice.get_or_insert_default().undecided.insert(self.begins, reply);
            }
            Outcome::Conditional(bytes) => self.undecided.insert(self.begins, reply, bytes),
        }
        self.begins += 1;
    }

    /// A publish of QoS 1 or 2 is refused: MQTT 5 only.
    pub(crate) fn refuse(
        &mut self,
        (qos, packet_id): (Qos, u16),
        why: Violation,
        out: &mut Outbox,
    ) -> Result<(), Violation> {
        let reply = self.reply((qos, packet_id), false)?;
        self.unanswered.push_back(Unanswered::Refused { reply, why: Box::new(why) });
        self.settle_refused(out)
    }

    /// A PUBREL has come. True if all nodes have to know of it before the exchange is complete, because they know of the
    /// publish (`known_to_all`): then the next event says so.
    pub(crate) fn release(
        &mut self,
        packet_id: u16,
        known_to_all: bool,
        out: &mut Outbox,
    ) -> Result<bool, Violation> {
        let twice = self.twice.get_or_insert_default();
        match twice.exchanges.stage(packet_id) {
            Some(Stage::Publishing) => Err(Violation::protocol("a PUBREL before its PUBREC")),
            Some(Stage::Completing) => Ok(false),
            Some(Stage::Received) if known_to_all => {
                twice.exchanges.completing(packet_id);
                self.push(Reply::Pubcomp(packet_id), Outcome::Once);
                Ok(true)
            }
            Some(Stage::Received) => self.complete(packet_id, out).map(|()| false),
            None => {
                out.put(|output| write_pubcomp(self.version, packet_id, false, output))?;
                Ok(false)
            }
        }
    }

    fn complete(&mut self, packet_id: u16, out: &mut Outbox) -> Result<(), Violation> {
        if let Some(twice) = &mut self.twice {
            self.waiting -= usize::from(twice.exchanges.complete(packet_id));
            if twice.exchanges.is_empty() && twice.undecided.is_empty() {
                self.twice = None;
            }
        }
        out.put(|output| write_pubcomp(self.version, packet_id, true, output))
    }

    fn reply(
        &mut self,
        (qos, packet_id): (Qos, u16),
        is_conditional: bool,
    ) -> Result<Reply, Violation> {
        if qos == Qos::ExactlyOnce || qos == Qos::AtLeastOnce && self.version.is_5() {
            self.count()?;
        }
        Ok(match qos {
            Qos::AtMostOnce => Reply::None,
            Qos::AtLeastOnce => Reply::Puback(packet_id),
            Qos::ExactlyOnce => {
                let exchanges = &mut self.twice.get_or_insert_default().exchanges;
                if is_conditional {
                    exchanges.begin_aside(packet_id);
                    Reply::PubrecAside(packet_id)
                } else {
                    Reply::Pubrec(exchanges.begin(packet_id))
                }
            }
        })
    }

    fn count(&mut self) -> Result<(), Violation> {
        if self.waiting >= usize::from(RECEIVE_MAXIMUM) {
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
            let Some(Unanswered::Event { reply, decided }) = self.unanswered.pop_front() else {
                panic!("an answer came for a publish that was never made");
            };
            if decided {
                if answer.outcome.is_ok() {
                    continue;
                }
                self.take_undecided(sequence);
            }
            self.settle(reply, answer.outcome.err(), out)?;
        }
        self.settle_refused(out)
    }

    fn take_undecided(&mut self, sequence: u64) -> Option<Reply> {
        let once = || self.twice.as_mut()?.undecided.remove(&sequence);
        self.undecided.remove(sequence).or_else(once)
    }

    /// An event was decided.
    pub(crate) fn decided(
        &mut self,
        sequence: u64,
        refusal: Option<Refusal>,
        out: &mut Outbox,
    ) -> Result<(), Violation> {
        let Some(reply) = self.take_undecided(sequence) else { return Ok(()) };
        match refusal {
            None => self.settle(reply, None, out),
            Some(refusal) => {
                self.refused(reply, Violation::new(reason(refusal), refusal.to_string()), out)
            }
        }
    }

    fn settle(
        &mut self,
        reply: Reply,
        error: Option<PublishError>,
        out: &mut Outbox,
    ) -> Result<(), Violation> {
        let Some(error) = error else { return self.succeeded(reply, out) };
        match (error, reply) {
            (_, Reply::None) => Ok(()),
            (
                PublishError::NotStored,
                Reply::Puback(_) | Reply::Pubrec(_) | Reply::PubrecAside(_),
            ) if self.version.is_5() => {
                let text = PublishError::NotStored.to_string();
                self.refused(reply, Violation::new(Reason::Unspecified, text), out)
            }
            _ => Err(Violation::new(Reason::ServerBusy, error.to_string())),
        }
    }

    fn succeeded(&mut self, reply: Reply, out: &mut Outbox) -> Result<(), Violation> {
        match reply {
            Reply::None => Ok(()),
            Reply::Puback(packet_id) => {
                self.waiting -= usize::from(self.version.is_5());
                out.put(|output| write_puback(self.version, packet_id, None, output))
            }
            Reply::Pubrec(number) => self.receipt(number, Ok(()), out),
            Reply::PubrecAside(packet_id) => self.receipt_aside(packet_id, Ok(()), out),
            Reply::Pubcomp(packet_id) => self.complete(packet_id, out),
        }
    }

    fn refused(&mut self, reply: Reply, why: Violation, out: &mut Outbox) -> Result<(), Violation> {
        match reply {
            Reply::None => Ok(()),
            Reply::Puback(packet_id) => {
                self.waiting -= usize::from(self.version.is_5());
                let text = self.explain.then_some(why.text.as_ref());
                out.put_explained(text, |text, output| {
                    write_puback(self.version, packet_id, Some((&why, text.is_some())), output);
                })
            }
            Reply::Pubrec(number) => self.receipt(number, Err(why), out),
            Reply::PubrecAside(packet_id) => self.receipt_aside(packet_id, Err(why), out),
            // The session is over: the client sends its PUBREL again in the next one.
            Reply::Pubcomp(_) => Err(why),
        }
    }

    /// A publish of QoS 2 has its outcome.
    fn receipt(
        &mut self,
        number: u64,
        receipt: Receipt,
        out: &mut Outbox,
    ) -> Result<(), Violation> {
        self.twice.get_or_insert_default().exchanges.settle(number, receipt);
        while let Some((packet_id, receipt)) =
            self.twice.as_mut().and_then(|twice| twice.exchanges.next_receipt())
        {
            self.write_receipt(packet_id, receipt, out)?;
        }
        Ok(())
    }

    fn receipt_aside(
        &mut self,
        packet_id: u16,
        receipt: Receipt,
        out: &mut Outbox,
    ) -> Result<(), Violation> {
        self.twice.get_or_insert_default().exchanges.received(packet_id, &receipt);
        self.write_receipt(packet_id, receipt, out)
    }

    fn write_receipt(
        &mut self,
        packet_id: u16,
        receipt: Receipt,
        out: &mut Outbox,
    ) -> Result<(), Violation> {
        let Err(why) = receipt else {
            return out.put(|output| write_pubrec(self.version, packet_id, None, output));
        };
        self.waiting -= 1;
        if !self.version.is_5() {
            return Err(why);
        }
        let text = self.explain.then_some(why.text.as_ref());
        out.put_explained(text, |text, output| {
            write_pubrec(self.version, packet_id, Some((&why, text.is_some())), output);
        })
    }

    fn settle_refused(&mut self, out: &mut Outbox) -> Result<(), Violation> {
        while let Some(Unanswered::Refused { .. }) = self.unanswered.front() {
            if let Some(Unanswered::Refused { reply, why }) = self.unanswered.pop_front() {
                self.refused(reply, *why, out)?;
            }
        }
        Ok(())
    }
}

/// The nearest reason code that a PUBACK can have.
fn reason(refusal: Refusal) -> Reason {
    match refusal {
        Refusal::NotAccepted | Refusal::NotAllowed => Reason::NotAuthorized,
        Refusal::LineFull | Refusal::TooManyExchanges => Reason::QuotaExceeded,
        Refusal::SessionEnded
        // MQTT has no registrations.
        | Refusal::ProcedureExists
        | Refusal::OtherPolicy(_)
        | Refusal::TooManyRegistrations
        | Refusal::TooManyCallees
        | Refusal::NoSuchRegistration => Reason::Unspecified,
    }
}
