//! Certificates for tests.

use std::path::PathBuf;

use rcgen::{date_time_ymd, BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::config::listener::{ClientCertificates, TlsFiles};

/// A folder with an authority's certificate `ca.pem`, and one that it has signed: `node.pem` with `node.key`.
pub(crate) struct Folder {
    folder: TempDir,
    authority: Issuer<'static, KeyPair>,
}

impl Folder {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = date_time_ymd(2999, 1, 1);
        let key = KeyPair::generate().unwrap();
        std::fs::write(folder.path().join("ca.pem"), params.self_signed(&key).unwrap().pem())
            .unwrap();
        let made = Self { folder, authority: Issuer::new(params, key) };
        made.sign("first", 2999);
        made
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes `node.pem` and `node.key`, valid until the begin of a year.
    pub(crate) fn sign(&self, name: &str, until: i32) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        std::fs::write(self.path("node.pem"), certificate.pem()).unwrap();
        std::fs::write(self.path("node.key"), key.serialize_pem()).unwrap();
    }

    pub(crate) fn files(&self) -> TlsFiles {
        let ca = self.path("ca.pem");
        let clients = ClientCertificates::Require { ca };
        let (certificate, key) = (self.path("node.pem"), self.path("node.key"));
        TlsFiles { certificate, key, clients, revoked: None }
    }

    pub(crate) fn authority(&self) -> &Issuer<'static, KeyPair> {
        &self.authority
    }
}
