//! A link between two entries, for calls: numbered batches of messages in both directions, as long as it lasts.
//!
//! A broken link is not repaired: each side ends the calls that were on it, and the next link starts fresh.
//!
//! Invariant: messages arrive in the order in which they were sent, each once, or the link ends. While either side waits for
//! the other, both send something every [`BEAT`], and a link that is silent for [`SILENCE`] ends. Reading never waits for
//! writing.
//!
//! Deliberately absent: what the messages mean (`call`), and redialling (`server`).

use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::{sleep_until, timeout, Instant};
use vulpes_raft::host::BoxStream;
use vulpes_raft::net::wire;

use crate::types::limits;

/// How often to send something while calls are under way.
const BEAT: Duration = Duration::from_millis(250);

/// The longest silence while calls are under way.
const SILENCE: Duration = Duration::from_secs(1);

/// Bytes of messages in one batch; one more message may exceed it.
const BATCH: usize = 512 << 10;

const _: () = assert!(BATCH + 2 * limits::EVENT < wire::MAX_FRAME);

/// One side of a link.
pub trait Talker: Send + Sync {
    type Hears: DeserializeOwned + Send;
    type Says: Serialize + Send;

    /// Ready when there is something to send.
    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<()>;

    /// Messages to send, up to this many bytes.
    fn take(&self, bytes: usize) -> Vec<Self::Says>;

    fn hear(&self, messages: Vec<Self::Hears>);

    /// Whether calls are under way.
    fn is_busy(&self) -> bool;
}

/// Messages that travel together; none if the sender only shows that it is alive. Sent between nodes: never changed.
#[derive(Debug, Serialize, Deserialize)]
struct Batch<M> {
    /// Counts from 0 on a link.
    number: u64,
    messages: Vec<M>,
}

/// Exchanges messages until the link ends; returns why.
pub async fn talk<T: Talker>(stream: BoxStream, talker: &T) -> io::Error {
    let transport = wire::transport::<Batch<T::Hears>, Batch<T::Says>>(stream);
    let (mut sink, mut stream) = transport.split();
    let began = Instant::now();
    // Milliseconds since the link began.
    let heard = AtomicU64::new(0);
    let listening = async {
        let mut expected = 0;
        loop {
            let batch: Batch<T::Hears> = match stream.next().await {
                Some(Ok(batch)) => batch,
                Some(Err(error)) => return error,
                None => return io::ErrorKind::UnexpectedEof.into(),
            };
            if batch.number != expected {
                return io::Error::other("a batch of calls is missing");
            }
            expected += 1;
            heard.store(began.elapsed().as_millis() as u64, Ordering::Relaxed);
            talker.hear(batch.messages);
        }
    };
    let speaking = async {
        for number in 0.. {
            loop {
                let ready = poll_fn(|context| talker.poll_ready(context));
                if timeout(BEAT, ready).await.is_ok() || talker.is_busy() {
                    break;
                }
            }
            let batch = Batch { number, messages: talker.take(BATCH) };
            if let Err(error) = sink.send(batch).await {
                return error;
            }
        }
        io::Error::other("the link has run out of numbers")
    };
    tokio::select! {
        error = listening => error,
        error = speaking => error,
        () = watch(talker, began, &heard) => io::ErrorKind::TimedOut.into(),
    }
}

/// Ends after too long a silence.
async fn watch<T: Talker>(talker: &T, began: Instant, heard: &AtomicU64) {
    let mut since = began;
    loop {
        let next = Instant::now() + BEAT;
        sleep_until(next).await;
        let now = Instant::now();
        // If this side itself was delayed, messages may still wait to be read.
        if !talker.is_busy() || now > next + BEAT {
            since = now;
        }
        let last = began + Duration::from_millis(heard.load(Ordering::Relaxed));
        if now - since.max(last) > SILENCE {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    struct Says {
        queue: Mutex<Vec<u64>>,
        heard: Mutex<Vec<u64>>,
    }

    impl Says {
        fn new(queue: &[u64]) -> Self {
            Self { queue: Mutex::new(queue.to_vec()), heard: Mutex::default() }
        }
    }

    impl Talker for Says {
        type Hears = u64;
        type Says = u64;

        fn poll_ready(&self, _: &mut Context<'_>) -> Poll<()> {
            match self.queue.lock().unwrap().is_empty() {
                true => Poll::Pending,
                false => Poll::Ready(()),
            }
        }

        fn take(&self, _: usize) -> Vec<u64> {
            std::mem::take(&mut *self.queue.lock().unwrap())
        }

        fn hear(&self, messages: Vec<u64>) {
            self.heard.lock().unwrap().extend(messages);
        }

        fn is_busy(&self) -> bool {
            true
        }
    }

    #[test]
    fn golden_bytes() {
        assert_eq!(
            wire::encode(&Batch { number: 300, messages: vec![7u64, 8] }),
            [251, 44, 1, 2, 7, 8]
        );
        assert_eq!(wire::encode(&Batch::<u64> { number: 0, messages: vec![] }), [0, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_lasts_while_both_are_heard_and_ends_with_the_other_side() {
        let (here, there) = tokio::io::duplex(1024);
        let (one, other) = (Says::new(&[1, 2]), Says::new(&[3]));
        let talking = timeout(Duration::from_secs(60), talk(Box::new(here), &one));
        let talking_back = timeout(Duration::from_secs(30), talk(Box::new(there), &other));
        let (end, back) = tokio::join!(talking, talking_back);
        assert!(back.is_err(), "it lasts while both are heard");
        assert!(end.is_ok(), "it ends with the other side");
        assert_eq!(*one.heard.lock().unwrap(), [3]);
        assert_eq!(*other.heard.lock().unwrap(), [1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_ends_when_the_other_side_falls_silent() {
        let (here, _silent) = tokio::io::duplex(1 << 20);
        let began = Instant::now();
        let end = talk(Box::new(here), &Says::new(&[1])).await;
        assert_eq!(end.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() <= SILENCE + 2 * BEAT, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_out_of_order_ends_the_link() {
        let (here, there) = tokio::io::duplex(1 << 20);
        let mut transport = wire::transport::<Batch<u64>, Batch<u64>>(Box::new(there));
        transport.send(Batch { number: 0, messages: vec![1] }).await.unwrap();
        transport.send(Batch { number: 2, messages: vec![2] }).await.unwrap();
        let says = Says::new(&[]);
        let end = talk(Box::new(here), &says).await;
        assert_eq!(end.kind(), io::ErrorKind::Other);
        assert_eq!(*says.heard.lock().unwrap(), [1]);
    }
}
