//! Stock clients log in: mosquitto with a password, and autobahn by the methods that it has.
//!
//! Deliberately absent: when users change (`users`).

use anyhow::{ensure, Result};
use tokio::process::Command;
use vulpes_jepsen::wait::{until, within};

use super::kinds::{folder, has_package, installed, python, websocket_flag};
use super::{ensure_required, Program, PATIENCE};
use crate::users::{add_ann, file, settled, user, Who};

const ANN: Who<'static> = Some(("ann", "pencil"));

/// autobahn-python as a client that logs in by one method, and says what came of it.
const PYTHON: &str = r#"
import os, sys
from autobahn.asyncio.wamp import ApplicationRunner, ApplicationSession
from autobahn.wamp import auth

URL, METHOD, USER, SECRET = sys.argv[1:]
EXTRA = {
    "ticket": {},
    "wampcra": {"authid": USER, "secret": SECRET},
    "cryptosign": {"authid": USER, "privkey": SECRET},
}
AUTHENTICATOR = auth.create_authenticator(METHOD, **EXTRA[METHOD]) if EXTRA[METHOD] else None

class Session(ApplicationSession):
    def onConnect(self):
        extra = AUTHENTICATOR.authextra if AUTHENTICATOR else {}
        self.join("realm1", [METHOD], USER, authextra=extra)

    def onChallenge(self, challenge):
        return AUTHENTICATOR.on_challenge(self, challenge) if AUTHENTICATOR else SECRET

    def onJoin(self, details):
        print("joined", details.authid, details.authrole, details.authmethod, flush=True)
        os._exit(0)

    def onLeave(self, details):
        print("left", details.reason, flush=True)
        os._exit(0)

ApplicationRunner(URL, "realm1").run(Session, log_level="error")
"#;

/// The same for autobahn-js.
const JAVASCRIPT: &str = r#"
const autobahn = require('autobahn');
const [url, method, user, secret] = process.argv.slice(1);
const answers = {
  ticket: () => secret,
  wampcra: (extra) => {
    const key = autobahn.auth_cra.derive_key(secret, extra.salt, extra.iterations, extra.keylen);
    return autobahn.auth_cra.sign(key, extra.challenge);
  },
  cryptosign: (extra) => autobahn.auth_cryptosign.sign_challenge(key, extra),
};
const nacl = require('tweetnacl');
const isKey = method === 'cryptosign';
const key = isKey ? nacl.sign.keyPair.fromSeed(Buffer.from(secret, 'hex')) : null;
const authextra = isKey ? { pubkey: autobahn.auth_cryptosign.public_key(key) } : {};
const connection = new autobahn.Connection({
  url, realm: 'realm1', authid: user, authmethods: [method], authextra, max_retries: 0,
  onchallenge: (session, method, extra) => answers[method](extra),
});
const say = (...words) => { console.log(...words); process.exit(0); };
connection.onopen = (session, details) => say('joined', details.authid, details.authrole, details.authmethod);
connection.onclose = (reason, details) => say('left', details.reason);
connection.open();
"#;

/// What a program prints and with which code it ends.
async fn run(program: &str, arguments: &[&str]) -> Result<(String, i32)> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder()).kill_on_drop(true);
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
    settled(&cluster).await?;
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
    Ok(())
}

/// Private keys, and their public ones.
const PRIVATE: [&str; 2] = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
];
const PUBLIC: [&str; 2] = [
    "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29",
    "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
];

/// autobahn's clients that are installed, to be called with a URL, a method, a user, and what it shows.
fn autobahn() -> Vec<(String, Vec<&'static str>)> {
    let python = python("import autobahn.asyncio.wamp, autobahn.wamp.cryptosign")
        .map(|python| (python, vec!["-c", PYTHON]));
    let flag = if has_package("autobahn") { websocket_flag() } else { None };
    let node = flag.map(|flag| {
        let flag = flag.map(|_| "--experimental-websocket");
        ("node".to_owned(), flag.into_iter().chain(["-e", JAVASCRIPT]).collect())
    });
    [python, node].into_iter().flatten().collect()
}

#[tokio::test]
async fn autobahn_logs_in_by_every_method_that_it_has() -> Result<()> {
    ensure_required(&installed())?;
    let cluster = crate::cluster().nodes(3).start().await?;
    add_ann(&cluster, 1, "").await?;
    let line = format!("add joe --new-password-file {}", file(&cluster, "geheim")?);
    user(&cluster, 2, ANN, &line).await?;
    settled(&cluster).await?;
    for name in ["ann", "joe"] {
        let line = format!("key add {name} {}", if name == "ann" { PUBLIC[0] } else { PUBLIC[1] });
        user(&cluster, 3, ANN, &line).await?;
    }
    settled(&cluster).await?;
    for (program, first) in autobahn() {
        for (node, name, key, expected) in [
            (1, "ann", 0, "joined ann admin cryptosign"),
            (3, "joe", 1, "joined joe user cryptosign"),
            (2, "joe", 0, "left wamp.error.authentication_failed"),
            (2, "nobody", 0, "left wamp.error.authentication_failed"),
        ] {
            let url = format!("ws://{}/", cluster.node(node).wamp());
            let line = [&first[..], &[&url, "cryptosign", name, PRIVATE[key]]].concat();
            let (said, _) = run(&program, &line).await?;
            ensure!(said.contains(expected), "{program} cryptosign {name} {key}: {said}");
        }
        for method in ["ticket", "wampcra"] {
            for (node, name, password, expected) in [
                (1, "ann", "pencil", "joined ann admin"),
                (3, "joe", "geheim", "joined joe user"),
                (2, "joe", "pencil", "left wamp.error.authentication_failed"),
                (2, "nobody", "pencil", "left wamp.error.authentication_failed"),
            ] {
                let url = format!("ws://{}/", cluster.node(node).wamp());
                let line = [&first[..], &[&url, method, name, password]].concat();
                let (said, _) = run(&program, &line).await?;
                let joined = expected.starts_with("joined");
                let expected =
                    if joined { format!("{expected} {method}") } else { expected.into() };
                ensure!(said.contains(&expected), "{program} {method} {name} {password}: {said}");
            }
        }
    }
    Ok(())
}
