//! The folder of a run, with its history, verdict, plots and logs.
//!
//! Invariant: a run never writes into another's folder.
//!
//! Deliberately absent: deleting old runs.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::check::{judge, Outcome, Story, Verdict};
use crate::edn;
use crate::journal;

/// The verdict's file, as Jepsen names it.
const RESULTS: &str = "results.edn";

/// Makes the folder of a run in `store`.
///
/// # Errors
/// Those of the file system.
pub fn make(store: &Path, seconds: u64, seed: u64) -> Result<PathBuf> {
    for attempt in 0_u32.. {
        let suffix = if attempt == 0 { String::new() } else { format!("-{attempt}") };
        let folder = store.join(format!("{}-{seed}{suffix}", timestamp(seconds)));
        if folder.exists() {
            continue;
        }
        std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        return Ok(folder);
    }
    unreachable!("there are fewer folders than numbers")
}

/// Unix time as `20260131T235959Z`.
fn timestamp(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01, so that a leap day is the last day of its year: Howard Hinnant's civil_from_days.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// Judges the history in a folder, and writes the verdict beside it.
///
/// # Errors
/// If the history can't be read.
pub fn judge_folder(folder: &Path) -> Result<(Story, Verdict)> {
    let story = Story::new(&journal::read(folder)?)?;
    let verdict = judge(&story);
    let mut text = String::new();
    edn::write(&verdict.to_value(), &mut text);
    text.push('\n');
    let path = folder.join(RESULTS);
    std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    Ok((story, verdict))
}

/// Deletes the nodes' data if the run has passed. Otherwise it stays for analysis.
///
/// # Errors
/// Those of the file system.
pub fn settle_disks(folder: &Path, outcome: Outcome) -> Result<()> {
    if outcome != Outcome::Passed {
        return Ok(());
    }
    for entry in std::fs::read_dir(folder)? {
        let data = entry?.path().join("data");
        if data.is_dir() {
            std::fs::remove_dir_all(&data)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_new_and_tell_their_time() {
        assert_eq!(timestamp(0), "19700101T000000Z");
        assert_eq!(timestamp(951_782_400), "20000229T000000Z");
        assert_eq!(timestamp(1_798_761_599), "20261231T235959Z");
        let folder = tempfile::tempdir().unwrap();
        let first = make(folder.path(), 0, 7).unwrap();
        let second = make(folder.path(), 0, 7).unwrap();
        assert!(first.ends_with("19700101T000000Z-7") && first != second);
    }
}
