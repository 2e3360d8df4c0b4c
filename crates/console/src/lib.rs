//! The command line: `backstay <noun> <verb>`.
//!
//! Knows: what people type, and how answers are shown: as tables and progress bars, or as JSON.
//! Refuses to know: everything else; it asks the server and shows what it says.
//!
//! One file a noun: [`host`], [`repository`], [`job`], [`session`], [`machine`], [`point`],
//! [`restore`], [`verify`]. [`show`] draws, [`follow`] watches a session, [`server`] is the link.

pub mod failure;
pub mod follow;
pub mod host;
pub mod job;
pub mod machine;
pub mod password;
pub mod point;
pub mod repository;
pub mod restore;
pub mod server;
pub mod session;
pub mod show;
pub mod status;
pub mod verify;

use base::Result;
use clap::{Args, Subcommand};
use server::Server;
use std::path::PathBuf;

/// What help calls the options below.
const EVERYWHERE: &str = "Options of all commands";

/// Options that all nouns share.
#[derive(Clone, Debug, Args)]
pub struct Common {
    /// Answer as JSON instead of text
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub json: bool,
    /// Folder of the site's state, for the server's address and this console's identity
    #[arg(
        long = "site",
        global = true,
        help_heading = EVERYWHERE,
        default_value = "/var/lib/backstay",
        env = "BACKSTAY_STATE",
        value_name = "DIR"
    )]
    pub state: PathBuf,
    /// The server, if it is not the one of this host
    #[arg(
        long,
        global = true,
        help_heading = EVERYWHERE,
        env = "BACKSTAY_SERVER",
        value_name = "HOST:PORT"
    )]
    pub server: Option<String>,
}

/// What the command line is about.
#[derive(Clone, Debug, Subcommand)]
pub enum Noun {
    /// How the server is
    Status,
    /// Hosts whose mover services read and write
    #[command(subcommand)]
    Host(host::Verb),
    /// Where restore points are kept
    #[command(subcommand)]
    Repository(repository::Verb),
    /// What is backed up, where to, and when
    #[command(subcommand)]
    Job(job::Verb),
    /// Runs of jobs, restores and everything else
    #[command(subcommand)]
    Session(session::Verb),
    /// Machines that are or can be backed up
    #[command(subcommand)]
    Machine(machine::Verb),
    /// Restore points
    #[command(subcommand)]
    Point(point::Verb),
    /// Bring back a machine or a disk
    #[command(subcommand)]
    Restore(restore::Verb),
    /// Prove that restore points are whole
    Verify(verify::Verify),
}

/// Does what was typed; the exit code.
///
/// # Errors
/// Everything that keeps the answer from coming. [`failure::report`] shows it.
pub fn run(common: &Common, noun: &Noun) -> Result<u8> {
    let server = Server::connect(common)?;
    match noun {
        Noun::Status => status::run(&server),
        Noun::Host(verb) => host::run(&server, verb),
        Noun::Repository(verb) => repository::run(&server, verb),
        Noun::Job(verb) => job::run(&server, verb),
        Noun::Session(verb) => session::run(&server, verb),
        Noun::Machine(verb) => machine::run(&server, verb),
        Noun::Point(verb) => point::run(&server, verb),
        Noun::Restore(verb) => restore::run(&server, verb),
        Noun::Verify(verify) => verify::run(&server, verify),
    }
}
