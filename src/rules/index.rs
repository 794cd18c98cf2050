//! The rules of a role, by the parts of their patterns.
//!
//! Invariant: what is found is what trying all rules one by one would find. A search visits each node of the tree at most
//! once, and does not recurse.
//!
//! Deliberately absent: several roles of one user, and remembering (`rules`).

use std::collections::BTreeMap;
use std::ops::Bound;

use super::Subject;
use crate::types::rule::{pieces, Action, Piece, Role, Rule};
use crate::types::topic::{Pattern, PatternPart, Topic};

/// A role's rules, ready to be searched.
#[derive(Debug)]
pub struct RoleIndex {
    rules: Vec<Rule>,
    nodes: Vec<Node>,
}

/// The rules whose patterns begin with the same parts.
#[derive(Debug, Default)]
struct Node {
    literal: BTreeMap<Box<str>, u32>,
    /// Any one part.
    one: Option<u32>,
    /// Parts with placeholders.
    named: Vec<(Vec<Piece>, u32)>,
    /// Rules whose patterns end here.
    ends: Vec<u32>,
    /// Rules whose patterns go on with all remaining parts.
    rests: Vec<u32>,
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
        let mut index = Self { rules: role.rules.clone(), nodes: vec![Node::default()] };
        for (number, rule) in (0..).zip(&role.rules) {
            index.insert(number, &rule.pattern);
        }
        index
    }

    pub(super) fn rule(&self, number: usize) -> &Rule {
        &self.rules[number]
    }

    fn insert(&mut self, number: u32, pattern: &str) {
        let mut at = ROOT;
        for part in pattern.split('/') {
            if part == "#" {
                self.nodes[at as usize].rests.push(number);
                return;
            }
            at = self.child(at, part);
        }
        self.nodes[at as usize].ends.push(number);
    }

    fn child(&mut self, at: u32, part: &str) -> u32 {
        let new = self.nodes.len() as u32;
        // A pattern whose placeholders can't be read was never let in.
        let pieces = pieces(part).unwrap_or_default();
        let node = &mut self.nodes[at as usize];
        let is_named = pieces.iter().any(|piece| !matches!(piece, Piece::Text(_)));
        let child = if part == "+" {
            *node.one.get_or_insert(new)
        } else if !is_named {
            *node.literal.entry(part.into()).or_insert(new)
        } else if let Some((_, child)) = node.named.iter().find(|(known, _)| *known == pieces) {
            *child
        } else {
            node.named.push((pieces, new));
            new
        };
        if child == new {
            self.nodes.push(Node::default());
        }
        child
    }

    /// The rules about an action on a topic.
    pub(super) fn find(&self, action: Action, subject: &Subject, topic: &Topic) -> Found {
        let mut found = Found::default();
        let mut now = vec![ROOT];
        let mut next = Vec::new();
        let note = |rules: &[u32], found: &mut Found| {
            for number in rules {
                let rule = &self.rules[*number as usize];
                if is_about(rule, action, subject) {
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

    /// Whether a rule of this effect matches some topic that the pattern matches.
    pub(super) fn meets(&self, asked: (Action, &Subject), pattern: &Pattern, deny: bool) -> bool {
        self.search(asked, pattern, deny, Search::Meets)
    }

    /// Whether a rule of this effect matches every topic that the pattern matches.
    pub(super) fn covers(&self, asked: (Action, &Subject), pattern: &Pattern, deny: bool) -> bool {
        self.search(asked, pattern, deny, Search::Covers)
    }

    fn search(
        &self,
        (action, subject): (Action, &Subject),
        pattern: &Pattern,
        deny: bool,
        search: Search,
    ) -> bool {
        let has = |rules: &[u32]| {
            let mut rules = rules.iter().map(|number| &self.rules[*number as usize]);
            rules.any(|rule| rule.deny == deny && is_about(rule, action, subject))
        };
        let mut now = vec![ROOT];
        let mut next = Vec::new();
        let text;
        let parts: Box<dyn Iterator<Item = Part<'_>>> = match pattern {
            Pattern::Exact(topic) => Box::new(topic.parts().map(Part::Literal)),
            Pattern::Parts(parts) => Box::new(parts.iter().map(Part::from)),
            Pattern::Prefix(prefix) => {
                text = Beginning::of(prefix);
                Box::new(text.parts())
            }
        };
        for part in parts {
            if let Part::Rest = part {
                return match search {
                    Search::Covers => now.iter().any(|at| has(&self.nodes[*at as usize].rests)),
                    Search::Meets => {
                        self.all_below(now).any(|node| has(&node.rests) || has(&node.ends))
                    }
                };
            }
            for at in now.drain(..) {
                let node = &self.nodes[at as usize];
                if has(&node.rests) {
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

    /// These nodes and all below them.
    fn all_below(&self, mut left: Vec<u32>) -> impl Iterator<Item = &Node> {
        std::iter::from_fn(move || {
            let node = &self.nodes[left.pop()? as usize];
            left.extend(node.children());
            Some(node)
        })
    }
}

/// Which rules are looked for.
#[derive(Clone, Copy)]
enum Search {
    Meets,
    Covers,
}

fn is_about(rule: &Rule, action: Action, subject: &Subject) -> bool {
    rule.actions.contains(&action)
        && rule.realm.as_ref().is_none_or(|realm| *realm == subject.realm)
}

impl Node {
    fn children(&self) -> impl Iterator<Item = u32> + '_ {
        let named = self.named.iter().map(|(_, child)| *child);
        self.literal.values().copied().chain(self.one).chain(named)
    }

    /// The children whose part matches one that is asked about.
    fn push_children(&self, part: Part<'_>, subject: &Subject, into: &mut Vec<u32>) {
        match part {
            Part::Literal(part) => {
                into.extend(self.literal.get(part));
                into.extend(self.one);
                let named = self.named.iter().filter(|(pieces, _)| are(pieces, part, subject));
                into.extend(named.map(|(_, child)| *child));
            }
            Part::Beginning(beginning) => {
                let from = (Bound::Included(beginning), Bound::Unbounded);
                let from = self.literal.range::<str, _>(from);
                let begins = from.take_while(|(part, _)| part.starts_with(beginning));
                into.extend(begins.map(|(_, child)| *child));
                into.extend(self.one);
                // What a placeholder stands for may begin so.
                into.extend(self.named.iter().map(|(_, child)| *child));
            }
            Part::One | Part::Rest => into.extend(self.children()),
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
