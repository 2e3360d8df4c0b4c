//! `backstay client`: a repository by hand, without any server.
//!
//! Knows: a prompt, its commands, and how their answers are shown as text or JSON. Refuses to know:
//! how anything is done: every command becomes the words that a manager says to an agent, done by
//! the same [`Executor`](crate::executor::Executor), so what a manager can do a person can replay.
//!
//! ```text
//! backstay client /backup ls -l          one command
//! backstay client /backup                a prompt
//! backstay client < script               a prompt's lines from a file; ends at the first failure
//! ```

mod command;
mod deeds;
mod password;
mod place;
mod show;
mod split;

use base::{Error, Result};
use clap::Parser;
use command::Line;
use deeds::{Client, Next};
use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;

/// Code of the error that ends work whose answer nobody reads any more.
pub const READER_GONE: &str = "mover.client.reader-gone";
/// The longest line of a prompt, in bytes.
const LINE_LENGTH_MAX: u64 = 64 << 10;

/// Open a repository by hand, without any server.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Answer in JSON, one value a line
    #[arg(long)]
    pub json: bool,
    /// File whose first line is the repository's password [default: the environment's
    /// BACKSTAY_PASSWORD, or a question at the terminal]
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Folder of the repository to open
    #[arg(value_name = "REPOSITORY")]
    pub repository: Option<PathBuf>,
    /// A command of the prompt; without one the prompt opens. "help" lists them
    #[arg(
        value_name = "COMMAND",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub command: Vec<String>,
}

/// Runs one command, or the prompt until its end.
///
/// # Errors
/// Of the one command, or of the first line that fails where lines come from a file.
pub fn run(args: &Args) -> Result<()> {
    eprintln!(
        "backstay client {}, process {}, log on standard error (BACKSTAY_LOG sets how much)",
        env!("CARGO_PKG_VERSION"),
        std::process::id()
    );
    // Everything after the repository is the command's, options at the end of the line too: they
    // hold for the opening as well.
    let mut line = match Line::try_parse_from(&args.command) {
        Ok(line) => line,
        Err(error) if !error.use_stderr() => return show::text(&error.render().to_string()),
        Err(_) => parse(&args.command)?,
    };
    let json = args.json || line.json;
    let password_file = line.password_file.take().or(args.password_file.clone());
    let mut client = Client::new(json, password_file);
    if let Some(repository) = &args.repository {
        client.open(repository)?;
    }
    if line.command.is_none() {
        prompt(&mut client)
    } else {
        client.run(line).map(drop)
    }
}

/// Words as a command.
fn parse(words: &[String]) -> Result<Line> {
    Line::try_parse_from(words).map_err(|error| {
        Error::invalid(
            "mover.client.command",
            error.render().to_string().trim_end().to_owned(),
        )
    })
}

fn prompt(client: &mut Client) -> Result<()> {
    let stdin = std::io::stdin();
    let interactive = stdin.is_terminal();
    let mut input = stdin.lock();
    loop {
        if interactive {
            eprint!("backstay> ");
            drop(std::io::stderr().flush());
        }
        let Some(line) = read_line(&mut input)? else {
            return Ok(());
        };
        match run_line(client, &line) {
            Ok(Next::Go) => {}
            Ok(Next::Quit) => return Ok(()),
            Err(error) if interactive => show::error(&error),
            Err(error) => return Err(error),
        }
    }
}

fn read_line(input: &mut impl BufRead) -> Result<Option<String>> {
    let mut line = String::new();
    let read = std::io::Read::take(input, LINE_LENGTH_MAX).read_line(&mut line);
    match read.map_err(|error| Error::io("reading the next command", error))? {
        0 => Ok(None),
        _ => Ok(Some(line)),
    }
}

fn run_line(client: &mut Client, line: &str) -> Result<Next> {
    let words = split::words(line)?;
    if words.is_empty() {
        return Ok(Next::Go);
    }
    match Line::try_parse_from(&words) {
        Ok(line) => client.run(line),
        // "help" is an "error" of the parser too, with another place to go.
        Err(error) if !error.use_stderr() => {
            show::text(&error.render().to_string())?;
            Ok(Next::Go)
        }
        Err(_) => parse(&words).map(|_| Next::Go),
    }
}

#[cfg(test)]
mod tests;
