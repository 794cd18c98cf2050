//! Starts real Vulpes clusters for tests, breaks them, and judges what clients saw.
//!
//! In reading order:
//! - [`port`], [`http`], [`wait`]: free ports, a GET by hand, polling with a deadline.
//! - [`node`], [`cluster`]: one process, and several that know each other.
//! - [`client`] over [`wamp`] and [`mqtt`]: small clients of our own that say exactly what they were told.
//! - [`load`]: publishers and readers that keep a record. [`history`], [`register`]: what the records must show.
//!
//! Invariant: nothing here knows the router's code. It sees processes, sockets and files only, so that what it proves
//! holds for the program as people run it.
//!
//! Deliberately absent: stock clients, which the tests run as they are; simulated time and networks.

pub mod client;
pub mod cluster;
pub mod history;
pub mod http;
pub mod load;
pub mod mqtt;
pub mod node;
pub mod port;
pub mod register;
pub mod wait;
pub mod wamp;

pub use client::{Client, Said, Seen};
pub use cluster::Cluster;
pub use node::{Node, Role};
