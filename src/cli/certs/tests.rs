//! Nodes' files through their life, as the commands leave them; that nodes which run pick them up is tested with real ones.

use clap::Parser;

use super::*;
use crate::tls::name::NodeName;

#[derive(Parser)]
struct Line {
    #[command(subcommand)]
    command: Commands,
}

#[derive(Subcommand)]
enum Commands {
    Init(crate::cli::init::Init),
    Certs(Certs),
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.run("init --nodes 2 --cluster c --dir @").unwrap();
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs a command; `@` stands for the folder.
    fn run(&self, line: &str) -> Result<(), String> {
        let folder = self.0.path().display().to_string();
        let words = line.split(' ').map(|word| word.replace('@', &folder));
        let ran = match Line::try_parse_from(std::iter::once("vulpes".to_owned()).chain(words)) {
            Ok(Line { command: Commands::Init(init) }) => init.run(),
            Ok(Line { command: Commands::Certs(certs) }) => certs.run(),
            Err(error) => return Err(error.to_string()),
        };
        ran.map_err(|error| format!("{error:#}"))
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// Whether node 1 can use its files, and how long its certificate is valid, in days.
    fn fits(&self) -> Result<u64, String> {
        let inspected = inspect(&NodeConfig::load(&self.path("node1.toml")).unwrap()).remove(0);
        inspected.verdict.map_err(|error| error.to_string())?;
        let ends = inspected.certificates[0].expires.unwrap().0 - now().0;
        Ok((ends + DAY / 2) / DAY)
    }
}

#[test]
fn certificates_are_renewed_by_the_authority_that_nodes_trust() {
    let folder = Folder::new();
    assert_eq!(folder.fits(), Ok(NODE_DAYS.into()));
    let renew = "certs renew --ca @/ca @/node1.toml @/node2.toml";
    let before = ["certificate", "key"].map(|name| folder.read(&format!("tls/node1/{name}.pem")));
    folder.run(&format!("{renew} --days 9")).unwrap();
    let after = ["certificate", "key"].map(|name| folder.read(&format!("tls/node1/{name}.pem")));
    assert!(before[0] != after[0] && before[1] != after[1], "a new key, too");
    assert_eq!(folder.fits(), Ok(9));
    folder.run("certs show @/node1.toml @/node2.toml").unwrap();

    // Whatever is wrong with one of them, none is renewed.
    folder.run("certs authority --cluster c --dir @/ca2").unwrap();
    let error = folder.run(&renew.replace("@/ca ", "@/ca2 ")).unwrap_err();
    assert!(error.contains("tls/node1/ca.pem does not have the authority of"), "{error}");
    std::fs::write(folder.path("tls/node2/ca.pem"), folder.read("ca2/ca.pem")).unwrap();
    let error = folder.run(renew).unwrap_err();
    assert!(error.contains("tls/node2/ca.pem does not have the authority of"), "{error}");
    let error = folder.run("certs show @/node2.toml").unwrap_err();
    assert_eq!(error, Reported.to_string());
    let error = folder.run("certs authority --cluster c --dir @/ca").unwrap_err();
    assert!(error.contains("has an authority already"), "{error}");
    std::fs::copy(folder.path("ca2/ca.key"), folder.path("ca/ca.key")).unwrap();
    let error = folder.run("certs renew --ca @/ca @/node1.toml").unwrap_err();
    assert!(error.contains("are not the authority of cluster \"c\""), "{error}");
    assert_eq!(after[0], folder.read("tls/node1/certificate.pem"));
}

#[test]
fn an_authority_is_replaced_step_by_step() {
    let folder = Folder::new();
    folder.run("certs authority --cluster c --dir @/ca2").unwrap();
    let nodes = ["tls/node1/ca.pem", "tls/node2/ca.pem"];
    let both = folder.read("ca/ca.pem") + &folder.read("ca2/ca.pem");
    nodes.iter().for_each(|ca| std::fs::write(folder.path(ca), &both).unwrap());
    folder.run("certs show @/node1.toml @/node2.toml").unwrap();
    folder.run("certs renew --ca @/ca2 @/node1.toml @/node2.toml").unwrap();
    folder.run("certs show @/node1.toml @/node2.toml").unwrap();
    let new = folder.read("ca2/ca.pem");
    nodes.iter().for_each(|ca| std::fs::write(folder.path(ca), &new).unwrap());
    folder.run("certs show @/node1.toml @/node2.toml").unwrap();
}

#[test]
fn what_is_wrong_with_a_nodes_files_is_shown() {
    let folder = Folder::new();
    for (from, to) in [("2/certificate.pem", "1/certificate.pem"), ("2/key.pem", "1/key.pem")] {
        let [from, to] = [from, to].map(|name| folder.path(&format!("tls/node{name}")));
        std::fs::copy(from, to).unwrap();
    }
    let one = NodeName { cluster: "c".into(), node: vulpes_raft::ids::NodeId(1) };
    let expected = format!("it has to be that of {one}");
    assert!(folder.fits().unwrap_err().contains(&expected), "{:?}", folder.fits());
    assert_eq!(folder.run("certs show @/node1.toml"), Err(Reported.to_string()));
    folder.run("certs renew --ca @/ca @/node1.toml").unwrap();
    assert!(folder.fits().is_ok());
    folder.run("init --nodes 1 --no-tls --dir @/open").unwrap();
    assert_eq!(folder.run("certs show @/open/node1.toml"), Err(Reported.to_string()));
    let error = folder.run("certs renew --ca @/ca @/open/node1.toml").unwrap_err();
    assert!(error.contains("has no [peer_tls], so there is nothing to renew"), "{error}");
}

#[test]
fn dates_are_shown_with_what_is_left() {
    let now = Stamp(1_795_369_320_000);
    assert_eq!(expiry(Some(Stamp(now.0 + 3 * DAY)), now), "2026-11-25, in 3 days");
    assert_eq!(expiry(Some(now), now), "2026-11-22, expired");
    assert_eq!(expiry(Some(Stamp(u64::MAX)), now).split(',').next(), Some("never"));
    assert_eq!(expiry(None, now), "unreadable");
}
