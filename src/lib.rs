//! Vulpes: a WAMP and MQTT router on one durable, totally ordered log.
//!
//! In reading order:
//! - [`limits`], [`topic`], [`event`], [`segment`]: the vocabulary, pure.
//! - [`keep`]: what entries and storages say to each other.
//! - [`gate`]: the protocols' session state machines, pure.
//! - [`recent`]: recent bodies in memory.
//! - [`config`]: what an operator tells a node.
//! - [`http`]: what a node tells an operator.
//! - [`client`]: WAMP, MQTT and admin clients.
//! - [`cli`]: the commands.

pub mod cli;
pub mod client;
pub mod config;
pub mod event;
pub mod gate;
pub mod http;
pub mod keep;
pub mod limits;
pub mod recent;
pub mod segment;
pub mod topic;
