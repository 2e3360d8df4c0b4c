//! The mover's three roles as a small program of their own: what tests start as real processes
//! where the whole product is not built.

use clap::Parser;
use std::process::ExitCode;

#[derive(Parser)]
enum Role {
    /// Start and end agents on this host
    Mover(mover::service::Args),
    /// Move data for one session
    Agent(mover::agent::Args),
    /// A repository by hand
    Client(mover::client::Args),
}

fn main() -> ExitCode {
    let result = match Role::parse() {
        Role::Mover(args) => mover::service::run(&args),
        Role::Agent(args) => mover::agent::run(&args),
        Role::Client(args) => mover::client::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error} [{}]", error.code());
            ExitCode::from(error.kind().exit_code())
        }
    }
}
