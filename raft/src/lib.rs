//! The sync tier of Vulpes: a Raft group that turns advance segments into permanent, monotonic ids.
//!
//! In reading order:
//! - [`ids`], [`order`]: the vocabulary: slots, positions, segments, resolutions.
//! - [`sequencer`]: the pure state machine behind the order.
//! - [`host`]: the edges (network, disk, clock, randomness) that a simulation replaces.
//! - [`format`]: the number of the log's format.
//! - [`wire`], [`rpc`]: the codec and handshake between nodes; calls.
//! - [`failure`], [`witness`], [`commit`], [`file`]: how a node's file fails, what tells a database that went back in
//!   time, the group commit that all writers share, and the file.
//! - `clocks`: what time a majority of the members' clocks vouches for.
//! - [`bodies`]: what lets a segment be proposed before it has storage votes.
//! - `consensus`: openraft's log store, state machine and network.
//! - [`service`], `router`, [`node`], [`client`]: what a member of the group is asked, the search for the one that can
//!   answer, a member, and the way to the group from anywhere.
//! - `sim` (with the feature of that name): the edges of a simulated node.
//! - [`mutant`]: planted bugs that prove the checks can fail.
//!
//! Architecture invariant: no openraft type leaves this crate.

pub mod client;
mod clocks;
pub mod commit;
mod consensus;
pub mod failure;
pub mod file;
pub mod format;
pub mod host;
pub mod ids;
pub mod local_bodies;
pub mod mutant;
pub mod node;
pub mod order;
mod router;
pub mod rpc;
pub mod sequencer;
pub mod service;
#[cfg(feature = "sim")]
pub mod sim;
pub mod wire;
pub mod witness;
