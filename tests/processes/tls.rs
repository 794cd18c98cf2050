//! Encrypted connections: both protocols and admin HTTP, clients with and without certificates, those that speak something
//! else, and certificates that change while clients are there.
//!
//! Invariant: what a client says with TLS has the same answers as without, and no client's handshake concerns another.
//!
//! Deliberately absent: how many handshakes go on at a time, and the wording for each bad file, which their modules' own
//! tests have.

mod secured;

use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use rustls::version::{TLS12, TLS13};
use rustls::ALL_VERSIONS;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::Instant;
use vulpes::client::wamp::{Arguments, WampClient};
use vulpes::types::limits;
use vulpes_jepsen::cluster::REALM;
use vulpes_jepsen::wait::{until, within, PATIENCE};

use self::secured::{dial, shown, Authority, Mqtt, Secured};
use crate::raw::{frame, hello};
use crate::users;

const VULPES: &str = env!("CARGO_BIN_EXE_vulpes");

/// Runs a command to its end; what it needs of a node's files is beside its configuration.
async fn run(secured: &Secured, program: &str, arguments: &[&str]) -> Result<Output> {
    let folder = secured.path("");
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).kill_on_drop(true);
    within(program, PATIENCE, async { Ok(command.output().await?) }).await
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn both_protocols_go_over_both_versions() -> Result<()> {
    let secured = Secured::start("none").await?;
    for (version, number) in [(&TLS12, 1), (&TLS13, 2)] {
        let config = secured.authority.client(&[version], None)?;
        let stream = dial(secured.wamp(), config.clone()).await?;
        ensure!(stream.get_ref().1.protocol_version() == Some(version.version));
        let url = format!("wss://{}/", secured.wamp());
        let mut wamp = WampClient::over(Box::new(stream), &url, REALM).await?;
        wamp.subscribe("tls.t", serde_json::Map::new()).await?;
        let stream = dial(secured.mqtt(), config).await?;
        let mut mqtt = Mqtt::connect(stream, "tls").await?;
        mqtt.publish("tls/t", number, "x").await?;
        let event = within("an event", PATIENCE, async { Ok(wamp.next().await?) }).await;
        event.with_context(|| format!("{version:?}"))?;
        wamp.publish("tls.other", serde_json::Map::new(), &Arguments::default()).await?;
    }
    Ok(())
}

#[tokio::test]
async fn stock_clients_come_with_certificates() -> Result<()> {
    let secured = Secured::start("require").await?;
    if run(&secured, "mosquitto_pub", &["--help"]).await.is_err() {
        let required = std::env::var("VULPES_REQUIRE_CLIENTS").is_ok_and(|value| value == "1");
        ensure!(!required, "not installed: mosquitto_pub");
        return Ok(());
    }
    let port = secured.mqtt().port().to_string();
    let at = ["-h", "127.0.0.1", "-p", &port, "-V", "mqttv5", "-q", "1", "-t", "tls/stock"];
    let own = ["--cafile", "ca.pem", "--cert", "client.pem", "--key", "client.key"];
    for version in ["tlsv1.2", "tlsv1.3"] {
        let version = ["--tls-version", version, "-m", version, "-r"];
        let published = run(&secured, "mosquitto_pub", &[&at[..], &own, &version].concat()).await?;
        ensure!(published.status.success(), "{published:?}");
        let one = ["-C", "1", "-W", "20"];
        let heard = run(&secured, "mosquitto_sub", &[&at[..], &own, &one].concat()).await?;
        ensure!(text(&heard.stdout).trim() == version[1], "{heard:?}");
    }
    let nothing = ["--cafile", "ca.pem", "-m", "x"];
    let refused = run(&secured, "mosquitto_pub", &[&at[..], &nothing].concat()).await?;
    ensure!(!refused.status.success(), "a client without a certificate: {refused:?}");
    Ok(())
}

/// A certificate's name is its client's user, whatever else the client says.
#[tokio::test]
async fn certificates_name_users() -> Result<()> {
    let secured = Secured::start("require\"\ncertificate_user = true\n#").await?;
    let cluster = &secured.cluster;
    if run(&secured, "mosquitto_pub", &["--help"]).await.is_err() {
        let required = std::env::var("VULPES_REQUIRE_CLIENTS").is_ok_and(|value| value == "1");
        ensure!(!required, "not installed: mosquitto_pub");
        return Ok(());
    }
    users::add_ann(cluster, 1, "").await?;
    let port = secured.mqtt().port().to_string();
    let publish = async |who: &[&str]| {
        let at = ["-h", "127.0.0.1", "-p", &port, "-V", "mqttv5", "-q", "1", "-t", "t", "-m", "x"];
        let own = ["--cafile", "ca.pem", "--cert", "client.pem", "--key", "client.key"];
        let output = run(&secured, "mosquitto_pub", &[&at[..], &own, who].concat()).await?;
        anyhow::Ok(output.status.success())
    };
    ensure!(!publish(&[]).await?, "there is no such user");
    ensure!(!publish(&["-u", "ann", "-P", "pencil"]).await?, "the certificate is not ann's");
    users::user(cluster, 1, Some(("ann", "pencil")), "add device-7 --no-password").await?;
    ensure!(publish(&[]).await?);
    ensure!(publish(&["-u", "ann", "-P", "wrong"]).await?, "the CONNECT has no say");
    // The certificate of another client, over WAMP.
    users::user(cluster, 1, Some(("ann", "pencil")), "add client-1 --no-password").await?;
    for (hello, expected) in [
        (json!({"authmethods": ["tls"]}), json!("client-1")),
        (json!({"authmethods": ["ticket", "tls"], "authid": "client-1"}), json!("client-1")),
        (json!({"authmethods": ["tls"], "authid": "ann"}), json!(null)),
    ] {
        let config = secured.authority.client(ALL_VERSIONS, Some(&secured.authority))?;
        let stream = dial(secured.wamp(), config).await?;
        let answer = welcomed(stream, &hello).await?;
        let failed = answer[2] == "wamp.error.authentication_failed";
        let found = &answer[2]["authid"];
        ensure!(failed || answer[2]["authmethod"] == "tls", "{hello}: {answer}");
        ensure!(failed == expected.is_null() && *found == expected, "{hello}: {answer}");
    }
    Ok(())
}

/// The answer to a HELLO over a WebSocket.
async fn welcomed(
    mut stream: secured::Tls,
    details: &serde_json::Value,
) -> Result<serde_json::Value> {
    let request = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Protocol: wamp.2.json\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut details = details.clone();
    details["roles"] = json!({"subscriber": {}});
    let says = frame(&json!([1, REALM, details]).to_string());
    within("an answer", PATIENCE, async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        stream.write_all(&says).await?;
        stream.read_u8().await?;
        let length = match stream.read_u8().await? {
            126 => usize::from(stream.read_u16().await?),
            length => usize::from(length),
        };
        let mut message = vec![0; length];
        stream.read_exact(&mut message).await?;
        Ok(serde_json::from_slice(&message)?)
    })
    .await
}

/// Whether a client gets as far as a session. In TLS 1.3 it learns that it is refused only when it reads.
async fn may_come(secured: &Secured, shown: Option<&Authority>) -> Result<()> {
    let config = secured.authority.client(ALL_VERSIONS, shown)?;
    Mqtt::connect(dial(secured.mqtt(), config).await?, "who").await.map(|_| ())
}

#[tokio::test]
async fn certificates_of_clients_are_checked() -> Result<()> {
    let another = Authority::new("another")?;
    for (asked, without) in [("require", false), ("ask", true)] {
        let secured = Secured::start(asked).await?;
        ensure!(may_come(&secured, None).await.is_ok() == without, "{asked}: without");
        ensure!(may_come(&secured, Some(&another)).await.is_err(), "{asked}: of another authority");
        may_come(&secured, Some(&secured.authority)).await.context(asked)?;
        // A client that the log has something to say about.
        let known = secured.authority.client(ALL_VERSIONS, Some(&secured.authority))?;
        dial(secured.wamp(), known).await?.write_all(b"no request\r\n\r\n").await?;
        secured.says("certificate=\"CN=client-1\"").await?;
        secured.says("no TLS came about: invalid peer certificate").await?;
        let untrusting = another.client(ALL_VERSIONS, None)?;
        ensure!(dial(secured.mqtt(), untrusting).await.is_err(), "the node is not trusted");
    }
    Ok(())
}

#[tokio::test]
async fn a_certificate_that_is_taken_back_is_refused_once_the_list_is_read() -> Result<()> {
    for asked in ["require", "ask"] {
        let mut secured = Secured::prepare(asked)?;
        let policy = format!("client_certificates = \"{asked}\"\n");
        let text = std::fs::read_to_string(secured.cluster.node(1).config())?;
        let listed = text.replace(&policy, &format!("{policy}client_revoked = \"revoked.pem\"\n"));
        secured.cluster.node(1).configure(&listed)?;
        std::fs::write(secured.path("revoked.pem"), secured.authority.revokes(&[])?)?;
        secured.cluster.node_mut(1).start()?;
        secured.cluster.ready().await?;
        let (stolen, kept) = (secured.authority.sign("stolen")?, secured.authority.sign("kept")?);
        let comes = |pair, name| {
            let config = secured.authority.client_with(ALL_VERSIONS, Some(pair));
            let address = secured.mqtt();
            async move { Mqtt::connect(dial(address, config?).await?, name).await }
        };
        let mut open = comes(&stolen, "open").await.context("it is not on the list yet")?;
        std::fs::write(secured.path("revoked.pem"), secured.authority.revokes(&[&stolen.0])?)?;
        if asked == "require" {
            secured.hang_up().await?;
        }
        until("the certificate is refused", PATIENCE, || async {
            ensure!(comes(&stolen, "thief").await.is_err(), "it is taken");
            Ok(())
        })
        .await?;
        secured.says("no TLS came about: invalid peer certificate: Revoked").await?;
        comes(&kept, "kept").await.context("another one is taken")?;
        open.publish("tls/open", 1, "x").await.context("an open connection goes on")?;
        // What can't be read changes nothing.
        std::fs::write(secured.path("revoked.pem"), "")?;
        secured.hang_up().await?;
        secured.says("revoked.pem has no revocation list").await?;
        ensure!(comes(&stolen, "thief").await.is_err(), "it is still refused");
    }
    Ok(())
}

/// Sends bytes to a port, and reads until the node closes or resets the connection.
async fn told(address: std::net::SocketAddr, says: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(says).await?;
    let mut told = Vec::new();
    let read =
        within("the node closes", PATIENCE, async { Ok(stream.read_to_end(&mut told).await) });
    match read.await? {
        Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => Err(error.into()),
        _ => Ok(told),
    }
}

#[tokio::test]
async fn who_speaks_something_else_is_told_so() -> Result<()> {
    let mut secured = Secured::start("none").await?;
    let config = secured.stranger()?;
    let connect = crate::raw::connect("plain", 2, 0);
    let mut noise = vec![0x16, 3, 1, 0x40, 0];
    noise.extend((0..0x4000_u32).map(|number| ((number * 7919) >> 3) as u8));
    let request = b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n";
    let all = [&connect[..], request, &noise, &[0xff; 5000], &[0x16, 3, 1, 0xff, 0xff]];
    for (number, says) in all.into_iter().enumerate() {
        for address in [secured.mqtt(), secured.wamp(), secured.admin()] {
            let told = told(address, says).await.with_context(|| format!("of {number}"))?;
            // One alert record, and nothing else. There may be none for what only begins like TLS, and admin HTTP resets
            // connections on which more was sent than it has read.
            let may_lack = number > 1 || address == secured.admin();
            let alerted = told.first() == Some(&0x15) && told.len() == 7;
            ensure!(alerted || may_lack && told.is_empty(), "{number}: {told:?}");
        }
    }
    secured.says("no TLS came about: the client does not speak TLS").await?;
    // And the other way round.
    ensure!(dial(secured.cluster.node(1).mqtt(), config.clone()).await.is_err());
    Mqtt::connect(dial(secured.mqtt(), config).await?, "still there").await?;
    secured.cluster.node_mut(1).check_alive()
}

#[tokio::test]
async fn a_handshake_that_stalls_ends_with_the_login_deadline() -> Result<()> {
    let secured = Secured::start("none").await?;
    let began = Instant::now();
    let mut stalled = Vec::new();
    for address in [secured.mqtt(), secured.wamp()] {
        for says in [&b""[..], &[0x16], &[0x16, 3, 1, 2, 0, 1]] {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(says).await?;
            stalled.push(stream);
        }
    }
    // Meanwhile the others are served.
    let config = secured.stranger()?;
    let mut client = Mqtt::connect(dial(secured.mqtt(), config.clone()).await?, "quick").await?;
    client.publish("tls/quick", 1, "x").await?;
    // One that stalls only after it: the deadline is that of its connection's begin.
    let mut silent = dial(secured.mqtt(), config).await?;
    for stream in &mut stalled {
        let read = within("it is closed", PATIENCE, async { Ok(stream.read(&mut [0; 9]).await) });
        ensure!(!matches!(read.await?, Ok(length) if length > 0), "nothing is said to it");
        let (took, limit) = (began.elapsed(), limits::HANDSHAKE);
        ensure!(took + Duration::from_secs(1) > limit && took < limit * 2, "{took:?}");
    }
    let read = within("it is closed", PATIENCE, async { Ok(silent.read(&mut [0; 9]).await?) });
    ensure!(read.await? == 0, "with a goodbye of TLS");
    client.publish("tls/quick", 2, "x").await?;
    secured.says("no TLS came about: the handshake was not finished in time").await
}

#[tokio::test]
async fn a_client_that_closes_its_own_side_gets_its_answers() -> Result<()> {
    let secured = Secured::start("none").await?;
    let config = secured.stranger()?;
    let mut stream = dial(secured.wamp(), config).await?;
    let request = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: wamp.2.json\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    stream.read_exact(&mut [0; 12]).await?;
    stream.write_all(&hello()).await?;
    let mut told = Vec::new();
    within("a welcome", PATIENCE, async {
        while !text(&told).contains("[2,") {
            ensure!(stream.read_buf(&mut told).await? > 0, "closed");
        }
        Ok(())
    })
    .await?;
    let publish = json!([16, 7, { "acknowledge": true }, "tls.half", ["x"]]).to_string();
    stream.write_all(&frame(&publish)).await?;
    stream.shutdown().await?;
    within("the node closes, too", PATIENCE, async { Ok(stream.read_to_end(&mut told).await?) })
        .await
        .context("with a goodbye of TLS, or this would be an error")?;
    ensure!(text(&told).contains("[17,7,"), "PUBLISHED is missing: {}", text(&told));
    Ok(())
}

#[tokio::test]
async fn certificates_change_under_load_and_bad_ones_do_not() -> Result<()> {
    let secured = Secured::start("none").await?;
    let config = secured.stranger()?;
    let mut client = Mqtt::connect(dial(secured.mqtt(), config.clone()).await?, "load").await?;
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let load = tokio::spawn(async move {
        let mut number: u16 = 0;
        while stopped.try_recv().is_err() {
            number = number % 60_000 + 1;
            client.publish("tls/load", number, "x").await?;
        }
        anyhow::Ok(number)
    });
    let now = |name: &'static str| {
        let (secured, config) = (&secured, config.clone());
        until("new connections get the certificate", PATIENCE, move || {
            let config = config.clone();
            async move {
                for address in [secured.mqtt(), secured.wamp(), secured.admin()] {
                    let found = shown(address, config.clone()).await?;
                    ensure!(found == format!("CN={name}"), "{found}");
                }
                Ok(())
            }
        })
    };
    now("first").await?;
    secured.certify("second")?;
    secured.hang_up().await?;
    now("second").await?;
    // A key that does not fit: the node says so, and goes on with what it has.
    let key = std::fs::read(secured.path("node.key"))?;
    std::fs::copy(secured.path("client.key"), secured.path("node.key"))?;
    secured.hang_up().await?;
    secured.says("node.key is not that of the certificate in").await?;
    now("second").await?;
    std::fs::write(secured.path("node.key"), key)?;
    // Without a signal, too.
    secured.certify("third")?;
    now("third").await?;
    let _ = stop.send(());
    let acknowledged = within("the load ends", PATIENCE, async { load.await? }).await?;
    ensure!(acknowledged > 100, "{acknowledged} publishes are no load");
    Ok(())
}

#[tokio::test]
async fn what_cant_be_used_ends_the_node_with_a_sentence() -> Result<()> {
    let mut secured = Secured::prepare("require")?;
    let key = secured.path("node.key");
    std::fs::copy(secured.path("client.key"), &key)?;
    for expected in ["node.key is not that of the certificate in", "node.key: No such file"] {
        secured.cluster.node_mut(1).start()?;
        let status = secured.cluster.node_mut(1).ended().await?;
        ensure!(status.code() == Some(1), "{status}");
        secured.says(expected).await?;
        let _ = std::fs::remove_file(&key);
    }
    Ok(())
}

#[tokio::test]
async fn commands_trust_whom_they_are_told_to() -> Result<()> {
    let secured = Secured::start("ask").await?;
    let (node, admin) =
        (format!("wss://{}/", secured.wamp()), format!("https://{}", secured.admin()));
    let plain = format!("wss://{}/", secured.cluster.node(1).wamp());
    let own = ["--ca", "ca.pem", "--cert", "client.pem", "--key", "client.key"];
    let publish = ["pub", "tls.cli", "x", "--retain", "--node"];
    let table: [(Vec<&str>, Result<&str, &str>); 8] = [
        ([&publish[..], &[&node, "--ca", "ca.pem"]].concat(), Ok("")),
        ([&publish[..], &[&node], &own].concat(), Ok("")),
        ([&["get", "tls.cli", "--node", &node][..], &own].concat(), Ok("x")),
        (vec!["status", "--node-admin", &admin, "--ca", "ca.pem"], Ok("leader 1")),
        ([&publish[..], &[&node]].concat(), Err("with --ca FILE")),
        (
            [&publish[..], &[&node, "--ca", "client.pem"]].concat(),
            Err("--ca has to name the authority"),
        ),
        ([&publish[..], &[&plain, "--ca", "ca.pem"]].concat(), Err("does not speak TLS")),
        (vec!["status", "--node-admin", &admin], Err("")),
    ];
    for (arguments, expected) in table {
        let output = run(&secured, VULPES, &arguments).await?;
        let (said, complaint) = (text(&output.stdout), text(&output.stderr));
        match expected {
            Ok(words) => {
                ensure!(
                    output.status.success() && said.contains(words),
                    "{arguments:?}: {output:?}"
                );
            }
            Err(words) => {
                ensure!(output.status.code() == Some(1), "{arguments:?}: {output:?}");
                ensure!(complaint.contains(words), "{arguments:?}: {complaint}");
            }
        }
    }
    let target = format!("mqtts://{}", secured.mqtt());
    let bench = ["bench", "--seconds", "1", "--warmup", "0", "--connections", "2", "--json"];
    let bench = [&bench[..], &["--targets", &target, "--ca", "ca.pem"]].concat();
    let output = run(&secured, VULPES, &bench).await?;
    ensure!(output.status.success(), "{output:?}");
    Ok(())
}

#[tokio::test]
async fn stalled_handshakes_keep_no_probe_from_its_answer() -> Result<()> {
    let secured = Secured::start("none").await?;
    let config = secured.stranger()?;
    let mut stalled = Vec::new();
    for _ in 0..2 * vulpes::http::CONNECTIONS {
        stalled.push(TcpStream::connect(secured.admin()).await?);
    }
    let mut stream = dial(secured.admin(), config).await?;
    stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").await?;
    let mut answer = Vec::new();
    let read = within("an answer", PATIENCE, async { Ok(stream.read_to_end(&mut answer).await?) });
    read.await.context("with a goodbye of TLS, or this would be an error")?;
    let answer = text(&answer);
    ensure!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    ensure!(answer.contains("strict-transport-security: max-age="), "{answer}");
    for stream in &mut stalled {
        let closed = within("it is closed", PATIENCE, async { Ok(stream.read(&mut [0; 9]).await) });
        if matches!(closed.await?, Ok(length) if length > 0) {
            bail!("nothing is said to a client that says nothing");
        }
    }
    Ok(())
}
