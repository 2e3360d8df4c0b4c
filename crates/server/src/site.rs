//! The running server: what all its parts share.
//!
//! Knows: the database, the secrets, the clock, who follows what. Refuses to know: sockets.

use crate::db::Database;
use crate::launch::Launch;
use crate::live::Live;
use crate::resources::Limits;
use crate::secrets::Secrets;
use base::clock::{Clock, Timestamp};
use base::id::{HostId, RepositoryId, SessionId};
use base::random::Random;
use base::{Error, Kind, Result};
use protocol::Dialer;
use protocol::words::secret::Secret;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What all parts of the server share.
pub struct Site {
    /// The database.
    pub database: Database,
    /// Passwords at rest.
    pub secrets: Secrets,
    /// How managers are started.
    pub launch: Launch,
    /// How other processes are reached.
    pub dialer: Dialer,
    /// The host this server runs on.
    pub host: HostId,
    /// Who may use how much.
    pub limits: Limits,
    /// Who follows what.
    pub live: Live,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// When this server was started.
    pub started: Timestamp,
    /// When each attached manager was last heard of, by the monotonic clock.
    heard: Mutex<HashMap<SessionId, Duration>>,
}

/// What a server is put together from.
pub struct Parts {
    /// The database.
    pub database: Database,
    /// Passwords at rest.
    pub secrets: Secrets,
    /// How managers are started.
    pub launch: Launch,
    /// How other processes are reached.
    pub dialer: Dialer,
    /// The host this server runs on.
    pub host: HostId,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
}

impl Site {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Self {
        Self {
            database: parts.database,
            secrets: parts.secrets,
            launch: parts.launch,
            dialer: parts.dialer,
            host: parts.host,
            limits: Limits::default(),
            live: Live::default(),
            started: parts.clock.now(),
            clock: parts.clock,
            random: parts.random,
            heard: Mutex::default(),
        }
    }

    /// Notes that a manager spoke.
    pub fn hear(&self, session: SessionId) {
        let now = self.clock.monotonic();
        self.heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(session, now);
    }

    /// How long a manager has been silent; none if it never spoke to this server.
    pub fn silence(&self, session: SessionId) -> Option<Duration> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard
            .get(&session)
            .map(|last| self.clock.monotonic().saturating_sub(*last))
    }

    /// Forgets the voice of a manager that is gone.
    pub fn unhear(&self, session: SessionId) {
        self.heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&session);
    }

    /// Seals the password of a repository.
    pub fn seal_password(&self, id: RepositoryId, password: &Secret) -> Result<Vec<u8>> {
        self.secrets
            .seal(&password_purpose(id), password, self.random.as_ref())
    }

    /// The password of a repository, for the one who must open it.
    pub fn repository_password(&self, id: RepositoryId) -> Result<Option<Secret>> {
        let sealed = self
            .database
            .transaction(|t| crate::db::repository::password(t, id))?;
        sealed
            .map(|sealed| self.secrets.open_sealed(&password_purpose(id), &sealed))
            .transpose()
    }
}

fn password_purpose(id: RepositoryId) -> String {
    format!("repository/{id}")
}

/// A name that people may give things: 1 to 255 bytes, no control characters, no blank ends.
pub fn check_name(noun: &str, name: &str) -> Result<()> {
    let fine = !name.is_empty()
        && name.len() <= base::limit::NAME_LENGTH_MAX
        && name.trim() == name
        && !name.chars().any(char::is_control);
    if fine {
        Ok(())
    } else {
        Err(Error::new(
            Kind::Invalid,
            format!("{noun}.name-invalid"),
            format!(
                "\u{201c}{}\u{201d} cannot be the name of a {noun}",
                name.escape_debug()
            ),
        )
        .hint("a name has 1 to 255 bytes, no control characters and no blanks at its ends"))
    }
}
