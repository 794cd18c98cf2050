//! Damage to a disk while its node is down.
//!
//! Invariant: part of a database file differs from before, and the damage is reported.
//!
//! Deliberately absent: the small files beside the databases; a node whose identity is gone is a new node.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context, Result};

use crate::dice::Dice;

/// The unit, in bytes, that a disk writes and loses.
const BLOCK: u64 = 4096;

/// Most bits that flip.
const BITS: u64 = 64;

/// Copies a node's databases, for stale blocks later.
pub(super) fn remember(data: &Path) -> Result<()> {
    for path in databases(data)? {
        std::fs::copy(&path, old(&path))?;
    }
    Ok(())
}

/// Damages one of a node's databases; returns which one and how.
pub(super) fn damage(data: &Path, kind: &str, dice: &mut Dice) -> Result<String> {
    let path = dice.pick(&databases(data)?).clone();
    let file = OpenOptions::new().read(true).write(true).open(&path)?;
    let length = file.metadata()?.len();
    ensure!(length > BLOCK, "{} has {length} bytes", path.display());
    let what = match kind {
        "bits" => flip(&file, length, dice)?,
        "stale" => stale(&file, &path, length, dice)?,
        "backup" => {
            // Written into the existing file, as a process that has it open would see it.
            let before = std::fs::read(old(&path)).context("nothing was remembered")?;
            file.set_len(before.len() as u64)?;
            file.write_all_at(&before, 0)?;
            "all of it is as it was".to_owned()
        }
        "tail" => {
            let cut = dice.between(1, length / 4);
            file.set_len(length - cut)?;
            format!("the last {cut} bytes are gone")
        }
        other => bail!("no damage {other}"),
    };
    file.sync_all()?;
    Ok(format!("{}: {what}", path.file_name().unwrap_or_default().to_string_lossy()))
}

fn flip(file: &File, length: u64, dice: &mut Dice) -> Result<String> {
    let mut flipped = 0;
    let wanted = dice.between(1, BITS);
    // Most pages of a file are free: only those with content matter.
    for _ in 0..wanted * 100 {
        let at = dice.below(length);
        let mut byte = [0];
        file.read_exact_at(&mut byte, at)?;
        if byte[0] != 0 {
            byte[0] ^= 1 << dice.below(8);
            file.write_all_at(&byte, at)?;
            flipped += 1;
        }
        if flipped == wanted {
            break;
        }
    }
    ensure!(flipped > 0, "nothing but zeros was found");
    Ok(format!("{flipped} bits flipped"))
}

fn stale(file: &File, path: &Path, length: u64, dice: &mut Dice) -> Result<String> {
    let before = File::open(old(path)).context("nothing was remembered")?;
    let blocks = length.min(before.metadata()?.len()) / BLOCK;
    let mut differing = Vec::new();
    for block in 0..blocks {
        let (mut now, mut then) = ([0; BLOCK as usize], [0; BLOCK as usize]);
        file.read_exact_at(&mut now, block * BLOCK)?;
        before.read_exact_at(&mut then, block * BLOCK)?;
        if now != then {
            differing.push((block, then));
        }
    }
    ensure!(!differing.is_empty(), "no block has changed");
    let wanted = dice.between(1, 8).min(differing.len() as u64);
    dice.shuffle(&mut differing);
    for (block, then) in differing.iter().take(wanted as usize) {
        file.write_all_at(then, block * BLOCK)?;
    }
    Ok(format!("{wanted} of {} blocks are as they were", differing.len()))
}

fn old(path: &Path) -> PathBuf {
    path.with_extension("remembered")
}

fn databases(data: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(data)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "redb") {
            found.push(path);
        }
    }
    found.sort();
    ensure!(!found.is_empty(), "no database in {}", data.display());
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_changes_a_file() {
        for (seed, kind) in [(1, "bits"), (2, "stale"), (3, "tail"), (4, "backup")] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("node.redb");
            std::fs::write(&path, vec![1; 40_000]).unwrap();
            remember(folder.path()).unwrap();
            let mut content = vec![1; 40_000];
            content[20_000..30_000].fill(2);
            std::fs::write(&path, &content).unwrap();
            let told = damage(folder.path(), kind, &mut Dice::new(seed)).unwrap();
            assert_ne!(std::fs::read(&path).unwrap(), content, "{told}");
        }
        assert!(damage(Path::new("/nowhere"), "bits", &mut Dice::new(1)).is_err());
    }
}
