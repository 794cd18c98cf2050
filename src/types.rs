//! The shared types: what all parts of the router say to each other, and the named limits.
//!
//! In reading order:
//! - [`limits`], [`moment`], `varint`: bounds, time, and how numbers are written.
//! - [`topic`], [`procedure`], [`value`]: names, and decoded values.
//! - [`event`], [`act`]: what is published, and what it asks of the realms' state.
//! - [`answer`], [`subscription`]: what becomes of publishes and of subscriptions.
//! - [`head`], [`row`]: where the kept log begins, and what is written with a row of the order.
//!
//! Invariant: nothing here uses another module of this crate, does I/O or reads a clock.
//!
//! Deliberately absent: types that one module alone gives meaning to. They are in that module.

pub mod act;
pub mod answer;
pub mod event;
pub mod head;
pub mod limits;
pub mod moment;
pub mod procedure;
pub mod row;
pub mod subscription;
pub mod topic;
pub mod value;
pub(crate) mod varint;
