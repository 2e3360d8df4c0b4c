//! How a client connects.
//!
//! Knows: contexts, certificates, times. Refuses to know: where to.

use std::sync::Arc;
use std::time::Duration;

/// The context that tells holes and zeros from data.
pub const BASE_ALLOCATION: &str = "base:allocation";

/// The context of QEMU's dirty bitmap `name`.
pub fn dirty_bitmap_context(name: &str) -> String {
    format!("qemu:dirty-bitmap:{name}")
}

/// How a client connects.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Contexts that must be there (a bitmap): connecting fails with `NotFound` otherwise.
    pub required_contexts: Vec<String>,
    /// Contexts that are used where they are there.
    pub wanted_contexts: Vec<String>,
    /// Certificates for an address that demands TLS.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// The name that the server's certificate must carry, where it is not the address's host
    /// (for a Unix socket: `localhost`).
    pub tls_name: Option<String>,
    /// The longest time for connecting and the whole handshake.
    pub connect_timeout: Duration,
    /// The longest time without a single byte from a server that owes an answer.
    pub stall_timeout: Duration,
    /// The longest time for one request, however many bytes trickle in.
    pub request_timeout: Duration,
    /// Whether to offer 64-bit headers. Servers without them are spoken to with 32-bit ones.
    pub extended_headers: bool,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            required_contexts: Vec::new(),
            wanted_contexts: vec![BASE_ALLOCATION.to_owned()],
            tls: None,
            tls_name: None,
            connect_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(60),
            request_timeout: Duration::from_secs(600),
            extended_headers: true,
        }
    }
}

impl ConnectOptions {
    /// Demands QEMU's dirty bitmap `name`.
    #[must_use]
    pub fn bitmap(mut self, name: &str) -> Self {
        self.required_contexts.push(dirty_bitmap_context(name));
        self
    }

    /// Uses the context `name` where the server has it.
    #[must_use]
    pub fn context(mut self, name: impl Into<String>) -> Self {
        self.wanted_contexts.push(name.into());
        self
    }

    /// Certificates for TLS.
    #[must_use]
    pub fn tls(mut self, config: Arc<rustls::ClientConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    /// All contexts to ask for, each once.
    pub(super) fn contexts(&self) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for name in self.required_contexts.iter().chain(&self.wanted_contexts) {
            if !all.contains(name) {
                all.push(name.clone());
            }
        }
        all
    }
}
