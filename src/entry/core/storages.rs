//! The storages of all groups: their credit, the bodies on the way to them, and when to retry them.
//!
//! Credit only paces sealing. A sealed segment goes to every storage of its group, even the slowest, because sync members wait
//! for it. Each storage has a separate limit for the number and bytes on the way to it.
//!
//! Invariant: nothing is sent to a storage beyond that limit, and no body twice at once. A storage gets a skip notice for what
//! is not sent for lack of room. It has credit only after it has answered a begin of the current incarnation; after a failure,
//! only once it answers the next begin. Without credit, nothing is sent to it.
//!
//! Deliberately absent: votes, which belong to the segments (`pending`).

use vulpes_raft::ids::{AdvanceSegment, NodeId, Shard};
use vulpes_raft::mutant::{planted, Mutant};
use vulpes_raft::order::StorageGroups;

use super::backoff;
use crate::entry::status::StorageStatus;
use crate::segment::SealedBody;
use crate::types::limits;
use crate::types::moment::Moment;

/// How many shards to check per group to find one whose group has room. All groups are among them: see
/// [`Shard::next`].
const LOOKED_AT: usize = 3;

/// The latest known groups, and the state of each member.
#[derive(Debug)]
pub(super) struct Storages {
    groups: StorageGroups,
    /// The most credit that is used.
    most_credit: u32,
    /// Bytes on the way to one storage.
    most_bytes: usize,
    /// In the order of the groups.
    members: Vec<Storage>,
}

#[derive(Debug)]
struct Storage {
    node: NodeId,
    /// The first shard of its group.
    group: Shard,
    /// 0 while it has to begin.
    credit: u32,
    in_flight: Vec<Sent>,
    /// The newest segment that was not sent to it for lack of room. It has got the skip notice, or has to get it.
    skipped: Option<AdvanceSegment>,
    told: Option<AdvanceSegment>,
    /// The skip notice is on its way.
    telling: bool,
    contact: Contact,
    /// Failures since it last answered.
    failures: u32,
}

/// A body on its way.
#[derive(Debug, Clone, Copy)]
struct Sent {
    segment: AdvanceSegment,
    bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contact {
    /// A begin is due.
    Due {
        at: Moment,
    },
    /// A begin is on the way.
    Beginning,
    Begun,
}

impl Storage {
    fn new(node: NodeId, group: Shard, now: Moment) -> Self {
        Self {
            node,
            group,
            credit: 0,
            in_flight: Vec::new(),
            skipped: None,
            told: None,
            telling: false,
            contact: Contact::Due { at: now },
            failures: 0,
        }
    }

    /// Whether it has credit for sealing.
    fn has_credit(&self) -> bool {
        self.in_flight.len() < self.credit as usize
    }

    /// Whether this many more bytes fit. One body always fits.
    fn has_room(&self, bytes: usize, most: usize) -> bool {
        let sent: usize = self.in_flight.iter().map(|sent| sent.bytes).sum();
        self.in_flight.is_empty()
            || self.in_flight.len() < limits::STORAGE_SENDS && sent + bytes <= most
    }

    fn is_sent(&self, segment: AdvanceSegment) -> bool {
        self.in_flight.iter().any(|sent| sent.segment == segment)
    }

    fn grant(&mut self, credit: u32, most: u32) {
        self.credit = credit.clamp(1, most);
        self.contact = Contact::Begun;
        self.failures = 0;
    }
}

impl Default for Storages {
    fn default() -> Self {
        let (groups, members) = (StorageGroups::default(), Vec::new());
        let (most_credit, most_bytes) = (limits::STORAGE_CREDIT, limits::STORAGE_SENT_BYTES);
        Self { groups, most_credit, most_bytes, members }
    }
}

impl Storages {
    /// Limits the credit that is used, and the bytes sent at once.
    pub(super) fn use_at_most(&mut self, credit: u32, bytes: usize) {
        (self.most_credit, self.most_bytes) = (credit, bytes);
    }

    pub(super) fn groups(&self) -> &StorageGroups {
        &self.groups
    }

    /// A new incarnation begins: it is announced to every storage, and each grants credit anew.
    pub(super) fn restart(&mut self, groups: StorageGroups, now: Moment) {
        self.regroup(groups, now);
        for member in &mut self.members {
            member.credit = 0;
            member.contact = Contact::Due { at: now };
            (member.skipped, member.told) = (None, None);
        }
    }

    /// The groups changed. Members that stay keep their credit.
    pub(super) fn regroup(&mut self, groups: StorageGroups, now: Moment) {
        let mut before = std::mem::take(&mut self.members);
        let members = groups.iter().flat_map(|(first, group)| {
            group.members.iter().map(move |member| (first, member.node))
        });
        for (group, node) in members {
            let known = before.iter().position(|storage| storage.node == node);
            let storage =
                known.map_or_else(|| Storage::new(node, group, now), |at| before.swap_remove(at));
            self.members.push(Storage { group, ..storage });
        }
        self.groups = groups;
    }

    /// The first shard from this one on, in the order of dealing, whose group has credit from a quorum.
    pub(super) fn deal(&self, from: Shard) -> Option<Shard> {
        let shards = std::iter::successors(Some(from), |shard| Some(shard.next()));
        let mut shards = shards.take(LOOKED_AT * self.groups.len());
        shards.find(|shard| self.has_credit(*shard))
    }

    /// Whether a group that does not hold this shard has credit from a quorum.
    pub(super) fn has_credit_beside(&self, shard: Shard) -> bool {
        let own = self.groups.range_of(shard).map(|(first, _)| first);
        let mut others = self.groups.iter().filter(|(first, _)| Some(*first) != own);
        others.any(|(first, _)| self.has_credit(first))
    }

    fn has_credit(&self, shard: Shard) -> bool {
        let Some((first, group)) = self.groups.range_of(shard) else { return false };
        let members = self.members.iter().filter(|storage| storage.group == first);
        members.filter(|storage| storage.has_credit()).count() >= group.quorum()
    }

    /// Whether any storage can be sent something.
    pub(super) fn any_begun(&self) -> bool {
        self.members.iter().any(|storage| storage.contact == Contact::Begun)
    }

    /// Sends a segment to the storages of its group that have neither voted for it nor have it on the way. A storage without
    /// room for it will get a skip notice.
    pub(super) fn send(&mut self, body: &SealedBody, voted: &[NodeId], mut to: impl FnMut(NodeId)) {
        let (segment, bytes, most) = (body.id, body.body.len(), self.most_bytes);
        let group = self.groups.range_of(body.shard).map(|(first, _)| first);
        for storage in &mut self.members {
            let wants = Some(storage.group) == group && storage.contact == Contact::Begun;
            if !wants || voted.contains(&storage.node) || storage.is_sent(segment) {
                continue;
            }
            if storage.has_room(bytes, most) {
                storage.in_flight.push(Sent { segment, bytes });
                to(storage.node);
            } else if !planted(Mutant::SkipWithoutSaying) {
                storage.skipped = storage.skipped.max(Some(segment));
            }
        }
    }

    /// The storages that need a skip notice, with its segment: bodies they lack through that segment will not be sent. The
    /// notices count as on their way.
    pub(super) fn tell(&mut self) -> impl Iterator<Item = (NodeId, AdvanceSegment)> + '_ {
        self.members.iter_mut().filter_map(|storage| {
            let due = storage.contact == Contact::Begun && !storage.telling;
            let through = storage.skipped.filter(|_| due && storage.skipped > storage.told)?;
            storage.telling = true;
            Some((storage.node, through))
        })
    }

    /// The skip notice was delivered, or it is not known whether it was.
    pub(super) fn told(
        &mut self,
        storage: NodeId,
        through: AdvanceSegment,
        heard: bool,
        now: Moment,
    ) {
        let Some(member) = self.get(storage) else { return };
        member.telling = false;
        if heard {
            member.told = member.told.max(Some(through));
        } else if member.contact == Contact::Begun {
            member.lose(now);
        }
    }

    /// A storage stored a segment and grants its next credit.
    pub(super) fn appended(&mut self, storage: NodeId, segment: AdvanceSegment, credit: u32) {
        let most = self.most_credit;
        let Some(member) = self.get(storage) else { return };
        member.in_flight.retain(|sent| sent.segment != segment);
        // A late answer from before a failure, or from an older incarnation, does not answer the pending begin.
        if member.contact == Contact::Begun {
            member.grant(credit, most);
        }
    }

    /// A storage did not store a segment, or it is not known whether it did.
    pub(super) fn failed(&mut self, storage: NodeId, segment: AdvanceSegment, now: Moment) {
        let Some(member) = self.get(storage) else { return };
        member.in_flight.retain(|sent| sent.segment != segment);
        // If several segments were on the way, only the first failure counts.
        if member.contact == Contact::Begun {
            member.lose(now);
        }
    }

    /// A storage answered the begin, or failed.
    pub(super) fn begun(&mut self, storage: NodeId, credit: Option<u32>, now: Moment) {
        let most = self.most_credit;
        let Some(member) = self.get(storage) else { return };
        match credit {
            Some(credit) => member.grant(credit, most),
            None if member.contact == Contact::Beginning => member.lose(now),
            None => {}
        }
    }

    /// The storages to send a begin now. The begins count as sent.
    pub(super) fn due(&mut self, now: Moment) -> impl Iterator<Item = NodeId> + '_ {
        self.members.iter_mut().filter_map(move |storage| match storage.contact {
            Contact::Due { at } if at <= now => {
                storage.contact = Contact::Beginning;
                Some(storage.node)
            }
            _ => None,
        })
    }

    /// When the next begin is due.
    pub(super) fn deadline(&self) -> Option<Moment> {
        let due = self.members.iter().filter_map(|storage| match storage.contact {
            Contact::Due { at } => Some(at),
            Contact::Beginning | Contact::Begun => None,
        });
        due.min()
    }

    /// Reports the state of each.
    pub(super) fn report(&self, into: &mut Vec<StorageStatus>) {
        into.clear();
        into.extend(self.members.iter().map(|storage| StorageStatus {
            node: storage.node,
            credit: storage.credit,
            outstanding: storage.in_flight.len(),
        }));
    }

    fn get(&mut self, node: NodeId) -> Option<&mut Storage> {
        self.members.iter_mut().find(|storage| storage.node == node)
    }
}

impl Storage {
    fn lose(&mut self, now: Moment) {
        self.credit = 0;
        self.contact = Contact::Due { at: backoff(now, self.failures) };
        self.failures = self.failures.saturating_add(1);
    }
}
