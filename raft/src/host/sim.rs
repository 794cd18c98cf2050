//! The edges of a simulated node: turmoil's network, a disk that loses power, and time and randomness from one seed.
//!
//! Invariant: the same seeds give the same run. After a crash or a kill, a disk accepts no writes from earlier handles, so that
//! a dying process can't clean up after itself.
//!
//! Deliberately absent: the simulation itself, and its checks.

mod disk;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use crate::host::{BoxStream, Clock, CommitMode, Host, Listener, Net, Random, Workers};
use crate::ids::Stamp;

pub use disk::{DiskTrouble, DiskUse, Rot, SimDisk};

/// The time of day at which a simulation starts: 2026-11-22 17:42 UTC.
pub const EPOCH: Stamp = Stamp(1_795_369_320_000);

/// How one simulated node differs from the others.
#[derive(Clone, Copy, Debug)]
pub struct SimConfig {
    /// The seed of all randomness on this node.
    pub seed: u64,
    /// How far its clock is ahead of the simulation's, in milliseconds.
    pub clock_ahead: i64,
    /// The longest a group commit takes, except for one in a hundred that takes ten times as long.
    pub commit: Duration,
}

/// The host of a simulated node. A fatal error kills its disk; [`SimDisk::death`] has the reason.
#[must_use]
pub fn host(config: SimConfig, disk: &SimDisk) -> Host {
    let random = Arc::new(SimRandom(AtomicU64::new(config.seed)));
    let chance = random.clone();
    let delay = move || {
        let longest = u64::try_from(config.commit.as_micros()).unwrap_or(u64::MAX).max(1);
        let micros = chance.next_u64() % longest;
        let slow = if chance.next_u64().is_multiple_of(100) { 10 } else { 1 };
        Duration::from_micros(micros * slow)
    };
    let dying = disk.clone();
    Host {
        net: Arc::new(SimNet),
        disk: Arc::new(disk.clone()),
        clock: Arc::new(SimClock { ahead: config.clock_ahead }),
        random,
        commits: CommitMode::Task { delay: Arc::new(delay) },
        clients: Workers::Here,
        fatal: Arc::new(move |reason| dying.kill(reason)),
    }
}

/// turmoil's network.
struct SimNet;

impl Net for SimNet {
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async move {
            let stream = turmoil::net::TcpStream::connect(address).await?;
            Ok(Box::new(stream) as BoxStream)
        })
    }

    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let listener = turmoil::net::TcpListener::bind(address).await?;
            Ok(Box::new(SimListener(listener)) as Box<dyn Listener>)
        })
    }
}

struct SimListener(turmoil::net::TcpListener);

impl Listener for SimListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxStream, SocketAddr)>> {
        Box::pin(async move {
            let (stream, peer) = self.0.accept().await?;
            Ok((Box::new(stream) as BoxStream, peer))
        })
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// The simulation's time of day, with this clock's error.
struct SimClock {
    ahead: i64,
}

impl Clock for SimClock {
    fn now(&self) -> Stamp {
        let elapsed = turmoil::sim_elapsed().unwrap_or_default();
        let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        Stamp((EPOCH.0 + millis).saturating_add_signed(self.ahead))
    }
}

/// SplitMix64.
struct SimRandom(AtomicU64);

impl Random for SimRandom {
    fn next_u64(&self) -> u64 {
        let state = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        mix(state.wrapping_add(0x9e37_79b9_7f4a_7c15))
    }
}

fn mix(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}
