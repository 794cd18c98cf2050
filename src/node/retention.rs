//! Requests the release of what exceeds the log's limits.
//!
//! Every entry node measures the log. They take turns, as for what sessions leave behind (`session_manager`), so that usually
//! only one of them requests the release. A second request changes nothing.
//!
//! Invariant: no release is requested of events that a persistent session still has to read.
//!
//! Deliberately absent: measuring (`crate::retention`), deciding (`realm`), deleting (`upkeep`).

use std::time::Duration;

use tokio::time::Instant;
use vulpes_raft::ids::{NodeId, Position};

use crate::entry::{Batch, EntryHandle};
use crate::log::{Log, ReadError};
use crate::realm::SharedRealms;
use crate::retention::{Gauge, Retention};
use crate::types::act::Act;
use crate::types::event::{Event, SessionId};
use crate::types::head::Head;
use crate::types::limits;
use crate::types::topic::Realm;

use super::wiring::Node;
use crate::server::session_manager::turn;

/// How often the log is measured.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long an entry waits for the one before it to make the request.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long to wait before a request that had no effect is repeated.
const AGAIN: Duration = Duration::from_secs(5);

/// The topic of these requests. No subscriber gets them.
const TOPIC: &str = "vulpes/log/release";

/// What the requests need.
struct Asker {
    node: NodeId,
    limits: Retention,
    /// The realm of its requests.
    realm: Realm,
    log: Log,
    realms: SharedRealms,
    entry: EntryHandle,
}

impl Asker {
    /// Makes requests for as long as the node lives.
    async fn run(self) {
        let mut gauge = Gauge::new(self.limits, self.log.head());
        let mut wait_until: Option<Instant> = None;
        loop {
            tokio::time::sleep(INTERVAL).await;
            if let Err(error) = self.measure(&mut gauge).await {
                tracing::debug!(%error, "the log can't be measured right now");
            }
            let Some(asked) = self.asked(&gauge).await else {
                wait_until = None;
                continue;
            };
            let turn = self.realms.with(|realms| turn(realms, self.node, None));
            let until = *wait_until.get_or_insert_with(|| Instant::now() + PATIENCE * turn);
            if Instant::now() < until {
                continue;
            }
            wait_until = Some(Instant::now() + AGAIN + PATIENCE * turn);
            if self.ask(asked).await.is_err() {
                return;
            }
        }
    }

    /// Counts new rows, as far as a storage has them.
    async fn measure(&self, gauge: &mut Gauge) -> Result<(), ReadError> {
        if gauge.next() < self.log.head().slot {
            *gauge = Gauge::new(self.limits, self.log.head());
        }
        while gauge.next() < self.log.tail().next_slot {
            if let Some(placed) = self.log.recent(gauge.next()) {
                gauge.row(&placed.resolution);
                continue;
            }
            let rows = self.log.rows(gauge.next(), limits::READ_ROWS).await?;
            rows.iter().for_each(|row| gauge.row(row));
        }
        Ok(())
    }

    /// The place to request: what is due, or an earlier slot if it has an event that is still wanted.
    async fn asked(&self, gauge: &Gauge) -> Option<Head> {
        let (head, wanted) = self.realms.with(|realms| (realms.head(), realms.wanted()));
        let due = gauge.due();
        let asked = match wanted.filter(|wanted| *wanted < due.position) {
            None => due,
            Some(wanted) => self.slot_of(wanted).await?,
        };
        (asked > head).then_some(asked)
    }

    async fn slot_of(&self, position: Position) -> Option<Head> {
        let row = self.log.row_of(position).await.ok()??;
        Some(Head { slot: row.slot, position: row.base })
    }

    async fn ask(&self, head: Head) -> Result<(), crate::entry::EntryClosed> {
        tracing::info!(slot = %head.slot, position = %head.position, "asking for the log before this to be released");
        let act = Act::Release { slot: head.slot, position: head.position };
        let event = Event::of_act(self.realm.clone(), TOPIC, SessionId(0), act.encode());
        self.entry.submit(Batch::own(vec![event])).await
    }
}

impl Node {
    /// Has the log released when it exceeds its limits, if it has any.
    pub(crate) fn start_asking(&self, log: &Log, realms: &SharedRealms, entry: &EntryHandle) {
        if !self.config.retention.is_limited() {
            return;
        }
        let asker = Asker {
            node: self.identity.node,
            limits: self.config.retention,
            realm: self.config.default_realm.clone(),
            log: log.clone(),
            realms: realms.clone(),
            entry: entry.clone(),
        };
        tokio::spawn(asker.run());
    }
}
