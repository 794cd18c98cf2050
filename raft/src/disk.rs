//! A node's file: its owner, the group commit that all its writers share, and how it fails.
//!
//! [`failure`], [`witness`], [`commit`], [`file`]: how the file fails, what detects a database that has gone back in time, the
//! group commit, and the file.
//!
//! Deliberately absent: what is in the file. Each of its writers has separate tables.

pub mod commit;
pub mod failure;
pub mod file;
pub mod witness;
