//! The authority of a cluster: its certificate and its key, and the certificates that it gives to nodes.
//!
//! Invariant: a certificate that is given out is one that nodes take: each is checked against the authority's own before anybody
//! gets it. Keys are ECDSA on P-256, and each certificate has its own.
//!
//! Deliberately absent: files, except that an existing authority is read from two, and lists of what was given out. Whoever has
//! the authority's key can be every node.

use std::collections::BTreeSet;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use time::{Duration, OffsetDateTime};
use vulpes_raft::ids::Stamp;

use super::files::{certificates, read};
use super::name::NodeName;
use super::nodes::signed;
use super::TlsError;

/// How long an authority is valid, in days.
const AUTHORITY_DAYS: u16 = 3_650;

/// How long a node's certificate is valid, in days, unless somebody chooses another time.
pub const NODE_DAYS: u16 = 730;

/// How much a machine's clock may be behind, in days.
const BEHIND: i64 = 1;

/// A certificate and its key, in PEM.
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

/// The authority of one cluster.
pub struct Authority {
    cluster: String,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes an authority.
    ///
    /// # Errors
    /// If the machine has no randomness.
    pub fn new(cluster: &str, now: Stamp) -> Result<(Self, Pair), TlsError> {
        let key = KeyPair::generate()?;
        let mut params = subject(cluster, &key)?;
        valid(&mut params, now, AUTHORITY_DAYS);
        let signed = params.self_signed(&key)?;
        let pair = Pair { certificate: signed.pem(), key: key.serialize_pem() };
        let (cluster, certificate) = (cluster.to_owned(), signed.der().clone());
        Ok((Self { cluster, certificate, issuer: Issuer::new(params, key) }, pair))
    }

    /// Reads an authority that [`Authority::new`] has made for this cluster.
    ///
    /// # Errors
    /// If a file can't be read. Whether the two belong together, and to this cluster, shows when a certificate is given out.
    pub fn read(cluster: &str, certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let found = certificates(certificate)?;
        let [found] = <[_; 1]>::try_from(found)
            .map_err(|_| TlsError::SeveralAuthorities { path: certificate.to_owned() })?;
        let pem = read(key)?;
        let no_key = || TlsError::NoKey { path: key.to_owned() };
        let pem = std::str::from_utf8(&pem).map_err(|_| no_key())?;
        let key = KeyPair::from_pem(pem).map_err(|_| no_key())?;
        let (cluster, params) = (cluster.to_owned(), subject(cluster, &key)?);
        Ok(Self { cluster, certificate: found, issuer: Issuer::new(params, key) })
    }

    /// The authority's own certificate.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Gives a node a certificate with a new key. For clients it names the hosts, too, by which they reach the node.
    ///
    /// # Errors
    /// If the files that the authority was read from don't belong together, or to the node's cluster.
    pub fn issue(
        &self,
        node: &NodeName,
        hosts: &BTreeSet<String>,
        now: Stamp,
        days: u16,
    ) -> Result<Pair, TlsError> {
        let mut params = CertificateParams::new(Vec::new())?;
        name(&mut params, &node.cluster, &format!("node {}", node.node));
        valid(&mut params, now, days);
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![SanType::URI(node.to_string().try_into()?)];
        for host in hosts {
            params.subject_alt_names.push(match host.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(host.as_str().try_into()?),
            });
        }
        let key = KeyPair::generate()?;
        let made = params.signed_by(&key, &self.issuer)?;
        let foreign = || TlsError::NotTheAuthority { cluster: self.cluster.clone() };
        if node.cluster != self.cluster || !signed(made.der(), &self.certificate) {
            return Err(foreign());
        }
        Ok(Pair { certificate: made.pem(), key: key.serialize_pem() })
    }
}

/// What an authority's certificate says about it: always the same for its key, as its nodes' certificates repeat it, and
/// another for the authority that replaces it.
fn subject(cluster: &str, key: &KeyPair) -> Result<CertificateParams, TlsError> {
    let mut params = CertificateParams::new(Vec::new())?;
    let digest = Sha256::digest(key.public_key_raw());
    let tag: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    name(&mut params, cluster, &format!("authority {tag}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn name(params: &mut CertificateParams, cluster: &str, common: &str) {
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, cluster);
    params.distinguished_name.push(DnType::CommonName, common);
}

fn valid(params: &mut CertificateParams, now: Stamp, days: u16) {
    let seconds = i64::try_from(now.0 / 1_000).unwrap_or(i64::MAX);
    let now = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    params.not_before = now - Duration::days(BEHIND);
    params.not_after = now + Duration::days(days.into());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::files::end;
    use vulpes_raft::ids::NodeId;

    const NOW: Stamp = Stamp(1_795_369_320_000);
    const DAY: u64 = 86_400_000;

    fn node(cluster: &str) -> NodeName {
        NodeName { cluster: cluster.into(), node: NodeId(2) }
    }

    #[test]
    fn a_certificate_names_its_node_and_its_end() {
        use rustls_pki_types::pem::PemObject;
        let cluster = "a ü/\"b\"".repeat(8);
        assert_eq!(cluster.len(), 64, "the longest name");
        let (authority, _) = Authority::new(&cluster, NOW).unwrap();
        let hosts = ["node1.example", "10.0.0.1", "fd00::1"].map(str::to_owned).into();
        let pair = authority.issue(&node(&cluster), &hosts, NOW, 30).unwrap();
        let made = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap();
        assert_eq!(node(&cluster).is_in(&made), Ok(()));
        let seconds = |stamp: Stamp| stamp.0 / 1_000;
        assert_eq!(seconds(end(&made).unwrap().at), seconds(Stamp(NOW.0 + 30 * DAY)));
        let own = end(authority.certificate()).unwrap().at;
        assert_eq!(seconds(own), seconds(Stamp(NOW.0 + u64::from(AUTHORITY_DAYS) * DAY)));
        assert!(authority.issue(&node("another"), &hosts, NOW, 30).is_err());
    }

    #[test]
    fn an_authority_is_read_back_and_no_other_is_taken_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let (pem, key) = (folder.path().join("ca.pem"), folder.path().join("ca.key"));
        let (_, first) = Authority::new("c", NOW).unwrap();
        let (_, second) = Authority::new("c", NOW).unwrap();
        let issue = |cluster: &str, certificate: &str, its_key: &str| {
            std::fs::write(&pem, certificate).unwrap();
            std::fs::write(&key, its_key).unwrap();
            let authority =
                Authority::read(cluster, &pem, &key).map_err(|error| error.to_string())?;
            let issued = authority.issue(&node(cluster), &BTreeSet::new(), NOW, 1);
            issued.map(|_| ()).map_err(|error| error.to_string())
        };
        assert_eq!(issue("c", &first.certificate, &first.key), Ok(()));
        let both = format!("{}{}", first.certificate, second.certificate);
        for (cluster, certificate, key, expected) in [
            ("c", &first.certificate, &second.key, "are not the authority of cluster \"c\""),
            ("d", &first.certificate, &first.key, "are not the authority of cluster \"d\""),
            ("c", &both, &first.key, "several certificates"),
            ("c", &first.certificate, &first.certificate, "ca.key has no private key"),
            ("c", &first.key, &first.key, "ca.pem has no certificate"),
        ] {
            let error = issue(cluster, certificate, key).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
