//! The server's listener: consoles and managers come in by it.
//!
//! Knows: which role gets which conversation. Refuses to know: what is asked.

use crate::api::{console, manager::Attached};
use crate::site::Site;
use base::{Error, Kind, Result};
use protocol::words::console::{ConsoleRequest, ConsoleResponse};
use protocol::words::manager::{ManagerRequest, ManagerResponse};
use protocol::{Call, Link, Listener, Purpose, Role, Service, serve};
use std::sync::Arc;

/// Accepts links until the process ends.
///
/// # Errors
/// Where the listener itself fails.
pub async fn run(site: Arc<Site>, mut listener: Listener) -> Result<()> {
    loop {
        let link = listener.accept().await?;
        tokio::spawn(welcome(site.clone(), link));
    }
}

async fn welcome(site: Arc<Site>, link: Link) {
    let peer = link.peer();
    let role = peer.identity().map(|identity| identity.role);
    let ended = match (role, link.facts().purpose) {
        (Some(Role::Manager), Purpose::Calls) => {
            serve(
                link,
                Arc::new(Managers {
                    site,
                    attached: Attached::default(),
                }),
            )
            .await
        }
        (Some(Role::Console), Purpose::Calls) => serve(link, Arc::new(Consoles { site })).await,
        _ => {
            let text = "the server answers calls of consoles and managers only";
            link.refuse(&Error::new(Kind::Denied, "server.role", text))
                .await;
            return;
        }
    };
    match ended {
        // The usual end of a command: its process is gone.
        Err(error) if error.kind() == Kind::Unreachable => {
            tracing::debug!(%peer, %error, "link ended");
        }
        Err(error) => tracing::info!(%peer, %error, "link ended"),
        Ok(()) => {}
    }
}

struct Consoles {
    site: Arc<Site>,
}

impl Consoles {
    /// Who asks, for the record: people of this host need no address.
    fn who(&self, call: &Call<ConsoleResponse>) -> String {
        match call.peer().identity() {
            Some(peer) if peer.host == self.site.host => "console".to_owned(),
            _ => call.peer().to_string(),
        }
    }
}

impl Service for Consoles {
    type Request = ConsoleRequest;
    type Response = ConsoleResponse;

    async fn answer(
        &self,
        request: ConsoleRequest,
        call: Call<ConsoleResponse>,
    ) -> Result<ConsoleResponse> {
        console::answer(&self.site, &self.who(&call), request).await
    }
}

struct Managers {
    site: Arc<Site>,
    attached: Attached,
}

impl Service for Managers {
    type Request = ManagerRequest;
    type Response = ManagerResponse;

    async fn answer(
        &self,
        request: ManagerRequest,
        _call: Call<ManagerResponse>,
    ) -> Result<ManagerResponse> {
        // The database is waited for; that is what the blocking threads are for.
        tokio::task::block_in_place(|| self.attached.answer(&self.site, request))
    }
}
