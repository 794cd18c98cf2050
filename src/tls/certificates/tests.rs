//! Tables of files that can be used and that can't, what is served after they change, and when a warning is due.

use rcgen::{CertificateParams, KeyPair};

use super::*;
use crate::tls::testing::Folder;
use crate::tls::watched::WARNING;

fn site(folder: &Folder) -> Site {
    Site::load(folder.files()).unwrap()
}

#[test]
fn what_cant_be_used_is_named_with_what_to_do() {
    let folder = Folder::new();
    let good = |name: &str| std::fs::read(folder.path(name)).unwrap();
    let (pem, key) = (good("node.pem"), good("node.key"));
    let other = KeyPair::generate().unwrap().serialize_pem().into_bytes();
    let cut = pem[..pem.len() / 2].to_vec();
    let no_der = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec();
    let no_key = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".to_vec();
    for (name, content, expected) in [
        ("node.pem", Vec::new(), "node.pem has no certificate; write it there in PEM"),
        ("node.pem", key.clone(), "node.pem has no certificate"),
        ("node.pem", cut, "node.pem is not PEM"),
        ("node.pem", no_der.clone(), "the certificate in "),
        ("node.pem", vec![b'\n'; 1 << 20], "node.pem has no certificate"),
        ("node.pem", vec![b'\n'; (1 << 20) + 1], "node.pem has more than 1048576 bytes"),
        ("node.key", Vec::new(), "node.key has no private key; write it there in PEM"),
        ("node.key", pem.clone(), "node.key has no private key"),
        ("node.key", no_key, "the key in "),
        ("node.key", other, "node.key is not that of the certificate in "),
        ("ca.pem", key, "ca.pem has no certificate"),
        ("ca.pem", no_der, "ca.pem can't be used"),
    ] {
        let before = good(name);
        std::fs::write(folder.path(name), content).unwrap();
        let error = load(&folder.files()).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
        std::fs::write(folder.path(name), before).unwrap();
    }
    for name in ["node.pem", "node.key", "ca.pem"] {
        let before = good(name);
        std::fs::remove_file(folder.path(name)).unwrap();
        let error = load(&folder.files()).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(&format!("{name}: No such file")), "{error}");
        std::fs::write(folder.path(name), before).unwrap();
    }
    assert!(load(&folder.files()).is_ok());
}

#[test]
fn lists_of_revoked_certificates_are_read_whole() {
    let folder = Folder::new();
    let revoked = Some(folder.path("revoked.pem"));
    let files = TlsFiles { revoked, ..folder.files() };
    assert!(files.paths().contains(&&*folder.path("revoked.pem")), "it is watched");
    let pem = std::fs::read(folder.path("ca.pem")).unwrap();
    let no_list = b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n".to_vec();
    for (content, expected) in [
        (pem, "revoked.pem has no revocation list; write the one of each authority"),
        (Vec::new(), "revoked.pem has no revocation list"),
        (no_list, "revoked.pem can't be used"),
    ] {
        std::fs::write(folder.path("revoked.pem"), content).unwrap();
        let error = load(&files).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn keys_of_each_kind_are_taken() {
    let folder = Folder::new();
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let signed = params.signed_by(&key, folder.authority()).unwrap();
        std::fs::write(folder.path("node.pem"), signed.pem()).unwrap();
        std::fs::write(folder.path("node.key"), key.serialize_pem()).unwrap();
        assert!(load(&folder.files()).is_ok());
    }
}

#[test]
fn files_that_change_are_read_again_and_bad_ones_change_nothing() {
    let folder = Folder::new();
    let site = site(&folder);
    let subject = |site: &Site| site.last.lock().unwrap().ends[0].subject.clone();
    let config = |site: &Site| site.config.read().unwrap().clone();
    assert!(!site.has_changed() && subject(&site).contains("CN=first"));
    let before = config(&site);
    folder.sign("second", 2999);
    assert!(site.has_changed());
    site.reload();
    assert!(!site.has_changed() && subject(&site).contains("CN=second"));
    let second = config(&site);
    assert!(!Arc::ptr_eq(&before, &second));
    // Somebody writes the certificate, and then the key: in between, the two don't fit.
    let key = std::fs::read(folder.path("node.key")).unwrap();
    folder.sign("third", 2999);
    let (third, third_key) = (folder.path("node.pem"), folder.path("node.key"));
    let good_key = std::fs::read(&third_key).unwrap();
    std::fs::write(&third_key, key).unwrap();
    site.reload();
    assert!(Arc::ptr_eq(&second, &config(&site)) && subject(&site).contains("CN=second"));
    assert!(!site.has_changed(), "it is not tried again before something changes");
    std::fs::write(&third_key, good_key).unwrap();
    assert!(site.has_changed());
    site.reload();
    assert!(subject(&site).contains("CN=third"));
    std::fs::remove_file(third).unwrap();
    assert!(site.has_changed());
    site.reload();
    assert!(!site.has_changed() && subject(&site).contains("CN=third"));
}

#[test]
fn a_warning_is_due_for_two_weeks() {
    let folder = Folder::new();
    folder.sign("short", 2030);
    let site = site(&folder);
    let at = 1_893_456_000_000;
    let expiring = |now: u64| -> Vec<u64> {
        site.expiring(Stamp(now)).into_iter().map(|end| end.at.0).collect()
    };
    assert!(expiring(at - millis(WARNING) - 1).is_empty());
    assert_eq!(expiring(at - millis(WARNING)), [at]);
    assert_eq!(expiring(at + 1), [at]);
}
