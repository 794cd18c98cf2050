//! The adapter between openraft and this crate: types, log store, state machine and network of the Raft group.
//!
//! Invariant: no openraft type leaves this crate. Everything that Raft considers durable is durable: entries and
//! votes are written in one sequence, and an acknowledgement is sent only after the fsync that covers it.
//!
//! Deliberately absent: what a command means (`sequencer`), and who may propose one (`node`).

pub(crate) mod beside;
mod claims;
pub(crate) mod log_store;
pub(crate) mod machine;
mod memory;
pub(crate) mod network;
pub(crate) mod snapshot_store;
mod tables;
#[cfg(test)]
mod tests;
pub(crate) mod types;
