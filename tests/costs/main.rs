//! What a message costs, counted instead of timed, so that no quiet machine is needed.
//!
//! - [`path`]: round trips and syncs that an acknowledgement takes, one after the other.
//! - [`disk`]: syncs and bytes written, for each segment.
//! - [`delivery`]: bodies that had to be fetched, and how long after an acknowledgement subscribers get an event.
//!
//! Allocations have a separate program (`tests/allocations.rs`), because counting them takes a global allocator.
//!
//! Invariant: a count is the same in every run, on any machine. Raising one is a decision, made here.
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
