//! Messages between nodes: their codec, the handshake of a connection, and calls on it.
//!
//! Deliberately absent: what the messages mean, and the network itself (`host`).

pub mod rpc;
pub mod wire;
