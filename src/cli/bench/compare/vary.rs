//! The option that `--vary` changes from one comparison to the next, as written on the command line.
//!
//! Invariant: each value is one that the option itself would accept.
//!
//! Deliberately absent: measuring.

use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::cli::bench::{payload, Knobs, CONNECTIONS, LARGEST, WINDOW};

/// Most values.
const VALUES: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Knob {
    Connections,
    Window,
    Size,
    Subscribers,
}

/// A knob, and the values that it gets in turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Vary {
    knob: Knob,
    pub(super) values: Vec<u32>,
}

impl Knob {
    const ALL: [Self; 4] = [Self::Connections, Self::Window, Self::Size, Self::Subscribers];

    fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Window => "window",
            Self::Size => "size",
            Self::Subscribers => "subscribers",
        }
    }

    fn range(self) -> RangeInclusive<i64> {
        match self {
            Self::Connections => 1..=CONNECTIONS,
            Self::Window => 1..=WINDOW,
            Self::Size => payload::LEAST as i64..=LARGEST,
            Self::Subscribers => 0..=CONNECTIONS,
        }
    }
}

impl Vary {
    pub(super) fn name(&self) -> &'static str {
        self.knob.name()
    }

    /// These knobs with one value changed.
    pub(super) fn set(&self, knobs: &Knobs, value: u32) -> Knobs {
        let mut knobs = knobs.clone();
        // Options with a smaller range never get a larger value.
        let small = u16::try_from(value).unwrap_or(u16::MAX);
        match self.knob {
            Knob::Connections => knobs.connections = small,
            Knob::Window => knobs.window = small,
            Knob::Size => knobs.size = value,
            Knob::Subscribers => knobs.subscribers = small,
        }
        knobs
    }
}

impl FromStr for Vary {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let knob = |name: &str| Knob::ALL.into_iter().find(|knob| knob.name() == name);
        let read = text.split_once('=').and_then(|(name, values)| Some((knob(name)?, values)));
        let Some((knob, values)) = read else {
            let names = Knob::ALL.map(Knob::name).join(", ");
            return Err(format!("{text:?} is not NAME=VALUE[,VALUE…] with one of {names}"));
        };
        let (name, range) = (knob.name(), knob.range());
        let value = |text: &str| {
            let value = text.parse::<u32>().ok().filter(|value| range.contains(&(*value).into()));
            value.ok_or_else(|| {
                format!("{text:?} is no {name} of {} to {}", range.start(), range.end())
            })
        };
        let values = values.split(',').map(value).collect::<Result<Vec<_>, _>>()?;
        if values.len() > VALUES {
            return Err(format!("{VALUES} values at most"));
        }
        Ok(Self { knob, values })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knobs_and_values_are_read() {
        let read = |text: &str| text.parse::<Vary>();
        let connections = Vary { knob: Knob::Connections, values: vec![1, 10, 5000] };
        assert_eq!(read("connections=1,10,5000"), Ok(connections));
        assert_eq!(read("size=1048576").unwrap().values, [1 << 20]);
        assert_eq!(read("subscribers=0").unwrap().name(), "subscribers");
        for text in [
            "",
            "window",
            "window=",
            "window=0",
            "window=1,",
            "window=16385",
            "connections=5001",
            "size=15",
            "topics=1",
            "size=1 2",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        let many = (0..33).map(|_| "1").collect::<Vec<_>>().join(",");
        assert!(read(&format!("window={many}")).is_err());
    }
}
