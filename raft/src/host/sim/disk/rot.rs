//! Rot on a disk: bits that flip, stale pages, a file's missing end.
//!
//! Invariant: rot changes something, and says what.
//!
//! Deliberately absent: when it happens, and on which node. Simulations decide that.

use super::{Image, PAGE};

/// A kind of rot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rot {
    /// Some bits are flipped.
    Bits,
    /// Some pages have the content of the last [`SimDisk::remember`](super::SimDisk::remember).
    Stale,
    /// The whole file has the content of the last [`SimDisk::remember`](super::SimDisk::remember): a backup.
    Older,
    /// The end of the file is gone.
    Tail,
    /// A bit is flipped where one letter is repeated, as in a long body. The disk may be in use.
    Run,
}

/// The shortest run of a repeated letter.
const RUN: usize = 256;

/// Most bits that flip.
const BITS: u64 = 64;

/// Most pages that are stale.
const STALE: usize = 8;

impl Image {
    /// Damages the file and returns a description; `None` if there is nothing to damage.
    pub(super) fn rot(
        &mut self,
        rot: Rot,
        below: &mut impl FnMut(usize) -> usize,
    ) -> Option<String> {
        let what = match rot {
            Rot::Bits => flip(&mut self.durable, below)?,
            Rot::Stale => go_stale(&mut self.durable, &self.remembered, below)?,
            Rot::Older => {
                if self.durable == self.remembered {
                    return None;
                }
                self.durable.clone_from(&self.remembered);
                "all of it is as it was".to_owned()
            }
            Rot::Tail => {
                let cut = 1 + below((self.durable.len() / 4).max(1));
                let left = self.durable.len().checked_sub(cut)?;
                self.durable.truncate(left);
                format!("the last {cut} bytes are gone")
            }
            Rot::Run => return flip_in_run(self, below),
        };
        self.current.clone_from(&self.durable);
        Some(what)
    }
}

/// Most pages of a file are free: only bits of pages with content matter.
fn flip(bytes: &mut [u8], below: &mut impl FnMut(usize) -> usize) -> Option<String> {
    let filled: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    if filled.is_empty() {
        return None;
    }
    let count = 1 + below(BITS as usize);
    for _ in 0..count {
        bytes[filled[below(filled.len())]] ^= 1 << below(8);
    }
    Some(format!("{count} bits flipped"))
}

fn flip_in_run(image: &mut Image, below: &mut impl FnMut(usize) -> usize) -> Option<String> {
    let is_run = |run: &[u8]| run[0].is_ascii_lowercase() && run.iter().all(|byte| *byte == run[0]);
    let chunks = image.durable.chunks_exact(RUN).zip(image.current.chunks_exact(RUN)).enumerate();
    let runs = chunks.filter(|(_, (durable, current))| durable == current && is_run(durable));
    let runs: Vec<usize> = runs.map(|(chunk, _)| chunk * RUN).collect();
    if runs.is_empty() {
        return None;
    }
    let at = runs[below(runs.len())] + below(RUN);
    image.durable[at] ^= 1;
    image.current[at] ^= 1;
    Some(format!("a bit flipped at {at}"))
}

fn go_stale(
    bytes: &mut [u8],
    before: &[u8],
    below: &mut impl FnMut(usize) -> usize,
) -> Option<String> {
    let pages = bytes.chunks_exact_mut(PAGE).zip(before.chunks_exact(PAGE));
    let mut differing: Vec<_> = pages.filter(|(now, then)| now != then).collect();
    if differing.is_empty() {
        return None;
    }
    let (all, count) = (differing.len(), 1 + below(STALE.min(differing.len())));
    for _ in 0..count {
        let (now, then) = differing.swap_remove(below(differing.len()));
        now.copy_from_slice(then);
    }
    Some(format!("{count} of {all} pages are as they were"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{insert, numbers, path};
    use super::super::SimDisk;
    use super::*;
    use crate::host::{damage, Disk};

    /// A commit syncs once, so redb can't distinguish a last commit that was torn and never acknowledged from one that was
    /// whole and has rotted. In both cases it goes back to the commit before. `witness` exists to detect that.
    #[test]
    fn a_last_commit_that_rots_is_lost_or_told_and_nothing_else_is() {
        let (mut lost, mut told) = (0, 0);
        for seed in 0..200 {
            let disk = SimDisk::new();
            let database = disk.open_database(path()).unwrap();
            insert(&database, 1);
            insert(&database, 2);
            disk.crash(seed);
            drop(database);
            disk.rot(Rot::Bits, seed).unwrap();
            match disk.open_database(path()).map(|database| numbers(&database)) {
                Ok(found) if found == [1, 2] => {}
                Ok(found) if found == [1] => lost += 1,
                Ok(found) => panic!("seed {seed}: {found:?}"),
                Err(_) => told += 1,
            }
        }
        assert!(lost > 0 && told > 0, "{lost} lost, {told} told");
    }

    #[test]
    fn what_is_no_database_any_more_is_told_from_a_disk_that_fails() {
        let disk = SimDisk::new();
        insert(&disk.open_database(path()).unwrap(), 1);
        disk.crash(1);
        disk.lock().databases.get_mut(path()).unwrap().current[0] ^= 1;
        let error = disk.open_database(path()).unwrap_err();
        assert!(damage(&error).unwrap().contains("magic number"), "{error}");
        disk.crash(1);
        disk.kill("test");
        assert_eq!(damage(&disk.open_database(path()).unwrap_err()), None);
    }

    #[test]
    fn what_rots_is_other_than_it_was_and_goes_on_being_so() {
        for (seed, rot) in [(1, Rot::Bits), (2, Rot::Stale), (3, Rot::Tail), (4, Rot::Older)] {
            let disk = SimDisk::new();
            let database = disk.open_database(path()).unwrap();
            insert(&database, 1);
            disk.remember();
            insert(&database, 2);
            disk.crash(seed);
            drop(database);
            let before = disk.lock().databases[path()].durable.clone();
            let told = disk.rot(rot, seed).unwrap();
            disk.crash(seed);
            let state = disk.lock();
            let image = &state.databases[path()];
            assert_ne!(image.durable, before, "{told}");
            assert_eq!(image.current, image.durable, "{told}");
        }
        assert_eq!(SimDisk::new().rot(Rot::Bits, 1), None);
    }
}
