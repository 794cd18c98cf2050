//! The user that a command logs in as, and how passwords are read.
//!
//! Invariant: a password is never an argument, which every user of the machine can see, and is never shown. It comes from a file,
//! from the environment, or from a terminal without echo.
//!
//! Deliberately absent: where passwords are kept between commands.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context};
use clap::Args;

use crate::client::admin::{AdminClient, AdminError};
use crate::types::access::{Login, Secret};
use crate::types::limits;

/// The user that a command logs in as.
const USER: &str = "VULPES_USER";

/// Its password.
const PASSWORD: &str = "VULPES_PASSWORD";

/// What to do if a login is refused or needed.
pub(super) const ADVICE: &str =
    "log in with --user NAME and --password-file FILE, or with VULPES_USER and VULPES_PASSWORD";

/// Who asks. Without a name, nobody logs in.
#[derive(Debug, Args)]
pub(super) struct LoginArgs {
    /// User to log in as [default: the environment variable VULPES_USER, or none]
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// File with that user's password [default: the environment variable VULPES_PASSWORD, or a question]
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

impl LoginArgs {
    /// The user and its password, if one was named.
    pub(super) fn read(&self) -> anyhow::Result<Option<Login>> {
        let named = self.user.clone().or_else(|| variable(USER));
        let Some(user) = named else {
            ensure!(
                self.password_file.is_none(),
                "--password-file needs to know whose password it has: add --user NAME"
            );
            return Ok(None);
        };
        let password = match (&self.password_file, variable(PASSWORD)) {
            (Some(file), _) => from_file(file)?,
            (None, Some(password)) => password,
            (None, None) if io::stdin().is_terminal() => ask(&format!("Password of {user}: "))?,
            (None, None) => bail!("no password for {user}; {ADVICE}"),
        };
        Ok(Some(Login { user, password: Secret(password.into_bytes().into()) }))
    }

    /// A client of admin HTTP that asks as this user.
    pub(super) fn admin(&self) -> anyhow::Result<AdminClient> {
        Ok(AdminClient::new(self.read()?))
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// An error of admin HTTP, with what to do if it is about the login.
pub(super) fn advised(error: AdminError) -> String {
    match error {
        AdminError::LoginRefused { .. } => format!("{error}; {ADVICE}"),
        error => error.to_string(),
    }
}

/// Whether an error says what to do about a login.
pub(super) fn is_advised(error: &str) -> bool {
    error.ends_with(ADVICE)
}

/// A new password for a user: from a file, twice from a terminal, or else from standard input.
pub(super) fn new_password(user: &str, file: Option<&Path>) -> anyhow::Result<String> {
    let Some(file) = file else {
        if !io::stdin().is_terminal() {
            return whole(io::stdin().lock()).context("can't read a password from standard input");
        }
        let password = ask(&format!("New password of {user}: "))?;
        let again = ask("The same again: ")?;
        ensure!(password == again, "these were two passwords; nothing was changed; try again");
        return Ok(password);
    };
    from_file(file)
}

fn from_file(file: &Path) -> anyhow::Result<String> {
    let opened = File::open(file).map_err(anyhow::Error::from);
    let password = opened.and_then(whole);
    password.with_context(|| format!("can't read a password from {}", file.display()))
}

/// A password that is all there is to read, except for the end of its line.
fn whole(source: impl Read) -> anyhow::Result<String> {
    let mut text = String::new();
    let most = limits::PASSWORD + "\r\n".len();
    source.take(most as u64 + 1).read_to_string(&mut text)?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    ensure!(line.len() <= limits::PASSWORD, "a password has {} bytes at most", limits::PASSWORD);
    ensure!(!line.contains('\n'), "it has more than one line");
    ensure!(!line.is_empty(), "it is empty");
    Ok(line.to_owned())
}

fn ask(question: &str) -> anyhow::Result<String> {
    rpassword::prompt_password(question).context("can't ask for a password on the terminal")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_one_line() {
        let longest = "x".repeat(limits::PASSWORD);
        for (text, expected) in [
            ("pencil", Some("pencil")),
            ("pencil\n", Some("pencil")),
            ("pencil \r\n", Some("pencil ")),
            (&format!("{longest}\r\n"), Some(&*longest)),
            (&format!("{longest}x"), None),
            ("one\ntwo\n", None),
            ("pencil\n\n", None),
            ("\n", None),
            ("", None),
        ] {
            assert_eq!(whole(text.as_bytes()).ok().as_deref(), expected, "{text:?}");
        }
        assert!(whole(&[0xff_u8][..]).is_err());
    }
}
