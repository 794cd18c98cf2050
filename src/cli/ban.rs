//! `vulpes ban`: who is kept out.
//!
//! Invariant: a command that fails has changed nothing, or says that this is not known.
//!
//! Deliberately absent: what users may do who are let in (`role`).

use std::io::Write;
use std::time::Duration;

use anyhow::ensure;
use clap::{Args, Subcommand, ValueEnum};
use comfy_table::{presets, Table};

use super::asked::{failed, Asked, Common, Done};
use super::events::duration;
use crate::http::{BanEdit, BanInfo, NewBan, RemoveBan};
use crate::types::ban::BanTarget;
use crate::types::topic::Realm;

const EXAMPLES: &str = "\
Examples:
  vulpes ban add user joe --for 10m --reason 'floods'   its sessions end at all nodes, and none begins for ten minutes
  vulpes ban add client sensor17 --realm realm1         a client's name: its MQTT client identifier
  vulpes ban add address 192.0.2.7                      connections from there are closed
  vulpes ban add address 2001:db8::/32                  a network
  vulpes ban list
  vulpes ban remove user joe

A ban that ends holds no more then, without a further command. A second ban of the same takes the place of the first.
A ban of a user holds for admin HTTP as well; the last administrator can't be banned. A ban of an address never closes
the admin port. Clients of WAMP have no other name than their user's.";

/// Keep out users, clients and addresses
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Bans {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Ban a user, a client's name, or an address
    Add(Add),
    /// Show all bans that hold
    List(Common),
    /// End a ban
    Remove(Remove),
}

/// What a ban is of.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    User,
    Client,
    Address,
}

#[derive(Debug, Args)]
struct Target {
    /// What is banned
    #[arg(value_enum)]
    kind: Kind,
    /// The user, the client's name, or an address or network, as in 192.0.2.0/24
    #[arg(value_name = "NAME")]
    name: String,
    /// The only realm in which a client is banned
    #[arg(long)]
    realm: Option<String>,
}

#[derive(Debug, Args)]
struct Add {
    #[command(flatten)]
    target: Target,
    /// For how long, such as 30s, 10m, 12h or 7d [default: until it is removed]
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    lasts: Option<Duration>,
    /// Why, for other administrators
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Remove {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    common: Common,
}

impl Target {
    fn read(self) -> anyhow::Result<BanTarget> {
        let Self { kind, name, realm } = self;
        ensure!(
            realm.is_none() || matches!(kind, Kind::Client),
            "--realm is for clients: users and addresses are banned in all realms"
        );
        Ok(match kind {
            Kind::User => BanTarget::User(name),
            Kind::Address => BanTarget::Address(name.parse()?),
            Kind::Client => {
                BanTarget::Client { name, realm: realm.as_deref().map(Realm::new).transpose()? }
            }
        })
    }
}

impl Bans {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self.action {
            Action::Add(Add { target, lasts, reason, common }) => {
                let target = target.read()?;
                let milliseconds =
                    lasts.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
                let did = match milliseconds {
                    Some(time) => format!("banned for {}", spelled(time)),
                    None => "banned".to_owned(),
                };
                let new = NewBan { target, reason, milliseconds };
                change(&common.asked()?, BanEdit::Add(new), &did).await
            }
            Action::List(common) => list(&common.asked()?).await,
            Action::Remove(Remove { target, common }) => {
                let remove = RemoveBan { target: target.read()? };
                change(&common.asked()?, BanEdit::Remove(remove), "banned no more").await
            }
        }
    }
}

async fn change(asked: &Asked, edit: BanEdit, did: &str) -> anyhow::Result<()> {
    let edits = [edit];
    let changed = asked.client.change_bans(&asked.url, &edits).await.map_err(failed)?;
    let [BanEdit::Add(NewBan { target, .. }) | BanEdit::Remove(RemoveBan { target })] = edits;
    let name = target.to_string();
    asked.tell(&Done { changed, kind: "ban", name: &name, did }, &format!("{name} is {did}"))
}

async fn list(asked: &Asked) -> anyhow::Result<()> {
    let bans = asked.client.bans(&asked.url).await.map_err(failed)?;
    let mut out = std::io::stdout().lock();
    if asked.json {
        for ban in &bans {
            writeln!(out, "{}", serde_json::to_string(ban)?)?;
        }
    } else if bans.is_empty() {
        writeln!(out, "nobody is banned")?;
    } else {
        writeln!(out, "{}", table(bans))?;
    }
    Ok(out.flush()?)
}

fn table(bans: Vec<BanInfo>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY);
    table.set_header(["banned", "ends in", "reason", "by", "changed"]);
    for ban in bans {
        let BanInfo { target, reason, author, milliseconds_left, changed } = ban;
        let ends = milliseconds_left.map_or_else(|| "-".to_owned(), spelled);
        table.add_row([target.to_string(), ends, reason, author, changed.to_string()]);
    }
    table
}

/// A time, in its two largest units.
pub(super) fn spelled(milliseconds: u64) -> String {
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")];
    let mut left = milliseconds;
    let mut parts = Vec::new();
    for (unit, name) in units {
        if left >= unit {
            parts.push(format!("{}{name}", left / unit));
            left %= unit;
        }
    }
    parts.truncate(2);
    match parts.is_empty() {
        true => "0s".to_owned(),
        false => parts.join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_spelled_in_two_units() {
        for (milliseconds, expected) in [
            (0, "0s"),
            (7, "7ms"),
            (1000, "1s"),
            (90_000, "1m 30s"),
            (600_000, "10m"),
            (86_400_001, "1d 1ms"),
            (90_061_007, "1d 1h"),
        ] {
            assert_eq!(spelled(milliseconds), expected);
        }
    }

    #[test]
    fn a_realm_is_for_clients() {
        let read = |kind, name: &str, realm: Option<&str>| {
            let (name, realm) = (name.to_owned(), realm.map(str::to_owned));
            Target { kind, name, realm }.read().map(|target| target.to_string()).ok()
        };
        assert_eq!(read(Kind::Client, "c", Some("r")).as_deref(), Some("client c in r"));
        assert_eq!(read(Kind::Address, "10.0.0.1/8", None).as_deref(), Some("address 10.0.0.0/8"));
        assert_eq!(read(Kind::User, "joe", Some("r")), None);
        assert_eq!(read(Kind::Address, "somewhere", None), None);
    }
}
