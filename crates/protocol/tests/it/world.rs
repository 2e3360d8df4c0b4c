//! A small site to test in.

use base::Result;
use base::clock::Clock;
use base::id::{HostId, SiteId};
use base::os::{OsClock, OsRandom};
use protocol::authority::{Authority, IDENTITY_VALIDITY};
use protocol::link::{LinkOptions, Timing};
use protocol::{Dialer, Expect, Identity, Link, Listener, Peer, Purpose, Role};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Deadlines short enough to wait for in a test, long enough for a busy machine.
pub const QUICK: Timing = Timing {
    connect: Duration::from_secs(5),
    handshake: Duration::from_millis(1500),
    keepalive: Duration::from_millis(200),
    silence: Duration::from_millis(1500),
    frame: Duration::from_secs(3),
};

pub fn options(timing: Timing) -> LinkOptions {
    LinkOptions {
        timing,
        ..LinkOptions::default()
    }
}

pub struct Site {
    pub authority: Authority,
}

impl Site {
    pub fn new(number: u8) -> Self {
        let site = SiteId::new(1, [number; 10]);
        Self {
            authority: Authority::create(site, &OsClock, &OsRandom).unwrap(),
        }
    }

    pub fn identity(&self, role: Role) -> Identity {
        self.identity_at(role, host(1), &OsClock)
    }

    pub fn identity_at(&self, role: Role, host: HostId, clock: &dyn Clock) -> Identity {
        self.authority
            .issue(role, host, IDENTITY_VALIDITY, clock, &OsRandom)
            .unwrap()
    }

    pub fn dialer(&self, role: Role) -> Dialer {
        Dialer::new(self.identity(role), LinkOptions::default())
    }

    /// A mover that managers may call.
    pub async fn mover(&self, options: LinkOptions) -> Listener {
        listen(
            &self.identity(Role::Mover),
            Expect::role(Role::Manager),
            options,
        )
        .await
    }
}

pub fn host(number: u8) -> HostId {
    HostId::new(2, [number; 10])
}

pub async fn listen(identity: &Identity, expect: Expect, options: LinkOptions) -> Listener {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Listener::bind(any, identity, expect, options)
        .await
        .unwrap()
}

pub fn address(listener: &Listener) -> String {
    listener.address().unwrap().to_string()
}

/// A link over loopback between a manager and a mover: both ends.
pub async fn pair(purpose: Purpose, timing: Timing) -> (Link, Link) {
    let site = Site::new(1);
    let mut listener = site.mover(options(timing)).await;
    let dialer = Dialer::new(site.identity(Role::Manager), options(timing));
    let to = address(&listener);
    let dialed = dialer.dial(&to, Expect::role(Role::Mover), purpose);
    let (dialed, accepted): (Result<Link>, Result<Link>) = tokio::join!(dialed, listener.accept());
    (dialed.unwrap(), accepted.unwrap())
}

/// A link in memory.
pub async fn memory_pair(purpose: Purpose, timing: Timing) -> (Link, Link) {
    let peer = Peer::Local { uid: 0, pid: None };
    Link::in_memory(peer, peer, purpose, timing).await.unwrap()
}

/// Waits for something that becomes true soon.
pub async fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    for _ in 0..500 {
        if is_true() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what} did not become true within 10 s");
}
