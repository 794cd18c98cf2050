//! Clients of a node, for the commands, the bench and the tests: WAMP, MQTT and admin HTTP.
//!
//! Invariant: a node's bytes never make a client panic or allocate without bound; every wait has a deadline.
//!
//! Deliberately absent: reconnecting. The user of a client decides what a lost connection means.

pub mod admin;
pub mod dial;
pub mod mqtt;
pub mod wamp;
