//! Vulpes: a WAMP and MQTT router on one durable, totally ordered log.
//!
//! Data flows one way: `server → gate → entry → peer → storage → raft → replica → realm → dispatch → gate →
//! server`.
//!
//! The code map, in reading order:
//! - [`types`]: the types that all parts exchange, and the named limits, pure.
//! - [`segment`]: events that an entry writes together, encoded once, pure.
//! - [`payload`]: how payloads are converted between serializers and protocols, pure.
//! - [`gate`]: the protocols' session state machines, pure: `gate::wamp` and `gate::mqtt`.
//! - [`auth`]: how a client proves who it is, pure.
//! - [`append`]: the messages between entries and storages about a segment.
//! - [`entry`]: from a publish to its acknowledgement: segments, storage votes, proposals, tickets.
//! - [`storage`]: bodies and the rows of the order, in the node's file.
//! - [`peer`]: the services between nodes and their clients. The sync tier itself is the crate `vulpes_raft`.
//! - [`rules`]: what the rules of its roles let a client do, pure.
//! - [`realm`]: the fold of the log that all nodes agree on: retained values, locks, wills, sessions; pure.
//! - [`call`]: calls between the caller's entry and the callee's, pure.
//! - [`recent`], [`log`], [`replica`], [`dispatch`]: the log as a node reads it, and its distribution to sessions.
//! - [`session`]: a client's session without its socket, pure.
//! - [`retention`]: how much of the log is retained, pure.
//! - [`config`]: a node's configuration.
//! - [`tls`]: certificates, and the connections that they secure.
//! - `server`: clients' sockets and sessions.
//! - `cluster`: the clients of sync and of the storages.
//! - [`node`]: a node: its roles and their wiring.
//! - [`http`]: a node's status, and the cluster's users, for operators.
//! - [`client`], [`cli`]: clients of both protocols, and the commands.
//!
//! Architecture invariant: `types`, `auth`, `rules`, `gate`, `payload`, `segment`, `realm`, `call`, `dispatch`, `session` and the cores
//! of `entry` and `storage` do no I/O and read no clock. The edges are in `server`, `cluster` and `node`, and behind
//! [`vulpes_raft::host::Host`], which a simulation replaces. Modules use each other in one direction only; `tests/modules.rs`
//! lists which module uses which.

pub mod append;
pub mod auth;
pub mod call;
pub mod cli;
pub mod client;
mod cluster;
pub mod config;
pub mod dispatch;
pub mod entry;
pub mod gate;
pub mod http;
pub mod log;
pub mod node;
pub mod payload;
pub mod peer;
pub mod realm;
pub mod recent;
pub mod replica;
pub mod retention;
pub mod rules;
pub mod segment;
pub mod server;
mod session;
pub mod storage;
pub mod tls;
pub mod types;
