//! Vulpes: a WAMP and MQTT router on one durable, totally ordered log.
//!
//! In reading order:
//! - [`limits`], [`topic`], [`event`], [`segment`]: the vocabulary, pure.
//! - [`keep`]: what entries and storages say to each other.
//! - [`payload`]: what payloads become on their way between serializers and protocols, pure.
//! - [`gate`]: the protocols' session state machines, pure.
//! - [`recent`]: recent bodies in memory.

pub mod event;
pub mod gate;
pub mod keep;
pub mod limits;
pub mod payload;
pub mod recent;
pub mod segment;
pub mod topic;
