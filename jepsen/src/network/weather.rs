//! What a bad link does to packets: some are lost, late, doubled, or overtaken by later ones. Pure.
//!
//! Invariant: the same seed, packets and times give the same fates. A packet that is neither lost nor held back arrives after
//! those sent before it, however late they are. A link holds at most [`HELD`] packets, and loses the rest.
//!
//! Deliberately absent: sockets and clocks; see `switch`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{bail, Result};

use crate::dice::Dice;

/// Most packets on their way over a link.
const HELD: usize = 4096;

/// Additional delay, in milliseconds, of a packet that others should overtake.
const HELD_BACK: (u64, u64) = (5, 60);

/// The kinds of bad weather.
pub const WEATHERS: [&str; 5] = ["loss", "delay", "doubles", "disorder", "everything"];

/// What a link does to packets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weather {
    loss: f64,
    doubles: f64,
    disorder: f64,
    /// Every packet is late by this much, plus up to as much again.
    delay: Duration,
    spread: Duration,
}

impl Weather {
    /// Some weather of a kind.
    ///
    /// # Errors
    /// If there is no such kind.
    pub fn of(kind: &str, dice: &mut Dice) -> Result<Self> {
        let mut weather = Self {
            loss: 0.0,
            doubles: 0.0,
            disorder: 0.0,
            delay: Duration::ZERO,
            spread: Duration::ZERO,
        };
        let mut percent = |low, high| dice.between(low, high) as f64 / 100.0;
        match kind {
            "loss" => weather.loss = percent(2, 30),
            "delay" => {
                weather.delay = Duration::from_millis(dice.between(5, 200));
                weather.spread = Duration::from_millis(dice.between(0, 100));
            }
            "doubles" => weather.doubles = percent(5, 50),
            "disorder" => weather.disorder = percent(5, 40),
            "everything" => {
                weather.loss = percent(2, 10);
                weather.doubles = percent(2, 20);
                weather.disorder = percent(2, 20);
                weather.delay = Duration::from_millis(dice.between(2, 50));
                weather.spread = Duration::from_millis(dice.between(0, 30));
            }
            other => bail!("no weather {other}"),
        }
        Ok(weather)
    }
}

impl std::fmt::Display for Weather {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let percent = |of: f64| (of * 100.0).round();
        write!(
            f,
            "loss {} %, doubles {} %, disorder {} %, delay {:?} to {:?}",
            percent(self.loss),
            percent(self.doubles),
            percent(self.disorder),
            self.delay,
            self.delay + self.spread
        )
    }
}

/// The fates of packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fates {
    pub packets: u64,
    pub lost: u64,
    pub late: u64,
    pub doubled: u64,
    pub overtaken: u64,
}

impl Fates {
    /// Whether all effects of this kind of weather have been seen.
    #[must_use]
    pub fn show(&self, kind: &str) -> bool {
        match kind {
            "loss" => self.lost > 0,
            "delay" => self.late > 0,
            "doubles" => self.doubled > 0,
            "disorder" => self.overtaken > 0,
            _ => [self.lost, self.late, self.doubled, self.overtaken].iter().all(|of| *of > 0),
        }
    }
}

impl std::ops::AddAssign for Fates {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.lost += other.lost;
        self.late += other.late;
        self.doubled += other.doubled;
        self.overtaken += other.overtaken;
    }
}

impl std::fmt::Display for Fates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { packets, lost, late, doubled, overtaken } = self;
        write!(f, "of {packets} packets {lost} were lost, {late} late, {doubled} doubled, {overtaken} overtaken")
    }
}

/// A link, one way.
#[derive(Debug)]
pub struct Link {
    weather: Weather,
    dice: Dice,
    fates: Fates,
    /// Packets in flight, by arrival time and number.
    coming: BTreeMap<(Duration, u64), Vec<u8>>,
    numbers: u64,
    /// Arrival time of the last packet that must not be overtaken.
    orderly: Duration,
    /// The largest number that has arrived.
    newest: u64,
}

impl Link {
    #[must_use]
    pub fn new(weather: Weather, dice: Dice) -> Self {
        Self {
            weather,
            dice,
            fates: Fates::default(),
            coming: BTreeMap::new(),
            numbers: 0,
            orderly: Duration::ZERO,
            newest: 0,
        }
    }

    #[must_use]
    pub fn fates(&self) -> Fates {
        self.fates
    }

    /// A packet is sent.
    pub fn send(&mut self, packet: &[u8], now: Duration) {
        self.fates.packets += 1;
        if self.dice.chance(self.weather.loss) || self.coming.len() + 1 >= HELD {
            self.fates.lost += 1;
            return;
        }
        let spread = self.weather.spread.as_micros() as u64;
        let late = self.weather.delay + Duration::from_micros(self.dice.below(spread + 1));
        let mut at = now + late;
        if self.dice.chance(self.weather.disorder) {
            at += Duration::from_millis(self.dice.between(HELD_BACK.0, HELD_BACK.1));
        } else {
            at = at.max(self.orderly);
            self.orderly = at;
        }
        self.fates.late += u64::from(at > now);
        self.numbers += 1;
        self.coming.insert((at, self.numbers), packet.to_vec());
        if self.dice.chance(self.weather.doubles) {
            self.fates.doubled += 1;
            // Usually after packets sent meanwhile.
            self.numbers += 1;
            self.coming.insert((at + late, self.numbers), packet.to_vec());
        }
    }

    /// When the next packet arrives.
    #[must_use]
    pub fn next(&self) -> Option<Duration> {
        self.coming.keys().next().map(|(at, _)| *at)
    }

    /// A packet that has arrived by now.
    pub fn arrive(&mut self, now: Duration) -> Option<Vec<u8>> {
        let first = self.coming.first_entry().filter(|first| first.key().0 <= now)?;
        let ((_, number), packet) = first.remove_entry();
        self.fates.overtaken += u64::from(number < self.newest);
        self.newest = self.newest.max(number);
        Some(packet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thousand packets, one per millisecond: which arrive, in order, and their fates.
    fn run(kind: &str, seed: u64) -> (Vec<u64>, Fates, Weather) {
        let mut dice = Dice::new(seed);
        let weather = Weather::of(kind, &mut dice).unwrap();
        let mut link = Link::new(weather, dice);
        let mut arrived = Vec::new();
        for now in 0..2_000_u64 {
            let moment = Duration::from_millis(now);
            if now < 1_000 {
                link.send(&now.to_be_bytes(), moment);
            }
            while let Some(packet) = link.arrive(moment) {
                arrived.push(u64::from_be_bytes(packet.try_into().unwrap()));
            }
        }
        assert_eq!(link.next(), None);
        (arrived, link.fates(), weather)
    }

    #[test]
    fn each_weather_does_what_it_says_and_no_more() {
        for seed in 0..50 {
            for kind in WEATHERS {
                let (arrived, fates, weather) = run(kind, seed);
                assert_eq!((arrived.clone(), fates, weather), run(kind, seed), "{kind} repeats");
                assert!(fates.show(kind), "{kind}, seed {seed}: {fates}");
                let rate = |count: u64| count as f64 / fates.packets as f64;
                assert!((rate(fates.lost) - weather.loss).abs() < 0.06, "{weather}: {fates}");
                let kept = (fates.packets - fates.lost) as f64;
                let doubles = fates.doubled as f64 / kept;
                assert!((doubles - weather.doubles).abs() < 0.08, "{weather}: {fates}");
                assert_eq!(arrived.len() as u64, fates.packets - fates.lost + fates.doubled);
                let falls = arrived.windows(2).filter(|two| two[0] > two[1]).count();
                assert_eq!(falls > 0, fates.overtaken > 0, "{kind}");
                if weather.disorder == 0.0 && weather.doubles == 0.0 {
                    assert_eq!(fates.overtaken, 0, "{weather}");
                }
                if weather.delay == Duration::ZERO && weather.disorder == 0.0 {
                    assert_eq!(fates.late, 0, "{weather}");
                }
            }
        }
        assert!(Weather::of("sunshine", &mut Dice::new(1)).is_err());
        assert!(!Fates { lost: 1, late: 1, doubled: 1, ..Fates::default() }.show("everything"));
    }

    #[test]
    fn a_link_holds_no_more_than_its_limit() {
        let weather = Weather {
            loss: 0.0,
            doubles: 1.0,
            disorder: 0.0,
            delay: Duration::from_secs(9),
            spread: Duration::ZERO,
        };
        let mut link = Link::new(weather, Dice::new(1));
        for _ in 0..HELD {
            link.send(&[0], Duration::ZERO);
        }
        assert!(link.coming.len() <= HELD && link.fates.lost > 0, "{}", link.fates);
    }
}
