//! What topics retain: values, keyword arguments and nothing, between both protocols.
//!
//! Deliberately absent: conditions of changes, which `state` has.

use anyhow::{ensure, Context, Result};
use serde_json::{json, Value};
use vulpes_jepsen::client::Said;
use vulpes_jepsen::code::{ERROR, PUBLISH, PUBLISHED};
use vulpes_jepsen::mqtt::Mqtt;
use vulpes_jepsen::wait::{until, within, PATIENCE};

use crate::peer::Peer;

const RETAINED: [(&str, bool); 2] = [("retainedState", true), ("snapshot", true)];

impl Peer {
    /// Publishes with keyword arguments.
    async fn publish_keywords(&mut self, topic: &str, args: Value, kwargs: Value) -> Result<u64> {
        self.request += 1;
        let options = json!({ "acknowledge": true, "retain": true });
        let message = json!([PUBLISH, self.request, options, topic, args, kwargs]);
        self.wamp.send(&message).await?;
        let answer = self.receive().await?;
        ensure!(answer[0] == PUBLISHED && answer[0] != ERROR, "no PUBLISHED but {answer}");
        answer[2].as_u64().context("no position")
    }

    async fn kept(&mut self, topic: &str) -> Result<Vec<Value>> {
        let options = Value::from_iter(RETAINED);
        let values = self.snapshot(topic, options).await?;
        Ok(values.into_iter().map(|(value, _)| value).collect())
    }
}

/// fox-wamp's clients free a lock this way.
#[tokio::test]
async fn keyword_arguments_alone_free_a_lock_and_are_shown() -> Result<()> {
    let cluster = crate::cluster().nodes(3).start().await?;
    let mut holder = Peer::at(&cluster, 1).await?;
    let mut next = Peer::at(&cluster, 2).await?;
    let lock = json!({ "retain": true, "when": null, "will": null, "watch": true });
    for args in [json!([]), json!([null])] {
        let token = holder.publish("lock", "first".into(), lock.clone()).await?;
        let token = token.ok().context("the lock was refused")?;
        let waiting = tokio::spawn({
            let lock = lock.clone();
            async move {
                let token = next.publish("lock", "second".into(), lock).await?;
                anyhow::Ok((token.ok().context("the lock was refused")?, next))
            }
        });
        until("the second one waits", PATIENCE, || async {
            let waiting = &cluster.status(1).await?["state"]["waiting"];
            ensure!(*waiting == 1, "{waiting} publishes wait");
            Ok(())
        })
        .await?;
        holder.publish_keywords("lock", args, json!({ "header": "any" })).await?;
        let (second, peer) = within("the lock is free", PATIENCE, async { waiting.await? }).await?;
        next = peer;
        ensure!(second > token, "{second} after {token}");
        let freed = next.publish_keywords("lock", json!([]), json!({ "header": "x" })).await?;

        // It is the topic's last event for later subscribers, over both protocols.
        let mut late = Peer::at(&cluster, 3).await?;
        let values = late
            .snapshot("lock", json!({ "retainedState": true, "after": freed, "snapshot": true }));
        ensure!(values.await? == [(Value::Null, freed)]);
        let mut late = Mqtt::connect(cluster.node(1).mqtt()).await?;
        late.subscribe("lock").await?;
        let Said::Event(seen) = within("the event", PATIENCE, late.next()).await? else {
            anyhow::bail!("no event");
        };
        ensure!(seen.payload == r#"{"args":[],"kwargs":{"header":"x"}}"#, "{seen:?}");
    }
    // Neither arguments nor keywords: the value is deleted.
    let deleted = next.publish_keywords("lock", json!([]), json!({})).await?;
    let all = json!({ "retainedState": true, "after": deleted, "snapshot": true });
    ensure!(holder.snapshot("lock", all).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn only_an_empty_mqtt_payload_deletes() -> Result<()> {
    let cluster = crate::cluster().nodes(1).start().await?;
    let mut mqtt = Mqtt::connect(cluster.node(1).mqtt()).await?;
    let mut wamp = Peer::at(&cluster, 1).await?;
    for (text, kept) in [("null", 1), ("", 0), (" null", 1), ("null\n", 1), ("", 0)] {
        mqtt.publish_with("a/b", text, true).await?;
        let said = within("a PUBACK", PATIENCE, mqtt.next()).await?;
        ensure!(matches!(said, Said::Acknowledged { .. }), "{said:?}");
        // The node may read its own log a moment later than it acknowledges.
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let values = wamp.kept("a.b").await?;
            if values == vec![Value::Null; kept] {
                break;
            }
            ensure!(tokio::time::Instant::now() < deadline, "{text:?}: {values:?}");
        }
        let mut late = Mqtt::connect(cluster.node(1).mqtt()).await?;
        late.subscribe("a/b").await?;
        // The retained value comes first, or else the marker.
        mqtt.publish("a/b", "marker").await?;
        let Said::Event(seen) = within("an event", PATIENCE, late.next()).await? else {
            anyhow::bail!("no event");
        };
        let expected = if kept == 1 { text } else { "marker" };
        ensure!(seen.payload == expected, "{text:?}: {seen:?}");
        within("a PUBACK", PATIENCE, mqtt.next()).await?;
    }
    // Conditions see null as its value.
    mqtt.publish_with("a/b", "null", true).await?;
    within("a PUBACK", PATIENCE, mqtt.next()).await?;
    let taken = wamp.publish("a.b", json!(1), json!({ "retain": true, "when": null })).await?;
    ensure!(taken.is_ok(), "{taken:?}");
    Ok(())
}
