//! The program: one binary, every role.
//!
//! Knows: which sub-command is which role or noun. Refuses to know: what they do.

use clap::{Args, CommandFactory, Parser, Subcommand};
use console::{Common, Noun};
use std::io::IsTerminal;
use std::process::ExitCode;

/// Backup and replication for virtual machines and computers.
#[derive(Parser)]
#[command(name = "backstay", version, about, max_term_width = 100)]
struct Program {
    #[command(flatten)]
    common: Common,
    /// The process that started this role and is to be outlived by nothing of it
    #[arg(long, hide = true, value_name = "PID")]
    supervisor: Option<u32>,
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
    let program = match Program::try_parse() {
        Ok(program) => program,
        Err(error) => return misunderstood(&error),
    };
    log_to_stderr(&program.command);
    let json = program.common.json;
    match run(program) {
        Ok(code) => ExitCode::from(code),
        // `| head` has seen enough.
        Err(error) if error.code() == mover::client::READER_GONE => ExitCode::SUCCESS,
        Err(error) => ExitCode::from(console::failure::report(&error, json)),
    }
}

fn run(program: Program) -> base::Result<u8> {
    if let Some(supervisor) = program.supervisor {
        server::up::end_with(supervisor)?;
    }
    match program.command {
        Command::Noun(noun) => console::run(&program.common, &noun),
        Command::Up(args) => server::up::run(&args).map(|()| 0),
        Command::Server(args) => server::run(&args).map(|()| 0),
        Command::Mover(args) => mover::service::run(&args).map(|()| 0),
        Command::Manager(args) => manager::run(&args).map(|()| 0),
        Command::Agent(args) => mover::agent::run(&args).map(|()| 0),
        Command::Client(args) => mover::client::run(&args).map(|()| 0),
        Command::Completion(args) => {
            let (mut command, mut script) = (Program::command(), Vec::new());
            clap_complete::generate(args.shell, &mut command, "backstay", &mut script);
            console::show::line(&String::from_utf8_lossy(&script)).map(|()| 0)
        }
    }
}

/// What the parser has to say: help goes to standard output, mistakes to standard error, as JSON
/// where that was asked for.
fn misunderstood(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand as Nothing;
    let wants_json = std::env::args_os().any(|argument| argument == "--json");
    if !error.use_stderr() || error.kind() == Nothing || !wants_json {
        error.exit();
    }
    let text = error.render().to_string();
    let text = text.trim_end().trim_start_matches("error: ");
    let shown = base::Error::invalid("console.usage", text)
        .hint("\u{201c}backstay --help\u{201d} says what there is");
    ExitCode::from(console::failure::report(&shown, true))
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
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
}
