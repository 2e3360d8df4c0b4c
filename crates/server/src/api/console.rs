//! Requests of the command line, handed to the noun they are about.
//!
//! Knows: which noun answers what. Refuses to know: the rules of any noun.

use super::{host, job, machine, point, repository, session};
use crate::db;
use crate::site::Site;
use base::Result;
use protocol::words::console::{ConsoleRequest as Q, ConsoleResponse as A, ServerStatus};
use std::sync::Arc;

/// Answers a request. `who` is the person, for the record.
pub async fn answer(site: &Arc<Site>, who: &str, request: Q) -> Result<A> {
    match request {
        Q::Status => status(site),
        Q::HostList => host::list(site).await,
        Q::HostAdd { name, mover } => host::add(site, &name, &mover).await,
        Q::HostRemove { key } => host::remove(site, &key),
        Q::RepositoryList => repository::list(site),
        Q::RepositoryCreate {
            name,
            host,
            location,
            password,
            options,
        } => {
            let place = repository::Place {
                name,
                host,
                location,
                password,
            };
            repository::create(site, who, place, options)
        }
        Q::RepositoryOpen {
            name,
            host,
            location,
            password,
        } => {
            let place = repository::Place {
                name,
                host,
                location,
                password,
            };
            repository::open(site, who, place)
        }
        Q::RepositoryRescan { key } => repository::rescan(site, who, &key),
        Q::RepositoryCollect { key } => repository::collect(site, who, &key),
        Q::RepositoryRemove { key } => repository::remove(site, &key),
        Q::Verify {
            repository,
            point,
            read_data,
        } => repository::verify(site, who, &repository, point, read_data),
        Q::JobList => job::list(site),
        Q::JobCreate(settings) => job::create(site, settings),
        Q::JobUpdate { key, settings } => job::update(site, &key, settings),
        Q::JobDelete { key } => job::delete(site, &key),
        Q::JobRun { key, read_all } => job::run(site, who, &key, read_all),
        Q::SessionList { job, limit, after } => session::list(site, job.as_deref(), after, limit),
        Q::SessionShow { key } => session::show(site, &key),
        Q::SessionFollow {
            session,
            seen,
            line,
        } => session::follow(site, session, seen, line).await,
        Q::SessionStop { key, stop } => session::stop(site, &key, stop),
        Q::MachineList { from } => machine::list(site, from),
        Q::MachineDiscover { host, platform } => machine::discover(site, who, &host, platform),
        Q::PointList {
            machine,
            repository,
            after,
        } => point::list(site, machine.as_deref(), repository.as_deref(), after),
        Q::PointShow { key } => point::show(site, &key),
        Q::PointDelete { keys } => point::delete(site, who, &keys),
        Q::RestoreMachine(order) => point::restore_machine(site, who, order),
        Q::RestoreDisk(order) => point::restore_disk(site, who, order),
    }
}

fn status(site: &Site) -> Result<A> {
    let running = site.database.transaction(db::session::at_work)?.len();
    Ok(A::Status(ServerStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started: site.started,
        sessions_running: u32::try_from(running).unwrap_or(u32::MAX),
        schema_version: site.database.schema_version(),
    }))
}
