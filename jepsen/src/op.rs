//! The operations of a run in Jepsen's form: clients' requests and their answers.
//!
//! Invariant: a process has one operation open at a time. `ok` and `fail` are the cluster's answers; `info` is an
//! unknown outcome, and its process is never used again.
//!
//! Deliberately absent: which answers are consistent; see [`crate::check`].

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::layout::Layout;

/// The kind of a line of the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Invoke,
    Ok,
    Fail,
    Info,
}

/// The process of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Process {
    Client(u64),
    Nemesis,
}

/// One line of a history.
#[derive(Debug, Clone, PartialEq)]
pub struct Op {
    /// Its index in the history.
    pub index: u64,
    /// Nanoseconds since the run began.
    pub time: u64,
    pub kind: Kind,
    pub process: Process,
    /// The function's name.
    pub f: String,
    pub value: Value,
}

impl Op {
    /// Its value in the form of the function `f`.
    ///
    /// # Errors
    /// If it has another form.
    pub fn read<T: for<'a> Deserialize<'a>>(&self) -> Result<T> {
        use anyhow::Context;
        serde_json::from_value(self.value.clone())
            .with_context(|| format!("the value of operation {}: {}", self.index, self.value))
    }
}

/// A client's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Wamp,
    Mqtt,
}

/// `publish`, `write`, `cas`, `acquire`, `release`, `bind`: all are publishes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Publish {
    /// One connection of one client.
    pub session: String,
    /// Counts the publishes of the session.
    pub number: u64,
    /// Unique to this event; empty if it deletes a retained value.
    pub id: String,
    pub topic: String,
    pub node: u64,
    pub protocol: Protocol,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub retain: bool,
    /// The retained value must be the one with this id; empty: there must be none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<String>,
    /// Waits until the expected value is there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub watch: bool,
    /// What the topic gets when the session ends; empty: its value is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub will: Option<String>,
    /// In answers, if the protocol has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// In answers other than `ok`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Which topics a subscription is for; their parts have dots between them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "match", rename_all = "lowercase")]
pub enum Pattern {
    /// All topics below this one.
    Below { topic: String },
    /// This topic only.
    Exact { topic: String },
    /// Topics with just one part more than this one.
    Child { topic: String },
}

impl Pattern {
    /// Whether this topic fits.
    #[must_use]
    pub fn fits(&self, topic: &str) -> bool {
        let below = |base: &str| topic.strip_prefix(base).and_then(|rest| rest.strip_prefix('.'));
        match self {
            Self::Below { topic } => below(topic).is_some(),
            Self::Exact { topic: wanted } => topic == wanted,
            Self::Child { topic } => below(topic).is_some_and(|rest| !rest.contains('.')),
        }
    }
}

/// What a subscription begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Events from its start position on.
    Events,
    /// The retained values first.
    State,
}

/// `subscribe`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Subscribe {
    pub consumer: String,
    /// Counts the connections of the consumer. A later connection continues where the one before stopped, if it has an `after`.
    pub life: u64,
    pub node: u64,
    pub protocol: Protocol,
    pub pattern: Pattern,
    pub mode: Mode,
    /// Only events after this position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// It reads the whole log, and ends.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drain: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// An event as a consumer saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(Option<u64>, String, String, bool)", into = "(Option<u64>, String, String, bool)")]
pub struct Event {
    /// If the protocol has it.
    pub position: Option<u64>,
    pub topic: String,
    /// As in [`Publish::id`].
    pub id: String,
    /// It was shown as a retained value.
    pub retained: bool,
}

impl From<(Option<u64>, String, String, bool)> for Event {
    fn from((position, topic, id, retained): (Option<u64>, String, String, bool)) -> Self {
        Self { position, topic, id, retained }
    }
}

impl From<Event> for (Option<u64>, String, String, bool) {
    fn from(event: Event) -> Self {
        (event.position, event.topic, event.id, event.retained)
    }
}

/// `poll`: what a consumer saw since the last poll.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Poll {
    pub consumer: String,
    pub life: u64,
    #[serde(default)]
    pub events: Vec<Event>,
    /// The node reported the end of the subscription.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ended: bool,
}

/// One slot of the order, as a node shows it to operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Columns", into = "Columns")]
pub struct Row {
    pub slot: u64,
    pub base: u64,
    pub count: u64,
    pub stamp: u64,
    /// `segment`, `opened` or `closed`.
    pub step: String,
    pub entry: u64,
    pub incarnation: u64,
    /// Only for segments.
    pub number: Option<u64>,
    /// Only for segments: the checksum according to the order.
    pub checksum: Option<String>,
    /// The checksum of the body on this node, if it can be read.
    pub body: Option<String>,
}

type Columns = (u64, u64, u64, u64, String, u64, u64, Option<u64>, Option<String>, Option<String>);

impl From<Columns> for Row {
    fn from(columns: Columns) -> Self {
        let (slot, base, count, stamp, step, entry, incarnation, number, checksum, body) = columns;
        Self { slot, base, count, stamp, step, entry, incarnation, number, checksum, body }
    }
}

impl From<Row> for Columns {
    fn from(row: Row) -> Self {
        let Row { slot, base, count, stamp, step, entry, incarnation, number, checksum, body } =
            row;
        (slot, base, count, stamp, step, entry, incarnation, number, checksum, body)
    }
}

/// `order`: the rows a node shows, part by part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Order {
    pub node: u64,
    #[serde(default)]
    pub rows: Vec<Row>,
    /// These were the last rows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ended: bool,
}

/// `read`: the retained value of a topic, no older than the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Read {
    pub topic: String,
    pub node: u64,
    /// In the answer: the value's id; empty if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `use`: a holder uses the protected resource; `ok` if it was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Use {
    pub topic: String,
    pub session: String,
    pub token: u64,
}

/// `testament`: an MQTT session opens with a will.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Testament {
    pub session: String,
    /// The client's name, under which it returns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    pub node: u64,
    pub topic: String,
    pub will: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `end`: the client has ended a session, or knows that it is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct End {
    pub session: String,
    /// The client sent a goodbye, which drops an MQTT will.
    pub clean: bool,
    /// The goodbye is certainly in the log: its node closed the connection, and then acknowledged a publish there by
    /// a session that had begun before the goodbye.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub known: bool,
}

/// `call`; and `answer`: another answer to a call that was answered already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Call {
    pub id: String,
    pub node: u64,
    pub argument: u64,
    /// In the answer: callees return the argument plus one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `invoked`: a callee was asked to carry out a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Invoked {
    pub id: String,
    /// The callee's node.
    pub node: u64,
}

/// `attach`: a client connects to its MQTT session, which outlives connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Attach {
    pub client: String,
    /// Counts the connections of the client.
    pub life: u64,
    pub node: u64,
    /// In the answer: the node found the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub present: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `filter`: the session subscribes to these events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Filter {
    pub client: String,
    pub life: u64,
    pub pattern: Pattern,
}

/// An event that reached a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(String, String, u16, bool)", into = "(String, String, u16, bool)")]
pub struct Heard {
    pub topic: String,
    /// As in [`Publish::id`].
    pub id: String,
    /// Its packet identifier.
    pub packet: u16,
    /// It had the DUP flag.
    pub again: bool,
}

impl From<(String, String, u16, bool)> for Heard {
    fn from((topic, id, packet, again): (String, String, u16, bool)) -> Self {
        Self { topic, id, packet, again }
    }
}

impl From<Heard> for (String, String, u16, bool) {
    fn from(heard: Heard) -> Self {
        (heard.topic, heard.id, heard.packet, heard.again)
    }
}

/// `hear`: the events that reached a session since the last `hear`, and the ids of those that it acknowledged meanwhile, or
/// tried to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Hear {
    pub client: String,
    pub life: u64,
    #[serde(default)]
    pub events: Vec<Heard>,
    #[serde(default)]
    pub acknowledged: Vec<String>,
}

/// `leave`: the client leaves a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Leave {
    pub client: String,
    pub life: u64,
    /// The client sent DISCONNECT.
    pub goodbye: bool,
    /// It saw the node close the connection afterwards.
    pub closed: bool,
}

/// `state`: a node's state of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct State {
    pub node: u64,
    /// The first slot that is not in it yet.
    pub slot: u64,
    pub hash: String,
}

/// A fault. The nemesis records `strike` before anything happens, then `start` once the fault is proved and `stop` at its end,
/// or `failed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Blow {
    /// Counts the faults of a run.
    pub number: u64,
    pub nemesis: String,
    /// Its kind, and its target.
    pub how: String,
    pub nodes: Vec<u64>,
    /// The proof that it happened.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub proof: String,
}

/// `died`: a node ended without a reason. `silent`: it acknowledges nothing, although everything is healed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Died {
    pub node: u64,
    /// How it ended, and what it wrote last.
    pub told: String,
}

/// `plan`: the first line, the purpose of the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Plan {
    pub seed: u64,
    pub layout: Layout,
    pub workloads: Vec<String>,
    pub nemeses: Vec<String>,
    pub seconds: u64,
}

/// `healed`: all faults are over, and the nodes that could not be brought back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Healed {
    /// Nodes that refuse to continue with damaged disks: as good as lost.
    pub lost: Vec<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_topics_do() {
        let below = Pattern::Below { topic: "a.b".into() };
        let exact = Pattern::Exact { topic: "a.b".into() };
        let child = Pattern::Child { topic: "a.b".into() };
        let table = [
            ("a.b", [false, true, false]),
            ("a.b.c", [true, false, true]),
            ("a.b.c.d", [true, false, false]),
            ("a.bc", [false, false, false]),
        ];
        for (topic, expected) in table {
            assert_eq!([&below, &exact, &child].map(|p| p.fits(topic)), expected, "{topic}");
        }
    }
}
