//! Reading a storage's tables: bodies, rows of the order, and the slots of positions.
//!
//! Invariant: every body's checksum is verified on every read. A reader sees only whole group commits.
//!
//! Deliberately absent: any cache beyond the database's own.

use std::collections::BTreeMap;
use std::sync::Weak;

use bytes::Bytes;
use redb::{
    Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable,
    ReadableTableMetadata,
};
use tokio::sync::OwnedSemaphorePermit;
use vulpes_raft::ids::{AdvanceSegment, NodeId, Position, Slot};
use vulpes_raft::mutant::{planted, Mutant};
use vulpes_raft::net::wire;
use vulpes_raft::order::{Resolution, Step};

use super::error::ReadError;
use super::snapshot::StateSnapshot;
use super::staging::Fence;
use super::tables;
use crate::segment::checksum;
use crate::types::limits;

/// Rows of the order, and their hidden events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Dense from the requested slot.
    pub rows: Vec<Resolution>,
    /// Offsets of events that subscribers never see, by slot, ascending; slots without any are left out.
    pub hidden: Vec<(Slot, Vec<u32>)>,
}

#[derive(Clone)]
pub(super) struct Reader {
    /// Owned by the group commit: once that has ended, reads fail.
    database: Weak<Database>,
}

type Slots = ReadOnlyTable<u64, &'static [u8]>;

impl Reader {
    pub(super) fn new(database: Weak<Database>) -> Self {
        Self { database }
    }

    fn begin(&self) -> Result<ReadTransaction, ReadError> {
        let database = self.database.upgrade();
        Ok(database.ok_or_else(|| ReadError::Disk("the storage is closed".into()))?.begin_read()?)
    }

    pub(super) fn body(&self, id: AdvanceSegment) -> Result<Option<Bytes>, ReadError> {
        let bodies = self.begin()?.open_table(tables::BODIES)?;
        let Some(row) = bodies.get(&id.to_key())? else { return Ok(None) };
        let (written, body) = tables::decode_body(row.value()).ok_or(ReadError::Damaged(id))?;
        if checksum(body) != written {
            return if planted(Mutant::ForgetDamaged) {
                Ok(None)
            } else {
                Err(ReadError::Damaged(id))
            };
        }
        Ok(Some(Bytes::copy_from_slice(body)))
    }

    pub(super) fn has_body(&self, id: AdvanceSegment) -> Result<bool, ReadError> {
        let bodies = self.begin()?.open_table(tables::BODIES)?;
        Ok(bodies.get(&id.to_key())?.is_some())
    }

    pub(super) fn rows(&self, from: Slot, max: usize) -> Result<Vec<Resolution>, ReadError> {
        let slots = self.slots()?;
        let mut rows = Vec::new();
        for row in slots.range(from.0..)?.take(max.min(limits::READ_ROWS)) {
            let (slot, row) = row?;
            rows.push(decode_row(Slot(slot.value()), row.value())?);
        }
        Ok(rows)
    }

    /// Rows and their hidden offsets, as many from the front as fit one answer.
    pub(super) fn rows_and_hidden(&self, from: Slot, max: usize) -> Result<Stored, ReadError> {
        let transaction = self.begin()?;
        let slots = transaction.open_table(tables::SLOTS)?;
        let mut stored = Stored::default();
        for row in slots.range(from.0..)?.take(max.min(limits::READ_ROWS)) {
            let (slot, row) = row?;
            stored.rows.push(decode_row(Slot(slot.value()), row.value())?);
        }
        let Some(last) = stored.rows.last() else { return Ok(stored) };
        let mut bytes = 0;
        for row in transaction.open_table(tables::HIDDEN)?.range(from.0..=last.slot.0)? {
            let (slot, row) = row?;
            let slot = Slot(slot.value());
            if bytes >= limits::READ_BYTES {
                stored.rows.retain(|row| row.slot < slot);
                break;
            }
            bytes += row.value().len();
            let offsets = wire::decode(row.value()).map_err(|_| ReadError::DamagedRow(slot))?;
            stored.hidden.push((slot, offsets));
        }
        Ok(stored)
    }

    /// The realms' state as it is now on disk.
    pub(super) fn snapshot(
        &self,
        place: Option<OwnedSemaphorePermit>,
    ) -> Result<StateSnapshot, ReadError> {
        let transaction = self.begin()?;
        let tail = last_row(&transaction.open_table(tables::SLOTS)?)?;
        let state = transaction.open_table(tables::STATE)?;
        Ok(StateSnapshot { tail, state, behind: None, _place: place })
    }

    pub(super) fn oldest(&self) -> Result<Option<Slot>, ReadError> {
        Ok(self.slots()?.first()?.map(|(slot, _)| Slot(slot.value())))
    }

    pub(super) fn tail(&self) -> Result<Option<Resolution>, ReadError> {
        last_row(&self.slots()?)
    }

    /// The row whose segment contains a position, by binary search over the slots: bases rise with them.
    pub(super) fn slot_of(&self, position: Position) -> Result<Option<Resolution>, ReadError> {
        let slots = self.slots()?;
        let (Some((first, _)), Some((last, _))) = (slots.first()?, slots.last()?) else {
            return Ok(None);
        };
        // Slots below `low` have a base at or before the position, slots from `high` on one after it.
        let (mut low, mut high) = (first.value(), last.value() + 1);
        let mut found = None;
        while low < high {
            let middle = low + (high - low) / 2;
            let row = row_at(&slots, Slot(middle))?;
            if row.base <= position {
                low = middle + 1;
                found = Some(row);
            } else {
                high = middle;
            }
        }
        Ok(found.filter(|row| matches!(row.step, Step::Segment(_)) && position < row.end()))
    }

    /// How many bodies there are.
    pub(super) fn bodies(&self) -> Result<u64, ReadError> {
        Ok(self.begin()?.open_table(tables::BODIES)?.len()?)
    }

    /// Whether no slot is missing between the first and the last.
    pub(super) fn is_dense(&self) -> Result<bool, ReadError> {
        let slots = self.slots()?;
        let (Some((first, _)), Some((last, _))) = (slots.first()?, slots.last()?) else {
            return Ok(true);
        };
        Ok(last.value() - first.value() + 1 == slots.len()?)
    }

    /// The bodies at and after these fences, with their checksums.
    pub(super) fn unresolved(
        &self,
        fences: &BTreeMap<NodeId, Fence>,
    ) -> Result<BTreeMap<AdvanceSegment, u64>, ReadError> {
        let bodies = self.begin()?.open_table(tables::BODIES)?;
        let mut found = BTreeMap::new();
        let mut next = Some(NodeId(0));
        while let Some(from) = next {
            let first = Fence::default().of(from).to_key();
            let Some(row) = bodies.range::<&[u8; AdvanceSegment::KEY_LEN]>(&first..)?.next() else {
                break;
            };
            let entry = AdvanceSegment::from_key(row?.0.value()).entry;
            let fence = fences.get(&entry).copied().unwrap_or_default();
            let (first, last) = (fence.of(entry).to_key(), Fence::LAST.of(entry).to_key());
            for row in bodies.range::<&[u8; AdvanceSegment::KEY_LEN]>(&first..=&last)? {
                let (key, body) = row?;
                let id = AdvanceSegment::from_key(key.value());
                // A damaged body counts as missing: its entry appends it again, or it is fetched.
                if let Some((checksum, _)) = tables::decode_body(body.value()) {
                    found.insert(id, checksum);
                }
            }
            next = entry.0.checked_add(1).map(NodeId);
        }
        Ok(found)
    }

    pub(super) fn fences(&self) -> Result<BTreeMap<NodeId, Fence>, ReadError> {
        let fences = self.begin()?.open_table(tables::FENCES)?;
        let mut found = BTreeMap::new();
        for row in fences.iter()? {
            let (entry, fence) = row?;
            let entry = NodeId(entry.value());
            let fence = tables::decode_fence(fence.value());
            found.insert(entry, fence.ok_or(ReadError::DamagedFence(entry))?);
        }
        Ok(found)
    }

    fn slots(&self) -> Result<Slots, ReadError> {
        Ok(self.begin()?.open_table(tables::SLOTS)?)
    }
}

fn last_row(slots: &Slots) -> Result<Option<Resolution>, ReadError> {
    let Some((slot, row)) = slots.last()? else { return Ok(None) };
    decode_row(Slot(slot.value()), row.value()).map(Some)
}

fn row_at(slots: &Slots, slot: Slot) -> Result<Resolution, ReadError> {
    let row = slots.get(slot.0)?.ok_or(ReadError::DamagedRow(slot))?;
    decode_row(slot, row.value())
}

fn decode_row(slot: Slot, row: &[u8]) -> Result<Resolution, ReadError> {
    let resolution: Resolution = wire::decode(row).map_err(|_| ReadError::DamagedRow(slot))?;
    if resolution.slot == slot {
        Ok(resolution)
    } else {
        Err(ReadError::DamagedRow(slot))
    }
}
