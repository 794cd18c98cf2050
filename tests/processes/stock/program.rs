//! A stock client's process, and its output.
//!
//! Invariant: the process ends with its [`Program`], and its error output is in every error.
//!
//! Deliberately absent: which program, and its arguments; see [`super::kinds`].

use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use serde_json::{json, Value};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use vulpes_jepsen::wait::within;

use super::messages::show_bytes;

/// Beginning of a line `event topic hex`, the format in which mosquitto_sub is configured to print events.
const MOSQUITTO_EVENT: &str = "event ";

/// mosquitto_sub's message when its subscription exists.
const MOSQUITTO_READY: &str = "Subscribed (mid";

pub(super) struct Program {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    lines: Arc<Mutex<Vec<String>>>,
    complaints: Arc<Mutex<Vec<String>>>,
}

impl Program {
    pub(super) fn start(name: String, mut command: Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().with_context(|| name.clone())?;
        let lines = keep(child.stdout.take().context("stdout is piped")?);
        let complaints = keep(child.stderr.take().context("stderr is piped")?);
        Ok(Self { name, input: child.stdin.take(), child, lines, complaints })
    }

    /// Writes a line to its input.
    pub(super) async fn say(&mut self, line: &str) -> Result<()> {
        let input = self.input.as_mut().context("the input is open until the end")?;
        input.write_all(format!("{line}\n").as_bytes()).await.with_context(|| self.name.clone())
    }

    /// Closes its input.
    pub(super) fn end_input(&mut self) {
        drop(self.input.take());
    }

    /// Ends its input, and waits until it has ended without an error.
    pub(super) async fn finish(&mut self, limit: Duration) -> Result<()> {
        self.end_input();
        let status = within(&self.name, limit, async { Ok(self.child.wait().await?) }).await;
        let status = status.with_context(|| self.complaint())?;
        ensure!(status.success(), "{status}: {}", self.complaint());
        Ok(())
    }

    /// Fails until it has reported its subscription.
    pub(super) fn ready(&self) -> Result<()> {
        self.ready_times(1)
    }

    /// Fails until it has reported that this many times.
    pub(super) fn ready_times(&self, times: usize) -> Result<()> {
        let lines = self.lines.lock().expect("no reader panics");
        let is_ready = |line: &String| {
            line.starts_with(MOSQUITTO_READY)
                || parse(line).is_some_and(|said| said["ready"] == true)
        };
        let found = lines.iter().filter(|line| is_ready(line)).count();
        ensure!(found >= times, "ready {found} times; {}", self.complaint());
        Ok(())
    }

    /// The events it has printed; fails until there are `count`, and if there are more.
    pub(super) fn events(&self, count: usize) -> Result<Vec<Value>> {
        let lines = self.lines.lock().expect("no reader panics");
        let events: Vec<Value> = lines
            .iter()
            .filter_map(|line| parse(line))
            .filter(|said| said["topic"].is_string())
            .collect();
        if events.len() != count {
            bail!("{} of {count} events, {}", events.len(), self.complaint());
        }
        Ok(events)
    }

    /// The outcomes of its calls, as printed.
    pub(super) fn called(&self) -> Vec<Value> {
        let lines = self.lines.lock().expect("no reader panics");
        let said = lines.iter().filter_map(|line| parse(line));
        said.filter(|said| said["procedure"].is_string()).collect()
    }

    /// The positions of its publishes, as acknowledged.
    pub(super) fn acknowledged(&self) -> Vec<u64> {
        let lines = self.lines.lock().expect("no reader panics");
        lines
            .iter()
            .filter_map(|line| parse(line))
            .filter(|said| said["acknowledged"].is_string())
            .filter_map(|said| said["position"].as_u64())
            .collect()
    }

    fn complaint(&self) -> String {
        let complaints = self.complaints.lock().expect("no reader panics");
        format!("{} complained: {complaints:#?}", self.name)
    }
}

fn keep(stream: impl AsyncRead + Unpin + Send + 'static) -> Arc<Mutex<Vec<String>>> {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let lines = Arc::clone(&kept);
    tokio::spawn(async move {
        let mut reader = BufReader::new(stream).lines();
        while let Ok(Some(line)) = reader.next_line().await {
            lines.lock().expect("no reader panics").push(line);
        }
    });
    kept
}

fn parse(line: &str) -> Option<Value> {
    let Some(event) = line.strip_prefix(MOSQUITTO_EVENT) else {
        return serde_json::from_str(line).ok();
    };
    let (topic, hex) = event.split_once(' ')?;
    let bytes: Option<Vec<u8>> = (0..hex.len() / 2)
        .map(|index| u8::from_str_radix(hex.get(2 * index..2 * index + 2)?, 16).ok())
        .collect();
    let mut shown = show_bytes(&bytes?);
    shown["topic"] = json!(topic.replace('/', "."));
    Some(shown)
}
