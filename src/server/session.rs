//! One client's session: its socket, its gate, its batch for the entry and its reader of the log, in one task.
//!
//! A turn takes what is ready, lets the gate work, hands the gate's events to the entry as one batch, and writes the
//! gate's output in one go.
//!
//! Invariant: everything a session holds is bounded. Its socket is not read while its publishes wait beyond their
//! bound, and it takes no events from the log while its output waits beyond its own.
//!
//! Deliberately absent: anything of a protocol.

use std::collections::VecDeque;
use std::future::{poll_fn, Future};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::FutureExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Sleep};
use vulpes_raft::ids::{EventId, Position};

use crate::entry::{Batch, EntryClosed, SESSION_ANSWERS};
use crate::event::Event;
use crate::gate::{
    Answer, Delivery, EndReason, Gate, Moment, OpenRefusal, Request, SubscriptionId,
};
use crate::limits;
use crate::replica::Command;
use crate::segment::Place;

use super::clients::Clients;
use super::reader::{Reader, Reading, Wanted};
use super::transport::{Transport, TransportError};

/// Messages taken from a socket in one turn.
const INPUTS_A_TURN: usize = 64;

/// When a session without a deadline looks after itself.
const IDLE: Duration = Duration::from_secs(3600);

/// How much too early a timer may be, so that it need not be moved every turn.
const TIMER_SLACK: Duration = Duration::from_millis(100);

/// How long a session may take to write its last words.
const LINGER: Duration = Duration::from_secs(2);

pub(super) struct Session<G, T> {
    gate: G,
    transport: T,
    clients: Arc<Clients>,
    opened: Option<Opened>,
    publishing: Publishing,
    current: Option<(Wanted, Place)>,
    inputs: Vec<Bytes>,
    timer: Pin<Box<Sleep>>,
    /// Set when the connection is to be closed as soon as its output is written, or then at the latest.
    closing: Option<Instant>,
    /// The transport has queued what it says at the end.
    closed: bool,
    ending: bool,
    inputs_first: bool,
}

/// What a session has once its realm is open.
struct Opened {
    reader: Reader,
    name: Option<super::clients::Name>,
    /// Resolves when another connection claims the session's name; taken out once it did.
    taken_over: Option<oneshot::Receiver<()>>,
}

/// A session's events on their way into the log.
struct Publishing {
    batch: Vec<Event>,
    /// Sequence number of the next event.
    next: u64,
    /// Events before this one have been answered.
    answered: u64,
    /// Batches that are not answered whole: the sequence number behind each, and its bytes.
    unanswered: VecDeque<(u64, usize)>,
    unanswered_bytes: usize,
    answers: mpsc::Receiver<Answer>,
    answer_to: mpsc::Sender<Answer>,
    submitting: Option<BoxFuture<'static, Result<(), EntryClosed>>>,
}

enum Wake {
    Written,
    Inputs,
    Failed(TransportError),
    Answer(Answer),
    Reading(Reading),
    Submitted(Result<(), EntryClosed>),
    Time,
    End(EndReason),
}

impl<G: Gate, T: Transport> Session<G, T> {
    pub(super) fn new(gate: G, transport: T, clients: Arc<Clients>) -> Self {
        let (answer_to, answers) = mpsc::channel(SESSION_ANSWERS);
        Self {
            gate,
            transport,
            clients,
            opened: None,
            publishing: Publishing {
                batch: Vec::new(),
                next: 0,
                answered: 0,
                unanswered: VecDeque::new(),
                unanswered_bytes: 0,
                answers,
                answer_to,
                submitting: None,
            },
            current: None,
            inputs: Vec::new(),
            timer: Box::pin(tokio::time::sleep(limits::HANDSHAKE)),
            closing: None,
            closed: false,
            ending: false,
            inputs_first: false,
        }
    }

    /// Serves the client until either side ends it; tells why.
    pub(super) async fn run(mut self) -> TransportError {
        let mut stopping = self.clients.stopping();
        let stop = stopping.wait_for(|stop| *stop);
        tokio::pin!(stop);
        let end = loop {
            self.turn();
            let wake = poll_fn(|context| {
                if !self.ending && stop.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Wake::End(EndReason::Shutdown));
                }
                self.poll_wake(context)
            })
            .await;
            if let Some(end) = self.handle(wake) {
                break end;
            }
        };
        if let Some(opened) = &mut self.opened {
            if let Some(name) = opened.name.take() {
                self.clients.release(&name, self.gate.session());
            }
            // A closed channel means that the dispatcher is gone with all its sessions.
            let _ = self.clients.commands.send(Command::Remove(self.gate.session())).await;
        }
        end
    }

    fn now(&self) -> Moment {
        self.clients.now()
    }

    /// Lets the gate's wishes and words out, and events in while there is room.
    fn turn(&mut self) {
        loop {
            while let Some(request) = self.gate.poll_request() {
                self.request(request);
            }
            if !self.deliver_some() {
                break;
            }
        }
        while let Some(output) = self.gate.poll_output() {
            self.transport.push(output);
        }
        // Behind the gate's last words, which may have come after its wish to close.
        if self.closing.is_some() && !std::mem::replace(&mut self.closed, true) {
            self.transport.close();
        }
        self.submit();
        self.set_timer();
    }

    fn set_timer(&mut self) {
        let deadline = match (self.closing, self.gate.deadline()) {
            (Some(limit), _) => limit,
            (None, Some(moment)) => self.clients.instant(moment),
            (None, None) => Instant::now() + IDLE,
        };
        // A session without a deadline moves its timer once in a while, not every turn.
        let set = self.timer.deadline();
        if self.timer.is_elapsed() || set > deadline || set + TIMER_SLACK < deadline {
            self.timer.as_mut().reset(deadline);
        }
    }

    fn request(&mut self, request: Request) {
        match request {
            Request::Open { realm, client } => {
                let result = self.open(&realm, client);
                self.gate.opened(result);
            }
            Request::Publish(event) => {
                self.publishing.batch.push(event);
            }
            Request::Subscribe(subscription) => {
                if let Some(opened) = &mut self.opened {
                    opened.reader.subscribe(subscription);
                }
            }
            Request::Unsubscribe(id) => {
                if let Some(opened) = &mut self.opened {
                    opened.reader.unsubscribe(id);
                }
            }
            Request::Close => {
                self.closing.get_or_insert_with(|| Instant::now() + LINGER);
            }
        }
    }

    fn open(
        &mut self,
        realm: &crate::topic::Realm,
        client: Option<String>,
    ) -> Result<(), OpenRefusal> {
        if !self.clients.realms.contains(realm) {
            return Err(OpenRefusal::NoSuchRealm);
        }
        let session = self.gate.session();
        let name = client.map(|client| (realm.clone(), client));
        let taken_over = name.as_ref().map(|name| self.clients.claim(name.clone(), session));
        let (log, commands) = (self.clients.log.clone(), self.clients.commands.clone());
        let reader = Reader::new(session, realm.clone(), log, commands);
        self.opened = Some(Opened { reader, name, taken_over });
        Ok(())
    }

    /// Hands the gate events of the current segment; true where something changed that may bring more to do.
    fn deliver_some(&mut self) -> bool {
        let Some(opened) = &self.opened else { return false };
        let Some((wanted, place)) = &mut self.current else { return false };
        let Some(segment) = &wanted.placed.segment else {
            self.current = None;
            return false;
        };
        let resolution = &wanted.placed.resolution;
        let session = self.gate.session();
        let mut events = segment.events_from(*place);
        let mut active: Vec<SubscriptionId> = Vec::new();
        loop {
            if !self.gate.can_deliver() || self.gate.output_size() >= limits::SESSION_OUTPUT {
                *place = events.place();
                return false;
            }
            let Some(event) = events.next() else {
                self.current = None;
                return true;
            };
            let subscriptions = wanted.hits.on(event.topic);
            let position = Position(resolution.base.0 + u64::from(event.offset));
            let own = event.exclude_me && event.publisher == session;
            if subscriptions.is_empty() || own || position < wanted.from {
                continue;
            }
            active.clear();
            active.extend(subscriptions.iter().filter(|id| opened.reader.is_active(**id)));
            if active.is_empty() {
                continue;
            }
            let (_, topic) = &segment.topics()[event.topic as usize];
            let id = EventId::new(resolution.stamp, resolution.slot, event.offset);
            let subscriptions = &active;
            self.gate.deliver(Delivery { event: &event, topic, position, id, subscriptions });
        }
    }

    fn submit(&mut self) {
        let publishing = &mut self.publishing;
        if publishing.batch.is_empty() || publishing.submitting.is_some() {
            return;
        }
        let events = std::mem::take(&mut publishing.batch);
        let first = publishing.next;
        publishing.next += events.len() as u64;
        let bytes = events.iter().map(Event::size).sum();
        publishing.unanswered.push_back((publishing.next, bytes));
        publishing.unanswered_bytes += bytes;
        let answers = publishing.answer_to.clone();
        let batch = Batch { session: self.gate.session(), first, events, answers };
        let entry = self.clients.entry.clone();
        publishing.submitting = Some(async move { entry.submit(batch).await }.boxed());
    }

    /// Whether the client may be listened to.
    fn may_read(&self) -> bool {
        let publishing = &self.publishing;
        self.closing.is_none()
            && publishing.submitting.is_none()
            && publishing.batch.is_empty()
            && publishing.next - publishing.answered < limits::SESSION_UNANSWERED as u64
            && publishing.unanswered.len() < limits::SESSION_BATCHES
            && publishing.unanswered_bytes < limits::SESSION_UNANSWERED_BYTES
            && self.output() < limits::SESSION_OUTPUT
    }

    fn output(&self) -> usize {
        self.transport.pending() + self.gate.output_size()
    }

    fn poll_wake(&mut self, context: &mut Context<'_>) -> Poll<Wake> {
        let had_output = self.transport.pending() >= limits::SESSION_OUTPUT;
        match self.transport.poll_flush(context) {
            Poll::Ready(Ok(())) if self.closing.is_some() => {
                return Poll::Ready(Wake::Failed(TransportError::Closed));
            }
            Poll::Ready(Ok(())) if had_output => return Poll::Ready(Wake::Written),
            Poll::Ready(Ok(())) | Poll::Pending => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Wake::Failed(error)),
        }
        if let Poll::Ready(Some(answer)) = self.publishing.answers.poll_recv(context) {
            return Poll::Ready(Wake::Answer(answer));
        }
        if let Some(submitting) = &mut self.publishing.submitting {
            if let Poll::Ready(result) = submitting.poll_unpin(context) {
                return Poll::Ready(Wake::Submitted(result));
            }
        }
        // Both sides may always have something: they take turns at being asked first.
        self.inputs_first = !self.inputs_first;
        for inputs in [self.inputs_first, !self.inputs_first] {
            let wake = if inputs { self.poll_inputs(context) } else { self.poll_reading(context) };
            if wake.is_ready() {
                return wake;
            }
        }
        if self.timer.as_mut().poll(context).is_ready() {
            return Poll::Ready(Wake::Time);
        }
        Poll::Pending
    }

    fn poll_reading(&mut self, context: &mut Context<'_>) -> Poll<Wake> {
        let room = self.current.is_none()
            && self.gate.can_deliver()
            && self.output() < limits::SESSION_OUTPUT;
        let Some(opened) = &mut self.opened else { return Poll::Pending };
        if let Some(taken_over) = &mut opened.taken_over {
            if let Poll::Ready(result) = taken_over.poll_unpin(context) {
                opened.taken_over = None;
                if result.is_ok() && !self.ending {
                    return Poll::Ready(Wake::End(EndReason::TakenOver));
                }
            }
        }
        opened.reader.poll(context, room).map(Wake::Reading)
    }

    fn poll_inputs(&mut self, context: &mut Context<'_>) -> Poll<Wake> {
        if !self.may_read() {
            return Poll::Pending;
        }
        let mut bytes = 0;
        while self.inputs.len() < INPUTS_A_TURN && bytes < limits::SESSION_READ {
            match self.transport.poll_receive(context) {
                Poll::Ready(Ok(input)) => {
                    bytes += input.len();
                    self.inputs.push(input);
                }
                Poll::Ready(Err(error)) if self.inputs.is_empty() => {
                    return Poll::Ready(Wake::Failed(error));
                }
                // It will fail again in the next turn, after what came before it was taken.
                Poll::Ready(Err(_)) | Poll::Pending => break,
            }
        }
        if self.inputs.is_empty() {
            Poll::Pending
        } else {
            Poll::Ready(Wake::Inputs)
        }
    }

    /// Handles what woke the session; tells why it ends, if it does.
    fn handle(&mut self, wake: Wake) -> Option<TransportError> {
        match wake {
            Wake::Written => {}
            Wake::Failed(error) => return Some(error),
            Wake::Inputs => {
                let now = self.now();
                for input in std::mem::take(&mut self.inputs) {
                    self.gate.receive(input, now);
                }
            }
            Wake::Answer(answer) => {
                self.answered(answer);
                while let Ok(answer) = self.publishing.answers.try_recv() {
                    self.answered(answer);
                }
            }
            Wake::Submitted(result) => {
                self.publishing.submitting = None;
                if result.is_err() {
                    self.end(EndReason::Shutdown);
                }
            }
            Wake::Reading(reading) => self.read(reading),
            Wake::Time => {
                if self.closing.is_some() {
                    return Some(TransportError::Closed);
                }
                let now = self.now();
                self.gate.tick(now);
            }
            Wake::End(reason) => self.end(reason),
        }
        None
    }

    fn answered(&mut self, answer: Answer) {
        let publishing = &mut self.publishing;
        publishing.answered = answer.first + u64::from(answer.count);
        while let Some((behind, bytes)) = publishing.unanswered.front() {
            if *behind > publishing.answered {
                break;
            }
            publishing.unanswered_bytes -= bytes;
            publishing.unanswered.pop_front();
        }
        self.gate.answered(answer);
    }

    fn end(&mut self, reason: EndReason) {
        self.ending = true;
        self.gate.end(reason);
    }

    fn read(&mut self, reading: Reading) {
        match reading {
            Reading::Subscribed(id, result) => self.gate.subscribed(id, result),
            Reading::Unsubscribed(id) => self.gate.unsubscribed(id),
            Reading::Ended(id) => self.gate.ended(id),
            Reading::Segment(wanted) => self.current = Some((wanted, Place::default())),
            Reading::Gone { oldest } => {
                tracing::warn!(%oldest, "a subscriber fell behind what is kept of the log");
                self.end(EndReason::Unavailable);
            }
            Reading::Stopped => self.end(EndReason::Shutdown),
        }
    }
}
