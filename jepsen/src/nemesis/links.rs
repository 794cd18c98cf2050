//! Which links a partition cuts. Pure.
//!
//! Invariant: a link is named once, by its sender and its receiver; no node is cut off from itself.
//!
//! Deliberately absent: the cutting; see `crate::network`.

use anyhow::{bail, Result};

use crate::dice::Dice;
use crate::layout::Layout;
use crate::node::Role;

/// Links from the first of two to the second.
pub(super) type Links = Vec<(u64, u64)>;

/// All links between some nodes and others, in both directions.
pub(super) fn both(some: &[u64], others: &[u64]) -> Links {
    let pairs = some.iter().flat_map(|from| others.iter().map(move |to| (*from, *to)));
    pairs.flat_map(|(from, to)| [(from, to), (to, from)]).collect()
}

/// The links that a kind of partition cuts; the first node is the target.
pub(super) fn partition(
    kind: &str,
    nodes: &[u64],
    layout: &Layout,
    dice: &mut Dice,
) -> Result<Links> {
    Ok(match kind {
        "halves" => both(&nodes[..nodes.len() / 2], &nodes[nodes.len() / 2..]),
        "one" => both(&nodes[..1], &nodes[1..]),
        // Two sides that only the first node still reaches.
        "bridge" => {
            let (left, right) = nodes[1..].split_at((nodes.len() - 1) / 2);
            both(left, right)
        }
        // Each node receives only from the one before it.
        "ring" => (0..nodes.len())
            .flat_map(|at| (0..nodes.len()).map(move |to| (at, to)))
            .filter(|(at, to)| at != to && (at + 1) % nodes.len() != *to)
            .map(|(at, to)| (nodes[at], nodes[to]))
            .collect(),
        "one-way" => nodes[1..].iter().map(|to| (nodes[0], *to)).collect(),
        "entry-sync" => between(nodes, layout, [Role::Entry, Role::Sync], dice),
        "storage-sync" => between(nodes, layout, [Role::Storage, Role::Sync], dice),
        "entry-storage" => between(nodes, layout, [Role::Entry, Role::Storage], dice),
        other => bail!("no partition {other}"),
    })
}

/// Some of the nodes with one role can't reach those of another role, but reach all other nodes.
fn between(nodes: &[u64], layout: &Layout, sides: [Role; 2], dice: &mut Dice) -> Links {
    let [mut some, others] = sides.map(|role| -> Vec<u64> {
        nodes.iter().copied().filter(|node| layout.of(role).contains(node)).collect()
    });
    some.truncate(dice.between(1, some.len() as u64) as usize);
    both(&some, &others)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::nemesis::schedule::BETWEEN;

    #[test]
    fn partitions_cut_what_they_say() {
        let cut = |kind: &str, nodes: &[u64]| {
            let layout = Layout::split(1, 2, 2).unwrap();
            let links = partition(kind, nodes, &layout, &mut Dice::new(3)).unwrap();
            let set: BTreeSet<(u64, u64)> = links.iter().copied().collect();
            assert_eq!(set.len(), links.len(), "{kind}: {links:?}");
            assert!(links.iter().all(|(from, to)| from != to), "{kind}: {links:?}");
            links
        };
        assert_eq!(cut("one-way", &[2, 1, 3]), [(2, 1), (2, 3)]);
        assert_eq!(cut("halves", &[2, 1, 3]), [(2, 1), (1, 2), (2, 3), (3, 2)]);
        assert_eq!(cut("bridge", &[2, 1, 3]), [(1, 3), (3, 1)]);
        assert_eq!(cut("ring", &[1, 2, 3]), [(1, 3), (2, 1), (3, 2)]);
        assert_eq!(cut("one", &[2, 1, 3]).len(), 4);
        // Node 1 is sync, 2 and 3 are storages, 4 and 5 entries.
        let sides: [(&[u64], &[u64]); 3] = [(&[4, 5], &[1]), (&[2, 3], &[1]), (&[4, 5], &[2, 3])];
        for (kind, (some, others)) in BETWEEN.iter().zip(sides) {
            let links = cut(kind, &[5, 3, 1, 2, 4]);
            assert!(!links.is_empty(), "{kind}");
            for (from, to) in links {
                let (a, b) = if some.contains(&from) { (from, to) } else { (to, from) };
                assert!(some.contains(&a) && others.contains(&b), "{kind}: {from} to {to}");
            }
        }
        let layout = Layout::whole(3);
        assert!(partition("nowhere", &[1, 2, 3], &layout, &mut Dice::new(1)).is_err());
    }
}
