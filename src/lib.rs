//! Vulpes: a WAMP and MQTT router on one durable, totally ordered log.
//!
//! Data flows one way: `server → gate → entry → peer → storage → raft → replica → realm → dispatch → gate →
//! server`.
//!
//! The code map, in reading order:
//! - [`types`]: what all parts say to each other, and the named limits, pure.
//! - [`segment`]: events as an entry writes them together, encoded once, pure.
//! - [`payload`]: what payloads become on their way between serializers and protocols, pure.
//! - [`gate`]: the protocols' session state machines, pure: `gate::wamp` and `gate::mqtt`.
//! - [`keep`]: what entries and storages say to each other about a segment.
//! - [`entry`]: from a publish to its acknowledgement: segments, storage votes, proposals, tickets.
//! - [`storage`]: bodies and the rows of the order, in the node's file.
//! - [`peer`]: the services between nodes and their clients. The sync tier itself is the crate `vulpes_raft`.
//! - [`realm`]: the fold of the log that all nodes agree on: retained values, locks, wills, sessions; pure.
//! - [`call`]: calls on their way from the caller's entry to the callee's and back, pure.
//! - [`recent`], [`log`], [`replica`], [`dispatch`]: the log as a node reads it, and who gets what of it.
//! - [`retention`]: how much of the log is kept, pure.
//! - [`config`], [`server`]: what an operator tells a node, and the node: sockets, roles and their wiring.
//! - [`http`]: what a node tells an operator.
//! - [`client`], [`cli`]: clients of both protocols, and the commands.
//!
//! Architecture invariant: `gate`, `payload`, `segment`, `realm`, `call`, `dispatch` and the cores of `entry` and `storage` do no
//! I/O and read no clock; the edges are in `server`, and behind [`vulpes_raft::host::Host`], which a simulation replaces.

pub mod call;
pub mod cli;
pub mod client;
pub mod config;
pub mod dispatch;
pub mod entry;
pub mod gate;
pub mod http;
pub mod keep;
pub mod log;
pub mod payload;
pub mod peer;
pub mod realm;
pub mod recent;
pub mod replica;
pub mod retention;
pub mod segment;
pub mod server;
pub mod storage;
pub mod types;
