//! MQTT sessions that outlive their connections, over nodes that live, die and come back.
//!
//! Invariant: what a client acknowledged on a connection that ended in order, or was taken over, never comes again;
//! nothing is missing, and everything comes in the order of the log.
//!
//! Deliberately absent: every packet's bytes, which the gate's own tests have.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use tokio::time::Instant;
use vulpes_jepsen::mqtt::{packet, string, Mqtt};
use vulpes_jepsen::wait::{until, within, PATIENCE};
use vulpes_jepsen::Cluster;

const CONNACK: u8 = 0x20;
const PUBACK: u8 = 0x40;
const SUBACK: u8 = 0x90;

/// How long a client that expects no more messages listens.
const SILENCE: Duration = Duration::from_millis(700);

/// Growth of a node's memory that may have other causes: the caches of recent bodies and the allocator.
const MEMORY_SLACK: u64 = 96 << 20;

/// A received message.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Came {
    text: String,
    id: u16,
    duplicate: bool,
}

/// A named client that acknowledges on demand.
struct Client {
    mqtt: Mqtt,
    present: bool,
    early: VecDeque<Came>,
}

/// How a client connects.
#[derive(Clone, Copy)]
enum How {
    /// 3.1.1, without a clean session.
    ForEver,
    /// 3.1.1, with a clean session.
    Clean,
    /// 5, with an expiry in seconds.
    For(u32),
}

impl Client {
    async fn at(cluster: &Cluster, node: u64, name: &str, how: How) -> Result<Self> {
        let mut body = string("MQTT");
        match how {
            How::ForEver => body.extend([4, 0, 0, 0]),
            How::Clean => body.extend([4, 2, 0, 0]),
            How::For(seconds) => {
                body.extend([5, 0, 0, 0, 5, 0x11]);
                body.extend(seconds.to_be_bytes());
            }
        }
        body.extend(string(name));
        within("a session is resumed", PATIENCE, async {
            let mut mqtt = Mqtt::open(cluster.node(node).mqtt()).await?;
            mqtt.send(&packet(0x10, &body)).await?;
            let (first, body) = mqtt.receive().await?.context("closed before CONNACK")?;
            ensure!(first == CONNACK && body[1] == 0, "no welcome but {first:#04x} {body:02x?}");
            Ok(Self { mqtt, present: body[0] == 1, early: VecDeque::new() })
        })
        .await
    }

    /// Subscribes with 3.1.1.
    async fn subscribe(&mut self, filter: &str) -> Result<()> {
        let mut body = vec![0, 1];
        body.extend(string(filter));
        body.push(1);
        self.mqtt.send(&packet(0x82, &body)).await?;
        within("a subscription is answered", PATIENCE, async {
            loop {
                match self.mqtt.receive().await?.context("closed before SUBACK")? {
                    (SUBACK, body) => break ensure!(body.ends_with(&[1]), "refused: {body:02x?}"),
                    (first, body) => self.early.push_back(came(first, &body)?),
                }
            }
            Ok(())
        })
        .await
    }

    async fn next(&mut self) -> Result<Came> {
        if let Some(came) = self.early.pop_front() {
            return Ok(came);
        }
        within("a message comes", PATIENCE, async {
            let (first, body) = self.mqtt.receive().await?.context("closed before a message")?;
            came(first, &body)
        })
        .await
    }

    async fn acknowledge(&mut self, id: u16) -> Result<()> {
        self.mqtt.send(&packet(PUBACK, &id.to_be_bytes())).await
    }

    /// Reads and acknowledges messages from one number up to another; the first ones may be marked with DUP.
    async fn read(&mut self, topic: &str, numbers: std::ops::Range<usize>) -> Result<()> {
        for number in numbers {
            let came = self.next().await?;
            ensure!(came.text == format!("{topic}-{number}"), "{came:?} instead of {number}");
            self.acknowledge(came.id).await?;
        }
        Ok(())
    }

    async fn hears_nothing(&mut self) -> Result<()> {
        match tokio::time::timeout(SILENCE, self.mqtt.receive()).await {
            Err(_) => Ok(()),
            Ok(said) => bail!("{said:?} where nothing was to come"),
        }
    }

    /// Sends DISCONNECT, and waits for the end of the connection.
    async fn leave(mut self) -> Result<()> {
        self.mqtt.send(&packet(0xe0, &[])).await?;
        self.closed().await
    }

    async fn closed(&mut self) -> Result<()> {
        within("a connection closes", PATIENCE, async {
            while self.mqtt.receive().await?.is_some() {}
            Ok(())
        })
        .await
    }
}

fn came(first: u8, body: &[u8]) -> Result<Came> {
    ensure!(first & 0xf2 == 0x32, "no message of QoS 1: {first:#04x} {body:02x?}");
    let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
    let (id, payload) = body[2 + topic..].split_first_chunk().context("no identifier")?;
    Ok(Came {
        text: String::from_utf8(payload.to_vec())?,
        id: u16::from_be_bytes(*id),
        duplicate: first & 8 != 0,
    })
}

/// Publishes numbered messages, many at once; returns when all are acknowledged.
async fn publish(
    cluster: &Cluster,
    node: u64,
    topic: &str,
    numbers: std::ops::Range<usize>,
) -> Result<()> {
    const AT_ONCE: usize = 1000;
    let mut client = Mqtt::connect(cluster.node(node).mqtt()).await?;
    let mut waiting = 0;
    let first = numbers.start;
    for number in numbers {
        let mut body = string(topic);
        body.extend(((number - first) as u16 % 60_000 + 1).to_be_bytes());
        body.extend(format!("{topic}-{number}").into_bytes());
        client.send(&packet(0x32, &body)).await?;
        waiting += 1;
        if waiting >= AT_ONCE {
            let answers = async { drain(&mut client, AT_ONCE / 2).await };
            within("publishes are acknowledged", PATIENCE, answers).await?;
            waiting -= AT_ONCE / 2;
        }
    }
    within("publishes are acknowledged", PATIENCE, drain(&mut client, waiting)).await
}

async fn drain(client: &mut Mqtt, count: usize) -> Result<()> {
    for _ in 0..count {
        let (first, _) = client.receive().await?.context("closed before PUBACK")?;
        ensure!(first == PUBACK, "no PUBACK but {first:#04x}");
    }
    Ok(())
}

#[tokio::test]
async fn a_session_goes_on_at_another_node() -> Result<()> {
    let cluster = crate::cluster().nodes(3).start().await?;
    let mut client = Client::at(&cluster, 1, "c", How::ForEver).await?;
    ensure!(!client.present, "there was none");
    client.subscribe("t/#").await?;
    client.subscribe("t").await?;
    publish(&cluster, 2, "t", 0..10).await?;
    client.read("t", 0..5).await?;
    let unanswered: Vec<Came> = [client.next().await?, client.next().await?].into();
    client.leave().await?;
    publish(&cluster, 2, "t", 10..30).await?;

    let mut client = Client::at(&cluster, 3, "c", How::ForEver).await?;
    ensure!(client.present, "it was kept");
    for expected in &unanswered {
        let came = client.next().await?;
        ensure!(came == Came { duplicate: true, ..expected.clone() }, "{came:?}, not {expected:?}");
        client.acknowledge(came.id).await?;
    }
    for number in 7..30 {
        let came = client.next().await?;
        // Messages that were sent and lost on the way count as in flight.
        ensure!(came.text == format!("t-{number}"), "{came:?} instead of {number}");
        ensure!(!came.duplicate || number < 10, "{came:?} was never sent before");
        client.acknowledge(came.id).await?;
    }
    client.hears_nothing().await?;
    // The connection breaks silently.
    drop(client);
    publish(&cluster, 1, "t", 30..40).await?;
    let mut client = Client::at(&cluster, 2, "c", How::ForEver).await?;
    client.read("t", 30..40).await?;
    client.leave().await?;

    let client = Client::at(&cluster, 3, "c", How::Clean).await?;
    ensure!(!client.present, "a clean session begins anew");
    client.leave().await?;
    let mut client = Client::at(&cluster, 3, "c", How::ForEver).await?;
    ensure!(!client.present, "and leaves nothing");
    publish(&cluster, 1, "t", 40..41).await?;
    client.hears_nothing().await?;
    cluster.verify(1).await
}

#[tokio::test]
async fn retained_values_come_once_with_a_filter_that_is_kept() -> Result<()> {
    let cluster = crate::cluster().nodes(3).start().await?;
    let mut publisher = Mqtt::connect(cluster.node(2).mqtt()).await?;
    let mut body = string("r");
    body.extend([0, 1]);
    body.extend(b"r-0");
    publisher.send(&packet(0x33, &body)).await?;
    within("a retained publish is acknowledged", PATIENCE, drain(&mut publisher, 1)).await?;
    let mut client = Client::at(&cluster, 1, "c", How::ForEver).await?;
    until("node 1 shows the value", PATIENCE, || async {
        let status = cluster.status(1).await?;
        ensure!(status["state"]["retained"] == 1, "{status}");
        Ok(())
    })
    .await?;
    client.subscribe("r").await?;
    publish(&cluster, 3, "r", 1..3).await?;
    client.read("r", 0..3).await?;
    client.leave().await?;
    publish(&cluster, 3, "r", 3..5).await?;
    let mut client = Client::at(&cluster, 2, "c", How::ForEver).await?;
    client.read("r", 3..5).await?;
    client.hears_nothing().await
}

#[tokio::test]
async fn a_session_is_taken_over_from_a_connection_that_nobody_reads() -> Result<()> {
    let cluster = crate::cluster().nodes(3).start().await?;
    let mut older = Client::at(&cluster, 1, "c", How::ForEver).await?;
    older.subscribe("t").await?;
    publish(&cluster, 2, "t", 0..100).await?;
    older.read("t", 0..50).await?;
    // It keeps reading but acknowledges nothing more.
    let kept_back = older.next().await?;
    let begun = Instant::now();
    let mut newer = Client::at(&cluster, 3, "c", How::ForEver).await?;
    println!("taken over within {:?}", begun.elapsed());
    ensure!(newer.present, "it was kept");
    let came = newer.next().await?;
    ensure!(came == Came { duplicate: true, ..kept_back }, "{came:?} came first");
    newer.acknowledge(came.id).await?;
    newer.read("t", 51..100).await?;
    older.closed().await?;
    publish(&cluster, 2, "t", 100..120).await?;
    newer.read("t", 100..120).await
}

#[tokio::test]
async fn a_session_outlives_its_node_and_the_whole_cluster() -> Result<()> {
    let mut cluster = crate::cluster().nodes(3).start().await?;
    let mut client = Client::at(&cluster, 1, "c", How::ForEver).await?;
    client.subscribe("t").await?;
    publish(&cluster, 2, "t", 0..50).await?;
    client.read("t", 0..20).await?;
    cluster.node_mut(1).kill().await?;
    publish(&cluster, 2, "t", 50..80).await?;
    let mut client = Client::at(&cluster, 3, "c", How::ForEver).await?;
    ensure!(client.present, "it was kept");
    // Its node had no time to record the acknowledgements: those messages may come again, marked as duplicates.
    let first = client.next().await?;
    let number: usize = first.text.trim_start_matches("t-").parse()?;
    ensure!(number <= 20 && (first.duplicate || number >= 50), "{first:?} came first");
    client.acknowledge(first.id).await?;
    client.read("t", number + 1..80).await?;
    client.leave().await?;

    publish(&cluster, 2, "t", 80..100).await?;
    for node in [2, 3] {
        cluster.node_mut(node).kill().await?;
    }
    for node in [1, 2, 3] {
        cluster.node_mut(node).start()?;
    }
    cluster.ready().await?;
    let mut client = Client::at(&cluster, 2, "c", How::ForEver).await?;
    ensure!(client.present, "it was kept");
    client.read("t", 80..100).await?;
    client.hears_nothing().await
}

/// How many persistent sessions a node reports, of connected clients and of absent ones.
async fn kept(cluster: &Cluster) -> Result<[Option<u64>; 2]> {
    let status = cluster.status(2).await?;
    Ok(["kept_attached", "kept_away"].map(|name| status["state"][name].as_u64()))
}

#[tokio::test]
async fn a_session_expires() -> Result<()> {
    let cluster = crate::cluster().nodes(3).start().await?;
    let client = Client::at(&cluster, 1, "c", How::For(4)).await?;
    client.leave().await?;
    until("the session is kept", PATIENCE, || async {
        let kept = kept(&cluster).await?;
        ensure!(kept == [Some(0), Some(1)], "{kept:?} are kept");
        Ok(())
    })
    .await?;
    let client = Client::at(&cluster, 3, "c", How::For(4)).await?;
    ensure!(client.present, "it came back in time");
    client.leave().await?;
    until("the session is gone", PATIENCE, || async {
        let kept = kept(&cluster).await?;
        ensure!(kept == [Some(0), Some(0)], "{kept:?} are kept");
        Ok(())
    })
    .await?;
    let client = Client::at(&cluster, 1, "c", How::For(4)).await?;
    ensure!(!client.present, "it has expired");
    Ok(())
}

#[tokio::test]
async fn a_long_backlog_costs_no_memory() -> Result<()> {
    const BACKLOG: usize = 100_000;
    let cluster = crate::cluster().nodes(3).start().await?;
    let mut client = Client::at(&cluster, 1, "c", How::ForEver).await?;
    client.subscribe("t").await?;
    publish(&cluster, 2, "t", 0..1000).await?;
    client.read("t", 0..1000).await?;
    client.leave().await?;
    let before = cluster.node(3).resident()?;
    let begun = Instant::now();
    publish(&cluster, 2, "t", 1000..BACKLOG).await?;
    let published = begun.elapsed();
    let away = cluster.node(3).resident()?;
    let begun = Instant::now();
    let mut client = Client::at(&cluster, 3, "c", How::ForEver).await?;
    let mut most = 0;
    for number in (1000..BACKLOG).step_by(1000) {
        client.read("t", number..number + 1000).await?;
        most = most.max(cluster.node(3).resident()?);
    }
    let read = begun.elapsed();
    client.hears_nothing().await?;
    println!(
        "{BACKLOG} messages published in {published:?}, read in {read:?}; resident bytes of the node: {before} before, \
         {away} with all of them missed, {most} at most while they were read"
    );
    ensure!(most < before + MEMORY_SLACK, "{most} bytes, {before} before");
    client.leave().await?;
    // No message comes again once it was acknowledged.
    let mut client = Client::at(&cluster, 1, "c", How::ForEver).await?;
    client.hears_nothing().await
}
