//! The server: the memory and the will of a site.
//!
//! Knows: hosts, repositories, jobs, sessions and points as rows; when jobs are due; who may use
//! what; which manager runs which session. Refuses to know: what is inside a repository or on a
//! disk: managers send agents there, and the server is told.
//!
//! # Where to begin reading
//! [`run`] is the process; [`sessions`] is the life of a session; [`api`] has one file a noun;
//! [`up`] runs a whole site on one machine.

pub mod api;
pub mod clockwork;
pub mod db;
pub mod doors;
pub mod launch;
pub mod live;
pub mod resources;
pub mod schedule;
pub mod secrets;
pub mod sessions;
pub mod site;
pub mod state;
pub mod up;

use base::os::{OsClock, OsRandom};
use base::{Error, Result};
use launch::Launch;
use protocol::{Dialer, Expect, Identity, LinkOptions, Listener, Role};
use secrets::Secrets;
use site::{Parts, Site};
use state::State;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// How the server is started.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Folder of the site's state
    #[arg(long, default_value = state::DEFAULT, env = "BACKSTAY_STATE")]
    pub state: PathBuf,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:9419")]
    pub listen: SocketAddr,
    /// Address of the mover service of this very host
    #[arg(long)]
    pub local_mover: Option<String>,
}

/// Runs the server until it is asked to end.
pub fn run(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::io("starting the runtime", error))?;
    runtime.block_on(serve(args))
}

async fn serve(args: &Args) -> Result<()> {
    let state = State::open(&args.state)?;
    let _only_one = state.lock("server")?;
    let identity = Identity::load(&state.identity(Role::Server))?;
    let options = LinkOptions::default();
    let expect = Expect::roles(&[Role::Console, Role::Manager]);
    let listener = Listener::bind(args.listen, &identity, expect, options.clone()).await?;
    let address = listener.address().unwrap_or(args.listen).to_string();
    let random = Arc::new(OsRandom);
    let site = Arc::new(Site::new(Parts {
        database: db::Database::open(&state.server_file("backstay.db")?)?,
        secrets: Secrets::open(&state.server_file("secrets.key")?, random.as_ref())?,
        launch: Launch {
            program: launch::OWN_PROGRAM.into(),
            state: state.folder().to_owned(),
            server: address.clone(),
        },
        dialer: Dialer::new(identity, options),
        host: state.host()?,
        clock: Arc::new(OsClock),
        random,
    }));
    if let Some(mover) = &args.local_mover {
        state.register_local_host(&site.database, mover)?;
    }
    sessions::resume_all(&site)?;
    tokio::spawn(clockwork::run(site.clone()));
    state.write_address("server", &address)?;
    tracing::info!(address, "the server listens");
    tokio::select! {
        ended = doors::run(site, listener) => ended,
        () = end_requested() => {
            tracing::info!("asked to end; managers go on and come back to the next server");
            Ok(())
        }
    }
}

/// Returns when the process is asked to end.
pub async fn end_requested() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
