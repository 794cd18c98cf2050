//! Faults of the links between nodes.
//!
//! Invariant: a link is restored by the fault that cut it, as in `arena`.
//!
//! Deliberately absent: the links between clients and nodes, which stay as they are.

use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};

use super::{Active, Arena};
use crate::dice::Dice;
use crate::nemesis::links;
use crate::nemesis::schedule::BETWEEN;
use crate::network::weather::{Fates, Link, Weather};
use crate::wait::until;

/// Time limit for bad links to show all their effects.
const SHOWN: Duration = Duration::from_secs(5);

/// The message if links can't be changed.
const NO_NETWORK: &str = "without network namespaces no link can be touched";

impl Arena {
    pub(super) fn partition(
        &mut self,
        kind: &str,
        active: &mut Active,
        dice: &mut Dice,
    ) -> Result<String> {
        let mut nodes = self.ids();
        dice.shuffle(&mut nodes);
        // The target comes first.
        let aimed = active.blow.nodes[0];
        nodes.sort_by_key(|id| *id != aimed);
        let network = self.network.as_mut().context(NO_NETWORK)?;
        let links = links::partition(kind, &nodes, &self.layout, dice)?;
        if BETWEEN.contains(&kind) {
            active.blow.nodes = links.iter().map(|(from, _)| *from).collect();
            active.blow.nodes.sort_unstable();
            active.blow.nodes.dedup();
        }
        for (from, to) in links {
            network.cut(from, to)?;
            active.cuts.push((from, to));
        }
        let &(from, to) = active.cuts.first().context("nothing was cut")?;
        let peer = self.cluster.node(to).peer();
        let seen = tokio::task::block_in_place(|| network.probe(from, peer));
        ensure!(seen == "silence", "node {from} to {to}: {seen}");
        Ok(format!(
            "{:?} are cut; a connection from node {from} to {to} meets silence",
            active.cuts
        ))
    }

    /// Makes all links of these nodes bad, independently but in the same way.
    pub(super) async fn flaky(
        &mut self,
        kind: &str,
        active: &mut Active,
        dice: &mut Dice,
    ) -> Result<String> {
        let others = self.ids();
        let network = self.network.as_mut().context(NO_NETWORK)?;
        let weather = Weather::of(kind, dice)?;
        let mut bad = Vec::new();
        for &from in &active.blow.nodes {
            for &to in others.iter().filter(|to| **to != from) {
                bad.extend([(from, to), (to, from)]);
            }
        }
        bad.sort_unstable();
        bad.dedup();
        for (number, (from, to)) in (0..).zip(bad) {
            network.spoil(from, to, Link::new(weather, dice.fork(number)))?;
            active.bad.push((from, to));
        }
        let seen = || {
            let mut fates = Fates::default();
            active.bad.iter().for_each(|(from, to)| fates += network.fates(*from, *to));
            fates
        };
        let shown = until("the links show it", SHOWN, || async {
            let fates = seen();
            if !fates.show(kind) {
                bail!("{fates}");
            }
            Ok(fates)
        });
        Ok(format!("{weather}: {}", shown.await?))
    }

    /// Restores all links that a fault has cut or made bad.
    pub(super) fn mend(&mut self, active: &mut Active) {
        let Some(network) = &mut self.network else { return };
        // The system refuses only if the namespace is gone, and then so is the run.
        for (from, to) in &active.cuts {
            let _ = network.mend(*from, *to);
        }
        let mut fates = Fates::default();
        for (from, to) in &active.bad {
            fates += network.clear(*from, *to).unwrap_or_default();
        }
        if fates != Fates::default() {
            active.blow.proof += &format!("; in the end, {fates}");
        }
    }
}
