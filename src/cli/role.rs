//! `vulpes role` and `vulpes can`: what users may do.
//!
//! Invariant: a command that fails has changed nothing, or says that this is not known.
//!
//! Deliberately absent: who has which role (`user`).

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context};
use clap::{Args, Subcommand};
use comfy_table::{presets, Table};

use super::asked::{failed, Asked, Common, Done};
use crate::http::{RemoveRole, RoleEdit, SetRole};
use crate::types::limits;
use crate::types::rule::DEFAULT;

const EXAMPLES: &str = "\
Examples:
  vulpes role set sensor 'allow publish,retain sensors/{user}/#' 'allow subscribe commands/{user}'
  vulpes user add s17 --role sensor             s17 may publish below sensors/s17
  vulpes role set default                       users without a role may do nothing from here on
  vulpes role set app 'allow all app.#' 'deny publish app.audit.#' 'allow call wamp.session.count'
  vulpes role set fleet --file rules.txt        one rule a line; lines with # at their beginning are notes
  vulpes role list
  vulpes can s17 publish sensors/s17/heat       says yes or no, and which rule decides

A rule is `allow ACTIONS PATTERN` or `deny ACTIONS PATTERN`, and `in REALM` may follow. Actions are publish, retain,
subscribe, call and register, with commas between them, or `all`. A pattern is an MQTT topic filter if it has `/` or
`+`, otherwise a WAMP topic in which `*` is any one part and a final `#` the rest. {user} and {client} stand for the
names of who asks. Clients choose their own names ({client}): only {user} keeps users apart.

A user may do what a rule of its roles allows and none denies. A user without roles has the role `default`, which
allows everything as long as it is not set. The role `admin` allows everything.";

/// Set, show and remove roles: what users may do
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Roles {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Replace all rules of a role
    Set(Set),
    /// Show all roles that have rules
    List(Common),
    /// Show a role's rules
    Show(Named),
    /// Remove a role: its users lose what it allows; without `default`, users without a role may do everything
    Remove(Named),
}

#[derive(Debug, Args)]
struct Set {
    /// The role
    #[arg(value_name = "ROLE")]
    name: String,
    /// Its rules; without any, it allows nothing
    #[arg(value_name = "RULE")]
    rules: Vec<String>,
    /// File with its rules, one a line
    #[arg(long, value_name = "FILE", conflicts_with = "rules")]
    file: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Named {
    /// The role
    #[arg(value_name = "ROLE")]
    name: String,
    #[command(flatten)]
    common: Common,
}

/// Say whether a user may do something, and which rule decides
///
/// Exits with 0 if it may, and with 1 if it may not.
#[derive(Debug, Args)]
pub(super) struct Can {
    /// The user; `anonymous` are clients that don't log in
    #[arg(value_name = "USER")]
    subject: String,
    /// publish, retain, subscribe, call or register
    #[arg(value_name = "ACTION")]
    action: String,
    /// A topic or procedure, as either protocol spells it
    #[arg(value_name = "TOPIC")]
    topic: String,
    /// The realm [default: the node's default realm]
    #[arg(long)]
    realm: Option<String>,
    /// The client's name (MQTT client identifier)
    #[arg(long)]
    client: Option<String>,
    #[command(flatten)]
    common: Common,
}

impl Roles {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self.action {
            Action::Set(Set { name, rules, file, common }) => {
                let rules = file.map_or(Ok(rules), |file| from_file(&file))?;
                let did = format!("set, with {} rules", rules.len());
                let asked = common.asked()?;
                change(&asked, RoleEdit::Set(SetRole { name: name.clone(), rules }), &did).await?;
                if name == DEFAULT && !asked.json {
                    eprintln!("users without a role go by it");
                }
                Ok(())
            }
            Action::List(common) => list(&common.asked()?).await,
            Action::Show(Named { name, common }) => show(&common.asked()?, &name).await,
            Action::Remove(Named { name, common }) => {
                let asked = common.asked()?;
                let remove = RoleEdit::Remove(RemoveRole { name: name.clone() });
                change(&asked, remove, "removed").await?;
                if name == DEFAULT && !asked.json {
                    eprintln!("users without a role may do everything again");
                }
                Ok(())
            }
        }
    }
}

/// The rules in a file, one a line.
fn from_file(path: &Path) -> anyhow::Result<Vec<String>> {
    let mut text = String::new();
    let most = limits::ROLE_CHANGES_BODY as u64;
    let read =
        std::fs::File::open(path).and_then(|file| file.take(most + 1).read_to_string(&mut text));
    read.with_context(|| format!("can't read rules from {}", path.display()))?;
    ensure!(text.len() as u64 <= most, "{} has more than {most} bytes", path.display());
    let lines = text.lines().map(str::trim);
    Ok(lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect())
}

async fn change(asked: &Asked, edit: RoleEdit, did: &str) -> anyhow::Result<()> {
    let edits = [edit];
    let changed = asked.client.change_roles(&asked.url, &edits).await.map_err(failed)?;
    let role = edits[0].name();
    let done = Done { changed, kind: "role", name: role, did };
    asked.tell(&done, &format!("role {role} is {did}"))
}

async fn list(asked: &Asked) -> anyhow::Result<()> {
    let roles = asked.client.roles(&asked.url).await.map_err(failed)?;
    let mut out = std::io::stdout().lock();
    if asked.json {
        for role in &roles {
            writeln!(out, "{}", serde_json::to_string(role)?)?;
        }
    } else if roles.is_empty() {
        writeln!(out, "no role has rules: users without a role may do everything")?;
    } else {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_BORDERS_ONLY);
        table.set_header(["role", "rules", "changed"]);
        for role in roles {
            table.add_row([role.name, role.rules.to_string(), role.changed.to_string()]);
        }
        writeln!(out, "{table}")?;
    }
    Ok(out.flush()?)
}

/// Shows rules so that `vulpes role set --file` reads them again.
async fn show(asked: &Asked, name: &str) -> anyhow::Result<()> {
    let role = asked.client.role(&asked.url, name).await.map_err(failed)?;
    let mut out = std::io::stdout().lock();
    match asked.json {
        true => writeln!(out, "{}", serde_json::to_string(&role)?)?,
        false => role.rules.iter().try_for_each(|rule| writeln!(out, "{rule}"))?,
    }
    Ok(out.flush()?)
}

impl Can {
    /// Whether it may.
    pub(super) async fn run(self) -> anyhow::Result<bool> {
        let asked = self.common.asked()?;
        let mut query =
            vec![("user", &*self.subject), ("action", &*self.action), ("topic", &*self.topic)];
        query.extend(self.realm.as_deref().map(|realm| ("realm", realm)));
        query.extend(self.client.as_deref().map(|client| ("client", client)));
        let decision = asked.client.can(&asked.url, &query).await.map_err(failed)?;
        let mut out = std::io::stdout().lock();
        match asked.json {
            true => writeln!(out, "{}", serde_json::to_string(&decision)?)?,
            false => {
                let word = if decision.allowed { "yes" } else { "no" };
                writeln!(out, "{word}: {}", decision.reason)?;
            }
        }
        out.flush()?;
        Ok(decision.allowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_one_rule_a_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "# notes\n\n  allow all #  \r\ndeny publish a/#\n").unwrap();
        assert_eq!(from_file(file.path()).unwrap(), ["allow all #", "deny publish a/#"]);
        std::fs::write(file.path(), vec![b' '; limits::ROLE_CHANGES_BODY + 1]).unwrap();
        assert!(from_file(file.path()).is_err());
    }
}
