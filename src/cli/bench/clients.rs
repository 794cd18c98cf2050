//! Makes the bench's connections, a limited number at a time.
//!
//! Invariant: a failed connection is named, and ends the run before it began.
//!
//! Deliberately absent: what a client does once it runs.

use std::future::Future;
use std::sync::Arc;

use anyhow::{ensure, Context};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::callee::Callee;
use super::load::{Finished, Load, Plan, Published, Schedule, Work};
use super::reception::{Received, Reception};
use super::{mqtt, retained, wamp, Protocol, SETUP};

/// Connections that are made at the same time.
const AT_ONCE: usize = 64;

/// A connected client, as the future of its work.
type Ready<T> = BoxFuture<'static, T>;

pub(super) struct Clients {
    pub(super) protocol: Protocol,
    pub(super) plan: Arc<Plan>,
    pub(super) targets: Vec<String>,
    pub(super) callees: Vec<String>,
}

impl Clients {
    /// Which target a client is connected to.
    fn place(&self, number: u16) -> usize {
        usize::from(number) % self.targets.len()
    }

    fn target(&self, number: u16) -> &str {
        &self.targets[self.place(number)]
    }

    /// Checks that each target supports positions in a log. A node refuses an invalid position; other brokers treat it as a
    /// part of a topic, or ignore it.
    pub(super) async fn can_replay(&self) -> anyhow::Result<()> {
        for target in &self.targets {
            let knows = match self.protocol {
                Protocol::Mqtt => setup(target, mqtt::knows_places(&self.plan, target)).await?,
                Protocol::Wamp => setup(target, wamp::knows_places(&self.plan, target)).await?,
            };
            ensure!(
                knows,
                "{target} is not a Vulpes node: it has no log to replay; leave out --replay"
            );
        }
        Ok(())
    }

    /// Sets the topics' retained values, or deletes them.
    pub(super) async fn retain(&self, values: bool) -> anyhow::Result<()> {
        let target = self.target(0);
        match self.protocol {
            Protocol::Mqtt => setup(target, retained::mqtt(&self.plan, target, values)).await,
            Protocol::Wamp => setup(target, retained::wamp(&self.plan, target, values)).await,
        }
    }

    pub(super) async fn register(
        &self,
        finished: watch::Receiver<Finished>,
    ) -> anyhow::Result<JoinSet<Option<String>>> {
        let mut tasks = JoinSet::new();
        for (number, target) in self.callees.iter().enumerate() {
            let name = format!("callee {number} at {target}");
            let callee = setup(&name, Callee::connect(&self.plan, target, number)).await?;
            tasks.spawn(callee.run(finished.clone(), name));
        }
        Ok(tasks)
    }

    pub(super) async fn subscribe(
        &self,
        count: u16,
        finished: watch::Receiver<Finished>,
    ) -> anyhow::Result<JoinSet<Received>> {
        all(count, |number| self.subscriber(number, finished.clone())).await
    }

    pub(super) async fn publish(
        &self,
        count: u16,
        start: watch::Receiver<Option<Schedule>>,
    ) -> anyhow::Result<JoinSet<Published>> {
        all(count, |number| self.publisher(number, start.clone())).await
    }

    async fn subscriber(
        &self,
        number: u16,
        finished: watch::Receiver<Finished>,
    ) -> anyhow::Result<Ready<Received>> {
        let (plan, target) = (&*self.plan, self.target(number));
        let name = format!("subscriber {number} at {target}");
        let reception = Reception::new(self.plan.clone(), finished);
        let receiving = match self.protocol {
            Protocol::Mqtt => {
                let client = setup(&name, mqtt::Subscriber::connect(plan, target, number)).await?;
                client.run(reception, name).boxed()
            }
            Protocol::Wamp => {
                let client = setup(&name, wamp::Subscriber::connect(plan, target)).await?;
                client.run(reception, name).boxed()
            }
        };
        let target = self.place(number);
        Ok(receiving.map(move |received| Received { target, ..received }).boxed())
    }

    async fn publisher(
        &self,
        number: u16,
        start: watch::Receiver<Option<Schedule>>,
    ) -> anyhow::Result<Ready<Published>> {
        let (plan, target) = (&*self.plan, self.target(number));
        let load = Load::new(self.plan.clone(), number);
        let name = format!("{} {number} at {target}", plan.shape.work.who());
        let publishing = match (self.protocol, plan.shape.work) {
            (Protocol::Mqtt, Work::ReadRetained) => {
                let client = retained::mqtt_reader(plan, target, number);
                setup(&name, client).await?.run(load, start, name).boxed()
            }
            (Protocol::Mqtt, Work::Publish | Work::Call) => {
                let client = mqtt::publisher(plan, target, number);
                setup(&name, client).await?.run(load, start, name).boxed()
            }
            (Protocol::Wamp, Work::ReadRetained) => {
                let client = retained::wamp_reader(plan, target);
                setup(&name, client).await?.run(load, start, name).boxed()
            }
            (Protocol::Wamp, Work::Publish) => {
                let client = wamp::publisher(plan, target);
                setup(&name, client).await?.run(load, start, name).boxed()
            }
            (Protocol::Wamp, Work::Call) => {
                let callee = usize::from(number) % self.callees.len();
                let client = wamp::caller(plan, target, callee);
                setup(&name, client).await?.run(load, start, name).boxed()
            }
        };
        let target = self.place(number);
        Ok(publishing.map(move |published| Published { target, ..published }).boxed())
    }
}

/// Connects this many clients and starts each as soon as it is connected.
async fn all<T: Send + 'static, F>(
    count: u16,
    client: impl FnMut(u16) -> F,
) -> anyhow::Result<JoinSet<T>>
where
    F: Future<Output = anyhow::Result<Ready<T>>>,
{
    let mut tasks = JoinSet::new();
    let mut connecting =
        std::pin::pin!(futures::stream::iter(0..count).map(client).buffer_unordered(AT_ONCE));
    while let Some(ready) = connecting.try_next().await? {
        tasks.spawn(ready);
    }
    Ok(tasks)
}

/// Waits for all clients' reports.
pub(super) async fn gather<T: 'static>(mut tasks: JoinSet<T>) -> anyhow::Result<Vec<T>> {
    let mut reports = Vec::with_capacity(tasks.len());
    while let Some(joined) = tasks.join_next().await {
        reports.push(joined.context("a client panicked")?);
    }
    Ok(reports)
}

async fn setup<T>(
    name: &str,
    future: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    tokio::time::timeout(SETUP, future)
        .await
        .map_err(|_| anyhow::anyhow!("no answer within {SETUP:?}"))
        .and_then(|outcome| outcome)
        .with_context(|| name.to_owned())
}
