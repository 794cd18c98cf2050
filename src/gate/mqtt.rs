//! The MQTT gate.
//!
//! Invariant: nothing of a client's bytes is believed before [`packet`] has checked it.
//!
//! Deliberately absent: the session itself.

pub mod packet;
