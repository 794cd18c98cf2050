//! The order itself, as every node shows it to its operators: slots, positions, segments.
//!
//! Invariant: only the rows decide, not what the program reports about them.
//!
//! Deliberately absent: the events in the segments.

use std::collections::HashMap;

use super::story::Story;
use super::Findings;
use crate::op::Row;

pub(super) fn check(story: &Story) -> Findings {
    let whole: Vec<(u64, &[Row])> = (story.orders.iter())
        .filter(|(_, (_, ended))| *ended)
        .map(|(node, (rows, _))| (*node, rows.as_slice()))
        .collect();
    let Some(&(first, reference)) = whole.first() else {
        return Findings::blind("no node showed its whole order");
    };
    let mut found = Findings::default();
    for &(node, rows) in &whole {
        alone(node, rows, &mut found);
        for (mine, theirs) in reference.iter().zip(rows) {
            // An unreadable body is a matter of the node's operator; a different body is a violation.
            let same = Row { body: None, ..mine.clone() } == Row { body: None, ..theirs.clone() };
            found.expect(same, || {
                format!(
                    "slot {} is {mine:?} at node {first} and {theirs:?} at node {node}",
                    mine.slot
                )
            });
        }
    }
    // Positions that entries reported must be where the order has events.
    let end = reference.last().map_or(1, |row| row.base + row.count);
    for publish in &story.publishes {
        if let Some(position) = publish.fate.ok().and_then(|(_, answer)| answer.position) {
            found.expect((1..end).contains(&position), || {
                format!(
                    "{:?} was given position {position}, the order ends at {end}",
                    publish.what.id
                )
            });
        }
    }
    found
}

/// Checks one node's rows by themselves.
fn alone(node: u64, rows: &[Row], found: &mut Findings) {
    let mut segments: HashMap<(u64, u64, u64), u64> = HashMap::new();
    // The open incarnation of each entry, and its last segment's number.
    let mut lives: HashMap<u64, (u64, bool, Option<u64>)> = HashMap::new();
    let mut before: Option<&Row> = None;
    for row in rows {
        let slot = row.slot;
        let (expected, base, stamp) =
            before.map_or((1, 1, 0), |row| (row.slot + 1, row.base + row.count, row.stamp));
        found.expect(slot == expected, || {
            format!("node {node} shows slot {slot} where {expected} belongs")
        });
        found.expect(row.base == base, || {
            format!("node {node}: slot {slot} begins at position {} instead of {base}", row.base)
        });
        found.expect(row.stamp >= stamp, || {
            format!("node {node}: the stamp of slot {slot} is before that of the slot before")
        });
        before = Some(row);
        let life = lives.entry(row.entry).or_insert((0, false, None));
        match (row.step.as_str(), row.number) {
            ("opened", None) => {
                found.expect(row.incarnation > life.0, || {
                    format!(
                        "node {node}: slot {slot} opens incarnation {} after {}",
                        row.incarnation, life.0
                    )
                });
                *life = (row.incarnation, true, None);
            }
            ("closed", None) => {
                found.expect((life.0, life.1) == (row.incarnation, true), || {
                    format!("node {node}: slot {slot} closes what is not open: {row:?}")
                });
                life.1 = false;
            }
            ("segment", Some(number)) => {
                let earlier = segments.insert((row.entry, row.incarnation, number), slot);
                found.expect(earlier.is_none(), || {
                    format!("node {node}: the segment of slot {slot} is at slot {earlier:?}, too")
                });
                found.expect((life.0, life.1) == (row.incarnation, true), || {
                    format!(
                        "node {node}: slot {slot} is of an incarnation that is not open: {row:?}"
                    )
                });
                found.expect(life.2.is_none_or(|last| number == last + 1), || {
                    format!("node {node}: slot {slot} has segment {number} after {:?}", life.2)
                });
                found.expect(row.count > 0, || format!("node {node}: slot {slot} is empty"));
                found.expect(row.body.is_none() || row.body == row.checksum, || {
                    format!(
                        "node {node}: the body of slot {slot} is not what the order names: {row:?}"
                    )
                });
                life.2 = Some(number);
            }
            _ => found.expect(false, || format!("node {node}: {row:?} makes no sense")),
        }
    }
}
