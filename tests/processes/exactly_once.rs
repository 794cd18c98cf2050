//! QoS 2: each message once, at whatever step its publisher loses its connection or its node, and to whom it is sent.
//!
//! Invariant: what an MQTT subscriber of QoS 2 at a third node gets decides, and the history of the topic.
//!
//! Deliberately absent: stock clients (`stock`), and QoS 2 to persistent sessions, which are granted QoS 1.

use anyhow::{ensure, Context, Result};
use vulpes_jepsen::mqtt::{packet, string};
use vulpes_jepsen::wait::{until, within, PATIENCE};
use vulpes_jepsen::Cluster;

use crate::raw::{connect, Raw};

/// A step of an exchange at which a connection breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Publish,
    Received,
    Release,
    Complete,
}

const STEPS: [Step; 4] = [Step::Publish, Step::Received, Step::Release, Step::Complete];

/// A PUBLISH of QoS 2 in MQTT 3.1.1.
fn publish(id: u16, topic: &str, text: &str, again: bool) -> Vec<u8> {
    let body = [string(topic), id.to_be_bytes().to_vec(), text.into()].concat();
    packet(0x34 | if again { 8 } else { 0 }, &body)
}

fn release(id: u16) -> Vec<u8> {
    packet(0x62, &id.to_be_bytes())
}

/// Waits for an acknowledgement.
async fn answer(raw: &mut Raw, first: u8, id: u16) -> Result<()> {
    let (came, body) = within("an acknowledgement", PATIENCE, raw.packet()).await?;
    ensure!((came, &body[..2]) == (first, &id.to_be_bytes()[..]), "{came:02x} {body:02x?}");
    Ok(())
}

/// A client whose session outlives its connection.
async fn persistent(cluster: &Cluster, node: u64, name: &str) -> Result<Raw> {
    // Its node may not have noticed yet that the other one is gone.
    let connect = connect(name, 0, 0);
    until("a session", PATIENCE, || Raw::mqtt_with(cluster.node(node).mqtt(), &connect)).await
}

/// A subscriber of QoS 2.
struct Reader(Raw);

impl Reader {
    async fn begin(cluster: &Cluster, node: u64, filter: &str) -> Result<Self> {
        let mut raw = Raw::mqtt(cluster.node(node).mqtt(), &format!("reader-{node}")).await?;
        raw.send(&packet(0x82, &[vec![0, 1], string(filter), vec![2]].concat())).await?;
        let (first, body) = within("a SUBACK", PATIENCE, raw.packet()).await?;
        ensure!((first, &body[..]) == (0x90, &[0, 1, 2][..]), "{first:02x} {body:02x?}");
        Ok(Self(raw))
    }

    /// The texts up to a last one.
    async fn until(&mut self, last: &str) -> Result<Vec<String>> {
        let mut texts = Vec::new();
        while texts.last().is_none_or(|text| text != last) {
            let (first, body) = within("a message", PATIENCE, self.0.packet()).await?;
            match first {
                0x34 => {
                    let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
                    let (id, text) = body[2 + topic..].split_first_chunk::<2>().context("none")?;
                    texts.push(String::from_utf8(text.to_vec())?);
                    self.0.send(&packet(0x50, id)).await?;
                }
                0x62 => self.0.send(&packet(0x70, &body[..2])).await?,
                other => anyhow::bail!("{other:02x} {body:02x?}"),
            }
        }
        Ok(texts)
    }
}

/// Plays an exchange up to a step at which the connection breaks, and then the rest at another node.
async fn exchange(
    cluster: &mut Cluster,
    (name, id): (&str, u16),
    step: Step,
    (from, to, kill): (u64, u64, bool),
) -> Result<()> {
    let topic = format!("exactly/{name}");
    let mut raw = persistent(cluster, from, name).await?;
    raw.send(&publish(id, &topic, name, false)).await?;
    if step != Step::Publish {
        answer(&mut raw, 0x50, id).await?;
    }
    if matches!(step, Step::Release | Step::Complete) {
        raw.send(&release(id)).await?;
    }
    if step == Step::Complete {
        answer(&mut raw, 0x70, id).await?;
    }
    if kill {
        cluster.node_mut(from).kill().await?;
    }
    drop(raw);
    let mut raw = persistent(cluster, to, name).await?;
    if matches!(step, Step::Publish | Step::Received) {
        raw.send(&publish(id, &topic, name, true)).await?;
        answer(&mut raw, 0x50, id).await?;
    }
    if step != Step::Complete {
        raw.send(&release(id)).await?;
        answer(&mut raw, 0x70, id).await?;
    }
    // The identifier is free for another message.
    let next = format!("{name} next");
    raw.send(&publish(id, &topic, &next, false)).await?;
    answer(&mut raw, 0x50, id).await?;
    raw.send(&release(id)).await?;
    answer(&mut raw, 0x70, id).await
}

#[tokio::test]
async fn each_message_comes_once_whatever_its_publisher_loses() -> Result<()> {
    let mut cluster = crate::cluster().nodes(3).start().await?;
    let mut reader = Reader::begin(&cluster, 3, "exactly/#").await?;
    for (number, step) in STEPS.into_iter().enumerate() {
        for kill in [false, true] {
            let name = format!("{step:?}-{kill}");
            let (from, to) = if number % 2 == 0 { (1, 2) } else { (2, 1) };
            let place = (from, to, kill);
            let done = exchange(&mut cluster, (&name, 7), step, place).await;
            done.with_context(|| format!("{name} from node {from}"))?;
            let texts = reader.until(&format!("{name} next")).await?;
            ensure!(texts == [name.clone(), format!("{name} next")], "{texts:?}");
            if kill {
                cluster.restart(from).await?;
                let node = cluster.node(from).mqtt();
                until("the node takes clients", PATIENCE, || Raw::mqtt(node, "probe")).await?;
            }
        }
    }
    cluster.verify(3).await
}

#[tokio::test]
async fn a_session_without_a_past_completes_its_exchanges() -> Result<()> {
    let cluster = crate::cluster().nodes(3).start().await?;
    let mut reader = Reader::begin(&cluster, 2, "clean/#").await?;
    let mut raw = Raw::mqtt(cluster.node(1).mqtt(), "clean").await?;
    let ids = 1..=500_u16;
    let mut all = Vec::new();
    for id in ids.clone() {
        all.extend(publish(id, "clean/a", &id.to_string(), false));
        all.extend(publish(id, "clean/a", &id.to_string(), true));
    }
    raw.say(&all).await?;
    let mut received = 0;
    while received < *ids.end() {
        let (first, body) = within("a PUBREC", PATIENCE, raw.packet()).await?;
        let id = u16::from_be_bytes([body[0], body[1]]);
        // A repeated publish may be told so again.
        ensure!(first == 0x50 && (id == received + 1 || id <= received), "{first:02x} {id}");
        received = received.max(id);
    }
    let texts = reader.until("500").await?;
    ensure!(texts == ids.map(|id| id.to_string()).collect::<Vec<_>>(), "{texts:?}");
    raw.send(&release(500)).await?;
    loop {
        let (first, body) = within("a PUBCOMP", PATIENCE, raw.packet()).await?;
        if first == 0x70 {
            ensure!(body == 500_u16.to_be_bytes(), "{body:02x?}");
            return cluster.verify(1).await;
        }
    }
}
