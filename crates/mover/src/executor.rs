//! Does every command of the data plane.
//!
//! Knows: the open repository, the point in the making and the tasks of one process. Refuses to
//! know: whether a command came over a link or from a person's prompt.
//!
//! | file | commands |
//! |---|---|
//! | [`repository`] | creating, opening, listing, deleting, collecting, verifying |
//! | [`inspect`] | reading files, bytes, maps and differences of points |
//! | [`making`] | a new point: begin, disks, files, commit, abort |
//! | [`restoring`] | writing disks of points |
//! | [`streaming`] | disks and images from and to other agents |
//! | [`host_files`] | images and small files of the host |

mod host_files;
mod inspect;
mod making;
mod network;
mod repository;
mod restoring;
mod streaming;
mod translate;

use crate::task::Tasks;
use base::clock::Clock;
use base::files::Files;
use base::random::Random;
use base::{Error, Kind, Result};
use host_files::HostFiles;
use making::Making;
pub use network::Network;
use protocol::words::agent::{AgentRequest, AgentResponse};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use store::{Environment, Repository};

/// The longest that one `Progress` may wait: well below the deadline of a call.
const PROGRESS_WAIT_MAX: Duration = Duration::from_secs(30);

/// Does commands. Any number of threads may hand them in.
pub struct Executor {
    environment: Environment,
    network: Option<Network>,
    /// Before `state`: tasks are stopped before what they use goes away.
    tasks: Tasks,
    host_files: HostFiles,
    state: Mutex<State>,
}

/// What is open.
#[derive(Default)]
struct State {
    opened: Option<Opened>,
    making: Option<Arc<Making>>,
}

/// A repository and the folder it is in.
#[derive(Clone)]
struct Opened {
    repository: Repository,
    files: Arc<dyn Files>,
}

impl Executor {
    /// An executor with nothing open.
    pub fn new(clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        Self {
            environment: Environment { clock, random },
            network: None,
            tasks: Tasks::default(),
            host_files: HostFiles::default(),
            state: Mutex::default(),
        }
    }

    /// An executor with this machine's clock and randomness.
    pub fn of_this_machine() -> Self {
        Self::new(Arc::new(base::os::OsClock), Arc::new(base::os::OsRandom))
    }

    /// Lets it speak to other agents.
    #[must_use]
    pub fn with_network(mut self, network: Network) -> Self {
        self.network = Some(network);
        self
    }

    /// Does a command. Long work goes on in a task after this has returned.
    ///
    /// # Errors
    /// Those of the command.
    pub fn execute(&self, request: AgentRequest) -> Result<AgentResponse> {
        use AgentRequest as R;
        match request {
            R::CreateRepository { access, options } => self.create_repository(&access, &options),
            R::OpenRepository { access } => self.open_repository(&access),
            R::ListPoints { after } => self.list_points(after),
            R::ShowPoint { point } => self.show_point(point),
            R::DeletePoints { points } => self.delete_points(&points),
            R::Collect => self.collect(),
            R::Verify { point, read_data } => self.verify(point, read_data),
            R::ReadFile { point, path, from } => self.read_file(point, &path, from),
            R::ReadDisk { point, disk, range } => self.read_disk(point, &disk, range),
            R::MapDisk { point, disk, from } => self.map_disk(point, &disk, from),
            R::DiffDisk {
                point,
                other,
                disk,
                from,
            } => self.diff_disk(point, other, &disk, from),
            R::BeginPoint { point, compression } => self.begin_point(point, compression),
            R::CopyDisk { order } => self.copy_disk(order),
            R::PutFile {
                path,
                from,
                bytes,
                more,
            } => self.put_file(&path, from, &bytes, more),
            R::CommitPoint { draft, trackers } => self.commit_point(draft, trackers),
            R::AbortPoint => self.abort_point(),
            R::RestoreDisk {
                point,
                disk,
                target,
            } => self.restore_disk(point, disk, target),
            R::ReceiveDisk { order, stream } => self.receive_disk(order, &stream),
            R::SendDisk { order, to, stream } => self.send_disk(order, to, &stream),
            R::SendPointDisk {
                point,
                disk,
                to,
                stream,
            } => self.send_point_disk(point, disk, to, &stream),
            R::ReceiveImage {
                size,
                target,
                stream,
            } => self.receive_image(size, target, &stream),
            R::ProbeImage { path } => host_files::probe_image(&path),
            R::ReadHostFile { path, from } => host_files::read(&path, from),
            R::WriteHostFile {
                path,
                from,
                bytes,
                more,
            } => self.host_files.write(&path, from, &bytes, more),
            R::RemoveHostFiles { paths } => self.host_files.remove(&paths),
            R::Progress { task, wait_millis } => {
                let wait = Duration::from_millis(wait_millis.into()).min(PROGRESS_WAIT_MAX);
                Ok(AgentResponse::Task(Box::new(
                    self.tasks.find(task)?.report(wait),
                )))
            }
            R::Cancel { task } => {
                self.tasks.find(task)?.cancel.cancel();
                Ok(AgentResponse::Done)
            }
        }
    }

    /// Ends everything: tasks are stopped, what was not committed is thrown away.
    pub fn close(&self) {
        self.tasks.stop();
        self.host_files.remove_unfinished();
        if let Err(error) = self.abort_point() {
            tracing::warn!(
                code = error.code(),
                "throwing the unfinished point away: {error}"
            );
        }
        self.state().opened = None;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The open repository.
    fn opened(&self) -> Result<Opened> {
        self.state().opened.clone().ok_or_else(|| {
            Error::new(
                Kind::Conflict,
                "mover.repository.not-open",
                "no repository is open here",
            )
            .hint("open one first")
        })
    }

    fn repository(&self) -> Result<Repository> {
        Ok(self.opened()?.repository)
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.close();
    }
}
