//! Vulpes: a WAMP and MQTT router on one durable, totally ordered log.
//!
//! In reading order:
//! - [`limits`], [`topic`], [`event`], [`segment`]: the vocabulary, pure.
//! - [`keep`]: what entries and storages say to each other.
//! - [`payload`]: what payloads become on their way between serializers and protocols, pure.
//! - [`gate`]: the protocols' session state machines, pure.
//! - [`recent`]: recent bodies in memory.
//! - [`log`], [`dispatch`], [`replica`]: the log as a node reads it, and who gets what of it.
//! - [`storage`]: bodies and the rows of the order on disk.
//! - [`peer`]: what nodes ask of each other's storages.

pub mod dispatch;
//! - [`entry`]: the entry role's write path.

pub mod entry;
//! - [`config`]: what an operator tells a node.
//! - [`http`]: what a node tells an operator.
//! - [`client`]: WAMP, MQTT and admin clients.

pub mod client;
pub mod config;
pub mod event;
pub mod gate;
pub mod http;
pub mod keep;
pub mod limits;
pub mod log;
pub mod peer;
pub mod payload;
pub mod recent;
pub mod replica;
pub mod segment;
pub mod storage;
pub mod topic;
