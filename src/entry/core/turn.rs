//! The end of a turn: the core's actions once it has all current inputs.
//!
//! Invariant: it seals only what can be sent to a quorum at once, and proposes in number order.
//!
//! Deliberately absent: the inputs (`core`).

use vulpes_raft::ids::{AdvanceSegment, SegmentNumber};
use vulpes_raft::mutant::{planted, Mutant};

use super::{Core, Output};
use crate::types::answer::PublishError;
use crate::types::moment::Moment;

impl<A: Clone> Core<A> {
    /// All inputs of this moment have been passed in: seals and sends what it can, and makes the requests that are due.
    pub(in crate::entry) fn end_turn(&mut self, now: Moment) {
        let expired = self.pending.expire(now, &mut self.outputs);
        self.counters.events_expired += expired + self.writer.expire(now, &mut self.outputs);
        if expired > 0 {
            self.pass_by(now);
        }
        if self.pending.unanswered() == 0 {
            self.writer.settle(&mut self.outputs);
        }
        self.ask(now);
        self.append();
        self.write();
        self.seal();
        self.propose(now);
    }

    /// If a storage group has not stored the oldest segment within the publishers' time limit, and another group has credit for
    /// the next one, the entry starts a new incarnation without that group. The later segments can't be placed before the
    /// oldest one, so waiting would block them.
    fn pass_by(&mut self, now: Moment) {
        let (Some(shard), Some(incarnation)) = (self.pending.collecting(), self.life.live()) else {
            return;
        };
        if self.storages.has_credit_beside(shard) {
            tracing::warn!(%incarnation, "a storage group has no quorum; the entry continues with the others");
            self.lose(incarnation, now);
        }
    }

    /// Makes the requests to sync and storages that are due.
    fn ask(&mut self, now: Moment) {
        // Segments of an older incarnation without waiting publishers need not delay the next one.
        if self.pending.incarnation() != self.life.live() && self.pending.unanswered() == 0 {
            let lost = self.pending.give_up(PublishError::Unknown, &mut self.outputs);
            self.counters.segments_lost += lost;
        }
        if self.pending.is_empty() && self.life.begin() {
            self.next_number = SegmentNumber::default();
        }
        if let Some(request) = self.life.ask(now) {
            self.outputs.push_back(Output::Open { request });
        }
        if let Some(incarnation) = self.life.current() {
            let due = self.storages.due(now);
            self.outputs.extend(due.map(|storage| Output::Begin { storage, incarnation }));
        }
        if let Some(incarnation) = self.life.renew(now) {
            self.outputs.push_back(Output::Renew { incarnation });
        }
        if self.proposer.asks_for_group(now) {
            self.outputs.push_back(Output::Regroup);
        }
    }

    /// Writes waiting events, and seals if that makes room.
    pub(super) fn write(&mut self) {
        while !self.writer.fill() && self.seal() {}
    }

    /// Seals the open segment, if it has events and can be sent to a quorum at once.
    fn seal(&mut self) -> bool {
        let Some(incarnation) = self.life.live() else { return false };
        if self.writer.open_events() == 0 || !self.pending.has_room(self.writer.open_size()) {
            return false;
        }
        let Some(shard) = self.storages.deal(self.next_shard) else { return false };
        let id = AdvanceSegment { entry: self.node, incarnation, number: self.next_number };
        let (body, tickets) = self.writer.seal(id, shard);
        self.next_number = id.number.next();
        self.next_shard = shard.next();
        self.counters.segments_sealed += 1;
        self.counters.events_sealed += u64::from(body.count);
        self.outputs.push_back(Output::Sealed(body.clone()));
        // This planted bug is in counting votes, so votes are counted.
        let early = self.early && !planted(Mutant::AcknowledgeBeforeQuorum);
        self.pending.push(body, tickets, early);
        self.append();
        true
    }

    /// Sends bodies that lack votes to every storage of their group, and a skip notice to those that have no room for them.
    fn append(&mut self) {
        if self.life.live().is_none() || !self.storages.any_begun() {
            return;
        }
        for (body, votes) in self.pending.lacking() {
            self.storages.send(body, votes, |storage| {
                self.outputs.push_back(Output::Append { storage, body: body.clone() });
            });
        }
        let told = self.storages.tell();
        self.outputs.extend(told.map(|(storage, through)| Output::Skip { storage, through }));
    }

    fn propose(&mut self, now: Moment) {
        if !self.proposer.may_propose(now) || self.life.live().is_none() {
            return;
        }
        let call = self.proposer.next_call();
        let segments = self.pending.propose(call);
        if !segments.is_empty() {
            let sent = segments.iter().map(|segment| (segment.id, segment.checksum));
            self.proposer.begun(call, sent.collect());
            self.outputs.push_back(Output::Propose { call, segments });
        }
    }
}
