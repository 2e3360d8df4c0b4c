//! `backstay repository ...`
//!
//! Knows: what people say of repositories. Refuses to know: what is inside.

use crate::follow::Wait;
use crate::password;
use crate::server::{Server, unexpected};
use crate::show::{self, Table};
use base::{Error, Result};
use clap::{Subcommand, ValueEnum};
use protocol::words::console::{ConsoleRequest as Q, ConsoleResponse as A, Repository};
use protocol::words::repository::{Compression, RepositoryLocation, RepositoryOptions};
use std::path::{Path, PathBuf};

/// What to do with repositories.
#[derive(Clone, Debug, Subcommand)]
pub enum Verb {
    /// Show all repositories
    List,
    /// Make a repository
    Create {
        /// Name for the repository
        name: String,
        /// Folder on its host: new or empty
        #[arg(long)]
        path: PathBuf,
        /// Host it is on
        #[arg(long, default_value = "local")]
        host: String,
        /// Do not encrypt
        #[arg(long, conflicts_with = "password_file")]
        no_encryption: bool,
        /// Where the password comes from
        #[command(flatten)]
        password: password::Source,
        /// How new data is compressed unless a job says otherwise
        #[arg(long, value_enum, default_value = "fast")]
        compression: CompressionName,
        /// Whether to watch the session
        #[command(flatten)]
        wait: Wait,
    },
    /// Take in a repository that exists, with all its restore points
    Open {
        /// Name for the repository
        name: String,
        /// Its folder
        #[arg(long)]
        path: PathBuf,
        /// Host it is on
        #[arg(long, default_value = "local")]
        host: String,
        /// It is not encrypted
        #[arg(long, conflicts_with = "password_file")]
        no_encryption: bool,
        /// Where the password comes from
        #[command(flatten)]
        password: password::Source,
        /// Whether to watch the session
        #[command(flatten)]
        wait: Wait,
    },
    /// Look what restore points a repository has
    Rescan {
        /// Name or id
        repository: String,
        /// Whether to watch the session
        #[command(flatten)]
        wait: Wait,
    },
    /// Free what no restore point needs
    Collect {
        /// Name or id
        repository: String,
        /// Whether to watch the session
        #[command(flatten)]
        wait: Wait,
    },
    /// Forget a repository that no job uses; its files stay
    Remove {
        /// Name or id
        repository: String,
    },
}

/// Names of compressions.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum CompressionName {
    /// Not at all
    None,
    /// zstd level 1
    Fast,
    /// zstd level 3
    Balanced,
    /// zstd level 9
    High,
}

impl From<CompressionName> for Compression {
    fn from(name: CompressionName) -> Self {
        match name {
            CompressionName::None => Self::None,
            CompressionName::Fast => Self::Fast,
            CompressionName::Balanced => Self::Balanced,
            CompressionName::High => Self::High,
        }
    }
}

/// Does it.
pub fn run(server: &Server, verb: &Verb) -> Result<u8> {
    let wait = match verb {
        Verb::List => {
            return match server.ask(&Q::RepositoryList)? {
                A::Repositories(repositories) => list(server, &repositories).map(|()| 0),
                other => Err(unexpected(&other)),
            };
        }
        Verb::Remove { repository } => return remove(server, repository),
        Verb::Create { wait, .. }
        | Verb::Open { wait, .. }
        | Verb::Rescan { wait, .. }
        | Verb::Collect { wait, .. } => wait,
    };
    match server.ask(&request(verb)?)? {
        A::Session(session) => wait.show(server, &session),
        other => Err(unexpected(&other)),
    }
}

fn remove(server: &Server, repository: &str) -> Result<u8> {
    let request = Q::RepositoryRemove {
        key: repository.to_owned(),
    };
    match server.ask(&request)? {
        A::Done => {
            let text = format!("repository {repository} forgotten; its files are untouched");
            show::done(server.json(), &text).map(|()| 0)
        }
        other => Err(unexpected(&other)),
    }
}

/// What is asked for the verbs that start a session.
fn request(verb: &Verb) -> Result<Q> {
    Ok(match verb {
        Verb::Create {
            name,
            path,
            host,
            no_encryption,
            password,
            compression,
            ..
        } => {
            let prompt = "Password for the repository (without it nothing can be restored): ";
            let encrypted = !no_encryption;
            Q::RepositoryCreate {
                name: name.clone(),
                host: host.clone(),
                location: folder(path)?,
                password: encrypted.then(|| password.read(prompt, true)).transpose()?,
                options: RepositoryOptions {
                    encrypted,
                    compression: (*compression).into(),
                },
            }
        }
        Verb::Open {
            name,
            path,
            host,
            no_encryption,
            password,
            ..
        } => {
            let ask = || password.read("Password of the repository: ", false);
            Q::RepositoryOpen {
                name: name.clone(),
                host: host.clone(),
                location: folder(path)?,
                password: (!no_encryption).then(ask).transpose()?,
            }
        }
        Verb::Rescan { repository, .. } => Q::RepositoryRescan {
            key: repository.clone(),
        },
        Verb::Collect { repository, .. } => Q::RepositoryCollect {
            key: repository.clone(),
        },
        Verb::List | Verb::Remove { .. } => Q::RepositoryList,
    })
}

fn folder(path: &Path) -> Result<RepositoryLocation> {
    absolute(path).map(|path| RepositoryLocation::Folder { path })
}

/// A path from the root on. What is relative is meant from here.
pub fn absolute(path: &Path) -> Result<String> {
    let path = std::path::absolute(path)
        .map_err(|error| Error::io(format!("finding {}", path.display()), error))?;
    path.to_str().map(str::to_owned).ok_or_else(|| {
        Error::invalid(
            "console.path",
            format!("{} is not valid UTF-8", path.display()),
        )
        .hint("name a path that is plain text")
    })
}

fn list(server: &Server, repositories: &[Repository]) -> Result<()> {
    if server.json() {
        return show::json(&repositories);
    }
    let mut table = Table::new(&[
        "NAME",
        "POINTS",
        "STORED",
        "FREE",
        "CAPACITY",
        "ENCRYPTED",
        "PLACE",
    ]);
    for repository in repositories {
        table.row(vec![
            repository.name.clone(),
            repository.points.to_string(),
            repository.stored.to_string(),
            repository.free.to_string(),
            repository.capacity.to_string(),
            if repository.encrypted { "yes" } else { "no" }.to_owned(),
            repository.location.to_string(),
        ]);
    }
    table.print("no repositories; make one with \u{201c}backstay repository create\u{201d}")
}
