//! Randomness from a seed.
//!
//! Invariant: the same seed gives the same numbers, in every release.
//!
//! Deliberately absent: secrets; this is splitmix64.

/// A source of randomness.
#[derive(Debug, Clone)]
pub struct Dice {
    state: u64,
}

impl Dice {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Another, independent source for each `number`.
    #[must_use]
    pub fn fork(&self, number: u64) -> Self {
        let mut fork = Self::new(self.state ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93));
        fork.throw();
        fork
    }

    /// Any number.
    pub fn throw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 if there is none.
    pub fn below(&mut self, end: u64) -> u64 {
        self.throw().checked_rem(end).unwrap_or(0)
    }

    /// A number from `low` to `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        ((self.throw() >> 11) as f64) < probability * (1_u64 << 53) as f64
    }

    /// One of these.
    ///
    /// # Panics
    /// If there are none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }

    /// Shuffles the items.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_give_the_same_throws_for_ever() {
        let mut dice = Dice::new(7);
        assert_eq!(
            [dice.throw(), dice.throw()],
            [7_191_089_600_892_374_487, 309_689_372_594_955_804]
        );
        let throws = |mut dice: Dice| (0..1_000).filter(|_| dice.chance(0.25)).count();
        assert!((200..300).contains(&throws(Dice::new(1))));
        assert_ne!(Dice::new(1).fork(1).throw(), Dice::new(1).fork(2).throw());
        assert!((0..100).all(|_| (3..=5).contains(&dice.between(3, 5))));
        assert_eq!((dice.below(0), dice.between(4, 4)), (0, 4));
    }
}
