//! Requests about hosts.
//!
//! Knows: names, addresses, and whether their mover services answer. Refuses to know: how hosts get
//! their software.

use crate::db;
use crate::site::{Site, check_name};
use base::id::HostId;
use base::{Error, Kind, Result};
use protocol::words::console::{ConsoleResponse as A, Host};
use protocol::words::mover::{MoverHealth, MoverRequest, MoverResponse};
use protocol::{Client, Dialer, Expect, Purpose, Role};
use std::sync::Arc;
use std::time::Duration;

/// How long a host may take to answer when its health is asked for.
const HEALTH_PATIENCE: Duration = Duration::from_secs(5);

pub async fn list(site: &Arc<Site>) -> Result<A> {
    let hosts = site.database.transaction(db::host::list)?;
    let asked: Vec<_> = hosts
        .into_iter()
        .map(|host| {
            let site = site.clone();
            tokio::spawn(async move { with_health(&site, host).await })
        })
        .collect();
    let mut answered = Vec::new();
    for host in asked {
        answered.push(host.await.map_err(|error| {
            Error::new(Kind::Bug, "server.task", "asking a host").caused_by(error)
        })?);
    }
    Ok(A::Hosts(answered))
}

async fn with_health(site: &Site, mut host: Host) -> Host {
    let health = health(site, &host.mover, Some(host.id)).await;
    host.online = health.as_ref().ok().map(|health| health.version.clone());
    let (version, now) = (host.online.clone(), site.clock.now());
    let noted = site
        .database
        .transaction(|t| db::host::seen(t, host.id, version.as_deref(), now));
    if let Err(error) = noted {
        tracing::error!(host = host.name, %error, "noting a host's health");
    }
    host
}

async fn health(site: &Site, address: &str, id: Option<HostId>) -> Result<MoverHealth> {
    health_of(&site.dialer, address, id).await
}

/// Asks a mover service how it is.
pub async fn health_of(dialer: &Dialer, address: &str, id: Option<HostId>) -> Result<MoverHealth> {
    let mut expect = Expect::role(Role::Mover);
    if let Some(id) = id {
        expect = expect.on(id);
    }
    let asked = async {
        let link = dialer.dial(address, expect, Purpose::Calls).await?;
        let client: Client<MoverRequest, MoverResponse> = Client::new(link);
        client.call(&MoverRequest::Health).await
    };
    let answer = tokio::time::timeout(HEALTH_PATIENCE, asked)
        .await
        .map_err(|_| {
            Error::new(
                Kind::Timeout,
                "host.silent",
                format!("the mover service at {address} does not answer"),
            )
            .hint("see whether \u{201c}backstay mover\u{201d} runs there, at this address")
        })??;
    match answer {
        MoverResponse::Health(health) => Ok(health),
        _ => Err(Error::new(
            Kind::Bug,
            "host.answer",
            "a mover answered something else",
        )),
    }
}

pub async fn add(site: &Arc<Site>, name: &str, mover: &str) -> Result<A> {
    check_name("host", name)?;
    let health = health(site, mover, None).await.map_err(|error| {
        error.context(format!("asking the mover service of host {name} who it is"))
    })?;
    let now = site.clock.now();
    let host = site.database.transaction(|t| {
        for other in db::host::list(t)? {
            if other.id == health.host || other.name == name {
                return Err(Error::new(
                    Kind::Exists,
                    "host.known",
                    format!("that is the host {} already", other.name),
                )
                .hint("\u{201c}backstay host list\u{201d} shows all"));
            }
        }
        db::host::put(t, health.host, name, mover)?;
        db::host::seen(t, health.host, Some(&health.version), now)?;
        db::host::find(t, name)
    })?;
    Ok(A::Host(host))
}

pub fn remove(site: &Site, key: &str) -> Result<A> {
    site.database.transaction(|t| {
        let host = db::host::find(t, key)?;
        db::host::remove(t, &host)
    })?;
    Ok(A::Done)
}
