//! Tables of nodes that may speak with each other and those that may not, of files that can't be used, and an authority that is
//! replaced while nodes run.

use std::path::PathBuf;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vulpes_raft::host::Host;
use vulpes_raft::ids::{DiskId, Stamp};

use super::*;
use crate::tls::authority::{Authority, Pair};

/// rustls goes by the machine's clock.
fn now() -> Stamp {
    Host::real().clock.now()
}

/// Some nodes' files, and what signs them.
struct Folder {
    folder: TempDir,
    authority: Authority,
    pem: String,
}

fn name(cluster: &str, node: u64) -> NodeName {
    NodeName { cluster: cluster.into(), node: NodeId(node) }
}

fn peer(cluster: &str, node: u64) -> Identity {
    Identity { cluster: cluster.into(), node: NodeId(node), disk: DiskId(1) }
}

impl Folder {
    fn new(cluster: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (authority, Pair { certificate, .. }) = Authority::new(cluster, now()).unwrap();
        Self { folder, authority, pem: certificate }
    }

    fn path(&self, node: u64, name: &str) -> PathBuf {
        self.folder.path().join(format!("{node}.{name}"))
    }

    fn files(&self, cluster: &str, node: u64) -> NodeFiles {
        let [certificate, key, ca] = ["pem", "key", "ca"].map(|name| self.path(node, name));
        NodeFiles { files: PeerTls { certificate, key, ca }, own: name(cluster, node) }
    }

    /// Gives a node a certificate of this authority.
    fn renew(&self, authority: &Authority, cluster: &str, node: u64) {
        let pair = authority.issue(&name(cluster, node), &Default::default(), now(), 30).unwrap();
        std::fs::write(self.path(node, "pem"), pair.certificate).unwrap();
        std::fs::write(self.path(node, "key"), pair.key).unwrap();
    }

    fn node(&self, cluster: &str, node: u64) -> NodeTls {
        self.renew(&self.authority, cluster, node);
        std::fs::write(self.path(node, "ca"), &self.pem).unwrap();
        NodeTls::load(self.files(cluster, node)).unwrap()
    }
}

/// One node dials another, which it takes for `wanted`, and says something; what each side makes of it.
async fn meet(
    dialler: &NodeTls,
    wanted: u64,
    other: &NodeTls,
    says: Identity,
) -> (Result<u8, String>, Result<(), String>) {
    let (here, there) = tokio::io::duplex(64 << 10);
    let dialling = async move {
        let text = |error: io::Error| error.to_string();
        let reached = dialler.reach(Box::new(here), NodeId(wanted)).await;
        let mut stream = reached.map_err(|error| error.to_string())?;
        stream.write_u8(7).await.map_err(text)?;
        stream.flush().await.map_err(text)?;
        stream.read_u8().await.map_err(text)
    };
    let accepting = async move {
        let accepted = other.accept(Box::new(there)).await;
        let (mut stream, shown) = accepted.map_err(|(error, _)| error.to_string())?;
        shown.fits(&says).map_err(|error| error.to_string())?;
        let said = stream.read_u8().await.map_err(|error| error.to_string())?;
        stream.write_u8(said + 1).await.map_err(|error| error.to_string())?;
        stream.flush().await.map_err(|error| error.to_string())
    };
    tokio::join!(dialling, accepting)
}

#[tokio::test]
async fn nodes_of_one_cluster_meet_and_no_others_do() {
    let (folder, foreign) = (Folder::new("c"), Folder::new("c"));
    let (one, two, three) = (folder.node("c", 1), folder.node("c", 2), folder.node("c", 3));
    let strange = foreign.node("c", 1);
    assert_eq!(meet(&one, 2, &two, peer("c", 1)).await, (Ok(8), Ok(())));
    assert_eq!(meet(&two, 1, &one, peer("c", 2)).await, (Ok(8), Ok(())));

    let (said, _) = meet(&one, 2, &three, peer("c", 1)).await;
    let said = said.unwrap_err();
    assert!(
        said.contains("that of vulpes://c/nodes/3, and it has to be that of vulpes://c/nodes/2"),
        "{said}"
    );

    for (wrong, expected) in [
        (peer("c", 3), "that of vulpes://c/nodes/1, and it has to be that of vulpes://c/nodes/3"),
        (peer("d", 1), "that of vulpes://c/nodes/1, and it has to be that of vulpes://d/nodes/1"),
    ] {
        let (said, heard) = meet(&one, 2, &two, wrong).await;
        let heard = heard.unwrap_err();
        assert!(said.is_err() && heard.contains(expected), "{heard}");
    }

    let (said, heard) = meet(&strange, 2, &two, peer("c", 1)).await;
    assert!(said.unwrap_err().contains("UnknownIssuer"));
    assert!(heard.is_err());
    let (said, heard) = meet(&one, 1, &strange, peer("c", 1)).await;
    assert!(said.unwrap_err().contains("UnknownIssuer") && heard.is_err());
}

/// Dialled by somebody who is less strict than a node.
async fn dialled(node: &NodeTls, config: ClientConfig) -> Result<(), String> {
    let (here, there) = tokio::io::duplex(64 << 10);
    let dialling = async move {
        let somewhere = "node".try_into().unwrap();
        let mut stream = TlsConnector::from(Arc::new(config)).connect(somewhere, here).await?;
        stream.read_u8().await
    };
    let (said, heard) = tokio::join!(dialling, async {
        // What was accepted is closed, so that the dialler has its answer.
        let heard = node.accept(Box::new(there)).await;
        heard.map(|_| ()).map_err(|(error, _)| error.to_string())
    });
    assert!(said.is_err(), "nothing was said");
    heard
}

#[tokio::test]
async fn strangers_and_old_versions_are_refused_in_the_handshake() {
    let folder = Folder::new("c");
    let (one, two) = (folder.node("c", 1), folder.node("c", 2));
    let own = (*one.0.config().client).clone();
    assert_eq!(dialled(&two, own.clone()).await, Ok(()));
    let builder = |version| {
        let roots = roots(certificates(&folder.path(1, "ca")).unwrap(), &folder.path(1, "ca"));
        let verifier = OfTheCluster { roots: roots.unwrap().into(), provider: provider() };
        ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
    };
    let nothing = builder(&TLS13).with_no_client_auth();
    let heard = dialled(&two, nothing).await.unwrap_err();
    assert!(heard.contains("peer sent no certificates"), "{heard}");
    let old = builder(&rustls::version::TLS12);
    let old = old.with_client_cert_resolver(own.client_auth_cert_resolver.clone());
    assert!(dialled(&two, old).await.is_err());

    let (mut here, there) = tokio::io::duplex(64 << 10);
    here.write_all(b"\0\0\0\x20VULP and so on, in plain text").await.unwrap();
    let (error, _) = two.accept(Box::new(there)).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, NoNodeTls::Plain), "{error}");
}

#[tokio::test]
async fn a_peer_that_is_no_node_with_tls_is_told_from_one_that_refuses() {
    let folder = Folder::new("c");
    let (one, foreign) = (folder.node("c", 1), Folder::new("c").node("c", 2));
    let reach = |says: &'static [u8]| {
        let one = one.clone();
        async move {
            let (here, mut there) = tokio::io::duplex(64 << 10);
            let (reached, _) = tokio::join!(one.reach(Box::new(here), NodeId(2)), async move {
                let _ = there.read_u8().await;
                there.write_all(says).await.unwrap();
            });
            reached.map(|_| ()).unwrap_err()
        }
    };
    let closed = reach(b"").await;
    assert!(matches!(closed, NoNodeTls::Closed), "{closed}");
    let plain = reach(b"\0\0\0\x20VULP").await;
    assert!(matches!(plain, NoNodeTls::Plain), "{plain}");
    let alert = reach(b"\x15\x03\x03\0\x02\x02\x28").await;
    assert!(matches!(alert, NoNodeTls::NotTaken(_)), "{alert}");
    let (said, _) = meet(&one, 2, &foreign, peer("c", 1)).await;
    let said = said.unwrap_err();
    assert!(said.contains("the peer's certificate is not taken"), "{said}");
}

#[test]
fn files_that_the_others_would_refuse_are_not_used() {
    let (folder, foreign) = (Folder::new("c"), Folder::new("c"));
    folder.node("c", 1);
    foreign.node("c", 1);
    let load = |node, cluster: &str| {
        let files = NodeFiles { own: name(cluster, node), ..folder.files("c", 1) };
        files.load().map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(load(1, "c"), Ok(()));
    assert!(load(2, "c").unwrap_err().contains(
        "1.pem can't be shown to other nodes: its certificate is that of vulpes://c/nodes/1"
    ));
    assert!(load(1, "d").unwrap_err().contains("it has to be that of vulpes://d/nodes/1"));
    let ca = std::fs::read(folder.path(1, "ca")).unwrap();
    std::fs::copy(foreign.path(1, "ca"), folder.path(1, "ca")).unwrap();
    assert!(load(1, "c").unwrap_err().contains("the other nodes will not take the certificate in"));
    std::fs::write(folder.path(1, "ca"), ca).unwrap();
    let key = folder.path(1, "key");
    std::fs::copy(foreign.path(1, "key"), &key).unwrap();
    assert!(load(1, "c").unwrap_err().contains("is not that of the certificate in"));
    // One that has expired still serves a node that is alone.
    let then = Stamp(now().0 - 9 * 86_400_000);
    let (authority, Pair { certificate, .. }) = Authority::new("c", then).unwrap();
    let old = authority.issue(&name("c", 1), &Default::default(), then, 1).unwrap();
    std::fs::write(folder.path(1, "ca"), certificate).unwrap();
    std::fs::write(folder.path(1, "pem"), old.certificate).unwrap();
    std::fs::write(key, old.key).unwrap();
    assert_eq!(load(1, "c"), Ok(()));
}

#[tokio::test]
async fn an_authority_is_replaced_in_three_steps() {
    let folder = Folder::new("c");
    let nodes = [folder.node("c", 1), folder.node("c", 2)];
    let all_meet = async |step: &str| {
        for (from, to) in [(0, 1), (1, 0)] {
            let met = meet(&nodes[from], to as u64 + 1, &nodes[to], peer("c", from as u64 + 1));
            assert_eq!(met.await, (Ok(8), Ok(())), "{step}: from {from} to {to}");
        }
    };
    let (new, Pair { certificate, .. }) = Authority::new("c", now()).unwrap();
    let both = format!("{}{certificate}", folder.pem);
    let each = async |step: &str, change: &dyn Fn(u64)| {
        for (node, tls) in (1..).zip(&nodes) {
            change(node);
            assert!(tls.files().has_changed(), "{step}");
            tls.files().reload();
            // Between one node and the next, too.
            all_meet(step).await;
        }
    };
    each("the new one is added", &|node| std::fs::write(folder.path(node, "ca"), &both).unwrap())
        .await;
    let old = (*nodes[0].0.config().client).clone();
    each("certificates are renewed", &|node| folder.renew(&new, "c", node)).await;
    assert_eq!(dialled(&nodes[1], old.clone()).await, Ok(()));
    let remove = |node| std::fs::write(folder.path(node, "ca"), &certificate).unwrap();
    each("the old one is removed", &remove).await;
    let refused = dialled(&nodes[1], old).await.unwrap_err();
    assert!(refused.contains("UnknownIssuer"), "{refused}");
    folder.renew(&folder.authority, "c", 1);
    nodes[0].files().reload();
    all_meet("and a mistake changes nothing").await;
}
