//! Getting a password from a person, a file or the environment.
//!
//! Knows: how to ask without showing what is typed. Refuses to know: what it opens.

use base::{Error, Kind, Result};
use protocol::words::secret::Secret;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;

/// The variable that holds a repository's password for scripts.
pub const VARIABLE: &str = "BACKSTAY_PASSWORD";

/// Where the password comes from.
#[derive(Clone, Debug, clap::Args)]
pub struct Source {
    /// File whose first line is the password [default: the environment's BACKSTAY_PASSWORD, or a
    /// question at the terminal]
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}

impl Source {
    /// The password from the file, the environment or, at a terminal, the person. `new` asks twice.
    pub fn read(&self, prompt: &str, new: bool) -> Result<Secret> {
        if let Some(path) = &self.password_file {
            let text = std::fs::read_to_string(path)
                .map_err(|error| Error::io(format!("reading {}", path.display()), error))?;
            return not_empty(text.lines().next().unwrap_or_default());
        }
        if let Ok(text) = std::env::var(VARIABLE) {
            return not_empty(&text);
        }
        if !std::io::stdin().is_terminal() {
            return Err(Error::new(
                Kind::Invalid,
                "password.missing",
                "no password was given and nobody is here to ask",
            )
            .hint(format!("give --password-file, or set {VARIABLE}")));
        }
        let first = ask(prompt)?;
        if new && ask("Again: ")? != first {
            return Err(
                Error::invalid("password.differs", "the two passwords differ")
                    .hint("type the same one twice"),
            );
        }
        not_empty(&first)
    }
}

fn not_empty(text: &str) -> Result<Secret> {
    if text.is_empty() {
        return Err(Error::invalid("password.empty", "the password is empty")
            .hint("an empty one protects nothing; --no-encryption says so openly"));
    }
    Ok(Secret::new(text))
}

fn ask(prompt: &str) -> Result<String> {
    let stdin = std::io::stdin();
    let doing = "asking for the password";
    let mut stderr = std::io::stderr();
    let say = |error: std::io::Error| Error::io(doing, error);
    write!(stderr, "{prompt}")
        .and_then(|()| stderr.flush())
        .map_err(say)?;
    let shown = tcgetattr(&stdin).map_err(|error| Error::io(doing, error.into()))?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Flush, &hidden)
        .map_err(|error| Error::io(doing, error.into()))?;
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    let restored = tcsetattr(&stdin, OptionalActions::Flush, &shown);
    writeln!(stderr).map_err(say)?;
    restored.map_err(|error| Error::io(doing, error.into()))?;
    read.map_err(say)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
