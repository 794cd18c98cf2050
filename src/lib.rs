//! Vulpes: a WAMP and MQTT router on one durable, totally ordered log.
//!
//! In reading order:
//! - [`limits`], [`topic`], [`event`], [`segment`]: the vocabulary, pure.
//! - [`keep`]: what entries and storages say to each other.
//! - [`gate`]: the protocols' session state machines, pure.
//! - [`recent`]: recent bodies in memory.
//! - [`log`], [`dispatch`], [`replica`]: the log as a node reads it, and who gets what of it.

pub mod dispatch;
pub mod event;
pub mod gate;
pub mod keep;
pub mod limits;
pub mod log;
pub mod recent;
pub mod replica;
pub mod segment;
pub mod topic;
