//! How much work it is to try a password.
//!
//! Invariant: a cost is within its limits, also one that is read back from the replicated state: no record makes a node
//! compute for minutes or take gigabytes.
//!
//! Persisted: the forms never change. Argon2 is (memory in KiB, iterations), PBKDF2 is the iterations.
//!
//! Deliberately absent: parallelism, which is one (WAMP section "WAMP-SCRAM" prescribes it).

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

/// Memory of one argon2id computation in KiB.
const ARGON2_MEMORY: RangeInclusive<u32> = 8..=262_144;

/// Passes of one argon2id computation over its memory.
const ARGON2_ITERATIONS: RangeInclusive<u32> = 1..=64;

/// Memory of one argon2id computation in KiB, times its passes: one to two seconds.
const ARGON2_WORK: u32 = 2_097_152;

/// Iterations of PBKDF2: RFC 7677 section 4 asks for the lower one.
const PBKDF2_ITERATIONS: RangeInclusive<u32> = 4096..=10_000_000;

/// A cost outside of its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CostError {
    #[error("argon2 takes {0} KiB: it may take from 8 to 262144")]
    Memory(u32),
    #[error("argon2 takes {0} iterations: it may take from 1 to 64")]
    Argon2Iterations(u32),
    #[error("argon2 takes {memory} KiB and {iterations} iterations: lower one of them")]
    Work { memory: u32, iterations: u32 },
    #[error("PBKDF2 takes {0} iterations: it may take from 4096 to 10000000")]
    Pbkdf2Iterations(u32),
}

/// The cost of argon2id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "(u32, u32)", into = "(u32, u32)")]
pub struct Argon2Cost {
    memory: u32,
    iterations: u32,
}

impl Argon2Cost {
    /// Memory in KiB, and passes over it.
    ///
    /// # Errors
    /// A cost outside of its limits.
    pub fn new(memory: u32, iterations: u32) -> Result<Self, CostError> {
        if !ARGON2_MEMORY.contains(&memory) {
            return Err(CostError::Memory(memory));
        }
        if !ARGON2_ITERATIONS.contains(&iterations) {
            return Err(CostError::Argon2Iterations(iterations));
        }
        if memory.saturating_mul(iterations) > ARGON2_WORK {
            return Err(CostError::Work { memory, iterations });
        }
        Ok(Self { memory, iterations })
    }

    /// Memory in KiB.
    #[must_use]
    pub fn memory(self) -> u32 {
        self.memory
    }

    #[must_use]
    pub fn iterations(self) -> u32 {
        self.iterations
    }
}

impl TryFrom<(u32, u32)> for Argon2Cost {
    type Error = CostError;

    fn try_from((memory, iterations): (u32, u32)) -> Result<Self, CostError> {
        Self::new(memory, iterations)
    }
}

impl From<Argon2Cost> for (u32, u32) {
    fn from(cost: Argon2Cost) -> Self {
        (cost.memory, cost.iterations)
    }
}

/// The cost of PBKDF2 with HMAC-SHA256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Pbkdf2Cost(u32);

impl Pbkdf2Cost {
    /// A number of iterations.
    ///
    /// # Errors
    /// A cost outside of its limits.
    pub fn new(iterations: u32) -> Result<Self, CostError> {
        match PBKDF2_ITERATIONS.contains(&iterations) {
            true => Ok(Self(iterations)),
            false => Err(CostError::Pbkdf2Iterations(iterations)),
        }
    }

    #[must_use]
    pub fn iterations(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Pbkdf2Cost {
    type Error = CostError;

    fn try_from(iterations: u32) -> Result<Self, CostError> {
        Self::new(iterations)
    }
}

impl From<Pbkdf2Cost> for u32 {
    fn from(cost: Pbkdf2Cost) -> Self {
        cost.0
    }
}

/// What a new verifier costs. It is stored with the verifier, so a change affects only passwords set afterwards.
///
/// The node computes `plain` at each login with a password. It computes the others only when a password is set: there
/// it is the client that computes at each login, so devices and browsers without native code decide how much they may
/// cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    pub plain: Argon2Cost,
    pub scram_argon2id: Argon2Cost,
    pub scram_pbkdf2: Pbkdf2Cost,
    pub wampcra: Pbkdf2Cost,
}

impl Cost {
    /// The lowest that is accepted. For tests: a password is guessed in no time.
    pub const CHEAP: Self = Self {
        plain: Argon2Cost { memory: 8, iterations: 1 },
        scram_argon2id: Argon2Cost { memory: 8, iterations: 1 },
        scram_pbkdf2: Pbkdf2Cost(4096),
        wampcra: Pbkdf2Cost(4096),
    };
}

impl Default for Cost {
    /// Argon2id with 19 MiB and 2 passes, the minimum of OWASP's Password Storage Cheat Sheet: 18 to 34 ms in a release build.
    ///
    /// PBKDF2 with 100,000 iterations: 11 ms here, and most of a second in clients whose PBKDF2 is written in JavaScript. More of
    /// it would protect better who loses a disk, and keep those clients out.
    fn default() -> Self {
        let argon2 = Argon2Cost { memory: 19_456, iterations: 2 };
        let pbkdf2 = Pbkdf2Cost(100_000);
        Self { plain: argon2, scram_argon2id: argon2, scram_pbkdf2: pbkdf2, wampcra: pbkdf2 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_hold() {
        for cost in [Cost::CHEAP, Cost::default()] {
            for argon2 in [cost.plain, cost.scram_argon2id] {
                assert_eq!(Argon2Cost::new(argon2.memory, argon2.iterations), Ok(argon2));
            }
            for pbkdf2 in [cost.scram_pbkdf2, cost.wampcra] {
                assert_eq!(Pbkdf2Cost::new(pbkdf2.0), Ok(pbkdf2));
            }
        }
        assert_eq!(Argon2Cost::new(7, 1), Err(CostError::Memory(7)));
        assert_eq!(Argon2Cost::new(262_145, 1), Err(CostError::Memory(262_145)));
        assert_eq!(Argon2Cost::new(8, 0), Err(CostError::Argon2Iterations(0)));
        assert_eq!(Argon2Cost::new(8, 65), Err(CostError::Argon2Iterations(65)));
        let (memory, iterations) = (262_144, 9);
        assert_eq!(
            Argon2Cost::new(memory, iterations),
            Err(CostError::Work { memory, iterations })
        );
        assert_eq!(Pbkdf2Cost::new(4095), Err(CostError::Pbkdf2Iterations(4095)));
        assert_eq!(Pbkdf2Cost::new(10_000_001), Err(CostError::Pbkdf2Iterations(10_000_001)));
    }
}
