//! A gate's output until its driver asks for it: bytes for the client, requests to the node.
//!
//! Invariant: it never holds a packet larger than the client accepts (MQTT 5, MQTT-3.1.2-24).
//!
//! Deliberately absent: a limit of its own. The driver drains it before each input, and checks `output_size`.

use std::collections::VecDeque;

use bytes::BytesMut;

use super::packet::{Reason, Violation};
use crate::gate::{Dropped, Request};

/// Pending bytes and requests.
#[derive(Debug)]
pub(crate) struct Outbox {
    pub(crate) requests: VecDeque<Request>,
    pub(crate) output: BytesMut,
    /// Largest packet the client accepts, in bytes.
    pub(crate) max_packet: usize,
    /// What was dropped without an answer.
    pub(crate) dropped: Option<Box<Dropped>>,
}

impl Outbox {
    pub(crate) fn new() -> Self {
        let (requests, output) = (VecDeque::new(), BytesMut::new());
        Self { requests, output, max_packet: usize::MAX, dropped: None }
    }

    /// A message is dropped, and MQTT has no answer to it.
    pub(crate) fn drop_silently(&mut self, reason: String) {
        let dropped = self.dropped.get_or_insert_default();
        dropped.count += 1;
        dropped.reason = reason;
    }

    /// Lets go of memory that is free.
    pub(crate) fn rest(&mut self) {
        self.requests.shrink_to_fit();
        if self.output.is_empty() {
            // What was handed out may share its memory.
            self.output = BytesMut::new();
        }
    }

    /// Appends a packet, unless it is larger than the client accepts.
    pub(crate) fn try_put(&mut self, write: impl FnOnce(&mut BytesMut)) -> bool {
        let start = self.output.len();
        write(&mut self.output);
        let fits = self.output.len() - start <= self.max_packet;
        if !fits {
            self.output.truncate(start);
        }
        fits
    }

    /// Appends a packet that may carry a reason string, which is left out if the packet would be too large.
    pub(crate) fn put_explained(
        &mut self,
        text: Option<&str>,
        write: impl Fn(Option<&str>, &mut BytesMut),
    ) -> Result<(), Violation> {
        if text.is_some() && self.try_put(|output| write(text, output)) {
            return Ok(());
        }
        self.put(|output| write(None, output))
    }

    /// Appends a packet that the client can't do without.
    pub(crate) fn put(&mut self, write: impl FnOnce(&mut BytesMut)) -> Result<(), Violation> {
        if self.try_put(write) {
            return Ok(());
        }
        Err(Violation::new(
            Reason::PacketTooLarge,
            "the client takes no packet as large as the answer to its request",
        ))
    }
}
