//! A storage's tables in a node's file, and the bytes in them.
//!
//! | table | key | value |
//! |---|---|---|
//! | `bodies` | advance segment, 24 bytes big-endian | checksum u64, body |
//! | `slots` | slot u64 | the resolution, by `wire::encode` |
//! | `fences` | entry u64 | incarnation u64, number u64: the lowest that may still be resolved |
//! | `state` | key of a row of the realms' state (`types::row::Change`) | its value |
//! | `hidden` | slot u64 | offsets of its events that subscribers never see, by `wire::encode` of a `Vec<u32>` |
//!
//! Numbers in values are little-endian. Persisted: never change, raise [`LOG_FORMAT`](vulpes_raft::format::LOG_FORMAT) instead.
//!
//! Invariant: `slots` is dense, every segment in it has a body, and all other bodies are at and after their entry's fence: they
//! have no separate table, because each table that a commit changes costs pages. The order before the first slot is released.
//! `state` is the fold of the log up to and including the last row of `slots`. A slot without hidden events has no row in
//! `hidden`.
//!
//! Deliberately absent: when anything is written (`writer`) and what (`staging`).

use redb::TableDefinition;
use vulpes_raft::ids::{AdvanceSegment, Incarnation, SegmentNumber};

use super::staging::Fence;

pub(super) type Key = &'static [u8; AdvanceSegment::KEY_LEN];

pub(super) const BODIES: TableDefinition<'_, Key, &[u8]> = TableDefinition::new("bodies");
pub(super) const SLOTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("slots");
pub(super) const FENCES: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("fences");
pub(super) const STATE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("state");
pub(super) const HIDDEN: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("hidden");
/// Bytes in front of a body.
pub(super) const BODY_PREFIX: usize = 8;

const _: () = {
    // The largest body, with the store's overhead, stays below the power of two in which it is allocated.
    let around = BODY_PREFIX + AdvanceSegment::KEY_LEN + 32;
    assert!(
        crate::types::limits::SEGMENT_BODY + around
            < crate::types::limits::SEGMENT_BODY.next_power_of_two()
    );
};

/// Writes a body's row into `row`, replacing its contents.
pub(super) fn encode_body(checksum: u64, body: &[u8], row: &mut Vec<u8>) {
    row.clear();
    row.extend_from_slice(&checksum.to_le_bytes());
    row.extend_from_slice(body);
}

/// The checksum and the body of a row of `bodies`; `None` if it is too short.
pub(super) fn decode_body(row: &[u8]) -> Option<(u64, &[u8])> {
    let (checksum, body) = row.split_first_chunk()?;
    Some((u64::from_le_bytes(*checksum), body))
}

pub(super) fn encode_fence(fence: Fence) -> [u8; 16] {
    let mut row = [0; 16];
    row[..8].copy_from_slice(&fence.incarnation.0.to_le_bytes());
    row[8..].copy_from_slice(&fence.number.0.to_le_bytes());
    row
}

/// `None` if it is not a fence.
pub(super) fn decode_fence(row: &[u8]) -> Option<Fence> {
    let (incarnation, number) = row.split_first_chunk()?;
    Some(Fence {
        incarnation: Incarnation(u64::from_le_bytes(*incarnation)),
        number: SegmentNumber(u64::from_le_bytes(number.try_into().ok()?)),
    })
}

#[cfg(test)]
mod tests {
    use vulpes_raft::ids::{DiskId, NodeId, Position, Shard, Slot, Stamp};
    use vulpes_raft::net::wire::{self, Identity};
    use vulpes_raft::order::{CloseReason, Resolution, SealedSegment, Step};

    use super::*;

    #[test]
    fn golden_bytes_of_bodies_and_fences() {
        let mut row = b"left over".to_vec();
        encode_body(0x0102_0304_0506_0708, b"body", &mut row);
        assert_eq!(row, [8, 7, 6, 5, 4, 3, 2, 1, b'b', b'o', b'd', b'y']);
        assert_eq!(decode_body(&row), Some((0x0102_0304_0506_0708, &b"body"[..])));
        assert_eq!(decode_body(&row[..7]), None);

        let fence = Fence { incarnation: Incarnation(3), number: SegmentNumber(258) };
        assert_eq!(encode_fence(fence), [3, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(decode_fence(&encode_fence(fence)), Some(fence));
        assert_eq!(decode_fence(&[0; 15]), None);
    }

    #[test]
    fn golden_bytes_of_slots_and_identity() {
        let id = AdvanceSegment {
            entry: NodeId(1),
            incarnation: Incarnation(2),
            number: SegmentNumber(3),
        };
        let row = |step| Resolution {
            slot: Slot(7),
            stamp: Stamp(300),
            ahead: -1,
            base: Position(9),
            step,
        };
        let segment = SealedSegment {
            id,
            shard: Shard(4),
            count: 5,
            length: 6,
            checksum: 0x0102_0304_0506_0708,
            votes: vec![NodeId(1), NodeId(3)],
        };
        let rows: [(Resolution, &[u8]); 3] = [
            (
                row(Step::Segment(segment)),
                &[7, 251, 44, 1, 1, 9, 0, 1, 2, 3, 4, 5, 6, 253, 8, 7, 6, 5, 4, 3, 2, 1, 2, 1, 3],
            ),
            (
                row(Step::Opened { entry: NodeId(1), incarnation: Incarnation(2) }),
                &[7, 251, 44, 1, 1, 9, 1, 1, 2],
            ),
            (
                row(Step::Closed {
                    entry: NodeId(1),
                    incarnation: Incarnation(2),
                    reason: CloseReason::LeaseLost,
                }),
                &[7, 251, 44, 1, 1, 9, 2, 1, 2, 1],
            ),
        ];
        for (row, bytes) in rows {
            assert_eq!(wire::encode(&row), bytes);
            assert_eq!(wire::decode::<Resolution>(bytes).unwrap(), row);
        }
        let identity = Identity { cluster: "fox".into(), node: NodeId(1), disk: DiskId(2) };
        assert_eq!(wire::encode(&identity), [3, b'f', b'o', b'x', 1, 2]);
    }
}
