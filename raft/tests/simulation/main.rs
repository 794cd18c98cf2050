//! The sync group in one deterministic simulation: network, disks, clocks and randomness all follow from a seed.
//!
//! Invariant: no test here sleeps in real time, opens a socket or writes a file.
//!
//! Deliberately absent: bodies, storages and entries, which the whole cluster's simulation has.

mod chaos;
mod cluster;
mod support;
