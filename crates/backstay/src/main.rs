//! The program: one binary, every role.
//!
//! Knows: which sub-command is which role or noun. Refuses to know: what they do.

use clap::{Args, CommandFactory, Parser, Subcommand};
use console::{Common, Noun};
use std::process::ExitCode;

/// Backup and replication for virtual machines and computers.
#[derive(Parser)]
#[command(name = "backstay", version, about, max_term_width = 100)]
struct Program {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[command(flatten)]
    Noun(Noun),
    /// Run a whole site on this machine: server and mover service
    Up(server::up::Args),
    /// Run the server
    Server(server::Args),
    /// Run the mover service of a host
    Mover(mover::service::Args),
    /// Run the manager of one session (the server starts it)
    #[command(hide = true)]
    Manager(manager::Args),
    /// Run an agent (the mover service starts it)
    #[command(hide = true)]
    Agent(mover::agent::Args),
    /// Open a repository without any server: list, read, compare, extract, verify
    Client(mover::client::Args),
    /// Print the completion script of a shell
    Completion(Completion),
}

#[derive(Args)]
struct Completion {
    /// Which shell
    shell: clap_complete::Shell,
}

fn main() -> ExitCode {
    let program = Program::parse();
    log_to_stderr(&program.command);
    let json = program.common.json;
    let ended = match program.command {
        Command::Noun(noun) => console::run(&program.common, &noun),
        Command::Up(args) => server::up::run(&args).map(|()| 0),
        Command::Server(args) => server::run(&args).map(|()| 0),
        Command::Mover(args) => mover::service::run(&args).map(|()| 0),
        Command::Manager(args) => manager::run(&args).map(|()| 0),
        Command::Agent(args) => mover::agent::run(&args).map(|()| 0),
        Command::Client(args) => mover::client::run(&args).map(|()| 0),
        Command::Completion(args) => {
            let mut command = Program::command();
            clap_complete::generate(args.shell, &mut command, "backstay", &mut std::io::stdout());
            Ok(0)
        }
    };
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(error) => ExitCode::from(console::failure::report(&error, json)),
    }
}

/// Roles say on standard error what they do; commands of people only what goes wrong.
fn log_to_stderr(command: &Command) {
    let usual = match command {
        Command::Noun(_) | Command::Client(_) | Command::Completion(_) => "error",
        _ => "info",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("BACKSTAY_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(usual));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}
