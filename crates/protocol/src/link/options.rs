//! Bounds of links: how long to wait, how many to bear.
//!
//! Knows: numbers and their reasons. Refuses to know: who keeps to them.

use base::clock::Clock;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How long to wait for what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// For the network to connect.
    pub connect: Duration,
    /// For the TLS handshake and the hello together.
    pub handshake: Duration,
    /// A ping is sent when nothing else was for so long.
    pub keepalive: Duration,
    /// The peer is dead when nothing has come for so long, or when it has taken no byte of what we
    /// send for so long.
    pub silence: Duration,
    /// A frame that has begun to arrive must be whole after so long.
    pub frame: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            handshake: Duration::from_secs(10),
            keepalive: Duration::from_secs(15),
            silence: Duration::from_secs(45),
            frame: Duration::from_secs(120),
        }
    }
}

/// How many connections a listener bears.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkLimits {
    /// Links at a time.
    pub links: usize,
    /// Links of one peer (role and host, or local user) at a time.
    pub links_per_peer: usize,
    /// Handshakes at a time.
    pub handshakes: usize,
    /// Handshakes of one address (of IPv6: one /64 network) at a time.
    pub handshakes_per_address: usize,
}

impl Default for LinkLimits {
    fn default() -> Self {
        Self {
            links: 1024,
            links_per_peer: 128,
            handshakes: 256,
            handshakes_per_address: 64,
        }
    }
}

/// What dialing and listening share.
#[derive(Clone)]
pub struct LinkOptions {
    /// For the validity of certificates.
    pub clock: Arc<dyn Clock>,
    /// How long to wait for what.
    pub timing: Timing,
    /// How many connections a listener bears.
    pub limits: LinkLimits,
}

impl Default for LinkOptions {
    fn default() -> Self {
        Self {
            clock: Arc::new(base::os::OsClock),
            timing: Timing::default(),
            limits: LinkLimits::default(),
        }
    }
}

impl fmt::Debug for LinkOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LinkOptions({:?}, {:?})", self.timing, self.limits)
    }
}
