//! Observes what the nodes show after each step of the simulation.
//!
//! Checked here, of "What must never happen" (`src/ARCHITECTURE.md`): the storages that a resolution names as its voters hold
//! the body, now and after every restart (3, 5), and a quorum does if it names none; a node comes back from every crash, and
//! never ends by itself (5); a node whose disk was wiped stores nothing and never leads (7); a node whose disk has rotted
//! reports that and stays down, or repairs itself.
//!
//! Invariant: observing changes nothing.
//!
//! Deliberately absent: the rules for the order (`log`) and for clients (`record`).

use std::collections::BTreeMap;

use vulpes::log::{Log, Placed};
use vulpes::segment::{checksum, Segment};
use vulpes::storage::{ReadError, Storage};
use vulpes_raft::ids::{NodeId, Slot};
use vulpes_raft::order::{Resolution, SealedSegment, Step};

use crate::cluster::Cluster;
use crate::node::{Handles, Simulated};
use crate::plan::QUORUM;
use crate::record::Record;

impl Cluster {
    /// Observes every node, after each step of the simulation.
    pub(crate) fn observe(&mut self, record: &mut Record) {
        for at in 0..self.nodes.len() {
            let node = &self.nodes[at];
            let id = node.id;
            if node.wiped {
                record.check(stays_out(node, self.leader()));
                continue;
            }
            if let Some(reason) = node.failure() {
                record.check(Err(format!("node {id}: {reason}")));
                return;
            }
            if node.is_dying() {
                continue;
            }
            let Some(handles) = node.handles() else { continue };
            let mut next = match node.next {
                Some(next) => next,
                None => self.came_up(id, &handles, record),
            };
            while next < handles.log.tail().next_slot {
                match handles.log.recent(next) {
                    Some(placed) => self.show(id, &placed, record),
                    // With little memory, it has dropped that slot already. Other nodes, and finally the storages, show it.
                    None if self.forgetful && beginning(&handles.log) > next => {}
                    None => record.check(Err(format!("node {id} does not show slot {next}"))),
                }
                next = next.next();
            }
            self.nodes[at].next = Some(next);
            if let Some(realms) = handles.realms {
                let (next, hash) = realms.with(|realms| (realms.next(), realms.hash()));
                record.state(id, next, hash);
            }
        }
        if self.forgetful && record.log.parked() > 0 {
            self.show_stored(record);
        }
    }

    /// Takes slots from the storages that had left the memory of all nodes before they were observed.
    fn show_stored(&self, record: &mut Record) {
        for node in self.nodes.iter().filter(|node| node.storage().is_some()) {
            let Some(handles) = node.handles() else { continue };
            let first = Slot(record.log.len() + 1);
            let stored = stored(&handles, first, node.rotten).unwrap_or_default();
            self.show_all(node.id, &stored, record);
        }
    }

    /// Observes everything that a freshly started node has; returns the first slot it shows.
    fn came_up(&self, id: u64, handles: &Handles, record: &mut Record) -> Slot {
        record.trace(|| format!("node {id} runs"));
        let node = &self.nodes[id as usize - 1];
        if !node.put_back {
            record.check(self.came_back(node, handles, resolved(record)));
        }
        match stored(handles, Slot(1), node.rotten) {
            Ok(stored) => self.show_all(id, &stored, record),
            Err(error) if node.rotten => node.give_up(error),
            Err(error) => record.check(Err(format!("node {id}: {error}"))),
        }
        beginning(&handles.log)
    }

    fn show_all(&self, id: u64, stored: &Stored, record: &mut Record) {
        stored.whole.iter().for_each(|placed| self.show(id, placed, record));
        for (row, hidden) in &stored.bare {
            let agrees = record.log.show_bare(row, hidden);
            record.check(agrees.map_err(|reason| format!("node {id}: {reason}")));
        }
    }

    fn show(&self, id: u64, placed: &Placed, record: &mut Record) {
        for sealed in record.shown(id, placed) {
            if placed.resolution.slot < record.log.head().slot {
                continue;
            }
            if sealed.votes.is_empty() {
                record.counts.early += 1;
                record.check(self.quorum_holds(&sealed));
            }
            for voter in &sealed.votes {
                let Some(node) = self.nodes.get(voter.0 as usize - 1) else { continue };
                let Some(storage) = node.storage() else { continue };
                record.check(holds(node, &storage, &sealed));
            }
        }
    }

    /// A storage that comes back has every body that it voted for, and a quorum has the early ones.
    fn came_back(
        &self,
        node: &Simulated,
        handles: &Handles,
        resolved: Vec<SealedSegment>,
    ) -> Result<(), String> {
        let Some(storage) = &handles.storage else { return Ok(()) };
        let own = NodeId(node.id);
        resolved.iter().try_for_each(|sealed| match sealed.votes.as_slice() {
            [] if holds(node, storage, sealed).is_err() => self.quorum_holds(sealed),
            votes if votes.contains(&own) => holds(node, storage, sealed),
            _ => Ok(()),
        })
    }

    /// An early segment is in the order: a minority of the storages may lack it; absent storages count in its favour.
    fn quorum_holds(&self, sealed: &SealedSegment) -> Result<(), String> {
        let there = self.nodes.iter().filter_map(|node| Some((node, node.storage()?)));
        let lacking = there.filter_map(|(node, storage)| holds(node, &storage, sealed).err());
        let lacking: Vec<_> = lacking.collect();
        // Only a single group that holds everything gets early proposals.
        if lacking.len() < QUORUM {
            return Ok(());
        }
        Err(format!("a quorum is to have {}, and does not hold it: {lacking:?}", sealed.id))
    }

    /// What the nodes still have to do after the last fault.
    pub(crate) fn unfinished(&self, record: &Record) -> Option<String> {
        let all = Slot(record.log.len());
        let there = |node: &&Simulated| !node.wiped && !record.retired.contains(&node.id);
        self.nodes.iter().filter(there).find_map(|node| {
            let id = node.id;
            let Some(handles) = node.handles() else {
                return Some(format!("node {id} does not run"));
            };
            let tail = handles.log.tail();
            if tail.next_slot != all.next() {
                return Some(format!("node {id} goes on at slot {}, all is {all}", tail.next_slot));
            }
            let (head, oldest) = (record.log.head().slot, handles.storage.as_ref()?.oldest());
            if oldest != Ok(head) {
                return Some(format!("node {id} has slots from {oldest:?} on, kept from {head}"));
            }
            let indexed = handles.storage.map(|storage| *storage.indexed().borrow());
            indexed.filter(|indexed| *indexed != all).map(|indexed| {
                format!("the storage of node {id} has slots up to {indexed}, all is {all}")
            })
        })
    }

    /// A node with a rotten disk that has not repaired everything yet, in the rest phase. Damage is found by reading.
    pub(crate) fn unmended(&self) -> Option<String> {
        self.nodes.iter().filter(|node| node.rotten).find_map(|node| {
            let handles = node.handles()?;
            match stored(&handles, Slot(1), false) {
                Ok(_) => None,
                Err(_) if handles.storage.is_some_and(|storage| storage.damaged().is_empty()) => {
                    None
                }
                Err(reason) => Some(format!("node {} is not mended: {reason}", node.id)),
            }
        })
    }

    /// What every storage holds in the end.
    pub(crate) fn verdict(&self, record: &mut Record) {
        for node in &self.nodes {
            let Some(handles) = node.handles() else { continue };
            if node.older && !record.retired.contains(&node.id) {
                let reason =
                    format!("node {} takes part with an older copy of its folder", node.id);
                record.check(Err(reason));
            }
            if handles.storage.is_none() || node.wiped || node.put_back {
                continue;
            }
            let id = node.id;
            record.check(self.came_back(node, &handles, resolved(record)));
            let held = record.log.len() + 1 - record.log.head().slot.0;
            match stored(&handles, Slot(1), false) {
                Ok(stored) if stored.len() as u64 == held => self.show_all(id, &stored, record),
                Ok(stored) => {
                    let reason = format!("storage {id} has {} slots in the end", stored.len());
                    record.check(Err(reason));
                }
                Err(error) => record.check(Err(format!("storage {id}: {error}"))),
            }
        }
    }
}

/// A node whose disk was wiped stores nothing under its old number, and does not lead.
fn stays_out(node: &Simulated, leader: Option<u64>) -> Result<(), String> {
    let id = node.id;
    if leader == Some(id) {
        return Err(format!("node {id} leads with a wiped disk"));
    }
    let Some(storage) = node.handles().and_then(|handles| handles.storage) else { return Ok(()) };
    match storage.status() {
        Ok(status) if status.bodies == 0 => Ok(()),
        Ok(status) => Err(format!("storage {id} has a wiped disk and keeps {status:?}")),
        // It has ended, which is fine.
        Err(_) => Ok(()),
    }
}

/// All segments that are known to be resolved and are not released.
fn resolved(record: &Record) -> Vec<SealedSegment> {
    let released = record.log.head().slot.0 as usize - 1;
    let sealed = record.log.slots().iter().skip(released).filter_map(|slot| match &slot.step {
        Step::Segment(sealed) => Some(sealed.clone()),
        Step::Opened { .. } | Step::Closed { .. } => None,
    });
    sealed.collect()
}

/// Whether a storage has a body that has to be on its disk. A storage on a rotten disk may know the body to be damaged.
fn holds(node: &Simulated, storage: &Storage, sealed: &SealedSegment) -> Result<(), String> {
    let id = node.id;
    match storage.body(&sealed.id) {
        Ok(Some(body)) if checksum(&body) == sealed.checksum => Ok(()),
        Ok(Some(_)) => Err(format!("storage {id} has another body of {}", sealed.id)),
        Ok(None) => Err(format!("storage {id} is to have {}, and does not hold it", sealed.id)),
        Err(ReadError::Damaged(_)) if node.rotten => Ok(()),
        Err(error) => Err(format!("storage {id} can't read {}: {error}", sealed.id)),
    }
}

/// What a storage has.
#[derive(Default)]
struct Stored {
    /// Slots with their bodies.
    whole: Vec<Placed>,
    /// Slots whose bodies another group stores, and their hidden events.
    bare: Vec<(Resolution, Vec<u32>)>,
}

impl Stored {
    fn len(&self) -> usize {
        self.whole.len() + self.bare.len()
    }
}

/// All slots of a node's storage from one on; on a rotten disk, those whose bodies are not known to be damaged.
fn stored(handles: &Handles, first: Slot, rotten: bool) -> Result<Stored, String> {
    let mut found = Stored::default();
    let Some(storage) = &handles.storage else { return Ok(found) };
    let mut from = first;
    loop {
        let stored = storage.rows_and_hidden(from, usize::MAX).map_err(|e| e.to_string())?;
        if stored.rows.is_empty() {
            return Ok(found);
        }
        let mut hidden: BTreeMap<Slot, Vec<u32>> = stored.hidden.into_iter().collect();
        for resolution in stored.rows {
            from = resolution.slot.next();
            let hidden = hidden.remove(&resolution.slot).unwrap_or_default();
            let segment = match &resolution.step {
                Step::Segment(sealed) if !storage.stores(sealed.shard) => {
                    found.bare.push((resolution, hidden));
                    continue;
                }
                Step::Segment(sealed) => {
                    let body = match storage.body(&sealed.id) {
                        Err(ReadError::Damaged(_)) if rotten => continue,
                        body => body.map_err(|error| error.to_string())?,
                    };
                    let body =
                        body.ok_or_else(|| format!("the body of {} is missing", sealed.id))?;
                    Some(Segment::parse(body).map_err(|error| error.to_string())?)
                }
                Step::Opened { .. } | Step::Closed { .. } => None,
            };
            found.whole.push(Placed { resolution, segment, hidden: hidden.into() });
        }
    }
}

/// The first slot that a freshly started node shows.
fn beginning(log: &Log) -> Slot {
    let mut slot = log.tail().next_slot;
    while slot.0 > 1 && log.recent(Slot(slot.0 - 1)).is_some() {
        slot = Slot(slot.0 - 1);
    }
    slot
}
