//! Requests about repositories.
//!
//! Knows: names, passwords, which session each request starts. Refuses to know: what is inside:
//! every look into a repository is a session with a manager and an agent.

use crate::db;
use crate::sessions::{self, Request};
use crate::site::{Site, check_name};
use base::id::{PointId, RepositoryId};
use base::size::ByteCount;
use base::{Error, Kind, Result};
use protocol::words::console::{ConsoleResponse as A, Repository};
use protocol::words::repository::{RepositoryLocation, RepositoryOptions};
use protocol::words::secret::Secret;
use protocol::words::session::SessionKind;
use std::sync::Arc;

/// A repository's name, place and key, as a person gives them.
pub struct Place {
    /// Unique name.
    pub name: String,
    /// Name or id of its host.
    pub host: String,
    /// Where.
    pub location: RepositoryLocation,
    /// Its password.
    pub password: Option<Secret>,
}

pub fn list(site: &Site) -> Result<A> {
    site.database
        .transaction(db::repository::list)
        .map(A::Repositories)
}

pub fn create(site: &Arc<Site>, who: &str, place: Place, options: RepositoryOptions) -> Result<A> {
    if options.encrypted
        && place
            .password
            .as_ref()
            .is_none_or(|p| p.reveal().is_empty())
    {
        return Err(Error::new(
            Kind::Invalid,
            "repository.password-missing",
            "an encrypted repository needs a password",
        )
        .hint("give one, or say --no-encryption"));
    }
    let id = record(site, &place, options.encrypted)?;
    start(
        site,
        who,
        id,
        place.name,
        SessionKind::CreateRepository {
            repository: id,
            options,
        },
    )
}

pub fn open(site: &Arc<Site>, who: &str, place: Place) -> Result<A> {
    let id = record(site, &place, place.password.is_some())?;
    start(
        site,
        who,
        id,
        place.name,
        SessionKind::RescanRepository { repository: id },
    )
}

fn record(site: &Site, place: &Place, encrypted: bool) -> Result<RepositoryId> {
    check_name("repository", &place.name)?;
    let RepositoryLocation::Folder { path } = &place.location;
    if !path.starts_with('/') || path.contains('\0') {
        return Err(Error::invalid(
            "repository.path-relative",
            format!(
                "\u{201c}{}\u{201d} is not an absolute path",
                path.escape_debug()
            ),
        )
        .hint("name the folder from the root on, as the repository's host sees it"));
    }
    let id = RepositoryId::generate(site.clock.as_ref(), site.random.as_ref());
    let sealed = place
        .password
        .as_ref()
        .map(|password| site.seal_password(id, password))
        .transpose()?;
    site.database.transaction(|t| {
        let host = db::host::find(t, &place.host)?;
        for other in db::repository::list(t)? {
            if other.host == host.id && other.location == place.location {
                return Err(Error::new(
                    Kind::Exists,
                    "repository.place-taken",
                    format!(
                        "{} is the repository {} already",
                        other.location, other.name
                    ),
                )
                .hint("name another folder, or use the repository that is there"));
            }
        }
        let repository = Repository {
            id,
            name: place.name.clone(),
            host: host.id,
            location: place.location.clone(),
            encrypted,
            points: 0,
            capacity: ByteCount::ZERO,
            free: ByteCount::ZERO,
            stored: ByteCount::ZERO,
            summary: None,
        };
        db::repository::add(t, &repository, sealed.as_deref())
    })?;
    Ok(id)
}

pub fn rescan(site: &Arc<Site>, who: &str, key: &str) -> Result<A> {
    let found = find(site, key)?;
    let kind = SessionKind::RescanRepository {
        repository: found.id,
    };
    start(site, who, found.id, found.name, kind)
}

pub fn collect(site: &Arc<Site>, who: &str, key: &str) -> Result<A> {
    let found = find(site, key)?;
    let kind = SessionKind::CollectRepository {
        repository: found.id,
    };
    start(site, who, found.id, found.name, kind)
}

pub fn verify(
    site: &Arc<Site>,
    who: &str,
    key: &str,
    point: Option<PointId>,
    read_data: bool,
) -> Result<A> {
    let found = find(site, key)?;
    let kind = SessionKind::Verify {
        repository: found.id,
        point,
        read_data,
    };
    start(site, who, found.id, found.name, kind)
}

pub fn remove(site: &Site, key: &str) -> Result<A> {
    site.database.transaction(|t| {
        let repository = db::repository::find(t, key)?;
        db::repository::remove(t, &repository)
    })?;
    Ok(A::Done)
}

fn find(site: &Site, key: &str) -> Result<Repository> {
    site.database.transaction(|t| db::repository::find(t, key))
}

fn start(
    site: &Arc<Site>,
    who: &str,
    repository: RepositoryId,
    name: String,
    kind: SessionKind,
) -> Result<A> {
    let request = Request {
        kind,
        name,
        initiator: who.to_owned(),
        job: None,
        repository: Some(repository),
        hosts: Vec::new(),
    };
    Ok(A::Session(Box::new(sessions::start(site, request)?)))
}
