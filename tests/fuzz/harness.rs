//! Runs a target on one input after the other until its time is over.
//!
//! Invariant: a failure is told with the run's seed, the input's number and the input itself, in hexadecimal digits.
//!
//! Deliberately absent: what is done with an input (`cores`, `sockets`).

use std::fmt::Write;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::time::Duration;

use allocation_counter::measure;
use tokio::time::Instant;
use vulpes_jepsen::dice::Dice;

use crate::mutate::{mutated, Input};

/// How long a target has, in seconds.
const SECONDS: &str = "VULPES_FUZZ_SECONDS";

/// The seed of the first input; without one, the machine chooses.
const SEED: &str = "VULPES_FUZZ_SEED";

/// Most bytes of an input that are shown.
const SHOWN: usize = 4 << 10;

/// What is read.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    /// Valid inputs.
    pub(crate) seeds: Vec<Input>,
    /// What means something in the format.
    pub(crate) words: Vec<&'static [u8]>,
}

/// Inputs for a target, for as long as its time lasts.
pub(crate) struct Run {
    target: Target,
    seed: u64,
    number: u64,
    began: Instant,
    lasts: Duration,
}

fn given(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

impl Run {
    pub(crate) fn new(target: Target) -> Self {
        let seed = given(SEED).unwrap_or_else(rand::random);
        let lasts = Duration::from_secs(given(SECONDS).unwrap_or(1));
        Self { target, seed, number: 0, began: Instant::now(), lasts }
    }

    /// The next input, and dice for all else that is to be decided; none when the time is over. The first ones are the valid ones.
    pub(crate) fn next(&mut self) -> Option<(Input, Dice)> {
        let number = self.number;
        if self.began.elapsed() >= self.lasts && number >= self.target.seeds.len() as u64 {
            let Self { target: Target { name, .. }, seed, .. } = self;
            println!("{name}: {number} inputs, seed {seed}");
            return None;
        }
        self.number += 1;
        let mut dice = Dice::new(self.seed).fork(number);
        let Target { seeds, words, .. } = &self.target;
        let input = match seeds.get(number as usize) {
            Some(seed) => seed.clone(),
            None => mutated(seeds, words, &mut dice),
        };
        Some((input, dice))
    }

    /// Fails, and says how to see it again.
    pub(crate) fn fail(&self, input: &Input, why: &str) -> ! {
        let mut parts = String::new();
        for part in input {
            let shown = &part[..part.len().min(SHOWN)];
            let _ = write!(parts, "\n  ({} bytes) ", part.len());
            for byte in shown {
                let _ = write!(parts, "{byte:02x}");
            }
        }
        let (name, seed, number) = (self.target.name, self.seed, self.number - 1);
        panic!("{name}: {why}\n{SEED}={seed} gives it as input {number}:{parts}");
    }
}

/// What a core may hold whatever its input is, in bytes.
const BESIDE: u64 = 64 << 10;

/// Gives inputs to a core. It has to take each without a panic, and without ever holding more than [`BESIDE`] and this many times the
/// bytes of the input.
pub(crate) fn fuzz(target: Target, times: u64, core: impl Fn(&Input, &mut Dice)) {
    let mut run = Run::new(target);
    while let Some((input, mut dice)) = run.next() {
        let mut taken = Ok(());
        let held = measure(|| {
            taken = catch_unwind(AssertUnwindSafe(|| core(&input, &mut dice)));
        });
        if taken.is_err() {
            run.fail(&input, "panicked");
        }
        let size: usize = input.iter().map(Vec::len).sum();
        let most = BESIDE + times * size as u64;
        if held.bytes_max > most {
            run.fail(&input, &format!("held {} bytes, more than {most}", held.bytes_max));
        }
    }
}

/// Without this, a harness that runs nothing would be content with everything.
#[test]
fn what_is_planted_is_found() {
    let found = |core: fn(&Input)| {
        let (name, seeds) = ("planted", vec![vec![b"abc".to_vec()]]);
        let target = Target { name, seeds, words: vec![b"xyz"] };
        let found = catch_unwind(|| fuzz(target, 1, |input, _| core(input)));
        *found.unwrap_err().downcast::<String>().unwrap()
    };
    let told = found(|input| {
        assert!(!input.concat().windows(3).any(|three| three == b"xyz"), "the fault");
    });
    assert!(told.contains("planted: panicked") && told.contains(SEED), "{told}");
    let told = found(|input| {
        if input.concat().contains(&b'x') {
            drop(std::hint::black_box(vec![1_u8; 1 << 20]));
        }
    });
    assert!(told.contains("planted: held 1") && told.contains(SEED), "{told}");
}
