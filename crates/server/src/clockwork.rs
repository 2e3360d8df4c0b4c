//! Starts the runs that are due.
//!
//! Knows: once a second, which jobs are due, and that a run at work swallows the next slot.
//! Refuses to know: calendars ([`crate::schedule`]) and runs ([`crate::sessions`]).
//!
//! A run that was due while no server ran is started when one runs again, once.

use crate::api::job;
use crate::db::{self, job::JobRow};
use crate::site::Site;
use base::{Kind, Result};
use std::sync::Arc;
use std::time::Duration;

const EVERY: Duration = Duration::from_secs(1);

/// Runs until the process ends.
pub async fn run(site: Arc<Site>) {
    loop {
        if let Err(error) = tick(&site) {
            tracing::error!(%error, "looking for jobs that are due");
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Starts what is due now and finds out when each is due next.
pub fn tick(site: &Arc<Site>) -> Result<()> {
    let now = site.clock.now();
    for row in site.database.transaction(|t| db::job::due(t, now))? {
        let next = job::due_after(&row.job.settings, now)?;
        site.database
            .transaction(|t| db::job::set_next_run(t, row.job.id, next))?;
        start(site, &row);
    }
    Ok(())
}

fn start(site: &Arc<Site>, row: &JobRow) {
    match job::start(site, "schedule", row, false) {
        Ok(session) => tracing::info!(job = row.job.settings.name, session = %session.id, "due"),
        Err(error) if error.kind() == Kind::Conflict => {
            tracing::info!(
                job = row.job.settings.name,
                "due, but still running: slot skipped"
            );
        }
        Err(error) => tracing::error!(job = row.job.settings.name, %error, "starting a due job"),
    }
}
