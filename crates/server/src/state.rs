//! The state folder of a site: where each thing lies.
//!
//! Knows: names of files and folders, who may read them, and the lock that keeps a second server
//! out. Refuses to know: what is in the files.
//!
//! ```text
//! host                      id of this host
//! authority/                the site's own certificate authority
//! identities/<role>/        certificate and key of each role of this host
//! server/                   database and key of secrets
//! sessions/<session>/       journal and diagnostics of each session's manager
//! mover/                    the mover service's own
//! <role>.address            where a role listens now
//! <role>.lock               held by the role while it runs
//! ```

use crate::db::{self, Database};
use base::id::HostId;
use base::os::{OsClock, OsRandom};
use base::{Error, Kind, Result};
use protocol::Role;
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Where the state is unless somebody says otherwise.
pub const DEFAULT: &str = "/var/lib/backstay";

/// The state folder.
#[derive(Clone, Debug)]
pub struct State {
    folder: PathBuf,
}

impl State {
    /// Opens the folder, making it where missing: nobody else may look inside.
    pub fn open(folder: &Path) -> Result<Self> {
        make_private(folder)?;
        let folder = folder
            .canonicalize()
            .map_err(|error| Error::io(format!("opening {}", folder.display()), error))?;
        Ok(Self { folder })
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The identity of a role of this host.
    pub fn identity(&self, role: Role) -> PathBuf {
        self.folder.join("identities").join(role.as_str())
    }

    /// The authority.
    pub fn authority(&self) -> PathBuf {
        self.folder.join("authority")
    }

    /// A file of the server's own.
    pub fn server_file(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.join("server");
        make_private(&folder)?;
        Ok(folder.join(name))
    }

    /// Id of this host, made at first.
    pub fn host(&self) -> Result<HostId> {
        let path = self.folder.join("host");
        match std::fs::read_to_string(&path) {
            Ok(text) => text.trim().parse(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let id = HostId::generate(&OsClock, &OsRandom);
                write_file(&path, &format!("{id}\n"))?;
                Ok(id)
            }
            Err(error) => Err(Error::io(format!("reading {}", path.display()), error)),
        }
    }

    /// Holds the lock of a role until dropped.
    ///
    /// # Errors
    /// `Conflict` where another process of that role runs on this folder.
    pub fn lock(&self, role: &str) -> Result<File> {
        let path = self.folder.join(format!("{role}.lock"));
        let doing = || format!("locking {}", path.display());
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| Error::io(doing(), error))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::new(
                Kind::Conflict,
                "state.in-use",
                format!("a {role} runs on {} already", self.folder.display()),
            )
            .hint("stop it first, or name another folder with --state")),
            Err(error) => Err(Error::io(doing(), error.into())),
        }
    }

    /// Writes down where a role listens.
    pub fn write_address(&self, role: &str, address: &str) -> Result<()> {
        write_file(
            &self.folder.join(format!("{role}.address")),
            &format!("{address}\n"),
        )
    }

    /// Where a role listens, as it last wrote down.
    pub fn address(&self, role: &str) -> Result<String> {
        let path = self.folder.join(format!("{role}.address"));
        let text = std::fs::read_to_string(&path)
            .map_err(|error| Error::io(format!("reading {}", path.display()), error))?;
        Ok(text.trim().to_owned())
    }

    /// Makes this very host known to the server.
    pub fn register_local_host(&self, database: &Database, mover: &str) -> Result<()> {
        let id = self.host()?;
        database.transaction(|t| {
            let known = db::host::list(t)?.into_iter().find(|host| host.id == id);
            let name = known.map_or_else(|| "local".to_owned(), |host| host.name);
            db::host::put(t, id, &name, mover)
        })
    }
}

fn make_private(folder: &Path) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| Error::io(format!("making the folder {}", folder.display()), error))
}

/// Writes a small file whole: whoever reads it sees the old content or the new.
fn write_file(path: &Path, text: &str) -> Result<()> {
    let doing = || format!("writing {}", path.display());
    let part = path.with_extension(format!("{}.part", std::process::id()));
    let write = || -> std::io::Result<()> {
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&part)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&part, path)
    };
    write().map_err(|error| Error::io(doing(), error))
}
