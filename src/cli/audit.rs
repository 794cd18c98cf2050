//! `vulpes audit`: who changed users, roles and bans, and when.
//!
//! Invariant: changes are shown in their order. If earlier ones are not known, that is said.
//!
//! Deliberately absent: changes of what is published, which `vulpes log` shows.

use std::io::Write;

use clap::Args;
use comfy_table::{presets, Table};
use vulpes_raft::ids::Position;

use super::asked::{failed, Common};
use super::ban::spelled;
use crate::http::ChangeInfo;
use crate::types::audit::Did;

const EXAMPLES: &str = "\
Examples:
  vulpes audit
  vulpes audit --after 4711 --limit 10
  vulpes audit --json

The newest 10,000 changes are remembered, whatever part of the log is kept. Changes from before that are told nowhere.";

/// Show the history of users, roles and bans: position, time, author, and what was done
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Audit {
    /// Begin after this position
    #[arg(long, value_name = "POSITION", default_value_t = 0)]
    after: u64,
    /// Show at most this many changes
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    common: Common,
}

impl Audit {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let (asked, after) = (self.common.asked()?, Position(self.after));
        let limit = self.limit.unwrap_or(usize::MAX);
        let (from, changes) = asked.client.audit(&asked.url, after, limit).await.map_err(failed)?;
        if after.0.saturating_add(1) < from.0 {
            eprintln!("changes before position {from} are not remembered");
        }
        let mut out = std::io::stdout().lock();
        if asked.json {
            for change in &changes {
                writeln!(out, "{}", serde_json::to_string(change)?)?;
            }
        } else if changes.is_empty() {
            writeln!(out, "no users, roles or bans were changed")?;
        } else {
            writeln!(out, "{}", table(changes))?;
        }
        Ok(out.flush()?)
    }
}

fn table(changes: Vec<ChangeInfo>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY);
    table.set_header(["position", "time", "by", "change", "done"]);
    for change in changes {
        let ChangeInfo { position, time, author, accepted, did } = change;
        let did: Vec<String> = did.iter().map(sentence).collect();
        let done = if accepted { "yes" } else { "refused" };
        table.add_row([position.to_string(), time, author, did.join("\n"), done.to_owned()]);
    }
    table
}

/// What a change does, in words.
fn sentence(did: &Did) -> String {
    let roles_are = |roles: &[String]| match roles.is_empty() {
        true => "no roles".to_owned(),
        false => format!("roles {}", roles.join(" ")),
    };
    match did {
        Did::AddUser { name, roles, disabled } => {
            let disabled = if *disabled { ", disabled" } else { "" };
            format!("add user {name}, {}{disabled}", roles_are(roles))
        }
        Did::SetUser { name, login, roles, disabled } => {
            let mut parts = Vec::new();
            parts.extend(login.then(|| "new password or keys".to_owned()));
            parts.extend(roles.as_deref().map(roles_are));
            parts.extend(disabled.map(|is| if is { "disabled" } else { "enabled" }.to_owned()));
            let what = if parts.is_empty() { "nothing new".to_owned() } else { parts.join(", ") };
            format!("change user {name}: {what}")
        }
        Did::RemoveUser { name } => format!("remove user {name}"),
        Did::SetRole { name, rules } => format!("set role {name}, {rules} rules"),
        Did::RemoveRole { name } => format!("remove role {name}"),
        Did::AddBan { target, reason, lasts } => {
            let time = lasts.map(|lasts| format!(" for {}", spelled(lasts))).unwrap_or_default();
            let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
            format!("ban {target}{time}{reason}")
        }
        Did::RemoveBan { target } => format!("end the ban of {target}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ban::BanTarget;

    #[test]
    fn changes_are_told_in_words() {
        let (name, target) = (|| "joe".to_owned(), || BanTarget::User("joe".into()));
        let set = |login, roles: Option<&[&str]>, disabled| Did::SetUser {
            name: name(),
            login,
            roles: roles.map(|roles| roles.iter().map(|role| (*role).to_owned()).collect()),
            disabled,
        };
        for (did, expected) in [
            (
                Did::AddUser { name: name(), roles: vec!["a".into(), "b".into()], disabled: true },
                "add user joe, roles a b, disabled",
            ),
            (set(true, None, None), "change user joe: new password or keys"),
            (set(false, Some(&[]), Some(false)), "change user joe: no roles, enabled"),
            (set(false, None, None), "change user joe: nothing new"),
            (Did::SetRole { name: name(), rules: 3 }, "set role joe, 3 rules"),
            (
                Did::AddBan { target: target(), reason: "floods".into(), lasts: Some(600_000) },
                "ban user joe for 10m: floods",
            ),
            (Did::AddBan { target: target(), reason: String::new(), lasts: None }, "ban user joe"),
            (Did::RemoveBan { target: target() }, "end the ban of user joe"),
        ] {
            assert_eq!(sentence(&did), expected);
        }
    }
}
