//! The whole program as people run it: real node processes, real sockets, real clients, `kill -9`.
//!
//! - [`order`]: publishers and readers at all nodes see one order.
//! - [`budgets`]: what many connections make a node hold together.
//! - [`calls`]: procedures called over all nodes, and callees that die.
//! - [`crashes`]: nodes die under load, one or all.
//! - [`groups`]: two storage groups, each with a part of what is published.
//! - [`quorum`]: too few nodes are left, and come back.
//! - [`quotas`]: limits for users and addresses.
//! - [`bad_input`]: clients that break every rule.
//! - [`damage`]: files that are not what a node wrote.
//! - [`disk`]: disks that run low.
//! - [`health`]: probes, `vulpes status`, the log.
//! - [`overload`]: more than a node can do or hold.
//! - [`edges`]: as much as limits allow, and one more, in one write.
//! - [`operator`]: wrong configurations, ports in use, foreign data; memory.
//! - [`presence`]: slow clients, frozen ones, and those that have left.
//! - [`restored`]: data directories put back from an older copy, or taken away.
//! - [`retention`]: the log is shortened, and nothing else suffers.
//! - [`sessions`]: MQTT sessions that outlive their connections.
//! - [`names`]: names and topics as long as they may be, and who a client is.
//! - [`state`]: locks, retained values and wills over all nodes.
//! - [`register`]: compare-and-set and reads, judged as one variable while nodes are killed.
//! - [`join`]: subscriptions that begin with retained values, while these change.
//! - [`retained`]: very many retained values, and how fast a node is back with them.
//! - [`bench`]: what `vulpes bench` measures.
//! - [`peers_tls`]: nodes that know each other by certificates.
//! - [`tls`]: encrypted connections, and certificates that change.
//! - [`users`]: who may connect and administer.
//! - [`rules`]: what users may do.
//! - [`bans`]: who is kept out, and what is remembered of changes.
//! - [`first_administrator`]: a cluster as `vulpes init` makes it, which lets nobody else in.
//! - [`logins`]: logins without a password that travels.
//! - [`stock`]: stock clients of both protocols, which see each other's events.
//!
//! Invariant: tests share only the machine, and run in parallel. None waits a fixed time; each polls with a deadline.
//!
//! Deliberately absent: power cuts and network faults, which only a simulation can repeat.

mod bad_input;
mod bans;
mod bench;
mod births;
mod budgets;
mod calls;
mod crashes;
mod damage;
mod disk;
mod edges;
mod exactly_once;
mod first_administrator;
mod goodbye;
mod groups;
mod health;
mod join;
mod logins;
mod names;
mod operator;
mod order;
mod overload;
mod pages;
mod peer;
mod peers_tls;
mod presence;
mod quorum;
mod quotas;
mod raw;
mod register;
mod restored;
mod retained;
mod retention;
mod rules;
mod sessions;
mod state;
mod stock;
mod tls;
mod users;
mod values;

use vulpes_jepsen::cluster::{Builder, Cluster};

/// A cluster of the program under test.
fn cluster() -> Builder {
    Cluster::builder(env!("CARGO_BIN_EXE_vulpes"))
}
