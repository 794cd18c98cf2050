//! Workloads: what clients request from a cluster under faults.
//!
//! Invariant: a client records each request before it sends it, and each answer unchanged. If no answer comes in time, it
//! records that the outcome is unknown, and connects to another node.
//!
//! Deliberately absent: faults (`crate::nemesis`) and judging (`crate::check`).

mod asking;
mod calls;
mod consumer;
mod kv;
mod lock;
mod log;
mod retained;
mod session;
mod will;

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::stage::Stage;

pub use asking::{Answer, Asking, Draft};
pub use consumer::drain;

/// The topics whose last events every client that stays to the end has to see.
pub const MARKED: [&str; 2] = [log::BASE, session::BASE];

/// All workloads: the name, and what its clients do.
pub const WORKLOADS: [(&str, &str); 7] = [
    ("log", "publishers and consumers of both protocols at all nodes, which come, move and go; 1 byte to 600 kB"),
    ("kv", "retained values as registers: set, compare and set, and read at any node"),
    ("lock", "holders wait in line for locks; what they protect refuses old tokens"),
    ("retained", "values that change while subscriptions begin with them"),
    ("session", "MQTT sessions that outlive their connections, at one node after the other"),
    ("calls", "WAMP callers and callees at different nodes, which come, move and go"),
    ("will", "sessions that leave a will, WAMP and MQTT, and end in every way"),
];

/// Starts the clients of a workload. They work until the stage's phase changes.
pub fn start(name: &str, stage: &Arc<Stage>, clients: &mut JoinSet<()>) {
    match name {
        "log" => log::start(stage, clients),
        "kv" => kv::start(stage, clients),
        "lock" => lock::start(stage, clients),
        "retained" => retained::start(stage, clients),
        "session" => session::start(stage, clients),
        "calls" => calls::start(stage, clients),
        "will" => will::start(stage, clients),
        // The command line accepts no other name.
        _ => {}
    }
}
