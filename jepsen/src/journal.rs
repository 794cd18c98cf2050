//! The history of a run, written as it happens: `history.edn`, one operation per line.
//!
//! Invariant: a request is written before it is sent, an answer after it arrived. So the interval between the two lines
//! contains the interval of the operation. Lines are in the order of their times.
//!
//! Deliberately absent: judging; see [`crate::check`].

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use serde::Serialize;
use tokio::time::Instant;

use crate::edn;
use crate::op::{Kind, Op, Process};

/// The file's name in a run's folder.
pub const HISTORY: &str = "history.edn";

/// An operation without an answer yet. If dropped, its outcome stays unknown.
#[derive(Debug)]
#[must_use]
pub struct Open {
    process: u64,
    f: &'static str,
}

/// Where operations are written.
#[derive(Debug)]
pub struct Journal {
    begun: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: BufWriter<File>,
    index: u64,
    /// Processes without an open operation.
    free: Vec<u64>,
    next: u64,
    /// The first error of writing the file.
    failed: Option<anyhow::Error>,
}

impl Journal {
    /// Begins a history in a folder.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn create(folder: &Path) -> Result<Arc<Self>> {
        let path = folder.join(HISTORY);
        let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
        let file = BufWriter::new(file);
        let state = State { file, index: 0, free: Vec::new(), next: 0, failed: None };
        Ok(Arc::new(Self { begun: Instant::now(), state: Mutex::new(state) }))
    }

    /// When the history began.
    #[must_use]
    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// Records a request before it is sent.
    pub fn ask(&self, f: &'static str, value: &impl Serialize) -> Open {
        let mut state = self.lock();
        let process = state.free.pop().unwrap_or_else(|| {
            state.next += 1;
            state.next - 1
        });
        self.write(&mut state, Kind::Invoke, Process::Client(process), f, value);
        Open { process, f }
    }

    /// Records the answer that the cluster carried the request out.
    pub fn ok(&self, open: Open, value: &impl Serialize) {
        self.answer(Kind::Ok, open, value);
    }

    /// Records the answer that the cluster did not carry the request out.
    pub fn fail(&self, open: Open, value: &impl Serialize) {
        self.answer(Kind::Fail, open, value);
    }

    /// The outcome is unknown.
    pub fn unknown(&self, open: Open, value: &impl Serialize) {
        let mut state = self.lock();
        self.write(&mut state, Kind::Info, Process::Client(open.process), open.f, value);
    }

    fn answer(&self, kind: Kind, open: Open, value: &impl Serialize) {
        let mut state = self.lock();
        self.write(&mut state, kind, Process::Client(open.process), open.f, value);
        state.free.push(open.process);
    }

    /// Records a client's note, without a request.
    pub fn note(&self, f: &'static str, value: &impl Serialize) {
        let mut state = self.lock();
        let process = state.next;
        state.next += 1;
        self.write(&mut state, Kind::Info, Process::Client(process), f, value);
    }

    /// Records what the nemesis did, or what was observed of the nodes from outside.
    pub fn nemesis(&self, f: &'static str, value: &impl Serialize) {
        let mut state = self.lock();
        self.write(&mut state, Kind::Info, Process::Nemesis, f, value);
    }

    /// Writes everything to disk.
    ///
    /// # Errors
    /// The first error of any line.
    pub fn finish(&self) -> Result<()> {
        let mut state = self.lock();
        if let Some(error) = state.failed.take() {
            return Err(error.context("write the history"));
        }
        state.file.flush().context("write the history")
    }

    fn write(
        &self,
        state: &mut State,
        kind: Kind,
        process: Process,
        f: &str,
        value: &impl Serialize,
    ) {
        let time = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let written = serde_json::to_value(value).map_err(anyhow::Error::from).and_then(|value| {
            let op = Op { index: state.index, time, kind, process, f: f.to_owned(), value };
            Ok(writeln!(state.file, "{}", edn::write_op(&op))?)
        });
        state.index += 1;
        if let Err(error) = written {
            state.failed.get_or_insert(error);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a run's history.
///
/// # Errors
/// If it is not there, or a line is not an operation.
pub fn read(folder: &Path) -> Result<Vec<Op>> {
    let path = folder.join(HISTORY);
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let lines = text.lines().enumerate();
    lines
        .map(|(number, line)| {
            edn::read_op(line).with_context(|| format!("{}, line {}", path.display(), number + 1))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::create(folder.path()).unwrap();
        let first = journal.ask("read", &json!({ "n": 1 }));
        let second = journal.ask("read", &json!({ "n": 2 }));
        journal.ok(first, &json!({ "n": 1 }));
        journal.unknown(second, &json!({ "n": 2 }));
        let third = journal.ask("read", &json!({ "n": 3 }));
        journal.fail(third, &json!({ "n": 3 }));
        journal.note("end", &json!({}));
        journal.nemesis("start", &json!({}));
        journal.finish().unwrap();
        let ops = read(folder.path()).unwrap();
        let told: Vec<_> = ops.iter().map(|op| (op.kind, op.process)).collect();
        // The process of an answered operation is reused, that of an unknown outcome is not.
        let (a, b, c) = (Process::Client(0), Process::Client(1), Process::Client(2));
        let expected = [
            (Kind::Invoke, a),
            (Kind::Invoke, b),
            (Kind::Ok, a),
            (Kind::Info, b),
            (Kind::Invoke, a),
            (Kind::Fail, a),
            (Kind::Info, c),
            (Kind::Info, Process::Nemesis),
        ];
        assert_eq!(told, expected);
        assert!(ops.windows(2).all(|two| two[0].time <= two[1].time));
        assert!(read(&folder.path().join("nothing")).is_err());
    }
}
