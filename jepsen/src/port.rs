//! Free TCP ports that stay reserved while a node is down and comes back.
//!
//! Invariant: while a [`Port`] lives, no other test on this machine gets the same number, and the kernel does not
//! choose it for an outgoing connection.
//!
//! Two things ensure that without a race. The numbers are below the kernel's own range for outgoing connections, so
//! that a node that keeps dialling a dead peer can't take (or talk to) the peer's port by chance. And a port is
//! claimed by holding the UDP port of the same number, which a crash of the test releases at once.
//!
//! In a run's own network ([`crate::network`]) a port needs no protection, so it is just an address.
//!
//! Deliberately absent: protection against programs that are not tests of ours and listen on fixed ports.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{bail, Result};

/// Lowest port given out.
const FIRST: u16 = 10_240;

/// Ports given out are below this; Linux uses ports from 32768 upward for outgoing connections.
const END: u16 = 32_768;

/// A TCP port that no other test gets.
#[derive(Debug)]
pub struct Port {
    address: SocketAddr,
    _claim: Option<UdpSocket>,
}

impl Port {
    /// A port of an address that belongs to the run.
    #[must_use]
    pub fn at(address: IpAddr, number: u16) -> Self {
        Self { address: (address, number).into(), _claim: None }
    }

    /// Claims a port of the loopback interface on which no process listens.
    ///
    /// # Errors
    /// If every port is in use.
    pub fn claim() -> Result<Self> {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let span = END - FIRST;
        // Parallel test processes begin at different places, so they rarely collide.
        let start = (std::process::id() % u32::from(span)) as u16;
        for _ in 0..span {
            let step = NEXT.fetch_add(1, Ordering::Relaxed) % span;
            let number = FIRST + (u32::from(start) * 61 + u32::from(step)) as u16 % span;
            let Ok(claim) = UdpSocket::bind((Ipv4Addr::LOCALHOST, number)) else { continue };
            if TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                let address = (Ipv4Addr::LOCALHOST, number).into();
                return Ok(Self { address, _claim: Some(claim) });
            }
        }
        bail!("no free port between {FIRST} and {END} on the loopback interface")
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ports_are_distinct_and_free() {
        let ports: Vec<Port> = (0..50).map(|_| Port::claim().unwrap()).collect();
        let distinct: BTreeSet<u16> = ports.iter().map(|port| port.address.port()).collect();
        assert_eq!(distinct.len(), ports.len());
        for port in &ports {
            assert!(TcpListener::bind(port.address()).is_ok(), "{port:?}");
        }
    }
}
