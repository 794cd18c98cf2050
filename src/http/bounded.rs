//! A listener for admin HTTP that always has room for one more caller.
//!
//! Invariant: at most [`CONNECTIONS`] are open at once. If there is no room, a new connection replaces the one that has been
//! idle longest, or if none is idle, the one whose request has gone longest without progress. So holding connections open can't
//! prevent a probe from being answered. None stays open longer than [`CONNECTION_TIME`], or longer than [`IDLE_TIME`] without a
//! complete request or reading from its answer.
//!
//! Deliberately absent: HTTP itself. The server reports when a request begins and ends ([`Place::answering`]).

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};
use vulpes_raft::host::BoxStream;

use crate::tls::certificates::Acceptor;
use crate::tls::stream::Deferred;

/// Connections served at once.
pub const CONNECTIONS: usize = 64;

/// How long a connection may stay open.
pub const CONNECTION_TIME: Duration = Duration::from_secs(60);

/// How long a connection may be open without a complete request, and without reading from an answer.
pub const IDLE_TIME: Duration = Duration::from_secs(5);

/// How long to wait for a connection to close before another one is closed as well.
const MAKE_ROOM: Duration = Duration::from_millis(50);

pub(super) struct BoundedListener {
    listener: TcpListener,
    tls: Option<Acceptor>,
    permits: Arc<Semaphore>,
    places: Arc<Places>,
    next: u64,
}

/// The connections that are open, by number: the lower, the older.
#[derive(Default)]
struct Places(Mutex<BTreeMap<u64, Taken>>);

struct Taken {
    place: Place,
    /// Closes the connection when it is dropped.
    _closes: oneshot::Sender<Infallible>,
}

/// A connection's entry in the table, as the server sees it.
#[derive(Clone)]
pub(super) struct Place(Arc<Mutex<State>>);

#[derive(Clone, Copy)]
struct State {
    /// A complete request has no answer yet.
    answering: bool,
    /// When a request or its answer last made progress.
    active: Instant,
}

/// A request that is being answered, until this is dropped.
pub(super) struct Answering(Place);

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Place {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(State { answering: false, active: Instant::now() })))
    }

    /// A complete request has arrived.
    pub(super) fn answering(&self) -> Answering {
        self.set(true);
        Answering(self.clone())
    }

    fn set(&self, answering: bool) {
        *lock(&self.0) = State { answering, active: Instant::now() };
    }

    /// The client has read bytes of an answer.
    fn took(&self) {
        lock(&self.0).active = Instant::now();
    }

    fn state(&self) -> State {
        *lock(&self.0)
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl Places {
    /// Closes a connection, so that another one has room.
    fn close_one(&self) {
        let mut places = lock(&self.0);
        let idlest = places.iter().min_by_key(|(_, taken)| {
            let State { answering, active } = taken.place.state();
            (answering, active)
        });
        if let Some(number) = idlest.map(|(number, _)| *number) {
            places.remove(&number);
        }
    }
}

impl BoundedListener {
    pub(super) fn new(listener: TcpListener, tls: Option<Acceptor>) -> Self {
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        Self { listener, tls, permits, places: Arc::default(), next: 0 }
    }

    /// A permit for one more connection; others are closed until there is one.
    async fn permit(&self) -> OwnedSemaphorePermit {
        loop {
            if let Ok(permit) = self.permits.clone().try_acquire_owned() {
                return permit;
            }
            self.places.close_one();
            let freed = self.permits.clone().acquire_owned();
            if let Ok(Ok(permit)) = tokio::time::timeout(MAKE_ROOM, freed).await {
                return permit;
            }
        }
    }
}

impl axum::serve::Listener for BoundedListener {
    type Io = BoundedStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, address) = axum::serve::Listener::accept(&mut self.listener).await;
        let permit = self.permit().await;
        let (closes, closed) = oneshot::channel();
        let (number, place) = (self.next, Place::new());
        self.next += 1;
        lock(&self.places.0).insert(number, Taken { place: place.clone(), _closes: closes });
        let stream: BoxStream = match &self.tls {
            // Its handshake is a part of waiting for its request.
            Some(tls) => Box::new(Deferred::new(tls, Box::new(stream), address)),
            None => Box::new(stream),
        };
        let stream = BoundedStream {
            stream,
            number,
            place,
            places: self.places.clone(),
            closed,
            ends: Instant::now() + CONNECTION_TIME,
            look: Box::pin(tokio::time::sleep(IDLE_TIME)),
            _permit: permit,
        };
        (stream, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Connected<IncomingStream<'_, BoundedListener>> for Place {
    fn connect_info(stream: IncomingStream<'_, BoundedListener>) -> Self {
        stream.io().place.clone()
    }
}

pub(super) struct BoundedStream {
    stream: BoxStream,
    number: u64,
    place: Place,
    places: Arc<Places>,
    /// Completes when this connection has to make room.
    closed: oneshot::Receiver<Infallible>,
    ends: Instant,
    /// When to check whether it was idle too long.
    look: Pin<Box<Sleep>>,
    /// Released when the connection ends.
    _permit: OwnedSemaphorePermit,
}

impl Drop for BoundedStream {
    fn drop(&mut self) {
        lock(&self.places.0).remove(&self.number);
    }
}

impl BoundedStream {
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if Pin::new(&mut self.closed).poll(context).is_ready() {
            return Err(io::Error::other("the connection makes room for another one"));
        }
        while self.look.as_mut().poll(context).is_ready() {
            let State { answering, active } = self.place.state();
            let idle = if answering { self.ends } else { active + IDLE_TIME };
            let until = idle.min(self.ends);
            if until <= Instant::now() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.look.as_mut().reset(until);
        }
        Ok(())
    }
}

impl AsyncRead for BoundedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for BoundedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if matches!(written, Poll::Ready(Ok(length)) if length > 0) {
            self.place.took();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
