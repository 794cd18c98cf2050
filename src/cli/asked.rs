//! How commands ask a node's admin port for changes, and how they tell what was done.
//!
//! Invariant: what was done is printed once, as a sentence or as JSON with the same words.
//!
//! Deliberately absent: what can be changed (`user`, `role`, `ban`).

use std::io::Write;

use anyhow::anyhow;
use clap::Args;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::login::{self, LoginArgs};
use super::secure::TlsArgs;
use crate::client::admin::{AdminClient, AdminError, AdminUrl};
use crate::http::Changed;

/// How a node is asked.
#[derive(Debug, Args)]
pub(super) struct Common {
    /// Admin URL of a node; changes need one with the entry role
    #[arg(long, value_name = "URL", default_value = super::DEFAULT_ADMIN)]
    node_admin: AdminUrl,
    #[command(flatten)]
    tls: TlsArgs,
    #[command(flatten)]
    login: LoginArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A node, with the user that asks it.
pub(super) struct Asked {
    pub(super) client: AdminClient,
    pub(super) url: AdminUrl,
    pub(super) json: bool,
}

/// What a change did.
pub(super) struct Done<'a> {
    pub(super) changed: Changed,
    /// What kind of thing was changed, and its name.
    pub(super) kind: &'static str,
    pub(super) name: &'a str,
    pub(super) did: &'a str,
}

impl Serialize for Done<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("position", &self.changed.position)?;
        map.serialize_entry(self.kind, self.name)?;
        map.serialize_entry("did", self.did)?;
        map.end()
    }
}

/// The error, with what to do about it.
pub(super) fn failed(error: AdminError) -> anyhow::Error {
    anyhow!(login::advised(error))
}

impl Common {
    pub(super) fn asked(&self) -> anyhow::Result<Asked> {
        let client = self.login.admin()?;
        Ok(Asked {
            client,
            url: self.node_admin.clone().trusting(&self.tls.dialer()?),
            json: self.json,
        })
    }
}

impl Asked {
    /// Prints what a change did: this sentence, unless JSON is wanted.
    pub(super) fn tell(&self, done: &Done<'_>, sentence: &str) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        match self.json {
            true => writeln!(out, "{}", serde_json::to_string(done)?)?,
            false => writeln!(out, "{sentence}, from position {} on", done.changed.position)?,
        }
        Ok(out.flush()?)
    }
}
