//! Listening for clients: one loop per protocol, one task per connection.
//!
//! Invariant: a connection takes one of a bounded number of permits from its first byte to its last. If none is free, it is
//! told so under one of a few other permits (`refusal`), or closed at once, so that connected clients are not harmed.
//!
//! Deliberately absent: what a session does (`session`).

use std::io;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::FutureExt;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use vulpes_raft::host::{BoxStream, Host, Listener};

use crate::config::listener::ListenerProtocol;
use crate::config::{Address, Listen, NodeConfig};
use crate::gate::mqtt::MqttGate;
use crate::gate::wamp::WampGate;
use crate::tls::certificates::{Acceptor, Certificates};
use crate::tls::files::{common_name, subject};
use crate::types::limits;
use crate::types::moment::Moment;

use super::clients::Clients;
use super::handshake::{NoTls, Secured};
use super::identity;
use super::intake::{Framing, Intake, Terms};
use super::login::conversation::Shown;
use super::metered::metered;
use super::quotas::Member;
use super::refusal::{refuse, NoPlace};
use super::session::Session;
use super::transport::{MqttTransport, Protocol, TransportError, WampTransport};
use super::upgrade::upgrade;

/// How long to wait after accepting failed, for example because the process is out of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Where clients come in.
pub(crate) struct Entrance {
    pub(crate) protocol: Protocol,
    pub(crate) listener: Box<dyn Listener>,
    /// There if they speak TLS.
    pub(crate) tls: Option<Encryption>,
}

/// How clients speak TLS.
#[derive(Clone)]
pub(crate) struct Encryption {
    pub(crate) acceptor: Acceptor,
    /// A client's certificate names its user.
    pub(crate) certificate_user: bool,
}

/// Listens for clients wherever the configuration says; on failure, tells for what, where and why. Each socket belongs to the
/// runtime of those who accept there.
pub(crate) async fn entrances(
    host: &Host,
    config: &NodeConfig,
    certificates: &Certificates,
) -> Result<Vec<Entrance>, (&'static str, Address, io::Error)> {
    let Listen { wamp, mqtt, .. } = &config.listen;
    let mut wanted = vec![(Protocol::Wamp, wamp.as_ref(), None)];
    wanted.push((Protocol::Mqtt, mqtt.as_ref(), None));
    for listener in &config.listeners {
        let protocol = match listener.protocol {
            ListenerProtocol::Wamp => Protocol::Wamp,
            ListenerProtocol::Mqtt => Protocol::Mqtt,
            ListenerProtocol::Admin => continue,
        };
        let tls = listener.tls.as_ref().map(|files| Encryption {
            acceptor: certificates.acceptor(files),
            certificate_user: listener.certificate_user,
        });
        wanted.push((protocol, Some(&listener.address), tls));
    }
    let mut entrances = Vec::new();
    for (protocol, address, tls) in wanted {
        let Some(address) = address else { continue };
        let (net, there) = (host.net.clone(), address.as_str().to_owned());
        let bound = host.clients.run(async move { net.listen(&there).await }).await;
        let what = match protocol {
            Protocol::Wamp => "WAMP",
            Protocol::Mqtt => "MQTT",
        };
        let listener = bound.map_err(|error| (what, address.clone(), error))?;
        entrances.push(Entrance { protocol, listener, tls });
    }
    Ok(entrances)
}

/// Accepts clients for as long as the node lives.
pub(crate) async fn serve(entrance: Entrance, clients: Arc<Clients>) {
    let Entrance { protocol, mut listener, tls } = entrance;
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("a connection for {protocol} could not be accepted: {error}");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        if clients.manager.bans().bars_address(peer.ip()) {
            tracing::debug!(%peer, "a connection for {protocol} was closed: its address is banned");
            continue;
        }
        let counted = clients.quotas.connects(peer.ip(), clients.now());
        let counted = match counted {
            Ok(counted) => counted,
            Err(refused) => {
                tracing::info!(%peer, "turned away: the address has or does as much as [limits.address] lets it");
                // Encrypting a connection costs more than an address that has had its share is worth.
                if tls.is_none() {
                    turn_away((protocol, None), stream, &clients, refused.into());
                }
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
                turn_away((protocol, tls.clone()), stream, &clients, why);
                if let NoPlace::Full = why {
                    let most = clients.most;
                    tracing::warn!(%peer, "turned away: {most} clients are connected, and that is the limit here");
                }
                continue;
            }
        };
        let place = Place::new(protocol, place, (counted, peer.ip()), clients.clone());
        let serving = serve_one(protocol, stream, tls.clone(), place);
        tokio::spawn(identity::serving(protocol, peer, serving));
    }
}

/// A client's place among those that are connected.
struct Place {
    protocol: Protocol,
    clients: Arc<Clients>,
    _permit: OwnedSemaphorePermit,
    /// Its place among those of its address, if they are counted.
    counted: Option<Member>,
    address: IpAddr,
}

impl Place {
    fn new(
        protocol: Protocol,
        permit: OwnedSemaphorePermit,
        (counted, address): (Option<Member>, IpAddr),
        clients: Arc<Clients>,
    ) -> Self {
        clients.sessions(protocol).fetch_add(1, Ordering::Relaxed);
        Self { protocol, clients, _permit: permit, counted, address }
    }

    /// What is known of the client before it has said anything.
    fn shown(&self) -> Shown {
        let came = self.clients.quotas.came(self.address, self.counted.as_ref());
        Shown { came, ..Shown::default() }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.clients.sessions(self.protocol).fetch_sub(1, Ordering::Relaxed);
    }
}

async fn serve_one(protocol: Protocol, stream: BoxStream, tls: Option<Encryption>, place: Place) {
    let clients = place.clients.clone();
    let (began, shown) = (Began::new(&clients), place.shown());
    let serving: BoxFuture<'_, _> = match (protocol, tls) {
        (_, Some(tls)) => Box::pin(serve_encrypted((protocol, shown), stream, tls, clients, began)),
        (Protocol::Wamp, None) => Box::pin(serve_wamp(stream, shown, clients, began)),
        (Protocol::Mqtt, None) => Box::pin(serve_mqtt(stream, shown, clients, began)),
    };
    // A panic was logged when it happened.
    if let Ok(end) = AssertUnwindSafe(serving).catch_unwind().await {
        report(&end);
    }
}

/// When a connection was accepted: all that comes before its session is open has one deadline.
#[derive(Clone, Copy)]
struct Began {
    moment: Moment,
    deadline: Instant,
}

impl Began {
    fn new(clients: &Clients) -> Self {
        Self { moment: clients.now(), deadline: Instant::now() + limits::HANDSHAKE }
    }
}

/// Makes a client's connection an encrypted one. Every line about the client says which certificate it has shown.
async fn secure(
    stream: BoxStream,
    shown: Shown,
    tls: &Encryption,
    clients: &Clients,
    began: Began,
) -> Result<(BoxStream, Shown), NoTls> {
    let Secured { stream, certificate, exporter } =
        clients.handshakes.secure(stream, &tls.acceptor, began.deadline).await?;
    if let Some(subject) = certificate.as_ref().and_then(subject) {
        identity::shows(&subject);
    }
    let shows = certificate.filter(|_| tls.certificate_user);
    // One without a name is nobody's.
    let user = shows.map(|shown| common_name(&shown).unwrap_or_default().into());
    Ok((stream, Shown { exporter: exporter.map(Box::new), user, ..shown }))
}

/// Tells a client why there is no place for it, if one of the few permits for that is free.
fn turn_away(
    (protocol, tls): (Protocol, Option<Encryption>),
    stream: BoxStream,
    clients: &Arc<Clients>,
    why: NoPlace,
) {
    let Ok(place) = clients.refusals.clone().try_acquire_owned() else { return };
    let clients = clients.clone();
    tokio::spawn(async move {
        let stream = match tls {
            Some(tls) => {
                let deadline = Instant::now() + limits::LINGER;
                let secured = clients.handshakes.secure(stream, &tls.acceptor, deadline).await;
                secured.ok().map(|secured| secured.stream)
            }
            None => Some(stream),
        };
        if let Some(stream) = stream {
            refuse(protocol, stream, &clients, why).await;
        }
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
        TransportError::NoTls(NoTls::Gone) => tracing::debug!("no TLS came about: {end}"),
        TransportError::NoTls(error) => tracing::info!("no TLS came about: {error}"),
        TransportError::Refused(reason) => {
            tracing::info!("no WebSocket for WAMP came about: {reason}");
        }
    }
}

async fn serve_encrypted(
    (protocol, shown): (Protocol, Shown),
    stream: BoxStream,
    tls: Encryption,
    clients: Arc<Clients>,
    began: Began,
) -> TransportError {
    let (stream, shown) = match Box::pin(secure(stream, shown, &tls, &clients, began)).await {
        Ok(secured) => secured,
        Err(error) => return error.into(),
    };
    let serving: BoxFuture<'_, _> = match protocol {
        Protocol::Wamp => Box::pin(serve_wamp(stream, shown, clients, began)),
        Protocol::Mqtt => Box::pin(serve_mqtt(stream, shown, clients, began)),
    };
    serving.await
}

async fn serve_mqtt(
    stream: BoxStream,
    shown: Shown,
    clients: Arc<Clients>,
    began: Began,
) -> TransportError {
    let gate = MqttGate::new(clients.mqtt.clone(), clients.new_session(), began.moment)
        .with_users(clients.logins.has_users())
        .with_certificate(shown.user.is_some());
    let intake = Intake::new(Framing::Mqtt, &Terms::CLIENT, &clients.login);
    Session::new(gate, MqttTransport::new(stream, intake), shown, clients).run().await
}

async fn serve_wamp(
    stream: BoxStream,
    shown: Shown,
    clients: Arc<Clients>,
    began: Began,
) -> TransportError {
    let (stream, meter) = metered(stream);
    let intake = Intake::new(Framing::Upgrade, &Terms::CLIENT, &clients.login);
    let stream = intake.on(stream);
    // Its future is large, and dropped before the session begins.
    let (socket, serializer) =
        match Box::pin(upgrade(stream, &clients.origins, began.deadline)).await {
            Ok(upgraded) => upgraded,
            Err(error) => return error,
        };
    intake.speaks(Framing::WebSocket);
    let transport = WampTransport::new(socket, serializer.is_text(), (meter, intake));
    let gate = WampGate::new(serializer, clients.new_session(), began.moment)
        .merging_in(clients.merging.clone())
        .with_users(clients.logins.has_users());
    Session::new(gate, transport, shown, clients).run().await
}
