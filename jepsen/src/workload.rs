//! Workloads: what clients ask of a cluster while it is being hurt.
//!
//! Invariant: a client writes down each question before it asks it, and each answer as it was; one that hears nothing
//! in time says that it does not know, and goes to another node.
//!
//! Deliberately absent: faults (`crate::nemesis`) and judging (`crate::check`).

mod asking;
mod consumer;
mod kv;
mod lock;
mod log;
mod retained;
mod will;

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::stage::Stage;

pub use asking::{Answer, Asking, Draft};
pub use consumer::drain;

/// All workloads: the name, and what its clients do.
pub const WORKLOADS: [(&str, &str); 5] = [
    ("log", "publishers and consumers of both protocols at all nodes, who come, hop and go; 1 byte to 600 kB"),
    ("kv", "retained values as registers: set, compare and set, and read at any node"),
    ("lock", "holders wait in line for locks; what they protect refuses old tokens"),
    ("retained", "values that change while subscriptions begin with them"),
    ("will", "sessions that leave a will, WAMP and MQTT, and end in every way"),
];

/// Lets the clients of a workload work until the stage's phase says otherwise.
pub fn start(name: &str, stage: &Arc<Stage>, clients: &mut JoinSet<()>) {
    match name {
        "log" => log::start(stage, clients),
        "kv" => kv::start(stage, clients),
        "lock" => lock::start(stage, clients),
        "retained" => retained::start(stage, clients),
        "will" => will::start(stage, clients),
        // The command line lets no other name through.
        _ => {}
    }
}
