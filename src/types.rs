//! The shared types that all parts of the router exchange, and the named limits.
//!
//! In reading order:
//! - [`limits`], [`moment`], `varint`: bounds, time, and how numbers are written.
//! - [`topic`], [`procedure`], [`value`]: names, and decoded values.
//! - [`access`], [`rule`], [`ban`]: users and logins, what their roles allow, and who is kept out.
//! - [`audit`]: what is remembered of changes of these.
//! - [`login`]: the steps of a login.
//! - [`event`], [`act`]: what is published, and its request to the realms' state.
//! - [`answer`], [`subscription`]: the outcomes of publishes and of subscriptions.
//! - [`head`], [`row`]: where the retained log begins, and what is written with a row of the order.
//!
//! Invariant: nothing here uses another module of this crate, does I/O or reads a clock.
//!
//! Deliberately absent: types with a meaning in one module only. They are in that module.

pub mod access;
pub mod act;
pub mod answer;
pub mod audit;
pub mod ban;
pub mod event;
pub mod head;
pub mod limits;
pub mod login;
pub mod moment;
pub mod procedure;
pub mod row;
pub mod rule;
pub mod subscription;
pub mod topic;
pub mod value;
pub(crate) mod varint;
