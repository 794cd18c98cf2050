//! Starts real Vulpes clusters for tests, breaks them, and judges what clients saw.
//!
//! In reading order:
//! - [`port`], [`http`], [`wait`]: free ports, a GET by hand, polling with a deadline.
//! - [`node`], [`cluster`]: one process, and several that know each other. [`layout`]: which of them have which roles.
//! - [`client`] over [`wamp`] (with its [`code`]s) and [`mqtt`]: small clients of our own that report exactly what the node
//!   sent.
//! - [`load`]: publishers and readers that record for a test. [`history`], [`register`]: what must hold for the records.
//! - [`op`], [`edn`], [`journal`]: a run's operations, and how they are recorded. [`check`]: what must hold for them.
//! - [`dice`], [`network`]: randomness from a seed; a network for one run.
//! - [`stage`], [`workload`], [`nemesis`]: what clients do, and what is done to the cluster meanwhile.
//! - [`run`], [`store`], [`report`]: a whole run, where it is stored, and its reports for people.
//! - [`matrix`]: bugs that are planted on purpose, to show that the checks go red.
//!
//! Invariant: nothing here knows the router's code. It sees only processes, sockets and files, so its results hold for the
//! program as users run it.
//!
//! Deliberately absent: stock clients, which the tests run as they are; simulated time.

pub mod check;
pub mod client;
pub mod cluster;
pub mod code;
pub mod dice;
pub mod edn;
pub mod history;
pub mod http;
pub mod journal;
pub mod layout;
pub mod load;
pub mod matrix;
pub mod mqtt;
pub mod nemesis;
pub mod network;
pub mod node;
pub mod op;
pub mod port;
pub mod register;
pub mod report;
pub mod run;
pub mod stage;
pub mod store;
pub mod wait;
pub mod wamp;
pub mod workload;

pub use client::{Client, Said, Seen};
pub use cluster::Cluster;
pub use node::{Node, Role};
