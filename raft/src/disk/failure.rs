//! How a node's file fails.
//!
//! Deliberately absent: what to do about it. A failed commit ends the node (`commit`); a damaged file is not opened (`file`).

use crate::host::is_damage;

/// Why a commit failed, with an unknown outcome, or a read failed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The disk or the process failed.
    #[error("{0}")]
    Failed(String),
    /// The file's contents are not what was written.
    #[error("{0}")]
    Damaged(String),
}

impl<E: Into<redb::Error>> From<E> for CommitError {
    fn from(error: E) -> Self {
        let error = error.into();
        match is_damage(&error) {
            true => Self::Damaged(error.to_string()),
            false => Self::Failed(error.to_string()),
        }
    }
}
