//! The sync tier of Vulpes: a Raft group that turns advance segments into permanent, monotonic ids.
//!
//! In reading order:
//! - [`ids`], [`order`]: the vocabulary: slots, positions, segments, resolutions.
//! - [`host`]: the edges (network, disk, clock, randomness) that a simulation replaces.
//! - [`wire`], [`commit`]: the codec and handshake between nodes; group commit to disk.
//! - [`sequencer`]: the pure state machine behind the order.
//! - [`mutant`]: planted bugs that prove the checks can fail.
//!
//! Architecture invariant: no openraft type leaves this crate.

pub mod commit;
mod consensus;
pub mod host;
pub mod ids;
pub mod mutant;
pub mod order;
pub mod sequencer;
pub mod wire;
