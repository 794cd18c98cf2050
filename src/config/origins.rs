//! Which web pages may connect: a browser sends the origin of the page, and a page can't forge it (RFC 6454).
//!
//! Without a list, only pages of the node's own hosts may connect. So a foreign page that a user merely visits can't reach the
//! node through the browser. The node's own hosts are those in its configuration, not those that a request names, because any
//! name can be made to resolve to any address.
//!
//! Deliberately absent: clients that are not browsers. They send no origin, and none is required.

use std::collections::BTreeSet;

use super::listener::ListenerProtocol;
use super::NodeConfig;

/// Allows the pages of all origins.
pub const ANY: &str = "*";

/// The origin of pages that have none, such as local files.
const NONE: &str = "null";

/// The pages that may connect to a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    any: bool,
    listed: BTreeSet<String>,
    /// The node's own hosts.
    hosts: BTreeSet<String>,
}

impl Origins {
    /// The origins that a node's configuration allows.
    #[must_use]
    pub fn of(config: &NodeConfig) -> Self {
        let listed = config.listen.origins.iter().map(|origin| origin.to_ascii_lowercase());
        let addresses = [config.listen.wamp.as_ref(), Some(&config.own().peer)];
        let others = config.listeners.iter().filter(|one| one.protocol == ListenerProtocol::Wamp);
        let addresses =
            addresses.into_iter().flatten().chain(others.map(|listener| &listener.address));
        let named = addresses.filter(|address| !address.is_wildcard());
        let named = named.map(|address| address.host().to_ascii_lowercase());
        Self {
            any: config.listen.origins.iter().any(|origin| origin == ANY),
            listed: listed.collect(),
            hosts: ["localhost", "127.0.0.1", "[::1]"]
                .map(str::to_owned)
                .into_iter()
                .chain(named)
                .collect(),
        }
    }

    /// The origins that may use its admin HTTP: those of its own hosts. Pages that may connect as clients are not operators.
    #[must_use]
    pub fn of_operators(config: &NodeConfig) -> Self {
        Self { any: false, listed: BTreeSet::new(), ..Self::of(config) }
    }

    /// Whether a page of this origin may connect.
    #[must_use]
    pub fn allows(&self, origin: &str) -> bool {
        let origin = origin.to_ascii_lowercase();
        self.any
            || self.listed.contains(&origin)
            || host(&origin).is_some_and(|host| self.hosts.contains(host))
    }
}

/// The host of an origin: a scheme, a host, and maybe a port.
fn host(origin: &str) -> Option<&str> {
    let (scheme, rest) = origin.split_once("://")?;
    let is_host = |text: &str| !text.is_empty() && !text.contains(['/', '?', '#', '@', ' ', ',']);
    if scheme.is_empty() || !is_host(rest) {
        return None;
    }
    let end = match rest.starts_with('[') {
        true => rest.find(']')? + 1,
        false => rest.find(':').unwrap_or(rest.len()),
    };
    let (host, port) = rest.split_at(end);
    let is_port =
        port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    (is_port && !host.is_empty()).then_some(host)
}

/// Whether this text is allowed in a list of origins.
pub(super) fn is_origin(text: &str) -> bool {
    text == ANY || text == NONE || host(text).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(listed: &[&str]) -> Origins {
        Origins {
            any: listed.contains(&ANY),
            listed: listed.iter().map(|origin| (*origin).to_owned()).collect(),
            hosts: ["localhost", "node1.example"].map(str::to_owned).into(),
        }
    }

    #[test]
    fn pages_of_the_nodes_own_hosts_may_connect() {
        let own = origins(&[]);
        for (origin, allowed) in [
            ("http://localhost:8080", true),
            ("https://Node1.Example", true),
            ("http://node1.example.evil", false),
            ("http://evil/localhost", false),
            ("http://localhost@evil", false),
            ("http://evil:80#localhost", false),
            ("http://localhost:80, http://evil", false),
            ("http://localhost:http", false),
            ("http://", false),
            ("localhost", false),
            ("null", false),
            ("*", false),
            ("", false),
        ] {
            assert_eq!(own.allows(origin), allowed, "{origin}");
        }
    }

    #[test]
    fn pages_of_listed_origins_may_connect() {
        let listed = origins(&["https://app.example", "null"]);
        for (origin, allowed) in [
            ("https://app.example", true),
            ("https://APP.example", true),
            ("http://app.example", false),
            ("https://app.example:8443", false),
            ("null", true),
        ] {
            assert_eq!(listed.allows(origin), allowed, "{origin}");
        }
        assert!(origins(&["*"]).allows("https://anything"));
    }

    #[test]
    fn what_is_no_origin_is_not_listed() {
        for (text, is) in [
            ("https://app.example:8443", true),
            ("http://[::1]:80", true),
            ("*", true),
            ("null", true),
            ("app.example", false),
            ("https://app.example/", false),
            ("https://*.example", true),
            ("https://", false),
        ] {
            assert_eq!(is_origin(text), is, "{text}");
        }
    }
}
