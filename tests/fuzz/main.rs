//! Everything that a node reads from somebody who has not logged in, with inputs that nobody thought of.
//!
//! - [`harness`]: runs a target for a while, and says how to repeat what it found.
//! - [`mutate`]: makes inputs out of valid ones.
//! - [`cores`]: parsers and state machines, in this process, at a high rate.
//! - [`sockets`]: the ports of a real node, at a low one.
//!
//! In an ordinary test run each target has a second. As long as one likes, with other inputs each time, or those of an earlier run:
//!
//! ```text
//! VULPES_FUZZ_SECONDS=600 cargo test --test fuzz -- --nocapture
//! VULPES_FUZZ_SEED=17 cargo test --test fuzz -- --nocapture jwt
//! ```
//!
//! Invariant: no input makes a core panic or hold more memory than its target says, and none stops a node, or makes it forget to answer
//! others. An input is repeated by its run's seed: the same seed gives the same inputs, in the same order.
//!
//! Deliberately absent: what is answered to a particular input (`tests/processes/bad_input`), and finding inputs by the code that they
//! reach, for which a stable compiler has no instruments.

mod cores;
mod harness;
mod mutate;
mod sockets;
