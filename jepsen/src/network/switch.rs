//! A switch in this process, through which the packets of bad links go.
//!
//! It is a port of the network's bridge: a TAP device, to whose hardware address a sender's packets are directed. Packets that
//! arrive here are delayed, dropped or doubled according to their link's weather, and then sent to their receiver's own
//! address. Packets of good links do not come here.
//!
//! Invariant: only the hardware addresses of packets are changed.
//!
//! Deliberately absent: a packet's fate; see `weather`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use tokio::task::JoinHandle;
use tokio::time::{sleep_until, Instant};
use tokio_tun::Tun;

use super::weather::{Fates, Link};

/// Room for a packet, in bytes: Ethernet's largest, and its header.
const PACKET: usize = 2048;

/// How long the switch sleeps when it holds no packet.
const IDLE: Duration = Duration::from_secs(1);

/// The offset of a packet's type, and the type that is handled: IPv4.
const KIND: std::ops::Range<usize> = 12..14;
const IPV4: [u8; 2] = [0x08, 0x00];

/// Offsets of the last bytes of the sender's hardware address and of the receiver's address: the nodes' numbers.
const SENDER: usize = 11;
const RECEIVER: usize = 33;

type Links = BTreeMap<(u64, u64), Link>;

/// Hardware addresses: that of the switch, and those of nodes, which end with the node's number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses {
    pub(super) switch: [u8; 6],
    pub(super) node: [u8; 6],
}

/// See the top of the file.
#[derive(Debug)]
pub(super) struct Switch {
    links: Arc<Mutex<Links>>,
    task: JoinHandle<()>,
}

impl Switch {
    /// Creates the device, and forwards what arrives.
    pub(super) fn start(device: &str, addresses: Addresses) -> Result<Self> {
        let made = Tun::builder().name(device).tap().up().build();
        let tap = made.with_context(|| format!("make the TAP device {device}"))?.pop();
        let tap = tap.context("no TAP device")?;
        let links = Arc::new(Mutex::new(Links::new()));
        let task = tokio::spawn(forward(tap, links.clone(), addresses));
        Ok(Self { links, task })
    }

    /// Begins to handle a link's packets according to `link`.
    pub(super) fn treat(&self, from: u64, to: u64, link: Link) -> Result<()> {
        let before = lock(&self.links).insert((from, to), link);
        ensure!(before.is_none(), "the link from {from} to {to} is bad already");
        Ok(())
    }

    /// Ends the handling of a link's packets. Packets still held are lost.
    pub(super) fn release(&self, from: u64, to: u64) -> Fates {
        lock(&self.links).remove(&(from, to)).map(|link| link.fates()).unwrap_or_default()
    }

    pub(super) fn fates(&self, from: u64, to: u64) -> Fates {
        lock(&self.links).get(&(from, to)).map(Link::fates).unwrap_or_default()
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(links: &Mutex<Links>) -> MutexGuard<'_, Links> {
    links.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn forward(tap: Tun, links: Arc<Mutex<Links>>, addresses: Addresses) {
    let begun = Instant::now();
    let mut room = vec![0; PACKET];
    loop {
        let next = lock(&links).values().filter_map(Link::next).min();
        let wake = next.map_or_else(|| Instant::now() + IDLE, |next| begun + next);
        tokio::select! {
            came = tap.recv(&mut room) => {
                // The device is gone, and with it the network.
                let Ok(length) = came else { return };
                let packet = &room[..length];
                let Some(way) = way(packet, addresses.switch) else { continue };
                let mut links = lock(&links);
                // A packet sent right before its link became good again is lost.
                if let Some(link) = links.get_mut(&way) {
                    link.send(packet, begun.elapsed());
                }
            }
            () = sleep_until(wake) => {}
        }
        while let Some((to, packet)) = arrived(&links, begun.elapsed()) {
            // If the bridge does not accept the packet now, it is lost, as with a real switch.
            let _ = tap.send(&readdress(packet, addresses, to)).await;
        }
    }
}

/// A packet that is due, and its receiver.
fn arrived(links: &Mutex<Links>, now: Duration) -> Option<(u64, Vec<u8>)> {
    let mut links = lock(links);
    links.iter_mut().find_map(|((_, to), link)| link.arrive(now).map(|packet| (*to, packet)))
}

/// Sender and receiver of a packet through the switch. Others arrive here as well: a bridge floods packets for
/// unknown addresses.
fn way(packet: &[u8], switch: [u8; 6]) -> Option<(u64, u64)> {
    if packet.get(..6)? != switch || packet.get(KIND)? != IPV4 {
        return None;
    }
    Some((u64::from(*packet.get(SENDER)?), u64::from(*packet.get(RECEIVER)?)))
}

/// The packet as the switch forwards it. The switch's own address is the source, so that the bridge does not learn to send the
/// sender's packets here.
fn readdress(mut packet: Vec<u8>, addresses: Addresses, to: u64) -> Vec<u8> {
    packet[..6].copy_from_slice(&addresses.node);
    packet[5] = to as u8;
    packet[6..12].copy_from_slice(&addresses.switch);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_say_whose_they_are() {
        let mut packet = vec![0; 60];
        packet[..6].fill(9);
        (packet[11], packet[12], packet[33]) = (3, 8, 7);
        assert_eq!(way(&packet, [9; 6]), Some((3, 7)));
        assert_eq!(way(&packet, [8; 6]), None);
        let addresses = Addresses { switch: [9; 6], node: [2, 2, 2, 2, 2, 0] };
        let sent = readdress(packet.clone(), addresses, 7);
        assert_eq!(sent[..12], [2, 2, 2, 2, 2, 7, 9, 9, 9, 9, 9, 9]);
        assert_eq!(sent[12..], packet[12..]);
        packet[12] = 6;
        assert_eq!(way(&packet, [9; 6]), None);
        assert_eq!(way(&[8; 20], [8; 6]), None);
    }
}
