//! What must hold for the records of publishers and readers, whatever happened to the cluster meanwhile.
//!
//! Invariant: each check names the first message that violates it. A test below shows that each can fail.
//!
//! Deliberately absent: I/O. A message whose outcome is unknown may be in the log or not; only a duplicate is wrong.

use std::collections::BTreeMap;

use anyhow::{ensure, Context, Result};

use crate::client::Seen;
use crate::load::Record;

/// The whole log must have rising positions, each text once, and each publisher's texts in its own order.
///
/// Positions in between belong to events that are not read here, such as sessions' beginnings and ends; `vulpes
/// verify` proves that all are dense.
///
/// # Errors
/// The first event that breaks this.
pub fn check_log(log: &[Seen]) -> Result<()> {
    let mut last = 0;
    let mut places = BTreeMap::new();
    let mut numbers: BTreeMap<&str, u64> = BTreeMap::new();
    for seen in log {
        let position = seen.position.with_context(|| format!("no position: {seen:?}"))?;
        ensure!(position > last, "{seen:?} comes behind position {last}");
        last = position;
        let twice = places.insert(&seen.payload, position);
        ensure!(twice.is_none(), "{seen:?} was at {twice:?} before");
        let Some((name, number)) = seen.payload.rsplit_once('-') else { continue };
        let Ok(number) = number.parse() else { continue };
        let before = numbers.insert(name, number);
        ensure!(before < Some(number), "{seen:?} comes after number {before:?} of its publisher");
    }
    Ok(())
}

/// Each acknowledged message must be in the log, at the acknowledged position.
///
/// # Errors
/// The first message that is not.
pub fn check_acknowledged(log: &[Seen], record: &Record) -> Result<()> {
    let places: BTreeMap<&str, Option<u64>> =
        log.iter().map(|seen| (seen.payload.as_str(), seen.position)).collect();
    for told in &record.acknowledged {
        let place = places.get(told.payload.as_str());
        let place = place.with_context(|| format!("{told:?} is lost, of {} events", log.len()))?;
        ensure!(told.position.is_none() || told.position == *place, "{told:?} is at {place:?}");
    }
    Ok(())
}

/// What a reader saw must be one gapless run of the log.
///
/// # Errors
/// The first event that is not the next one.
pub fn check_run(log: &[Seen], seen: &[Seen]) -> Result<()> {
    let Some(first) = seen.first() else { return Ok(()) };
    let start = log.iter().position(|one| one.payload == first.payload);
    let start = start.with_context(|| format!("{first:?} is not in the log"))?;
    let mut expected = log[start..].iter();
    for one in seen {
        let next = expected.next().with_context(|| format!("{one:?} is after the log's end"))?;
        let same = next.payload == one.payload && next.topic == one.topic;
        let placed = one.position.is_none() || one.position == next.position;
        ensure!(same && placed, "{one:?} was seen where the log has {next:?}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Acknowledged;
    use tokio::time::Instant;

    fn log(texts: &[&str]) -> Vec<Seen> {
        let seen = |(text, position): (&&str, u64)| Seen {
            topic: "t".to_owned(),
            payload: (*text).to_owned(),
            position: Some(position),
            retained: false,
        };
        texts.iter().zip(1..).map(seen).collect()
    }

    fn record(payload: &str, position: Option<u64>) -> Record {
        let at = Instant::now();
        let acknowledged = vec![Acknowledged { payload: payload.to_owned(), position, at }];
        Record { acknowledged, ..Record::default() }
    }

    #[test]
    fn a_good_log_passes() {
        let good = log(&["a-0", "b-0", "a-1", "mark", "b-7"]);
        check_log(&good).unwrap();
        check_run(&good, &good[1..4]).unwrap();
        check_run(&good, &[]).unwrap();
        check_acknowledged(&good, &record("a-1", Some(3))).unwrap();
        check_acknowledged(&good, &record("a-1", None)).unwrap();
    }

    #[test]
    fn each_check_can_fail() {
        let good = log(&["a-0", "b-0", "a-1"]);
        let mut gap = good.clone();
        gap.remove(1);
        let mut foreign = good[..1].to_vec();
        foreign[0].position = Some(2);
        let swapped = [good[1].clone(), good[0].clone()];
        let failures = [
            ("a disorder", check_log(&swapped)),
            ("a double", check_log(&log(&["a-0", "a-0"]))),
            ("a publisher's disorder", check_log(&log(&["a-1", "a-0"]))),
            ("a loss", check_acknowledged(&good, &record("a-2", None))),
            ("a move", check_acknowledged(&good, &record("a-1", Some(2)))),
            ("a reader's gap", check_run(&good, &gap)),
            ("a reader's disorder", check_run(&good, &swapped)),
            ("a reader's other position", check_run(&good, &foreign)),
            ("a reader beyond the end", check_run(&good[..2], &good)),
            ("a reader elsewhere", check_run(&good, &log(&["c-0"]))),
        ];
        for (name, failure) in failures {
            assert!(failure.is_err(), "{name} was not seen");
        }
    }
}
