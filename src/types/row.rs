//! What is written to disk with a row of the order: a segment's body, and the row's changes to the realms' state.
//!
//! Deliberately absent: what the state's rows mean (`realm`), and the tables that hold them (`storage`).

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use vulpes_raft::order::Resolution;

/// A row of the order, with everything that is written along with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexedRow {
    pub resolution: Resolution,
    /// The segment's body, if the storage lacks it.
    pub body: Option<Bytes>,
    /// Offsets of events that subscribers never see, ascending.
    pub hidden: Vec<u32>,
    /// The row's changes to the realms' state.
    pub changes: Vec<Change>,
}

impl IndexedRow {
    /// A row that hides nothing and leaves the realms' state as it is.
    #[must_use]
    pub fn plain(resolution: Resolution, body: Option<Bytes>) -> Self {
        Self { resolution, body, hidden: Vec::new(), changes: Vec::new() }
    }

    /// Bytes written for it, without the few of the row itself.
    pub(crate) fn weight(&self) -> usize {
        let value = |change: &Change| change.value.as_ref().map_or(0, Bytes::len);
        let changes = self.changes.iter().map(|change| change.key.len() + value(change));
        self.body.as_ref().map_or(0, Bytes::len) + 4 * self.hidden.len() + changes.sum::<usize>()
    }
}

/// A row that changed; without a value it is removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub key: Bytes,
    pub value: Option<Bytes>,
}

/// A state that can be made of its rows.
pub trait FromRows: Sized {
    /// Loads the state after a row of the order from its rows, by key and value.
    ///
    /// # Errors
    /// If a row can't be read.
    fn from_rows(
        tail: Option<&Resolution>,
        rows: impl IntoIterator<Item = (Bytes, Bytes)>,
    ) -> Result<Self, BadRow>;
}

/// A row that can't be read, or whose key this release does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a row of the realms' state can't be read; was it written by a newer release?")]
pub struct BadRow;
