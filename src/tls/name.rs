//! Who a node is, as its certificate says it: one URI among the alternative names, `vulpes://CLUSTER/nodes/NUMBER`, where
//! CLUSTER is the cluster's name, percent-encoded.
//!
//! Invariant: a certificate names one node of one cluster or is refused, and each node has one spelling. All else in a
//! certificate (subject, DNS names) proves nothing to other nodes.
//!
//! Deliberately absent: whether the certificate is one of the cluster's authority (rustls has checked it by then).

use std::fmt::{self, Write};

use rustls_pki_types::CertificateDer;
use vulpes_raft::ids::NodeId;
use vulpes_raft::net::wire::Identity;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::Certificate;

const SCHEME: &str = "vulpes://";
const NODES: &str = "/nodes/";

/// A node of a cluster; its text is the URI in its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeName {
    pub cluster: String,
    pub node: NodeId,
}

/// Why a certificate is not that of the node that shows it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotItsName {
    #[error("its certificate can't be read")]
    Unreadable,
    #[error("its certificate names no node; have it signed with the alternative name URI:{wanted}, as `vulpes certs renew` does")]
    Nameless { wanted: NodeName },
    #[error("its certificate names several nodes; give each node its own")]
    Several,
    #[error("its certificate is that of {found}, and it has to be that of {wanted}; give each node its own files under [peer_tls]")]
    Other { found: NodeName, wanted: NodeName },
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SCHEME)?;
        for byte in self.cluster.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    f.write_char(byte.into())?;
                }
                other => write!(f, "%{other:02X}")?,
            }
        }
        write!(f, "{NODES}{}", self.node)
    }
}

impl NodeName {
    /// Reads a URI; none if it is not that of a node, or is spelt in another way.
    fn parse(uri: &str) -> Option<Self> {
        let (cluster, node) = uri.strip_prefix(SCHEME)?.split_once(NODES)?;
        let name = Self { cluster: decode(cluster)?, node: NodeId(node.parse().ok()?) };
        (name.to_string() == uri).then_some(name)
    }

    /// The node that a peer says it is.
    #[must_use]
    pub fn of_peer(peer: &Identity) -> Self {
        Self { cluster: peer.cluster.clone(), node: peer.node }
    }

    /// Whether a certificate is this node's.
    ///
    /// # Errors
    /// If it is another node's, or does not name exactly one.
    pub fn is_in(&self, certificate: &CertificateDer<'_>) -> Result<(), NotItsName> {
        let mut names = uris(certificate).ok_or(NotItsName::Unreadable)?.into_iter();
        let wanted = self.clone();
        match (names.next(), names.next()) {
            (None, _) => Err(NotItsName::Nameless { wanted }),
            (Some(_), Some(_)) => Err(NotItsName::Several),
            (Some(uri), None) => match Self::parse(&uri) {
                Some(found) if found == *self => Ok(()),
                Some(found) => Err(NotItsName::Other { found, wanted }),
                None => Err(NotItsName::Nameless { wanted }),
            },
        }
    }
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first == b'%' {
            let (digits, after) = after.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

/// All alternative names of our scheme; none if the certificate can't be read.
fn uris(certificate: &CertificateDer<'_>) -> Option<Vec<String>> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let names = certificate.tbs_certificate().get_extension::<SubjectAltName>().ok()?;
    let names = names.map(|(_, names)| names.0).unwrap_or_default();
    let uri = |name| match name {
        GeneralName::UniformResourceIdentifier(uri) => Some(uri.to_string()),
        _ => None,
    };
    Some(names.into_iter().filter_map(uri).filter(|uri| uri.starts_with(SCHEME)).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn name(cluster: &str, node: u64) -> NodeName {
        NodeName { cluster: cluster.into(), node: NodeId(node) }
    }

    fn certificate(uris: &[&str]) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["node-1.example".to_owned()]).unwrap();
        params
            .subject_alt_names
            .extend(uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())));
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn only_the_nodes_own_certificate_is_its_own() {
        let own = name("a b/ü", 3);
        let uri = "vulpes://a%20b%2F%C3%BC/nodes/3";
        assert_eq!(own.to_string(), uri);
        let other = |cluster: &str, node| {
            Err(NotItsName::Other { found: name(cluster, node), wanted: own.clone() })
        };
        let nameless = || Err(NotItsName::Nameless { wanted: own.clone() });
        let table: [(&[&str], Result<(), NotItsName>); 14] = [
            (&[uri], Ok(())),
            (&["https://vulpes.example", uri], Ok(())),
            (&["vulpes://a%20b%2F%C3%BC/nodes/2"], other("a b/ü", 2)),
            (&["vulpes://a/nodes/3"], other("a", 3)),
            (&[uri, "vulpes://a%20b%2F%C3%BC/nodes/2"], Err(NotItsName::Several)),
            (&[uri, "vulpes://"], Err(NotItsName::Several)),
            (&[uri, uri], Err(NotItsName::Several)),
            (&[], nameless()),
            (&["https://vulpes/nodes/3"], nameless()),
            // One spelling each.
            (&["vulpes://a%20b%2f%C3%BC/nodes/3"], nameless()),
            (&["vulpes://a%20b%2F%C3%BC/nodes/03"], nameless()),
            (&["vulpes://a%20b%2F%C3%BC/nodes/+3"], nameless()),
            (&["vulpes://a%20b%2F%C3%BC/nodes/3/"], nameless()),
            (&["vulpes://a%2/nodes/3"], nameless()),
        ];
        for (uris, expected) in table {
            assert_eq!(own.is_in(&certificate(uris)), expected, "{uris:?}");
        }
        let noise = CertificateDer::from(vec![0x30, 0x80, 1, 2, 3]);
        assert_eq!(own.is_in(&noise), Err(NotItsName::Unreadable));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(cluster in "\\PC{1,64}", node: u64) {
            let name = name(&cluster, node);
            prop_assert_eq!(NodeName::parse(&name.to_string()), Some(name));
        }

        #[test]
        fn nothing_that_is_read_has_another_spelling(uri in "vulpes://[a%2F0/]{0,8}/nodes/[0-9+]{0,3}") {
            if let Some(name) = NodeName::parse(&uri) {
                prop_assert_eq!(name.to_string(), uri);
            }
        }
    }
}
