//! The sync tier of Vulpes: a Raft group that turns advance segments into permanent, monotonic ids.
//!
//! What every part of a node builds on, in reading order:
//! - [`ids`]: the names of things in the order: slots, positions, segments.
//! - [`format`]: the number of the log's format.
//! - [`host`]: the edges (network, disk, clock, randomness) that a simulation replaces. With the feature `sim`, the edges of a
//!   simulated node.
//! - [`disk`]: a node's file, and the group commit that all its writers share.
//! - [`net`]: the codec and handshake between nodes; calls.
//! - [`mutant`]: planted bugs that prove the checks can fail.
//!
//! The sync tier:
//! - [`order`]: proposals, their outcomes, and resolutions.
//! - [`sequencer`]: the pure state machine behind the order.
//! - `clocks`: the time that a majority of the members' clocks vouches for.
//! - [`local_bodies`]: what lets a segment be proposed before it has storage votes.
//! - `consensus`: openraft's log store, state machine and network.
//! - [`service`], `router`, [`node`], [`client`]: the requests to a member of the group, the search for the member that can
//!   answer, the member itself, and the client for any node.
//!
//! Architecture invariant: no openraft type leaves this crate.

pub mod client;
mod clocks;
mod consensus;
pub mod disk;
pub mod format;
pub mod host;
pub mod ids;
pub mod local_bodies;
pub mod mutant;
pub mod net;
pub mod node;
pub mod order;
mod router;
pub mod sequencer;
pub mod service;
