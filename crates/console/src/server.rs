//! The link to the server.
//!
//! Knows: where the server is and who this console is. Refuses to know: what is asked.

use crate::Common;
use base::{Error, Kind, Result};
use protocol::words::console::{ConsoleRequest, ConsoleResponse};
use protocol::{BlockingClient, Dialer, Expect, Identity, LinkOptions, Role};
use std::time::Duration;
use tokio::runtime::Runtime;

/// Longer than the server lets a follower wait.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);

/// The server.
pub struct Server {
    client: BlockingClient<ConsoleRequest, ConsoleResponse>,
    json: bool,
    // Last, so that the link says goodbye before its runtime ends.
    _runtime: Runtime,
}

impl Server {
    /// Dials the server.
    pub fn connect(common: &Common) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|error| Error::io("starting the runtime", error))?;
        let folder = common.state.join("identities/console");
        let identity = Identity::load(&folder).map_err(|error| {
            let hint = if error.kind() == Kind::Denied {
                "run the command as root, or as the user that \u{201c}backstay up\u{201d} runs as"
            } else {
                "start a site with \u{201c}backstay up\u{201d}, or name its state folder with --site"
            };
            error.context(format!("no identity of a console in {}", folder.display())).hint(hint)
        })?;
        let address = match &common.server {
            Some(address) => address.clone(),
            None => own_server(common)?,
        };
        let dialer = Dialer::new(identity, LinkOptions::default());
        let expect = Expect::role(Role::Server);
        let client =
            BlockingClient::dial(runtime.handle(), &dialer, &address, expect).map_err(|error| {
                error.hint("is \u{201c}backstay up\u{201d} running, and reachable from here?")
            })?;
        Ok(Self {
            client,
            json: common.json,
            _runtime: runtime,
        })
    }

    /// Asks and waits for the answer.
    pub fn ask(&self, request: &ConsoleRequest) -> Result<ConsoleResponse> {
        self.client.call_within(request, ANSWER_PATIENCE)
    }

    /// Whether answers are shown as JSON.
    pub const fn json(&self) -> bool {
        self.json
    }
}

fn own_server(common: &Common) -> Result<String> {
    let path = common.state.join("server.address");
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) => Err(Error::io(format!("reading {}", path.display()), error)
            .hint("start the site with \u{201c}backstay up\u{201d}")),
    }
}

/// An error for an answer that does not fit the question.
pub fn unexpected(answer: &ConsoleResponse) -> Error {
    let shown: String = format!("{answer:?}").chars().take(200).collect();
    Error::new(
        Kind::Bug,
        "console.answer",
        format!("the server's answer does not fit the question: {shown}"),
    )
}
