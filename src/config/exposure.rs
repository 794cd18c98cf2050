//! What other machines may reach of a node, for clients and operators.
//!
//! Invariant: a node listens for them beyond loopback only in TLS and with somebody who administers it, or its operator has said that it
//! is `insecure`.
//!
//! Deliberately absent: the node port (`peer_tls`), and whether the log has users, which the node finds out when it starts.

use std::collections::BTreeSet;

use super::listener::Listener;
use super::{Address, Listen, NodeConfig, Problem};

/// Where clients and operators come in, by the names of these places in the file.
fn places<'a>(
    listen: &'a Listen,
    listeners: &'a [Listener],
) -> impl Iterator<Item = (String, &'a Address, bool)> {
    let plain = [("wamp", &listen.wamp), ("mqtt", &listen.mqtt), ("admin", &listen.admin)];
    let plain = plain.into_iter().filter_map(|(name, address)| Some((name, address.as_ref()?)));
    let plain = plain.map(|(name, address)| (format!("listen.{name}"), address, false));
    let others = (1..).zip(listeners);
    plain.chain(
        others.map(|(number, one)| (format!("listener {number}"), &one.address, one.tls.is_some())),
    )
}

/// Checks that nothing is sent in clear to other machines.
pub(super) fn check(
    insecure: bool,
    (listen, listeners): (&Listen, &[Listener]),
    problems: &mut Vec<Problem>,
) {
    let open = places(listen, listeners)
        .filter(|(_, address, has_tls)| !insecure && !has_tls && !address.is_loopback());
    problems.extend(open.map(|(place, address, _)| {
        let address = address.clone();
        Problem::OpenListener { place, address }
    }));
}

impl NodeConfig {
    /// The hosts by which this node is reached, without brackets: what its certificate has to name.
    #[must_use]
    pub fn hosts(&self) -> BTreeSet<String> {
        let own = [Some(&self.own().peer), self.own().admin.as_ref()].into_iter().flatten();
        let places = places(&self.listen, &self.listeners).map(|(_, address, _)| address);
        let named = own.chain(places).filter(|address| !address.is_wildcard());
        named.map(|address| address.host().trim_matches(['[', ']']).to_ascii_lowercase()).collect()
    }

    /// Where other machines come in, and nobody would be asked for a password if the log had no users. None if the file has a first
    /// administrator, or its operator has said that it is insecure.
    #[must_use]
    pub fn open_without_users(&self) -> Option<&Address> {
        if self.insecure || self.first_administrator.is_some() {
            return None;
        }
        let mut places = places(&self.listen, &self.listeners);
        places.find_map(|(_, address, _)| Some(address).filter(|address| !address.is_loopback()))
    }
}
