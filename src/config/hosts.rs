//! By which names a node is addressed: what the `Host` header of a request to admin HTTP may be.
//!
//! A foreign page can have its own name resolve to this node's address once it is loaded (DNS rebinding). To the browser they are one
//! site then, and the page's origin is no other one. But the browser still sends the name. So a node answers to its own names only.
//!
//! Invariant: a name that is not the node's own needs the operator's word. Any address will do: a page can't make one stand for
//! another.
//!
//! Deliberately absent: clients' listeners. A WebSocket is opened from other sites as well, so there the origin decides (`origins`).

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Address, NodeConfig, Problem};

/// The names that this machine has for itself.
const LOOPBACK: &str = "localhost";

/// The names that a node answers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts(BTreeSet<String>);

impl Hosts {
    /// Those of a node's configuration: its own, and what its operator lists.
    #[must_use]
    pub fn of(config: &NodeConfig) -> Self {
        let listed = config.listen.hosts.iter().map(|host| host.to_ascii_lowercase());
        Self(config.hosts().into_iter().chain(listed).collect())
    }

    /// Whether a request is for this node, by its `Host` header: a host, and maybe a port.
    #[must_use]
    pub fn allow(&self, header: &str) -> bool {
        // The port does not matter: it may be another one in front of the node.
        let with_port = || header.parse::<Address>();
        let address = with_port().or_else(|_| format!("{header}:0").parse());
        let Ok(address) = address else { return false };
        let host = address.host().trim_matches(['[', ']']).to_ascii_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host);
        host == LOOPBACK || host.parse::<IpAddr>().is_ok() || self.0.contains(host)
    }
}

/// Checks the list of a configuration.
pub(super) fn check(listed: &[String], problems: &mut Vec<Problem>) {
    // A star would be one name among others, and mean nothing.
    let is_letter = |c: char| c.is_alphanumeric() || ".-_".contains(c);
    let is_host = |host: &&String| Address::new(host, 0).is_ok() && host.chars().all(is_letter);
    let wrong = listed.iter().filter(|host| !is_host(host));
    problems.extend(wrong.map(|host| Problem::Host(host.clone())));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_answers_to_its_own_names_and_to_addresses() {
        let hosts = Hosts(["node1.example", "vulpes.internal"].map(str::to_owned).into());
        for (header, allowed) in [
            ("localhost", true),
            ("localhost:9081", true),
            ("LocalHost.:9081", true),
            ("127.0.0.1:9081", true),
            ("[::1]:9081", true),
            ("[::1]", true),
            ("10.1.2.3", true),
            ("node1.example:443", true),
            ("Node1.Example", true),
            ("vulpes.internal", true),
            ("evil.example:9081", false),
            ("evil.example", false),
            ("localhost.evil.example", false),
            ("evil.localhost:9081", false),
            ("node1.example.evil", false),
            ("localhost@evil.example", false),
            ("evil.example:localhost", false),
            ("localhost, evil.example", false),
            ("localhost:9081:1", false),
            ("127.0.0.1.evil.example", false),
            ("::1", false),
            ("", false),
            (":9081", false),
        ] {
            assert_eq!(hosts.allow(header), allowed, "{header:?}");
        }
    }

    #[test]
    fn only_names_are_listed() {
        for (host, is) in [
            ("vulpes.internal", true),
            ("10.1.2.3", true),
            ("https://vulpes.internal", false),
            ("vulpes.internal:9081", false),
            ("", false),
            ("*", false),
            ("*.internal", false),
        ] {
            let mut problems = Vec::new();
            check(&[host.to_owned()], &mut problems);
            assert_eq!(problems.is_empty(), is, "{host:?}: {problems:?}");
        }
    }
}
