//! Listening for clients: one loop per protocol, one task per connection.
//!
//! Invariant: a connection takes one of a bounded number of permits from its first byte to its last. If none is free, it is
//! told so under one of a few other permits (`refusal`), or closed at once, so that connected clients are not harmed.
//!
//! Deliberately absent: what a session does (`session`).

use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::FutureExt;
use tokio::sync::OwnedSemaphorePermit;
use vulpes_raft::host::{BoxStream, Listener};

use crate::gate::mqtt::MqttGate;
use crate::gate::wamp::WampGate;

use super::clients::Clients;
use super::identity;
use super::intake::{Framing, Intake, Terms};
use super::metered::metered;
use super::refusal::{refuse, NoPlace};
use super::session::Session;
use super::transport::{MqttTransport, Protocol, TransportError, WampTransport};
use super::upgrade::upgrade;

/// How long to wait after accepting failed, for example because the process is out of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Accepts clients for as long as the node lives.
pub(crate) async fn serve(
    protocol: Protocol,
    mut listener: Box<dyn Listener>,
    clients: Arc<Clients>,
) {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("a connection for {protocol} could not be accepted: {error}");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let place = match clients.connections.clone().try_acquire_owned() {
            // `Clients::drained` takes all permits when the node stops.
            _ if clients.is_stopping() => Err(NoPlace::Stopping),
            place => place.map_err(|_| NoPlace::Full),
        };
        let place = match place {
            Ok(place) => place,
            Err(why) => {
                turn_away(protocol, stream, &clients, why);
                if let NoPlace::Full = why {
                    let most = clients.most;
                    tracing::warn!(%peer, "turned away: {most} clients are connected, and that is the limit here");
                }
                continue;
            }
        };
        let place = Place::new(protocol, place, clients.clone());
        tokio::spawn(identity::serving(protocol, peer, serve_one(protocol, stream, place)));
    }
}

/// A client's place among those that are connected.
struct Place {
    protocol: Protocol,
    clients: Arc<Clients>,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    fn new(protocol: Protocol, permit: OwnedSemaphorePermit, clients: Arc<Clients>) -> Self {
        clients.sessions(protocol).fetch_add(1, Ordering::Relaxed);
        Self { protocol, clients, _permit: permit }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.clients.sessions(self.protocol).fetch_sub(1, Ordering::Relaxed);
    }
}

async fn serve_one(protocol: Protocol, stream: BoxStream, place: Place) {
    let clients = place.clients.clone();
    let serving: BoxFuture<'_, _> = match protocol {
        Protocol::Wamp => Box::pin(serve_wamp(stream, clients)),
        Protocol::Mqtt => Box::pin(serve_mqtt(stream, clients)),
    };
    // A panic was logged when it happened.
    if let Ok(end) = AssertUnwindSafe(serving).catch_unwind().await {
        report(&end);
    }
}

/// Tells a client why there is no place for it, if one of the few permits for that is free.
fn turn_away(protocol: Protocol, stream: BoxStream, clients: &Arc<Clients>, why: NoPlace) {
    let Ok(place) = clients.refusals.clone().try_acquire_owned() else { return };
    let clients = clients.clone();
    tokio::spawn(async move {
        refuse(protocol, stream, &clients, why).await;
        drop(place);
    });
}

fn report(end: &TransportError) {
    match end {
        TransportError::Closed => tracing::debug!("the session ended"),
        TransportError::Silent => tracing::info!("connection closed: the client was silent"),
        // The panic was logged already.
        TransportError::Panicked => {}
        TransportError::TooSlow => tracing::info!("connection closed: {end}"),
        TransportError::Io(error) => tracing::debug!("connection lost: {error}"),
        TransportError::Malformed(fault) => {
            tracing::info!("connection closed: malformed input: {fault}");
        }
        TransportError::Refused(reason) => {
            tracing::info!("no WebSocket for WAMP came about: {reason}");
        }
    }
}

async fn serve_mqtt(stream: BoxStream, clients: Arc<Clients>) -> TransportError {
    let gate = MqttGate::new(clients.mqtt.clone(), clients.new_session(), clients.now());
    let intake = Intake::new(Framing::Mqtt, &Terms::CLIENT, &clients.login);
    Session::new(gate, MqttTransport::new(stream, intake), clients).run().await
}

async fn serve_wamp(stream: BoxStream, clients: Arc<Clients>) -> TransportError {
    let (stream, meter) = metered(stream);
    let intake = Intake::new(Framing::Upgrade, &Terms::CLIENT, &clients.login);
    let stream = intake.on(stream);
    // Its future is large, and dropped before the session begins.
    let (socket, serializer) = match Box::pin(upgrade(stream, &clients.origins)).await {
        Ok(upgraded) => upgraded,
        Err(error) => return error,
    };
    intake.speaks(Framing::WebSocket);
    let transport = WampTransport::new(socket, serializer.is_text(), (meter, intake));
    let gate = WampGate::new(serializer, clients.new_session(), clients.now())
        .merging_in(clients.merging.clone());
    Session::new(gate, transport, clients).run().await
}
