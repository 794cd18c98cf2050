//! The stock clients, whether they are installed, and how to run each.
//!
//! Invariant: nothing is downloaded here, and a missing client is named.
//!
//! Deliberately absent: versions. Whatever is installed has to work.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Result;
use serde_json::Value;
use tokio::process::Command;
use vulpes_jepsen::Node;

use super::program::Program;
use super::{address, messages};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Wamp,
    Mqtt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    AutobahnJs,
    AutobahnPython,
    Wampy,
    MqttJs,
    Paho,
    Mosquitto,
}

impl Kind {
    const ALL: [Self; 6] = [
        Self::AutobahnJs,
        Self::AutobahnPython,
        Self::Wampy,
        Self::MqttJs,
        Self::Paho,
        Self::Mosquitto,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::AutobahnJs => "autobahn-js",
            Self::AutobahnPython => "autobahn-python",
            Self::Wampy => "wampy",
            Self::MqttJs => "MQTT.js",
            Self::Paho => "paho-mqtt",
            Self::Mosquitto => "mosquitto",
        }
    }

    fn variants(self) -> &'static [&'static str] {
        match self {
            Self::AutobahnJs | Self::AutobahnPython | Self::Wampy => &["json", "msgpack", "cbor"],
            Self::MqttJs | Self::Paho => &["4", "5"],
            Self::Mosquitto => &["mqttv311", "mqttv5"],
        }
    }

    fn installation(self) -> &'static str {
        match self {
            Self::AutobahnJs | Self::Wampy | Self::MqttJs => {
                "install Node.js 20.10 or later, then: npm ci --prefix tests/clients"
            }
            Self::AutobahnPython | Self::Paho => {
                "python3 -m venv target/clients && \
                 target/clients/bin/python -m pip install -r tests/clients/requirements.txt"
            }
            Self::Mosquitto => "apt-get install mosquitto-clients",
        }
    }

    /// The program and its first arguments, if it is installed.
    fn find(self) -> Option<Vec<String>> {
        let script = |name: &str| folder().join(name).display().to_string();
        match self {
            Self::AutobahnJs => {
                let flag = websocket_flag()?;
                let node = ["node".to_owned()].into_iter().chain(flag);
                has_package("autobahn")
                    .then(|| node.chain([script("autobahn_client.js")]).collect())
            }
            Self::Wampy => (has_package("wampy") && websocket_flag().is_some())
                .then(|| vec!["node".to_owned(), script("wampy_client.js")]),
            Self::MqttJs => (has_package("mqtt") && websocket_flag().is_some())
                .then(|| vec!["node".to_owned(), script("mqtt_client.js")]),
            Self::AutobahnPython => {
                let python = python("import autobahn.asyncio.wamp, cbor2, msgpack")?;
                Some(vec![python, script("autobahn_client.py")])
            }
            Self::Paho => {
                let python = python("from paho.mqtt.client import CallbackAPIVersion")?;
                Some(vec![python, script("paho_client.py")])
            }
            Self::Mosquitto => {
                let found = output("mosquitto_pub", &["--help"]).is_some()
                    && output("mosquitto_sub", &["--help"]).is_some();
                found.then(Vec::new)
            }
        }
    }
}

/// A client in one of its variants.
#[derive(Debug)]
pub(super) struct Client {
    kind: Kind,
    variant: &'static str,
    program: Vec<String>,
}

/// All clients that are installed, in all variants.
pub(super) fn installed() -> Vec<Client> {
    let found = Kind::ALL.into_iter().filter_map(|kind| Some((kind, kind.find()?)));
    found
        .flat_map(|(kind, program)| {
            let variants = kind.variants().iter();
            variants.map(move |variant| Client { kind, variant, program: program.clone() })
        })
        .collect()
}

/// The clients that are not among these, each with how to install it.
pub(super) fn missing(clients: &[Client]) -> Vec<String> {
    let missing =
        Kind::ALL.into_iter().filter(|kind| clients.iter().all(|client| client.kind != *kind));
    missing.map(|kind| format!("{} ({})", kind.name(), kind.installation())).collect()
}

impl Client {
    pub(super) fn name(&self) -> String {
        format!("{} {}", self.kind.name(), self.variant)
    }

    pub(super) fn protocol(&self) -> Protocol {
        match self.kind {
            Kind::AutobahnJs | Kind::AutobahnPython | Kind::Wampy => Protocol::Wamp,
            Kind::MqttJs | Kind::Paho | Kind::Mosquitto => Protocol::Mqtt,
        }
    }

    /// The topic it publishes to.
    pub(super) fn topic(&self) -> String {
        format!("cross.{}", self.name().replace(['.', '-', ' '], "_").to_lowercase())
    }

    /// What all subscribers see of what it publishes.
    pub(super) fn expected(&self) -> Vec<Value> {
        let topic = self.topic();
        match self.kind {
            Kind::Mosquitto => messages::lines(&topic).into_iter().map(|(_, seen)| seen).collect(),
            _ => self.messages().into_iter().map(|(_, seen)| seen).collect(),
        }
    }

    fn messages(&self) -> Vec<(Value, Value)> {
        match self.protocol() {
            Protocol::Wamp => messages::wamp(&self.topic()),
            Protocol::Mqtt => messages::mqtt(&self.topic()),
        }
    }

    /// Starts it as a subscriber.
    pub(super) fn subscribe(&self, node: &Node) -> Result<Program> {
        self.listen("sub", node)
    }

    /// Starts it as a subscriber of QoS 2: MQTT only.
    pub(super) fn subscribe_exactly(&self, node: &Node) -> Result<Program> {
        self.listen("exact", node)
    }

    /// Starts it as a subscriber in a session that outlives its connection: MQTT only.
    pub(super) fn keep(&self, node: &Node) -> Result<Program> {
        self.listen("keep", node)
    }

    /// Starts it as a client that reports each time that it is connected; mosquitto reports that its subscription exists.
    pub(super) fn come_back(&self, node: &Node) -> Result<Program> {
        self.listen("back", node)
    }

    fn listen(&self, role: &str, node: &Node) -> Result<Program> {
        let command = if self.kind == Kind::Mosquitto {
            // `-d` reports the subscription; without a terminal, its output would be buffered.
            let mut command = Command::new("stdbuf");
            command.args(["-oL", "mosquitto_sub", "-d", "-F", "event %t %x"]);
            if role == "keep" {
                command.args(["-c", "-i", &format!("mosquitto-{}", self.variant)]);
            }
            if role == "keep" && self.variant == "mqttv5" {
                command.args(["-x", "4294967295"]);
            }
            self.mosquitto(command, node, "cross/#", if role == "exact" { "2" } else { "1" })
        } else {
            self.script(role, node)
        };
        Program::start(format!("{} at node {}", self.name(), node.id), command)
    }

    /// Starts it as a publisher of all its messages.
    pub(super) async fn publish(&self, node: &Node) -> Result<Program> {
        if self.kind == Kind::Mosquitto {
            let mut program = self.publish_lines(node)?;
            for (line, _) in messages::lines(&self.topic()) {
                program.say(&line).await?;
            }
            return Ok(program);
        }
        let name = format!("{} at node {}", self.name(), node.id);
        let mut program = Program::start(name, self.script("pub", node))?;
        for (line, _) in self.messages() {
            program.say(&line.to_string()).await?;
        }
        program.end_input();
        Ok(program)
    }

    /// Its name as a callee.
    pub(super) fn callee(&self) -> String {
        let kind = match self.kind {
            Kind::AutobahnJs => "js",
            Kind::Wampy => "wampy",
            _ => "py",
        };
        format!("calls.{kind}_{}", self.variant)
    }

    /// Starts it as a callee.
    pub(super) fn serve(&self, node: &Node) -> Result<Program> {
        Program::start(format!("{} at node {}", self.name(), node.id), self.script("serve", node))
    }

    /// Starts it as a caller that makes all these calls.
    pub(super) async fn call(&self, node: &Node, calls: &[Value]) -> Result<Program> {
        let name = format!("{} at node {}", self.name(), node.id);
        let mut program = Program::start(name, self.script("call", node))?;
        for call in calls {
            program.say(&call.to_string()).await?;
        }
        program.end_input();
        Ok(program)
    }

    /// Starts mosquitto_pub, which publishes each line it is given.
    pub(super) fn publish_lines(&self, node: &Node) -> Result<Program> {
        let topic = self.topic().replace('.', "/");
        let mut command = self.mosquitto(Command::new("mosquitto_pub"), node, &topic, "2");
        command.arg("-l");
        Program::start(format!("{} at node {}", self.name(), node.id), command)
    }

    fn mosquitto(&self, mut command: Command, node: &Node, topic: &str, qos: &str) -> Command {
        let address = address(node, Protocol::Mqtt);
        command.args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()]);
        command.args(["-V", self.variant, "-q", qos, "-t", topic]);
        command
    }

    fn script(&self, role: &str, node: &Node) -> Command {
        let address = address(node, self.protocol());
        let mut command = Command::new(&self.program[0]);
        command.args(&self.program[1..]);
        command.args([role, self.variant, &address.ip().to_string(), &address.port().to_string()]);
        command
    }
}

pub(super) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

pub(super) fn has_package(name: &str) -> bool {
    folder().join("node_modules").join(name).join("package.json").exists()
}

/// The argument with which this Node.js has a WebSocket, if it needs one. `None` if there is no Node.js.
pub(super) fn websocket_flag() -> Option<Option<String>> {
    let version = output("node", &["--version"])?;
    let major: u32 = version.trim().trim_start_matches('v').split('.').next()?.parse().ok()?;
    Some((major < 22).then(|| "--experimental-websocket".to_owned()))
}

/// The Python interpreter that has this module.
pub(super) fn python(import: &str) -> Option<String> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients/bin/python");
    let candidates = [own.display().to_string(), "python3".to_owned()];
    candidates.into_iter().find(|python| {
        let mut command = std::process::Command::new(python);
        command.args(["-c", import]).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    })
}

/// What a program prints, if it can be started.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = std::process::Command::new(program).args(arguments).output().ok()?;
    String::from_utf8(output.stdout).ok()
}
