//! One order, wherever clients publish and read.
//!
//! Invariant: positions in these tests are dense from 1, because only the test publishes.
//!
//! Deliberately absent: failures; see [`super::crashes`].

use anyhow::{ensure, Context, Result};
use vulpes_jepsen::history::{check_acknowledged, check_log, check_run};
use vulpes_jepsen::load::{read_log_through, Publisher, Reader};
use vulpes_jepsen::node::Role;
use vulpes_jepsen::{Cluster, Said};

/// The least number of messages of each publisher.
const MESSAGES: usize = 300;

/// The last message of a test: a reader that has seen it has seen everything.
const MARK: &str = "mark";

/// Three publishers at three entries, two readers at each, and every log read back at the end.
async fn one_order_everywhere(cluster: &Cluster, entries: [u64; 3]) -> Result<()> {
    let mut readers = Vec::new();
    for id in entries {
        readers.push(Reader::start(cluster.wamp(id).await?, "load").await?);
        readers.push(Reader::start(cluster.mqtt(id).await?, "load").await?);
    }
    let [first, second, third] = entries;
    let publishers = [
        Publisher::start(cluster.wamp(first).await?, "a", "load.a"),
        Publisher::start(cluster.mqtt(second).await?, "b", "load.b"),
        Publisher::start(cluster.wamp(third).await?, "c", "load.c"),
    ];
    for publisher in &publishers {
        publisher.acknowledged(MESSAGES).await?;
    }
    let mut records = Vec::new();
    for publisher in publishers {
        records.push(publisher.finish().await?);
    }
    cluster.mqtt(second).await?.publish_and_wait("load.mark", MARK).await?;

    let mut seen = Vec::new();
    for reader in &readers {
        seen.push(reader.until_seen(MARK).await?);
    }
    let log = read_log_through(cluster, first, "load", MARK).await?;
    check_log(&log)?;
    for record in &records {
        ensure!(record.refused.is_empty() && record.closed.is_none(), "{record:?}");
        check_acknowledged(&log, record)?;
    }
    let acknowledged: usize = records.iter().map(|record| record.acknowledged.len()).sum();
    ensure!(log.len() == acknowledged + 1, "{} in the log, {acknowledged} + 1 sent", log.len());
    for events in seen {
        ensure!(events.len() == log.len(), "a reader saw {} of {}", events.len(), log.len());
        check_run(&log, &events)?;
    }
    for id in [second, third] {
        ensure!(
            read_log_through(cluster, id, "load", MARK).await? == log,
            "node {id} shows another log"
        );
    }
    cluster.verify(first).await
}

#[tokio::test]
async fn three_publishers_one_order() -> Result<()> {
    let cluster = crate::cluster().nodes(3).start().await?;
    one_order_everywhere(&cluster, [1, 2, 3]).await
}

#[tokio::test]
async fn split_roles_one_order() -> Result<()> {
    let builder = crate::cluster().only(Role::Sync, 3).only(Role::Storage, 3);
    let cluster = builder.only(Role::Entry, 3).start().await?;
    one_order_everywhere(&cluster, [7, 8, 9]).await
}

#[tokio::test]
async fn one_node_is_a_cluster() -> Result<()> {
    let mut cluster = crate::cluster().nodes(1).start().await?;
    let mut client = cluster.wamp(1).await?;
    let mut last = None;
    for number in 1..=20 {
        let position = client.publish_and_wait("load.a", &format!("a-{number}")).await?;
        ensure!(position > last, "{position:?} after {last:?}");
        last = position;
    }
    let status = cluster.node_mut(1).stop().await?;
    ensure!(status.success(), "a node that was told to stop says {status}");
    let said = client.next().await?;
    ensure!(matches!(said, Said::Closed(_)), "{said:?} from a node that has stopped");
    cluster.restart(1).await?;
    let log = read_log_through(&cluster, 1, "load", "a-20").await?;
    check_log(&log)?;
    ensure!(log.len() == 20, "{log:?}");
    let mut client = cluster.mqtt(1).await?;
    client.publish_and_wait("load.a", "a-21").await?;
    let newest =
        read_log_through(&cluster, 1, "load", "a-21").await?.pop().context("an empty log")?;
    ensure!(newest.payload == "a-21" && newest.position > last, "{newest:?} after {last:?}");
    Ok(())
}
