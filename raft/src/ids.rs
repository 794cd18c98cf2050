//! The names of things in the order: nodes, incarnations, advance segments, slots, positions and event ids.
//!
//! Invariant: every meaningful number has its own type, so that a slot can't be passed for a position. The text form
//! of an [`EventId`] sorts as bytes exactly as the log does.
//!
//! Deliberately absent: how any of these is assigned (`sequencer`) or stored.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The one after this one.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

number!(
    /// A node of the cluster, by the number its operator gave it. Never reused for another disk.
    NodeId
);
number!(
    /// The identity of a node's data directory: random, made once with the directory. A node whose disk was wiped
    /// comes back with a new one, and is therefore another node.
    DiskId
);
number!(
    /// One life of an entry, granted by sync when the entry opens. Ever increasing for an entry, starting at 1.
    Incarnation
);
number!(
    /// The number of an advance segment within its incarnation: dense, starting at 0.
    SegmentNumber
);
number!(
    /// The dense number of a resolution in the order, starting at 1.
    Slot
);
number!(
    /// The dense global number of an event, starting at 1. Stays below 2^53, so that it can be a WAMP id.
    Position
);
number!(
    /// The time of day in milliseconds of Unix time. A slot's stamp names its events. It is the time that a majority
    /// of the sync members' clocks vouched for, and never runs backwards along the slots.
    Stamp
);
number!(
    /// The order's own time, in milliseconds: it only says how much has passed between two slots. See
    /// `sequencer::clock`.
    OrderTime
);

impl Stamp {
    /// Its text for other systems: ISO 8601, in UTC, to the millisecond.
    #[must_use]
    pub fn to_iso(self) -> String {
        let (seconds, millisecond) = (self.0 / 1000, self.0 % 1000);
        let days = i64::try_from(seconds / 86_400).unwrap_or(i64::MAX);
        let (year, month, day) = civil_from_days(days);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millisecond:03}Z")
    }
}

/// A placement number of a segment, dealt round-robin over [`Shard::COUNT`] and mapped to the storage group whose
/// [`Shards`] it is among.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Shard(pub u32);

impl Shard {
    /// The number of shards, whatever the number of storage groups.
    pub const COUNT: u32 = 1 << 20;

    /// The distance between shards that are dealt one after the other: the golden section of all, and odd. So each
    /// comes once per round, and consecutive ones are spread evenly over any number of groups.
    const STEP: u32 = 648_055;

    /// The shard dealt after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self((self.0 + Self::STEP) % Self::COUNT)
    }
}

/// A range of shards: what a storage group holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shards {
    first: u32,
    end: u32,
}

impl Shards {
    /// All shards.
    pub const ALL: Self = Self { first: 0, end: Shard::COUNT };

    /// Part number `part`, counted from 0, of all shards divided into `of` equal parts.
    ///
    /// # Panics
    /// If `part` is not below `of`, or `of` exceeds the number of shards.
    #[must_use]
    pub fn part(part: u32, of: u32) -> Self {
        assert!(part < of && of <= Shard::COUNT, "{part} is none of {of} parts");
        let begin =
            |part: u32| (u64::from(part) * u64::from(Shard::COUNT)).div_ceil(u64::from(of)) as u32;
        Self { first: begin(part), end: begin(part + 1) }
    }

    /// The first of them.
    #[must_use]
    pub const fn first(self) -> Shard {
        Shard(self.first)
    }

    /// Whether a shard is among them.
    #[must_use]
    pub const fn contains(self, shard: Shard) -> bool {
        self.first <= shard.0 && shard.0 < self.end
    }
}

/// The name of a batch of events from one entry, durable perhaps, but not yet ordered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AdvanceSegment {
    pub entry: NodeId,
    pub incarnation: Incarnation,
    pub number: SegmentNumber,
}

impl AdvanceSegment {
    /// Length of [`AdvanceSegment::to_key`].
    pub const KEY_LEN: usize = 24;

    /// A key whose byte order is the order of (entry, incarnation, number). Persisted: never change.
    #[must_use]
    pub fn to_key(self) -> [u8; Self::KEY_LEN] {
        let mut key = [0; Self::KEY_LEN];
        key[..8].copy_from_slice(&self.entry.0.to_be_bytes());
        key[8..16].copy_from_slice(&self.incarnation.0.to_be_bytes());
        key[16..].copy_from_slice(&self.number.0.to_be_bytes());
        key
    }

    /// The inverse of [`AdvanceSegment::to_key`].
    #[must_use]
    pub fn from_key(key: &[u8; Self::KEY_LEN]) -> Self {
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&key[at..at + 8]);
            u64::from_be_bytes(bytes)
        };
        Self {
            entry: NodeId(number(0)),
            incarnation: Incarnation(number(8)),
            number: SegmentNumber(number(16)),
        }
    }
}

impl fmt::Display for AdvanceSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.entry, self.incarnation, self.number)
    }
}

impl fmt::Debug for AdvanceSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AdvanceSegment({self})")
    }
}

/// The sortable id of an event: the stamp's minute, the slot, and the offset within the segment.
///
/// Text form: `YYMMDDhhmm` (UTC), then slot and offset, each in base 36 after one letter that gives its number of digits (`a` =
/// 1, `b` = 2, …), so that text order is log order: `2611221742b1za3`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EventId {
    minute: u32,
    slot: Slot,
    offset: u32,
}

/// Why a text is not an event id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an event id: expected YYMMDDhhmm, then slot and offset in base 36, each behind its length letter, as in 2611221742b1za3")]
pub struct ParseEventIdError;

impl EventId {
    /// The id of the event at `offset` of the segment resolved at `slot` with `stamp`.
    #[must_use]
    pub fn new(stamp: Stamp, slot: Slot, offset: u32) -> Self {
        // Two digits of year cover 2000 to 2099; a stamp outside that range is clamped, and the slot still gives the order.
        let minute = (stamp.0 / 60_000).clamp(MINUTE_2000, MINUTE_2100 - 1);
        Self { minute: u32::try_from(minute).unwrap_or(u32::MAX), slot, offset }
    }

    /// The slot of the event.
    #[must_use]
    pub fn slot(self) -> Slot {
        self.slot
    }

    /// The event's index within its segment, from 0.
    #[must_use]
    pub fn offset(self) -> u32 {
        self.offset
    }
}

const MINUTE_2000: u64 = 10_957 * 1440;
const MINUTE_2100: u64 = 47_482 * 1440;

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil_from_days(i64::from(self.minute / 1440));
        let minute_of_day = self.minute % 1440;
        write!(
            f,
            "{:02}{month:02}{day:02}{:02}{:02}",
            year.rem_euclid(100),
            minute_of_day / 60,
            minute_of_day % 60
        )?;
        write_counter(f, self.slot.0)?;
        write_counter(f, u64::from(self.offset))
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventId({self})")
    }
}

impl FromStr for EventId {
    type Err = ParseEventIdError;

    fn from_str(text: &str) -> Result<Self, ParseEventIdError> {
        let (date, counters) = text.split_at_checked(10).ok_or(ParseEventIdError)?;
        if !date.bytes().all(|b| b.is_ascii_digit()) {
            return Err(ParseEventIdError);
        }
        let field = |at: usize| date[at..at + 2].parse::<u32>().map_err(|_| ParseEventIdError);
        let (year, month, day) = (field(0)?, field(2)?, field(4)?);
        let (hour, minute) = (field(6)?, field(8)?);
        if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 {
            return Err(ParseEventIdError);
        }
        let days = days_from_civil(i64::from(year) + 2000, month, day);
        let days = u32::try_from(days).map_err(|_| ParseEventIdError)?;
        let (slot, rest) = read_counter(counters).ok_or(ParseEventIdError)?;
        let (offset, rest) = read_counter(rest).ok_or(ParseEventIdError)?;
        if !rest.is_empty() {
            return Err(ParseEventIdError);
        }
        Ok(Self {
            minute: days * 1440 + hour * 60 + minute,
            slot: Slot(slot),
            offset: u32::try_from(offset).map_err(|_| ParseEventIdError)?,
        })
    }
}

/// Writes a number in base 36 after the letter that gives the number of digits.
fn write_counter(f: &mut fmt::Formatter<'_>, number: u64) -> fmt::Result {
    let mut digits = [0u8; 13];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdefghijklmnopqrstuvwxyz"[(rest % 36) as usize];
        rest /= 36;
        if rest == 0 {
            break;
        }
    }
    let length_letter = b'a' + (digits.len() - at - 1) as u8;
    write!(f, "{}", char::from(length_letter))?;
    digits[at..].iter().try_for_each(|digit| write!(f, "{}", char::from(*digit)))
}

/// Reads the output of [`write_counter`]; only the shortest spelling is valid, so that one number has one text.
fn read_counter(text: &str) -> Option<(u64, &str)> {
    let letter = *text.as_bytes().first()?;
    if !letter.is_ascii_lowercase() {
        return None;
    }
    let length = usize::from(letter - b'a') + 1;
    let digits = text.get(1..=length)?;
    if length > 1 && digits.starts_with('0') {
        return None;
    }
    let mut number = 0u64;
    for byte in digits.bytes() {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'z' => byte - b'a' + 10,
            _ => return None,
        };
        number = number.checked_mul(36)?.checked_add(u64::from(digit))?;
    }
    Some((number, &text[length + 1..]))
}

/// Days since 1970-01-01 of a proleptic Gregorian date (the era-based formula, exact for all years).
fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (i64::from(month) + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The inverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * month_from_march + 2) / 5 + 1) as u32;
    let month = ((month_from_march + 2) % 12 + 1) as u32;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn event_ids_have_the_text_the_seed_gave_them() {
        // 2026-11-22 17:42 UTC
        let stamp = Stamp(1_795_369_320_000);
        assert_eq!(EventId::new(stamp, Slot(71), 3).to_string(), "2611221742b1za3");
        assert_eq!("2611221742b1za3".parse(), Ok(EventId::new(stamp, Slot(71), 3)));
    }

    #[test]
    fn shards_are_dealt_once_a_round_and_evenly_over_any_number_of_groups() {
        let mut dealt = vec![false; Shard::COUNT as usize];
        let mut shard = Shard(0);
        for _ in 0..Shard::COUNT {
            assert!(
                !std::mem::replace(&mut dealt[shard.0 as usize], true),
                "{shard:?} comes twice"
            );
            shard = shard.next();
        }
        assert_eq!(shard, Shard(0));
        for of in [1, 2, 3, 5, 8, 20, 64] {
            let parts: Vec<Shards> = (0..of).map(|part| Shards::part(part, of)).collect();
            let mut counts = vec![0; of as usize];
            for _ in 0..of * 10 {
                let at = parts.iter().position(|part| part.contains(shard)).unwrap();
                counts[at] += 1;
                shard = shard.next();
            }
            assert!(counts.iter().all(|count| (8..=12).contains(count)), "{of}: {counts:?}");
            assert_eq!(parts.iter().filter(|part| part.contains(shard)).count(), 1);
        }
        assert_eq!(Shards::part(0, 1), Shards::ALL);
    }

    #[test]
    fn stamps_have_the_text_that_others_know() {
        assert_eq!(Stamp(0).to_iso(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Stamp(1_795_369_325_007).to_iso(), "2026-11-22T17:42:05.007Z");
    }

    #[test]
    fn wrong_texts_are_refused() {
        for text in [
            "",
            "2611221742",
            "2611221742b1z",
            "2611221742b1za3x",
            "2613221742a1a1",
            "2611221742b01a1",
            "26112217é2a1a1",
            "2611221742Aa1a",
            "2611221742ma",
        ] {
            assert_eq!(text.parse::<EventId>(), Err(ParseEventIdError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_order_is_log_order(a in any_event_id(), b in any_event_id()) {
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
            prop_assert_eq!(a.to_string().parse(), Ok(a));
        }

        #[test]
        fn keys_sort_as_segments_do(a in any_segment(), b in any_segment()) {
            prop_assert_eq!(a.cmp(&b), a.to_key().cmp(&b.to_key()));
            prop_assert_eq!(AdvanceSegment::from_key(&a.to_key()), a);
        }
    }

    fn any_event_id() -> impl Strategy<Value = EventId> {
        (946_684_800_000u64..4_102_444_800_000, any::<u64>(), any::<u32>())
            .prop_map(|(stamp, slot, offset)| EventId::new(Stamp(stamp), Slot(slot), offset))
    }

    fn any_segment() -> impl Strategy<Value = AdvanceSegment> {
        (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(entry, incarnation, number)| {
            AdvanceSegment {
                entry: NodeId(entry),
                incarnation: Incarnation(incarnation),
                number: SegmentNumber(number),
            }
        })
    }
}
