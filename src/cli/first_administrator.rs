//! The first administrator of a new cluster, and its password.
//!
//! Invariant: the password is drawn from the machine's randomness and is in no file: it is printed once, and what verifies it can't be
//! turned back into it.
//!
//! Deliberately absent: every later user (`user`).

use anyhow::Context;
use vulpes_raft::host::Host;

use crate::auth::{Cost, Password, Salts, Verifiers};
use crate::config::first_administrator::FirstAdministrator;

/// What a password consists of: nothing that is mistaken for something else, and nothing that a shell looks at.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// Groups of a password, each of five letters: 125 bits.
const GROUPS: usize = 5;

const GROUP: usize = 5;

/// Draws a password.
fn draw(random: impl Fn() -> u64) -> String {
    let letter = |bits: u64| char::from(LETTERS[(bits % LETTERS.len() as u64) as usize]);
    let group = |_| {
        let drawn = random();
        (0..GROUP).map(|at| letter(drawn >> (at * 5))).collect::<String>()
    };
    (0..GROUPS).map(group).collect::<Vec<_>>().join("-")
}

/// Makes an administrator of this name; returns its password as well.
pub(super) fn make(name: &str) -> anyhow::Result<(FirstAdministrator, String)> {
    let random = Host::real().random;
    let text = draw(|| random.next_u64());
    let password = Password::new(text.as_bytes())?;
    let salts = Salts::draw(|| random.next_u64());
    let verifiers = Verifiers::derive(&password, &salts, &Cost::default(), None)?;
    let first = FirstAdministrator::new(name, &verifiers.without_keys_to_log_in_with());
    Ok((first.context("--administrator")?, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn passwords_have_one_form_and_each_letter() {
        let next = Cell::new(0_u64);
        let random = || {
            next.set(next.get().wrapping_add(0x9E37_79B9_7F4A_7C15));
            next.get()
        };
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let text = draw(random);
            assert_eq!(
                text.split('-').map(str::len).collect::<Vec<_>>(),
                [GROUP; GROUPS],
                "{text}"
            );
            seen.extend(text.bytes().filter(|byte| *byte != b'-'));
        }
        assert_eq!(seen, LETTERS.iter().copied().collect());
        let (first, one) = make("ann").unwrap();
        let (_, other) = make("ann").unwrap();
        assert!(first.name() == "ann" && first.user().can_administer() && one != other);
        assert!(make("a b").is_err());
    }
}
