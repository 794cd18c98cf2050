//! How much of its disk a node leaves free.
//!
//! Invariant: what is written is read back as the same mark.
//!
//! Deliberately absent: measuring the disk, and what happens when too little is free (`cluster::room`).

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use super::Problem;

/// Unless the file says otherwise: this share of the file system, but these bytes at least, which is more than is on its way to a
/// storage when publishes end, and these at most.
const USUAL_PERCENT: u64 = 10;
const USUAL_LEAST: u64 = 64 << 20;
const USUAL_MOST: u64 = 1 << 30;

/// Units of sizes, and how many bytes they are.
const UNITS: [(&str, u64); 4] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// How much of the file system of its data directory a storage leaves free: with less, no publishes are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LowWater {
    /// A tenth, but 64 MiB at least, and a gibibyte at most.
    #[default]
    Usual,
    /// Nothing: it goes on until the disk is full.
    Off,
    Bytes(u64),
    /// Of the file system's size; 1 to 100.
    Percent(u8),
}

impl LowWater {
    /// The mark in bytes, on a file system of this size.
    #[must_use]
    pub fn bytes(self, total: u64) -> u64 {
        let share = |percent: u64| (u128::from(total) * u128::from(percent) / 100) as u64;
        match self {
            Self::Usual => share(USUAL_PERCENT).clamp(USUAL_LEAST, USUAL_MOST),
            Self::Off => 0,
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => share(percent.into()),
        }
    }
}

impl FromStr for LowWater {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let number = |text: &str| text.trim_end().parse::<u64>().map_err(|_| ());
        if text == "0" {
            return Ok(Self::Off);
        }
        if let Some(percent) = text.strip_suffix('%') {
            let percent = number(percent)?;
            let percent = u8::try_from(percent).ok().filter(|percent| (1..=100).contains(percent));
            return percent.map(Self::Percent).ok_or(());
        }
        for (unit, size) in UNITS {
            if let Some(count) = text.strip_suffix(unit) {
                let bytes = number(count)?.checked_mul(size).filter(|bytes| *bytes > 0);
                return bytes.map(Self::Bytes).ok_or(());
            }
        }
        Err(())
    }
}

impl fmt::Display for LowWater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usual => write!(f, "{USUAL_PERCENT} %, 64 MiB at least and 1 GiB at most"),
            Self::Off => f.write_str("0"),
            Self::Bytes(bytes) => f.write_str(&size(*bytes)),
            Self::Percent(percent) => write!(f, "{percent} %"),
        }
    }
}

/// A size in the largest unit that shows it exactly.
#[must_use]
pub fn size(bytes: u64) -> String {
    let unit = UNITS.iter().find(|(_, size)| bytes > 0 && bytes.is_multiple_of(*size));
    unit.map_or_else(|| format!("{bytes} bytes"), |(unit, size)| format!("{} {unit}", bytes / size))
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct DiskTable {
    low_water: Option<Given>,
}

/// A text, or the number 0.
#[derive(Deserialize)]
#[serde(untagged)]
enum Given {
    Number(u64),
    Text(String),
}

pub(super) fn check(table: DiskTable, problems: &mut Vec<Problem>) -> LowWater {
    let text = match table.low_water {
        None => return LowWater::Usual,
        Some(Given::Number(number)) => number.to_string(),
        Some(Given::Text(text)) => text,
    };
    text.parse().unwrap_or_else(|()| {
        problems.push(Problem::LowWater(text));
        LowWater::Usual
    })
}

/// Writes the table, line by line, if it says something. `text` writes a string as TOML has it.
pub(super) fn write(
    low_water: LowWater,
    text: impl Fn(&str) -> String,
    line: &mut impl FnMut(String),
) {
    if low_water != LowWater::Usual {
        line("\n[disk]".into());
        let mark = text(&low_water.to_string());
        line(format!("low_water = {mark}  # with less left, publishes are refused"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Result<LowWater, Vec<Problem>> {
        let mut problems = Vec::new();
        let table = toml::from_str(&format!("low_water = {value}")).unwrap();
        let mark = check(table, &mut problems);
        if problems.is_empty() {
            Ok(mark)
        } else {
            Err(problems)
        }
    }

    #[test]
    fn a_mark_is_a_size_or_a_share_or_nothing() {
        for (value, mark, of_a_tebibyte) in [
            ("0", LowWater::Off, 0),
            ("\"0\"", LowWater::Off, 0),
            ("\"2 GiB\"", LowWater::Bytes(2 << 30), 2 << 30),
            ("\"512KiB\"", LowWater::Bytes(512 << 10), 512 << 10),
            ("\"1 %\"", LowWater::Percent(1), (1 << 40) / 100),
            ("\"100%\"", LowWater::Percent(100), 1 << 40),
        ] {
            assert_eq!(read(value), Ok(mark), "{value}");
            assert_eq!(mark.bytes(1 << 40), of_a_tebibyte, "{value}");
            assert_eq!(mark.to_string().parse(), Ok(mark), "{value}");
        }
        for value in [
            "1",
            "\"\"",
            "\"0 %\"",
            "\"101 %\"",
            "\"1 GB\"",
            "\"-1 MiB\"",
            "\"0 MiB\"",
            "\"99999999 TiB\"",
        ] {
            assert!(matches!(read(value).unwrap_err()[..], [Problem::LowWater(_)]), "{value}");
        }
    }

    #[test]
    fn the_usual_mark_is_a_tenth_within_bounds() {
        for (total, mark) in [(1 << 40, 1 << 30), (10 << 30, 1 << 30), (1000 << 20, 100 << 20)] {
            assert_eq!(LowWater::Usual.bytes(total), mark, "{total}");
        }
        assert_eq!(LowWater::Usual.bytes(1000), 64 << 20);
        assert_eq!(LowWater::Percent(100).bytes(u64::MAX), u64::MAX);
    }
}
