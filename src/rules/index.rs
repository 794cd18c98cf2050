//! The rules of a role, by the parts of their patterns.
//!
//! Invariant: what is found is what trying all rules one by one would find. A search visits each node of a tree at most
//! once, no more of them than a limit, and does not recurse.
//!
//! Deliberately absent: several roles of one user, and remembering (`rules`).

use std::collections::BTreeMap;
use std::ops::Bound;

use super::Subject;
use crate::types::limits;
use crate::types::rule::{pieces, Action, Piece, Role, Rule};
use crate::types::topic::{Pattern, PatternPart, Realm, Topic};

/// A role's rules, ready to be searched.
#[derive(Debug)]
pub struct RoleIndex {
    rules: Vec<Rule>,
    /// Those that hold in each realm, and in all.
    trees: BTreeMap<Option<Realm>, Tree>,
}

/// Rules by the parts of their patterns.
#[derive(Debug)]
struct Tree {
    nodes: Vec<Node>,
}

/// The rules whose patterns begin with the same parts.
#[derive(Debug, Default)]
struct Node {
    literal: BTreeMap<Box<str>, u32>,
    /// Any one part.
    one: Option<u32>,
    /// Parts with placeholders.
    named: BTreeMap<Vec<Piece>, u32>,
    /// Rules whose patterns end here.
    ends: Vec<u32>,
    /// Rules whose patterns go on with all remaining parts.
    rests: Vec<u32>,
    /// The actions that rules here and below are about, as bits: of those that allow, and of those that deny.
    below: [u8; 2],
}

/// The first rules that decide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) allowed: Option<usize>,
    pub(super) denied: Option<usize>,
}

/// A part of the topics that are asked about.
#[derive(Clone, Copy)]
enum Part<'a> {
    Literal(&'a str),
    /// Each part that begins with this.
    Beginning(&'a str),
    One,
    Rest,
}

const ROOT: u32 = 0;

impl Found {
    pub(super) fn is_allowed(self) -> bool {
        self.allowed.is_some() && self.denied.is_none()
    }

    pub(super) fn or(self, other: Self) -> Self {
        Self { allowed: self.allowed.or(other.allowed), denied: self.denied.or(other.denied) }
    }
}

impl RoleIndex {
    #[must_use]
    pub fn new(role: &Role) -> Self {
        let mut index = Self { rules: role.rules.clone(), trees: BTreeMap::new() };
        for (number, rule) in (0..).zip(&role.rules) {
            let empty = || Tree { nodes: vec![Node::default()] };
            index.trees.entry(rule.realm.clone()).or_insert_with(empty).insert(number, rule);
        }
        index
    }

    pub(super) fn rule(&self, number: usize) -> &Rule {
        &self.rules[number]
    }

    /// The trees whose rules are about a realm.
    fn trees<'a>(&'a self, subject: &'a Subject) -> impl Iterator<Item = &'a Tree> {
        let everywhere = self.trees.get(&None);
        everywhere.into_iter().chain(self.trees.get(&Some(subject.realm.clone())))
    }

    /// The rules about an action on a topic.
    pub(super) fn find(&self, action: Action, subject: &Subject, topic: &Topic) -> Found {
        let found = self.trees(subject).map(|tree| tree.find(&self.rules, action, subject, topic));
        found.fold(Found::default(), Found::or)
    }

    /// Whether a rule of this effect matches some topic that the pattern matches. It may say so wrongly if that takes long to
    /// find out.
    pub(super) fn meets(&self, asked: (Action, &Subject), pattern: &Pattern, deny: bool) -> bool {
        let mut trees = self.trees(asked.1);
        trees.any(|tree| tree.search(&self.rules, asked, pattern, (deny, Search::Meets)))
    }

    /// Whether a rule of this effect matches every topic that the pattern matches.
    pub(super) fn covers(&self, asked: (Action, &Subject), pattern: &Pattern, deny: bool) -> bool {
        let mut trees = self.trees(asked.1);
        trees.any(|tree| tree.search(&self.rules, asked, pattern, (deny, Search::Covers)))
    }
}

impl Tree {
    fn insert(&mut self, number: u32, rule: &Rule) {
        let actions = rule.actions.iter().fold(0, |bits, action| bits | bit(*action));
        let mut at = ROOT;
        for part in rule.pattern.split('/') {
            self.nodes[at as usize].below[usize::from(rule.deny)] |= actions;
            if part == "#" {
                self.nodes[at as usize].rests.push(number);
                return;
            }
            at = self.child(at, part);
        }
        let node = &mut self.nodes[at as usize];
        node.below[usize::from(rule.deny)] |= actions;
        node.ends.push(number);
    }

    fn child(&mut self, at: u32, part: &str) -> u32 {
        let new = self.nodes.len() as u32;
        // A pattern whose placeholders can't be read was never let in.
        let pieces = pieces(part).unwrap_or_default();
        let node = &mut self.nodes[at as usize];
        let is_named = pieces.iter().any(|piece| !matches!(piece, Piece::Text(_)));
        let child = if part == "+" {
            *node.one.get_or_insert(new)
        } else if is_named {
            *node.named.entry(pieces).or_insert(new)
        } else {
            *node.literal.entry(part.into()).or_insert(new)
        };
        if child == new {
            self.nodes.push(Node::default());
        }
        child
    }

    fn find(&self, all: &[Rule], action: Action, subject: &Subject, topic: &Topic) -> Found {
        let mut found = Found::default();
        let mut now = vec![ROOT];
        let mut next = Vec::new();
        let note = |rules: &[u32], found: &mut Found| {
            for number in rules {
                let rule = &all[*number as usize];
                if rule.actions.contains(&action) {
                    let first = if rule.deny { &mut found.denied } else { &mut found.allowed };
                    first.get_or_insert(*number as usize);
                }
            }
        };
        for part in topic.parts() {
            for at in now.drain(..) {
                let node = &self.nodes[at as usize];
                note(&node.rests, &mut found);
                node.push_children(Part::Literal(part), subject, &mut next);
            }
            std::mem::swap(&mut now, &mut next);
        }
        for at in now {
            note(&self.nodes[at as usize].rests, &mut found);
            note(&self.nodes[at as usize].ends, &mut found);
        }
        found
    }

    fn search(
        &self,
        all: &[Rule],
        (action, subject): (Action, &Subject),
        pattern: &Pattern,
        (deny, search): (bool, Search),
    ) -> bool {
        let has = |rules: &[u32]| {
            let mut rules = rules.iter().map(|number| &all[*number as usize]);
            rules.any(|rule| rule.deny == deny && rule.actions.contains(&action))
        };
        let has_below =
            |at: &u32| self.nodes[*at as usize].below[usize::from(deny)] & bit(action) != 0;
        let mut now = vec![ROOT];
        let mut next = Vec::new();
        let mut visits = 0;
        let text = match pattern {
            Pattern::Prefix(prefix) => Some(Beginning::of(prefix)),
            Pattern::Exact(_) | Pattern::Parts(_) => None,
        };
        for part in parts(pattern, text.as_ref()) {
            now.retain(&has_below);
            visits += now.len();
            if search == Search::Meets && visits > limits::RULE_VISITS {
                return true;
            }
            if let Part::Rest = part {
                return match search {
                    Search::Covers => now.iter().any(|at| has(&self.nodes[*at as usize].rests)),
                    // All that is left has such a rule below.
                    Search::Meets => !now.is_empty(),
                };
            }
            for at in now.drain(..) {
                let node = &self.nodes[at as usize];
                if has(&node.rests) {
                    return true;
                }
                // Before they are collected: a role may have thousands of rules that differ in this part.
                let children = node.children(part);
                if search == Search::Meets && visits + next.len() + children > limits::RULE_VISITS {
                    return true;
                }
                match (search, part) {
                    (Search::Covers, Part::One | Part::Beginning(_)) => next.extend(node.one),
                    _ => node.push_children(part, subject, &mut next),
                }
            }
            std::mem::swap(&mut now, &mut next);
        }
        now.iter()
            .map(|at| &self.nodes[*at as usize])
            .any(|node| has(&node.rests) || has(&node.ends))
    }
}

/// Which rules are looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Search {
    Meets,
    Covers,
}

fn bit(action: Action) -> u8 {
    1 << action as u8
}

/// The parts of the topics that a pattern matches.
fn parts<'a>(
    pattern: &'a Pattern,
    beginning: Option<&'a Beginning>,
) -> Box<dyn Iterator<Item = Part<'a>> + 'a> {
    match (pattern, beginning) {
        (Pattern::Exact(topic), _) => Box::new(topic.parts().map(Part::Literal)),
        (Pattern::Parts(parts), _) => Box::new(parts.iter().map(Part::from)),
        (Pattern::Prefix(_), Some(beginning)) => Box::new(beginning.parts()),
        (Pattern::Prefix(_), None) => Box::new(std::iter::once(Part::Rest)),
    }
}

impl Node {
    /// The children whose parts have placeholders that may stand for something of this subject.
    fn named<'a>(&'a self, subject: &'a Subject) -> impl Iterator<Item = (&'a [Piece], u32)> {
        let is_one =
            |pieces: &[Piece]| subject.client.is_some() || !pieces.contains(&Piece::Client);
        let named = self.named.iter().filter(move |(pieces, _)| is_one(pieces));
        named.map(|(pieces, child)| (pieces.as_slice(), *child))
    }

    /// How many children may have to be looked at for a part.
    fn children(&self, part: Part<'_>) -> usize {
        match part {
            Part::Literal(_) => 2 + self.named.len(),
            Part::Beginning(_) | Part::One | Part::Rest => {
                self.literal.len() + self.named.len() + 1
            }
        }
    }

    /// The children whose part matches one that is asked about.
    fn push_children(&self, part: Part<'_>, subject: &Subject, into: &mut Vec<u32>) {
        match part {
            Part::Literal(part) => {
                into.extend(self.literal.get(part));
                into.extend(self.one);
                let named = self.named(subject).filter(|(pieces, _)| are(pieces, part, subject));
                into.extend(named.map(|(_, child)| child));
            }
            Part::Beginning(beginning) => {
                let from = (Bound::Included(beginning), Bound::Unbounded);
                let from = self.literal.range::<str, _>(from);
                let begins = from.take_while(|(part, _)| part.starts_with(beginning));
                into.extend(begins.map(|(_, child)| *child));
                into.extend(self.one);
                // What a placeholder stands for may begin so.
                into.extend(self.named(subject).map(|(_, child)| child));
            }
            Part::One | Part::Rest => {
                into.extend(self.literal.values());
                into.extend(self.one);
                into.extend(self.named(subject).map(|(_, child)| child));
            }
        }
    }
}

/// Whether a part of a topic is this one, with the names of who asks in place of the placeholders.
fn are(pieces: &[Piece], part: &str, subject: &Subject) -> bool {
    let mut rest = part;
    for piece in pieces {
        let text = match piece {
            Piece::Text(text) => Some(&**text),
            Piece::User => Some(&*subject.user),
            Piece::Client => subject.client.as_deref(),
        };
        match text.and_then(|text| rest.strip_prefix(text)) {
            Some(behind) => rest = behind,
            None => return false,
        }
    }
    rest.is_empty()
}

impl<'a> From<PatternPart<'a>> for Part<'a> {
    fn from(part: PatternPart<'a>) -> Self {
        match part {
            PatternPart::Literal(text) => Self::Literal(text),
            PatternPart::One => Self::One,
            PatternPart::Rest => Self::Rest,
        }
    }
}

/// A WAMP prefix as parts: those that are complete, and the beginning of the next one.
struct Beginning {
    complete: Option<Topic>,
    beginning: String,
}

impl Beginning {
    fn of(prefix: &str) -> Self {
        let (complete, beginning) = prefix.rsplit_once('.').unwrap_or(("", prefix));
        // What an escape stands for may only be known by its end.
        let beginning = beginning.split('%').next().unwrap_or_default();
        let canonical = Topic::from_wamp(beginning).map(|topic| topic.as_str().to_owned());
        Self { complete: Topic::from_wamp(complete).ok(), beginning: canonical.unwrap_or_default() }
    }

    fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        let complete = self.complete.iter().flat_map(Topic::parts).map(Part::Literal);
        complete.chain([Part::Beginning(&self.beginning), Part::Rest])
    }
}
