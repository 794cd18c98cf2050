//! Bans: who is kept out, as all nodes know it.
//!
//! Invariant: persisted and sent; the order of variants and fields never changes.
//!
//! Deliberately absent: what happens to who is banned (`realm`, `server`).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};
use serde::{de, Deserialize, Deserializer, Serialize, Serializer};
use vulpes_raft::ids::{OrderTime, Position};

use crate::types::access::check_name;
use crate::types::limits;
use crate::types::topic::Realm;

/// Who is banned.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum BanTarget {
    /// A user, also at admin HTTP.
    User(String),
    /// Clients of this name (MQTT client identifier; for WAMP, which has none, the user), in one realm or in all.
    Client { name: String, realm: Option<Realm> },
    /// Clients whose connections come from this network.
    Address(Network),
}

/// A network of IP addresses, or a single one. It has no bits beyond its prefix, and is one of IPv4 if it can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Network(IpNet);

/// A ban as of a position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownBan {
    /// For operators. Clients are not told.
    pub reason: String,
    /// The user who asked for it; empty if there were no users yet.
    pub author: String,
    /// From this time of the order on, it does not hold.
    pub until: Option<OrderTime>,
    /// The position of its last change.
    pub changed: Position,
}

/// A new ban.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddBan {
    pub target: BanTarget,
    pub reason: String,
    /// Milliseconds for which it holds; if none, it does until it is removed. A span, since only the order knows the time at its
    /// position.
    pub lasts: Option<u64>,
}

/// A change of one ban.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BanChange {
    /// Adds a ban, or replaces the one of the same target.
    Add(AddBan),
    /// Removes a ban, if there is one.
    Remove(BanTarget),
}

/// Changes of bans that take effect together, or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeBans {
    /// The user who asked for them; empty if there are no users.
    pub author: String,
    pub changes: Vec<BanChange>,
}

/// Why a ban can't be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BanError {
    #[error("{0:?} can't be a user's name")]
    User(String),
    #[error("a client's name has 1 to {} bytes", limits::BAN_NAME)]
    Client,
    #[error("{0:?} is no address; write an address, as in 192.0.2.7, or a network, as in 192.0.2.0/24 or 2001:db8::/32")]
    Address(String),
    #[error("a reason has at most {} bytes, and no control characters", limits::BAN_REASON)]
    Reason,
    #[error("a ban that ends holds for a while: name a time above 0, as in 10m")]
    Span,
}

impl KnownBan {
    /// Whether it holds at this time.
    #[must_use]
    pub fn holds(&self, at: OrderTime) -> bool {
        self.until.is_none_or(|until| at < until)
    }
}

impl BanTarget {
    /// Whether it can be banned.
    ///
    /// # Errors
    /// If it can't.
    pub fn check(&self) -> Result<(), BanError> {
        match self {
            Self::User(name) => check_name(name).map_err(|_| BanError::User(name.clone())),
            Self::Client { name, .. } if (1..=limits::BAN_NAME).contains(&name.len()) => Ok(()),
            Self::Client { .. } => Err(BanError::Client),
            Self::Address(_) => Ok(()),
        }
    }
}

impl fmt::Display for BanTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => write!(f, "user {name}"),
            Self::Client { name, realm: None } => write!(f, "client {name}"),
            Self::Client { name, realm: Some(realm) } => write!(f, "client {name} in {realm}"),
            Self::Address(network) => write!(f, "address {network}"),
        }
    }
}

impl AddBan {
    /// Whether it can be a ban.
    ///
    /// # Errors
    /// If it can't.
    pub fn check(&self) -> Result<(), BanError> {
        if self.reason.len() > limits::BAN_REASON || self.reason.contains(char::is_control) {
            return Err(BanError::Reason);
        }
        if self.lasts == Some(0) {
            return Err(BanError::Span);
        }
        self.target.check()
    }
}

impl BanChange {
    /// Whose ban changes.
    #[must_use]
    pub fn target(&self) -> &BanTarget {
        match self {
            Self::Add(AddBan { target, .. }) | Self::Remove(target) => target,
        }
    }
}

impl Network {
    fn new(network: IpNet) -> Self {
        let network = network.trunc();
        let IpNet::V6(six) = network else { return Self(network) };
        let four = six.addr().to_ipv4_mapped().zip(six.prefix_len().checked_sub(96));
        let four = four.and_then(|(address, length)| Ipv4Net::new(address, length).ok());
        Self(four.map_or(network, IpNet::V4))
    }

    /// The network of this address whose prefix is this long; none if that is too long for it.
    #[must_use]
    pub fn around(address: IpAddr, length: u8) -> Option<Self> {
        IpNet::new(address.to_canonical(), length).ok().map(Self::new)
    }

    /// How many bits of an address it determines.
    #[must_use]
    pub fn length(&self) -> u8 {
        self.0.prefix_len()
    }
}

impl FromStr for Network {
    type Err = BanError;

    fn from_str(text: &str) -> Result<Self, BanError> {
        let network = text.parse::<IpAddr>().map(IpNet::from).or_else(|_| text.parse());
        let bad = |_| BanError::Address(text.chars().take(80).collect());
        network.map(Self::new).map_err(bad)
    }
}

impl fmt::Display for Network {
    /// A single address as that address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.prefix_len() == self.0.max_prefix_len() {
            true => self.0.addr().fmt(f),
            false => self.0.fmt(f),
        }
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serializer.is_human_readable() {
            true => serializer.collect_str(self),
            false => self.0.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.is_human_readable() {
            true => String::deserialize(deserializer)?.parse().map_err(de::Error::custom),
            false => IpNet::deserialize(deserializer).map(Self::new),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vulpes_raft::net::wire;

    #[test]
    fn networks_are_read_and_written() {
        for (text, expected) in [
            ("192.0.2.7", Some("192.0.2.7")),
            ("192.0.2.7/24", Some("192.0.2.0/24")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("2001:DB8::1", Some("2001:db8::1")),
            ("2001:db8::1/32", Some("2001:db8::/32")),
            ("::ffff:192.0.2.7", Some("192.0.2.7")),
            ("::ffff:192.0.2.7/120", Some("192.0.2.0/24")),
            ("::/0", Some("::/0")),
            ("192.0.2.7/33", None),
            ("192.0.2", None),
            ("localhost", None),
            ("", None),
        ] {
            let read = text.parse::<Network>().ok();
            assert_eq!(read.map(|network| network.to_string()).as_deref(), expected, "{text}");
            let json = serde_json::to_string(text).unwrap();
            assert_eq!(serde_json::from_str::<Network>(&json).ok(), read, "{text}");
        }
        // One that is not written by us has the same form.
        let loose: IpNet = "192.0.2.7/24".parse().unwrap();
        let read: Network = wire::decode(&wire::encode(&loose)).unwrap();
        assert_eq!(read.to_string(), "192.0.2.0/24");
        let around = |text: &str, length| {
            Network::around(text.parse().unwrap(), length).map(|network| network.to_string())
        };
        assert_eq!(around("::ffff:192.0.2.7", 24).as_deref(), Some("192.0.2.0/24"));
        assert_eq!(around("2001:db8::1", 24).as_deref(), Some("2001:d00::/24"));
        assert_eq!(around("192.0.2.7", 33), None);
    }

    #[test]
    fn bans_have_their_limits() {
        let client = |bytes: usize| BanTarget::Client { name: "x".repeat(bytes), realm: None };
        let ban = |target, reason: String, lasts| AddBan { target, reason, lasts }.check();
        let longest = "r".repeat(limits::BAN_REASON);
        assert_eq!(ban(client(limits::BAN_NAME), longest.clone(), Some(1)), Ok(()));
        assert_eq!(ban(client(1), longest.clone() + "r", None), Err(BanError::Reason));
        assert_eq!(ban(client(1), "a\u{1b}b".into(), None), Err(BanError::Reason));
        assert_eq!(ban(client(limits::BAN_NAME + 1), longest.clone(), None), Err(BanError::Client));
        assert_eq!(ban(client(0), longest.clone(), None), Err(BanError::Client));
        assert_eq!(ban(client(1), longest.clone(), Some(0)), Err(BanError::Span));
        let user = BanTarget::User("a b".into());
        assert_eq!(ban(user, longest, None), Err(BanError::User("a b".into())));
    }

    #[test]
    fn golden_bytes() {
        let client = BanTarget::Client { name: "c".into(), realm: Some(Realm::new("r").unwrap()) };
        let cases: [(BanTarget, &[u8]); 4] = [
            (BanTarget::User("a".into()), &[0, 1, b'a']),
            (client, &[1, 1, b'c', 1, 1, b'r']),
            (BanTarget::Address("10.1.0.0/16".parse().unwrap()), &[2, 0, 10, 1, 0, 0, 16]),
            (
                BanTarget::Address("2001:db8::/32".parse().unwrap()),
                &[2, 1, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32],
            ),
        ];
        for (target, bytes) in cases {
            assert_eq!(wire::encode(&target), bytes, "{target}");
            assert_eq!(wire::decode::<BanTarget>(bytes).unwrap(), target);
        }
        let until = Some(OrderTime(5));
        let ban = KnownBan { reason: "r".into(), author: "a".into(), until, changed: Position(9) };
        assert_eq!(wire::encode(&ban), [1, b'r', 1, b'a', 1, 5, 9]);
    }
}
