//! Inputs like valid ones: a list of reads, or messages, of which some bytes, numbers, texts, or whole parts are others.
//!
//! Invariant: the same dice give the same input. None is longer than [`LONGEST`].
//!
//! Deliberately absent: formats. What matters in one (separators, keys, lengths) a target names in its words.

use vulpes_jepsen::dice::Dice;

/// What is read one after the other.
pub(crate) type Input = Vec<Vec<u8>>;

/// Longest part of an input, in bytes.
pub(crate) const LONGEST: usize = 96 << 10;

/// Most parts of an input.
const PARTS: usize = 12;

/// Numbers at which lengths and counters turn.
const EDGES: [u64; 14] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x3fff,
    0x7fff,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    u64::MAX,
];

/// An input made of one of the seeds.
pub(crate) fn mutated(seeds: &[Input], words: &[&[u8]], dice: &mut Dice) -> Input {
    let mut input = dice.pick(seeds).clone();
    // One in eight is as it was, so that what comes after it is reached.
    for _ in 0..dice.below(8) {
        match dice.below(10) {
            0 => change_parts(&mut input, seeds, dice),
            _ => {
                let at = dice.below(input.len() as u64) as usize;
                if let Some(part) = input.get_mut(at) {
                    change(part, (seeds, words), dice);
                    part.truncate(LONGEST);
                }
            }
        }
    }
    input.truncate(PARTS);
    input
}

/// Drops, doubles, cuts, joins or takes over whole parts.
fn change_parts(input: &mut Input, seeds: &[Input], dice: &mut Dice) {
    let at = dice.below(input.len() as u64) as usize;
    match dice.below(5) {
        _ if input.is_empty() => input.extend(dice.pick(seeds).first().cloned()),
        0 => drop(input.remove(at)),
        1 => input.insert(at, input[at].clone()),
        2 => {
            let cut = dice.below(input[at].len() as u64 + 1) as usize;
            let rest = input[at].split_off(cut);
            input.insert(at + 1, rest);
        }
        3 => {
            let mut all = input.concat();
            all.truncate(LONGEST);
            *input = vec![all];
        }
        _ => {
            let other = dice.pick(seeds);
            if !other.is_empty() {
                input.insert(at, dice.pick(other).clone());
            }
        }
    }
}

/// A range of a part that has one.
fn range(part: &[u8], dice: &mut Dice) -> std::ops::Range<usize> {
    let from = dice.below(part.len() as u64 + 1) as usize;
    let most = if dice.chance(0.8) { 16 } else { part.len() };
    let length = dice.below(most.min(part.len() - from) as u64 + 1) as usize;
    from..from + length
}

fn change(part: &mut Vec<u8>, (seeds, words): (&[Input], &[&[u8]]), dice: &mut Dice) {
    let at = range(part, dice);
    match dice.below(11) {
        0 if !at.is_empty() => part[at.start] ^= 1 << dice.below(8),
        1 if !at.is_empty() => part[at.start] = *dice.pick(&[0, 1, 0x7f, 0x80, 0xc0, 0xfe, 0xff]),
        2 => part[at].iter_mut().for_each(|byte| *byte = dice.throw() as u8),
        3 => drop(part.drain(at)),
        4 => {
            let copy = part[at.clone()].to_vec();
            part.splice(at.end..at.end, copy);
        }
        5 => part.truncate(at.start),
        6 if !words.is_empty() => {
            let word = dice.pick(words).to_vec();
            let replaced = if dice.chance(0.5) { at } else { at.start..at.start };
            part.splice(replaced, word);
        }
        7 => number(part, at.start, dice),
        8 => text_number(part, at.start, dice),
        // Many of the same: depth, and length.
        9 => {
            let times = 1_usize << dice.below(14);
            let copy = part[at.clone()].repeat(times);
            part.splice(at.end..at.end, copy.into_iter().take(LONGEST));
        }
        _ => {
            let other = dice.pick(seeds);
            if !other.is_empty() {
                let other = dice.pick(other);
                let from = range(other, dice);
                part.splice(at, other[from].iter().copied());
            }
        }
    }
}

/// Writes an edge, or what was there and one more or less, as a number of one to eight bytes.
fn number(part: &mut [u8], at: usize, dice: &mut Dice) {
    let width = 1 << dice.below(4);
    let Some(place) = part.get_mut(at..at + width) else { return };
    let old = place.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    let new = match dice.below(4) {
        0 => old.wrapping_add(1),
        1 => old.wrapping_sub(1),
        _ => *dice.pick(&EDGES),
    };
    place.copy_from_slice(&new.to_be_bytes()[8 - width..]);
    if dice.chance(0.3) {
        place.reverse();
    }
}

/// Replaces digits with an edge in digits.
fn text_number(part: &mut Vec<u8>, from: usize, dice: &mut Dice) {
    let Some(start) = part[from..].iter().position(u8::is_ascii_digit) else { return };
    let start = from + start;
    let digits = part[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut new = dice.pick(&EDGES).to_string();
    if dice.chance(0.2) {
        new.insert(0, '-');
    }
    part.splice(start..start + digits, new.into_bytes());
}

#[test]
fn the_same_dice_give_the_same_input() {
    let seeds = [vec![b"GET /7".to_vec(), vec![0; 9]], vec![vec![1, 2, 3]]];
    let input = |seed: u64| mutated(&seeds, &[b"word"], &mut Dice::new(seed));
    let mut others = 0;
    for seed in 0..5_000 {
        let made = input(seed);
        assert_eq!(made, input(seed), "seed {seed}");
        assert!(made.len() <= PARTS && made.iter().all(|part| part.len() <= LONGEST), "{seed}");
        others += usize::from(!seeds.contains(&made));
    }
    assert!(others > 3_000, "{others} of 5,000 are others than the valid ones");
}
