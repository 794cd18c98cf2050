//! The links between this entry and the others, over which calls travel.
//!
//! Invariant: an entry dials another one when it has something for it, at most once at a time and once in [`PAUSE`]. All calls
//! over a link end when the link ends, or is not set up within [`DIAL`].
//!
//! Deliberately absent: the messages on a link, and when it ends (`peer`).

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use vulpes_raft::ids::NodeId;
use vulpes_raft::net::wire::{self, Identity, Link, Service};

use super::{Bell, Calls};
use crate::call::{CalleeSays, CallerSays, Exchange, LinkId, Party};
use crate::peer::{talk, Talker};

/// How long dialling may take, including everything before the first call.
const DIAL: Duration = Duration::from_secs(1);

/// How long after a link has ended the next one is dialled.
const PAUSE: Duration = Duration::from_millis(50);

/// This entry's end of the link that it dials.
struct ToNode {
    calls: Calls,
    node: NodeId,
    bell: Arc<Bell>,
}

impl Talker for ToNode {
    type Hears = CalleeSays;
    type Says = CallerSays;

    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        self.bell.poll(context)
    }

    fn take(&self, bytes: usize) -> Vec<CallerSays> {
        let take = |exchange: &mut Exchange| exchange.take_for_node(self.node, bytes);
        self.calls.take(Party::Node(self.node), &self.bell, take)
    }

    fn hear(&self, messages: Vec<CalleeSays>) {
        self.calls.heard_from_node(self.node, messages);
    }

    fn is_busy(&self) -> bool {
        self.calls.lock().exchange.waits_for(self.node)
    }
}

/// This entry's end of a link that another entry has dialled.
struct ToLink {
    calls: Calls,
    link: LinkId,
    bell: Arc<Bell>,
}

impl Talker for ToLink {
    type Hears = CallerSays;
    type Says = CalleeSays;

    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        self.bell.poll(context)
    }

    fn take(&self, bytes: usize) -> Vec<CalleeSays> {
        let take = |exchange: &mut Exchange| exchange.take_for_link(self.link, bytes);
        self.calls.take(Party::Link(self.link), &self.bell, take)
    }

    fn hear(&self, messages: Vec<CallerSays>) {
        self.calls.heard_from_link(self.link, messages);
    }

    fn is_busy(&self) -> bool {
        self.calls.lock().exchange.owes(self.link)
    }
}

/// Passes calls on to another entry, for as long as the node lives.
pub(crate) async fn call_out(calls: Calls, own: Identity, node: NodeId, address: String) {
    let bell = calls.bell(Party::Node(node));
    let talker = ToNode { calls: calls.clone(), node, bell: bell.clone() };
    loop {
        bell.rung().await;
        let dialling = wire::dial(&calls.host, &own, &address, Service::Calls, (node, None));
        match tokio::time::timeout(DIAL, dialling).await {
            Ok(Ok(link)) => {
                let end = talk(link.stream, &talker).await;
                tracing::debug!(%node, %end, "a link for calls ended");
            }
            Ok(Err(error)) => tracing::debug!(%node, %error, "dialling an entry failed"),
            Err(_) => tracing::debug!(%node, "an entry does not answer"),
        }
        calls.with(|exchange| exchange.node_lost(node));
        // Requests from here on wait for the next link.
        calls.take(Party::Node(node), &bell, |_| ());
        tokio::time::sleep(PAUSE).await;
    }
}

/// Takes calls from another entry until its link ends.
pub(crate) async fn serve_calls(link: Link, calls: Calls) {
    let id = calls.with(|exchange| exchange.link_opened());
    let party = Party::Link(id);
    let talker = ToLink { calls: calls.clone(), link: id, bell: calls.bell(party) };
    let end = talk(link.stream, &talker).await;
    tracing::debug!(node = %link.peer.node, %end, "a link for calls ended");
    calls.with(|exchange| exchange.link_lost(id));
    calls.lock().bells.remove(&party);
}
