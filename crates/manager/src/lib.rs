//! The manager: one process for each session at work. It plans, then gives orders, step by step.
//!
//! Knows: what each kind of session does and in which order, what must be undone when it cannot be
//! finished, hypervisors through `platform`, and agents through the words of `protocol`.
//! Refuses to know: databases (it tells the server), repositories and disks (agents open them).
//!
//! # Where to begin reading
//! [`run`] is the process; [`job`] has one folder or file a kind of session; [`journal`] is what
//! makes a crash harmless; [`desk`] is all that is said to the server.

pub mod agents;
pub mod ask;
pub mod desk;
pub mod job;
pub mod journal;
pub mod link;
pub mod platforms;
pub mod retention;

use agents::Agents;
use base::id::SessionId;
use base::os::{OsClock, OsRandom};
use base::{Error, Result};
use desk::Desk;
use job::Run;
use journal::Journal;
use link::{ServerLink, TlsDial};
use protocol::words::manager::ManagerRequest;
use protocol::{Dialer, Identity, LinkOptions};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How often the server hears that the manager lives, and the manager that it shall stop.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(1);

/// How a manager is started. The server does it; people do not.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Folder of the site's state
    #[arg(long)]
    pub state: PathBuf,
    /// `address:port` of the server
    #[arg(long)]
    pub server: String,
    /// The session to run
    #[arg(long)]
    pub session: SessionId,
    /// Only undo what an earlier manager of the session left
    #[arg(long)]
    pub recover: bool,
}

/// Runs a session to its end.
pub fn run(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Error::io("starting the runtime", error))?;
    let identity = Identity::load(&args.state.join("identities/manager"))?;
    let dialer = Dialer::new(identity, LinkOptions::default());
    let attach = ManagerRequest::Attach {
        session: args.session,
        pid: std::process::id(),
    };
    let (server, order) = ServerLink::attach(
        runtime.handle().clone(),
        dialer.clone(),
        args.server.clone(),
        attach,
    )?;
    let desk = Arc::new(Desk::new(
        Arc::new(server),
        Arc::new(OsClock),
        Arc::new(OsRandom),
    ));
    let folder = args.state.join("sessions").join(args.session.to_string());
    let journal = Arc::new(Journal::open(&folder)?);
    let dial = Arc::new(TlsDial {
        runtime: runtime.handle().clone(),
        dialer,
    });
    let agents = Agents::new(
        order.id,
        order.hosts.clone(),
        dial,
        journal.clone(),
        desk.clone(),
    );
    let platforms = Arc::new(platforms::Real);
    let session = Run {
        order,
        desk: desk.clone(),
        journal,
        agents,
        platforms,
    };
    beat(desk);
    if args.recover {
        job::recover::run(&session)
    } else {
        session.to_the_end()
    }
}

/// Tells the server now and then that the manager lives, and hears whether to stop.
fn beat(desk: Arc<Desk>) {
    std::thread::spawn(move || {
        loop {
            if let Err(error) = desk.heartbeat() {
                // The session was ended without us, or the server is gone for good: stop what runs.
                tracing::error!(%error, "heartbeat");
                desk.cancel.cancel();
                return;
            }
            std::thread::sleep(HEARTBEAT_EVERY);
        }
    });
}
