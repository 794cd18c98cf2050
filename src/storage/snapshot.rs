//! The realms' state on a storage's disk, as of one row of the order, read page by page.
//!
//! Invariant: all pages are of one moment, whatever is written meanwhile: they come from one read transaction. While it is
//! open, pages of the file that were freed since can't be reused, so no reader may hold it for long.
//!
//! Deliberately absent: what rows mean (`realm`), and how long a peer may take (`peer`).

use std::ops::Bound;

use bytes::Bytes;
use redb::ReadOnlyTable;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;
use vulpes_raft::order::Resolution;

use super::error::ReadError;
use crate::types::limits;
use crate::types::row::{BadRow, FromRows};

/// Most bytes that a row takes in transit in addition to its own: two lengths.
const ROW_OVERHEAD: usize = 2 * 9;

/// Some rows of a snapshot, in the order of their keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatePage {
    /// At least one, except on the last page. At most [`limits::READ_BYTES`], unless a single row is larger.
    pub rows: Vec<(Bytes, Bytes)>,
    /// This is the last page.
    pub last: bool,
}

/// The realms' state at one moment, and how far it has been read.
pub struct StateSnapshot {
    pub(super) tail: Option<Resolution>,
    pub(super) state: ReadOnlyTable<&'static [u8], &'static [u8]>,
    /// The last key that was read.
    pub(super) behind: Option<Vec<u8>>,
    /// Its permit to be read: their number is limited.
    pub(super) _place: Option<OwnedSemaphorePermit>,
}

impl std::fmt::Debug for StateSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateSnapshot").field("tail", &self.tail).finish_non_exhaustive()
    }
}

impl StateSnapshot {
    /// The row of the order that the state belongs to; `None` if nothing has been applied yet.
    #[must_use]
    pub fn tail(&self) -> Option<&Resolution> {
        self.tail.as_ref()
    }

    /// The next rows.
    ///
    /// # Errors
    /// If the disk can't be read.
    pub fn next_page(&mut self) -> Result<StatePage, ReadError> {
        let from = self.behind.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut page = StatePage { rows: Vec::new(), last: true };
        let mut bytes = 0;
        for row in self.state.range::<&[u8]>((from, Bound::Unbounded))? {
            let (key, value) = row?;
            let (key, value) = (key.value(), value.value());
            bytes += key.len() + value.len() + ROW_OVERHEAD;
            if bytes > limits::READ_BYTES && !page.rows.is_empty() {
                page.last = false;
                break;
            }
            page.rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        }
        self.behind = page.rows.last().map(|(key, _)| key.to_vec()).or(self.behind.take());
        Ok(page)
    }

    /// Reads all of it.
    ///
    /// # Errors
    /// If the disk, or a row, can't be read.
    pub fn load<S: FromRows>(mut self) -> Result<S, ReadError> {
        let tail = self.tail.take();
        let (mut ended, mut failure) = (false, None);
        let pages = std::iter::from_fn(|| {
            if ended {
                return None;
            }
            let page = self.next_page().map_err(|error| failure = Some(error)).ok()?;
            ended = page.last;
            Some(page.rows)
        });
        let state = S::from_rows(tail.as_ref(), pages.flatten());
        match failure {
            Some(failure) => Err(failure),
            None => state.map_err(|BadRow| ReadError::DamagedState),
        }
    }
}
