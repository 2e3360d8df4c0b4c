//! The link to the server.
//!
//! Knows: where the server is and who this console is. Refuses to know: what is asked.

use crate::Common;
use base::{Error, Kind, Result};
use protocol::words::console::{ConsoleRequest, ConsoleResponse};
use protocol::{BlockingClient, Dialer, Expect, Identity, LinkOptions, Role};
use std::cell::RefCell;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Longer than the server lets a follower wait.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);

/// How long a server that is started again is waited for by those who watch a session.
const RESTART_PATIENCE: Duration = Duration::from_secs(60);
/// How long to wait between two attempts.
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(500);

type Client = BlockingClient<ConsoleRequest, ConsoleResponse>;

/// The server.
pub struct Server {
    client: RefCell<Client>,
    dialer: Dialer,
    address: String,
    json: bool,
    // Last, so that the link says goodbye before its runtime ends.
    runtime: Runtime,
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
        let client = dial(&runtime, &dialer, &address)?;
        Ok(Self {
            client: RefCell::new(client),
            dialer,
            address,
            json: common.json,
            runtime,
        })
    }

    /// Asks and waits for the answer.
    pub fn ask(&self, request: &ConsoleRequest) -> Result<ConsoleResponse> {
        self.client.borrow().call_within(request, ANSWER_PATIENCE)
    }

    /// Dials again after the link broke: sessions go on while a server is started again.
    ///
    /// # Errors
    /// Of the last attempt, where the server stays away.
    pub fn dial_again(&self) -> Result<()> {
        let begun = Instant::now();
        loop {
            match dial(&self.runtime, &self.dialer, &self.address) {
                Ok(client) => {
                    self.client.replace(client);
                    return Ok(());
                }
                Err(error) if begun.elapsed() > RESTART_PATIENCE => return Err(error),
                Err(_) => std::thread::sleep(BETWEEN_ATTEMPTS),
            }
        }
    }

    /// Whether answers are shown as JSON.
    pub const fn json(&self) -> bool {
        self.json
    }
}

fn dial(runtime: &Runtime, dialer: &Dialer, address: &str) -> Result<Client> {
    let expect = Expect::role(Role::Server);
    BlockingClient::dial(runtime.handle(), dialer, address, expect).map_err(|error| {
        error.hint("is \u{201c}backstay up\u{201d} running, and reachable from here?")
    })
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
