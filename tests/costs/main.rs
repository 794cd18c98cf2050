//! What a message costs, where that can be counted instead of timed: no quiet machine is needed.
//!
//! - [`path`]: round trips and syncs that an acknowledgement takes, one after the other.
//! - [`disk`]: syncs and bytes written, for each segment.
//! - [`delivery`]: bodies that had to be fetched, and how long after an acknowledgement subscribers have an event.
//!
//! Allocations have a program of their own (`tests/allocations.rs`), because counting them takes one.
//!
//! Invariant: a count is the same in every run, on any machine. One that grows is a decision, made here.
//!
//! Deliberately absent: speed itself (`vulpes bench`), and faults (`simulation`).

#[cfg(not(tokio_unstable))]
compile_error!(
    "the simulation is deterministic only with `--cfg tokio_unstable`, which .cargo/config.toml sets; \
     RUSTFLAGS in the environment replaces it: add the flag there, or unset RUSTFLAGS"
);

mod client;
mod cluster;
mod delivery;
mod disk;
mod path;
