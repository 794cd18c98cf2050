//! Stock clients log in with a password: mosquitto, and autobahn by the method `ticket`.
//!
//! Deliberately absent: when users change (`users`).

use anyhow::{ensure, Result};
use tokio::process::Command;
use vulpes_jepsen::wait::{until, within};

use super::kinds::{installed, python};
use super::{ensure_required, Program, PATIENCE};
use crate::users::{add_ann, file, user, Who};

const ANN: Who<'static> = Some(("ann", "pencil"));

/// autobahn-python as a client that logs in, and says what came of it.
const TICKET: &str = r#"
import os, sys
from autobahn.asyncio.wamp import ApplicationRunner, ApplicationSession

URL, USER, PASSWORD = sys.argv[1:]

class Session(ApplicationSession):
    def onConnect(self):
        self.join("realm1", ["ticket"], USER)

    def onChallenge(self, challenge):
        return PASSWORD

    def onJoin(self, details):
        print("joined", details.authid, details.authrole, details.authmethod, flush=True)
        os._exit(0)

    def onLeave(self, details):
        print("left", details.reason, flush=True)
        os._exit(0)

ApplicationRunner(URL, "realm1").run(Session, log_level="error")
"#;

/// What a program prints and with which code it ends.
async fn run(program: &str, arguments: &[&str]) -> Result<(String, i32)> {
    let mut command = Command::new(program);
    command.args(arguments).kill_on_drop(true);
    let output = within(program, PATIENCE, async { Ok(command.output().await?) }).await?;
    let said = [output.stdout, output.stderr].concat();
    Ok((String::from_utf8_lossy(&said).into_owned(), output.status.code().unwrap_or(-1)))
}

#[tokio::test]
async fn stock_clients_log_in_with_a_password() -> Result<()> {
    let clients = installed();
    ensure_required(&clients)?;
    let cluster = crate::cluster().nodes(3).start().await?;
    add_ann(&cluster, 1, "").await?;
    let line = format!("add joe --new-password-file {}", file(&cluster, "geheim")?);
    user(&cluster, 2, ANN, &line).await?;
    let joe = vec!["-u", "joe", "-P", "geheim"];
    if clients.iter().any(|client| client.name().starts_with("mosquitto")) {
        for version in ["mqttv311", "mqttv5"] {
            let at = |node: u64| cluster.node(node).mqtt().port().to_string();
            let (one, three) = (at(1), at(3));
            // Without a terminal, its output would be buffered.
            let mut command = Command::new("stdbuf");
            command.args([
                "-oL",
                "mosquitto_sub",
                "-V",
                version,
                "-p",
                &three,
                "-t",
                "t",
                "-q",
                "1",
                "-C",
                "1",
                "-d",
            ]);
            command.args(&joe);
            let mut subscriber = Program::start("mosquitto_sub".into(), command)?;
            until("it has subscribed", PATIENCE, || async { subscriber.ready() }).await?;
            let publish = ["-V", version, "-p", &one, "-t", "t", "-q", "1", "-m", "hello"];
            let (said, code) = run("mosquitto_pub", &[&publish[..], &joe].concat()).await?;
            ensure!(code == 0, "{said}");
            subscriber.finish(PATIENCE).await?;
            for wrong in [vec![], vec!["-u", "joe", "-P", "wrong"]] {
                let (said, code) = run("mosquitto_pub", &[&publish[..], &wrong].concat()).await?;
                ensure!(code != 0, "{wrong:?}: {said}");
            }
        }
    }
    if let Some(python) = python("import autobahn.asyncio.wamp") {
        for (node, name, password, expected) in [
            (1, "ann", "pencil", "joined ann admin ticket"),
            (3, "joe", "geheim", "joined joe user ticket"),
            (2, "joe", "pencil", "left wamp.error.authentication_failed"),
            (2, "nobody", "pencil", "left wamp.error.authentication_failed"),
        ] {
            let url = format!("ws://{}/", cluster.node(node).wamp());
            let (said, _) = run(&python, &["-c", TICKET, &url, name, password]).await?;
            ensure!(said.contains(expected), "{name} {password}: {said}");
        }
    }
    Ok(())
}
