//! `vulpes user`: who may use the cluster.
//!
//! Invariant: a command that fails has changed nothing, or says that this is not known.
//!
//! Deliberately absent: what a user may do besides administering (`role`).

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use comfy_table::{presets, Table};

use super::asked::{failed, Asked, Common, Done};
use super::login;
use crate::http::{AddUser, PasswordText, RemoveUser, SetUser, UserEdit, UserInfo};
use crate::types::access::{ADMIN, ANONYMOUS};

const EXAMPLES: &str = "\
Examples:
  vulpes user add ann                           the first user administers the cluster; its password is asked for
  export VULPES_USER=ann VULPES_PASSWORD=...    log in as ann from here on
  vulpes user add sensor --new-password-file sensor.txt
  vulpes user add anonymous --no-password       let in clients that don't log in as well
  vulpes user passwd sensor
  vulpes user key add sensor 3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29
  vulpes user list
  vulpes user disable sensor                    its sessions end, at all nodes
  vulpes user remove sensor

As long as there are no users, everybody may connect and administer. From the first one on, clients and
operators have to log in.";

/// Add, show, change and remove users
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Users {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Add a user; the first one gets the role admin unless roles are named
    Add(Add),
    /// Give a user another password
    Passwd(Passwd),
    /// Show all users
    List(Common),
    /// Show a user
    Show(Named),
    /// Let a user connect no more, and end its sessions
    Disable(Named),
    /// Let a user that was disabled connect again
    Enable(Named),
    /// Replace a user's roles
    Roles(Roles),
    /// Give a user a public key, or take one from it
    Key(Keys),
    /// Remove a user, and end its sessions
    Remove(Named),
}

#[derive(Debug, Args)]
struct Named {
    /// The user
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    common: Common,
}

/// Where a user's new password comes from.
#[derive(Debug, Args)]
struct NewPassword {
    /// File with the new password [default: asked for; standard input if that is no terminal]
    #[arg(long, value_name = "FILE")]
    new_password_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Add {
    /// The user
    #[arg(value_name = "NAME")]
    name: String,
    /// A role of it; can be given several times
    #[arg(long, value_name = "ROLE")]
    role: Vec<String>,
    #[command(flatten)]
    password: NewPassword,
    /// It has no password, so nobody can log in as it
    #[arg(long, conflicts_with = "new_password_file")]
    no_password: bool,
    /// Also add the user `anonymous`, so that clients that don't log in go on
    #[arg(long)]
    anonymous: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Passwd {
    /// The user
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    password: NewPassword,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Roles {
    /// The user
    #[arg(value_name = "NAME")]
    name: String,
    /// All roles that it has from now on
    #[arg(value_name = "ROLE")]
    roles: Vec<String>,
    #[command(flatten)]
    common: Common,
}

/// A user's public keys.
#[derive(Debug, Args)]
struct Keys {
    #[command(subcommand)]
    action: KeyAction,
}

#[derive(Debug, Subcommand)]
enum KeyAction {
    /// Let a user log in to WAMP by cryptosign with this key
    Add(Key),
    /// Let it do so no more; its sessions go on
    Remove(Key),
}

#[derive(Debug, Args)]
struct Key {
    /// The user
    #[arg(value_name = "NAME")]
    name: String,
    /// An Ed25519 public key: 64 hexadecimal digits
    #[arg(value_name = "KEY-HEX")]
    public_key: String,
    #[command(flatten)]
    common: Common,
}

impl Users {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self.action {
            Action::Add(add) => add.run().await,
            Action::Passwd(passwd) => passwd.run().await,
            Action::List(common) => list(&common.asked()?).await,
            Action::Show(Named { name, common }) => show(&common.asked()?, &name).await,
            Action::Disable(Named { name, common }) => {
                let set = SetUser { disabled: Some(true), ..set(&name) };
                common.asked()?.change(vec![UserEdit::Set(set)], "disabled").await
            }
            Action::Enable(Named { name, common }) => {
                let set = SetUser { disabled: Some(false), ..set(&name) };
                common.asked()?.change(vec![UserEdit::Set(set)], "enabled").await
            }
            Action::Roles(Roles { name, roles, common }) => {
                let set = SetUser { roles: Some(roles), ..set(&name) };
                common.asked()?.change(vec![UserEdit::Set(set)], "given these roles").await
            }
            Action::Key(Keys { action: KeyAction::Add(Key { name, public_key, common }) }) => {
                let set = SetUser { add_keys: vec![public_key], ..set(&name) };
                common.asked()?.change(vec![UserEdit::Set(set)], "given the key").await
            }
            Action::Key(Keys { action: KeyAction::Remove(Key { name, public_key, common }) }) => {
                let set = SetUser { remove_keys: vec![public_key], ..set(&name) };
                common.asked()?.change(vec![UserEdit::Set(set)], "rid of the key").await
            }
            Action::Remove(Named { name, common }) => {
                let remove = UserEdit::Remove(RemoveUser { name });
                common.asked()?.change(vec![remove], "removed").await
            }
        }
    }
}

fn set(name: &str) -> SetUser {
    SetUser { name: name.to_owned(), ..SetUser::default() }
}

impl Asked {
    /// Makes changes, of which the first is what was asked for.
    async fn change(&self, edits: Vec<UserEdit>, did: &str) -> anyhow::Result<()> {
        let changed = self.client.change_users(&self.url, &edits).await.map_err(failed)?;
        let user = edits.first().map_or("", UserEdit::name);
        let done = Done { changed, kind: "user", name: user, did };
        self.tell(&done, &format!("{user} is {did}"))
    }
}

impl Add {
    async fn run(self) -> anyhow::Result<()> {
        let asked = self.common.asked()?;
        // Before a password is asked for: whoever is refused here need not type one.
        let is_first = asked.client.users(&asked.url).await.map_err(failed)?.is_empty();
        let mut roles = self.role;
        if is_first && roles.is_empty() {
            eprintln!(
                "{} is the first user: it gets the role {ADMIN}, and from here on everybody has to log in{}",
                self.name,
                if self.anonymous { " or is anonymous" } else { "" }
            );
            roles.push(ADMIN.to_owned());
        }
        let password = match self.no_password {
            true => None,
            false => {
                let file = self.password.new_password_file.as_deref();
                Some(PasswordText(login::new_password(&self.name, file)?))
            }
        };
        let add = AddUser { name: self.name, password, roles, disabled: false };
        let mut edits = vec![UserEdit::Add(add)];
        if self.anonymous {
            let name = ANONYMOUS.to_owned();
            edits.push(UserEdit::Add(AddUser { name, ..AddUser::default() }));
        }
        asked.change(edits, "added").await
    }
}

impl Passwd {
    async fn run(self) -> anyhow::Result<()> {
        let asked = self.common.asked()?;
        asked.client.user(&asked.url, &self.name).await.map_err(failed)?;
        let file = self.password.new_password_file.as_deref();
        let password = PasswordText(login::new_password(&self.name, file)?);
        let set = SetUser { password: Some(password), ..set(&self.name) };
        asked.change(vec![UserEdit::Set(set)], "given the new password").await
    }
}

async fn list(asked: &Asked) -> anyhow::Result<()> {
    let users = asked.client.users(&asked.url).await.map_err(failed)?;
    let mut out = std::io::stdout().lock();
    if asked.json {
        for user in &users {
            writeln!(out, "{}", serde_json::to_string(user)?)?;
        }
    } else if users.is_empty() {
        writeln!(
            out,
            "there are no users: everybody may connect; `vulpes user add NAME` changes that"
        )?;
    } else {
        writeln!(out, "{}", table(&users))?;
    }
    Ok(out.flush()?)
}

async fn show(asked: &Asked, name: &str) -> anyhow::Result<()> {
    let user = asked.client.user(&asked.url, name).await.map_err(failed)?;
    let mut out = std::io::stdout().lock();
    match asked.json {
        true => writeln!(out, "{}", serde_json::to_string(&user)?)?,
        false => writeln!(out, "{}", table(std::slice::from_ref(&user)))?,
    }
    Ok(out.flush()?)
}

fn table(users: &[UserInfo]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY);
    table.set_header(["user", "roles", "password", "keys", "may connect", "changed"]);
    let word = |yes: bool| if yes { "yes" } else { "no" };
    for user in users {
        table.add_row([
            user.name.clone(),
            user.roles.join(" "),
            word(user.has_password).to_owned(),
            user.keys.len().to_string(),
            word(!user.disabled).to_owned(),
            user.changed.to_string(),
        ]);
    }
    table
}
