//! Who may talk to whom.

use crate::world::*;
use base::Kind;
use base::clock::{Clock, Timestamp};
use base::os::OsClock;
use protocol::link::{LinkLimits, Timing};
use protocol::{Dialer, Expect, LinkOptions, Listener, Peer, Purpose, Role};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// The machine's clock, shifted.
struct Shifted(i64);

impl Clock for Shifted {
    fn now(&self) -> Timestamp {
        Timestamp(OsClock.now().0 + self.0 * 86_400_000_000)
    }
    fn monotonic(&self) -> Duration {
        OsClock.monotonic()
    }
    fn sleep(&self, duration: Duration) {
        OsClock.sleep(duration);
    }
}

#[tokio::test]
async fn both_ends_know_each_other() {
    let site = Site::new(1);
    let mut listener = site.mover(LinkOptions::default()).await;
    let manager = site.identity(Role::Manager);
    let dialer = Dialer::new(manager.clone(), LinkOptions::default());
    let expect = Expect::role(Role::Mover).on(host(1));
    let dialed = dialer
        .dial(&address(&listener), expect, Purpose::Calls)
        .await
        .unwrap();
    let accepted = listener.accept().await.unwrap();
    assert_eq!(dialed.peer().identity().unwrap().role, Role::Mover);
    assert_eq!(accepted.peer(), Peer::Certified(manager.own()));
    assert_eq!(accepted.facts().version, 1);
    assert!(accepted.facts().program.starts_with("backstay "));
    assert_eq!(accepted.facts().purpose, Purpose::Calls);
}

/// Dials and gives the codes that the dialer and the listener's counts see.
async fn refused(dialer: &Dialer, listener: &mut Listener, expect: Expect) -> base::Error {
    let before = listener.counts();
    let error = match dialer
        .dial(&address(listener), expect, Purpose::Calls)
        .await
    {
        Ok(_) => panic!("a link came about"),
        Err(error) => error,
    };
    eventually("the listener's count", || {
        listener.counts().refused == before.refused + 1
    })
    .await;
    assert_eq!(listener.counts().accepted, before.accepted);
    error
}

#[tokio::test]
async fn strangers_stay_outside() {
    let site = Site::new(1);
    let mut listener = site.mover(LinkOptions::default()).await;
    let mover = || Expect::role(Role::Mover);

    // Another site's authority, from either side's view.
    let stranger = Site::new(2).dialer(Role::Manager);
    let error = refused(&stranger, &mut listener, mover()).await;
    assert_eq!(
        (error.kind(), error.code()),
        (Kind::Denied, "protocol.peer.unknown-authority")
    );

    // The right authority, the wrong role, from either side's view.
    let error = refused(&site.dialer(Role::Agent), &mut listener, mover()).await;
    assert_eq!(
        (error.kind(), error.code()),
        (Kind::Denied, "protocol.link.refused-role")
    );
    let manager = site.dialer(Role::Manager);
    let error = refused(&manager, &mut listener, Expect::role(Role::Server)).await;
    assert_eq!(
        (error.kind(), error.code()),
        (Kind::Denied, "protocol.peer.wrong-role")
    );
    let error = refused(&manager, &mut listener, mover().on(host(9))).await;
    assert_eq!(error.code(), "protocol.peer.wrong-role");
    assert!(error.hint_text().is_some());

    // Afterwards the right one still gets in.
    manager
        .dial(&address(&listener), mover(), Purpose::Calls)
        .await
        .unwrap();
    listener.accept().await.unwrap();
}

/// A certificate of another site that names this site: only the signature tells them apart.
#[tokio::test]
async fn a_forged_authority_of_the_same_name_is_refused() {
    let (real, forged) = (Site::new(1), Site::new(1));
    assert_eq!(real.authority.site(), forged.authority.site());
    let mut listener = real.mover(LinkOptions::default()).await;
    let expect = Expect::role(Role::Mover);
    let error = refused(&forged.dialer(Role::Manager), &mut listener, expect).await;
    assert_eq!(error.code(), "protocol.peer.unknown-authority");

    // And the listener does not fall for a forged client when that trusts the listener.
    let folder = tempfile::tempdir().unwrap();
    forged.identity(Role::Manager).save(folder.path()).unwrap();
    std::fs::write(
        folder.path().join("authority.pem"),
        real.authority.certificate_pem(),
    )
    .unwrap();
    let liar = protocol::Identity::load(folder.path()).unwrap();
    let liar = Dialer::new(liar, LinkOptions::default());
    let error = refused(&liar, &mut listener, Expect::role(Role::Mover)).await;
    assert_eq!(error.code(), "protocol.link.refused-authority");
}

#[tokio::test]
async fn certificates_have_their_time() {
    let site = Site::new(1);
    let mut listener = site.mover(LinkOptions::default()).await;
    let expect = || Expect::role(Role::Mover);
    for days in [-800, 30] {
        let identity = site.identity_at(Role::Manager, host(1), &Shifted(days));
        // The dialer's own clock does not matter for its own certificate.
        let dialer = Dialer::new(identity, LinkOptions::default());
        let error = refused(&dialer, &mut listener, expect()).await;
        assert_eq!(error.code(), "protocol.link.refused-expired", "{days}");
    }
    let late = std::sync::Arc::new(Shifted(800));
    let options = LinkOptions {
        clock: late,
        ..LinkOptions::default()
    };
    let dialer = Dialer::new(site.identity(Role::Manager), options);
    let error = refused(&dialer, &mut listener, expect()).await;
    assert_eq!(
        (error.kind(), error.code()),
        (Kind::Denied, "protocol.peer.expired")
    );
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_from_the_next_handshake_on() {
    let site = Site::new(1);
    let (mover, manager) = (site.identity(Role::Mover), site.identity(Role::Manager));
    let mut listener = listen(&mover, Expect::role(Role::Manager), LinkOptions::default()).await;
    let dialer = Dialer::new(manager.clone(), LinkOptions::default());
    let expect = || Expect::role(Role::Mover);
    dialer
        .dial(&address(&listener), expect(), Purpose::Calls)
        .await
        .unwrap();
    listener.accept().await.unwrap();

    let revoked = [(manager.own().serial, OsClock.now())];
    let list = site
        .authority
        .revocation_list(1, &revoked, &OsClock)
        .unwrap();
    let authority = protocol::peer::Serial::from_der(&[0x41; 16]).unwrap();
    assert!(!mover.revocations().contains(authority));
    let folder = tempfile::tempdir().unwrap();
    mover.save(folder.path()).unwrap();
    mover.save_revocations(folder.path(), &list).unwrap();
    let error = refused(&dialer, &mut listener, expect()).await;
    assert_eq!(
        (error.kind(), error.code()),
        (Kind::Denied, "protocol.link.refused-revoked")
    );

    let revoked = [(mover.own().serial, OsClock.now())];
    let list = site
        .authority
        .revocation_list(2, &revoked, &OsClock)
        .unwrap();
    let other = site.identity(Role::Manager);
    other.save_revocations(folder.path(), &list).unwrap();
    let dialer = Dialer::new(other, LinkOptions::default());
    let error = refused(&dialer, &mut listener, expect()).await;
    assert_eq!(
        (error.kind(), error.code()),
        (Kind::Denied, "protocol.peer.revoked")
    );
}

#[tokio::test]
async fn a_renewed_identity_is_shown_without_a_restart() {
    let site = Site::new(1);
    let mut listener = site.mover(LinkOptions::default()).await;
    let renewed = site.identity(Role::Mover);
    listener.replace_identity(&renewed).unwrap();
    let dialer = site.dialer(Role::Manager);
    let expect = Expect::role(Role::Mover);
    let link = dialer
        .dial(&address(&listener), expect, Purpose::Calls)
        .await
        .unwrap();
    listener.accept().await.unwrap();
    assert_eq!(link.peer(), Peer::Certified(renewed.own()));
}

#[tokio::test]
async fn one_peer_cannot_take_all_links() {
    let site = Site::new(1);
    let limits = LinkLimits {
        links_per_peer: 2,
        links: 3,
        ..LinkLimits::default()
    };
    let options = LinkOptions {
        limits,
        ..LinkOptions::default()
    };
    let mut listener = site.mover(options).await;
    let dial = async |number| {
        let identity = site.identity_at(Role::Manager, host(number), &OsClock);
        let dialer = Dialer::new(identity, LinkOptions::default());
        let expect = Expect::role(Role::Mover);
        dialer
            .dial(&address(&listener), expect, Purpose::Calls)
            .await
    };
    let kept = (dial(1).await.unwrap(), dial(1).await.unwrap());
    let mut accepted = Vec::new();
    // The refusal comes after the handshake, as the goodbye's reason.
    let third = dial(1).await.unwrap();
    let (_sender, mut receiver) = third.split();
    let error = receiver.receive().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (Kind::Limit, "protocol.link.too-many")
    );
    let _other = dial(2).await.unwrap();
    let fourth = dial(3).await.unwrap();
    assert!(fourth.split().1.receive().await.is_err());
    for _ in 0..3 {
        accepted.push(listener.accept().await.unwrap());
    }
    // Places come free with their links.
    drop(kept);
    accepted.clear();
    let again = async {
        loop {
            let identity = site.identity_at(Role::Manager, host(1), &OsClock);
            let dialer = Dialer::new(identity, LinkOptions::default());
            let expect = Expect::role(Role::Mover);
            let link = dialer
                .dial(&address(&listener), expect, Purpose::Calls)
                .await
                .unwrap();
            let (_sender, mut receiver) = link.split();
            let wait = Duration::from_millis(200);
            if tokio::time::timeout(wait, receiver.receive())
                .await
                .is_err()
            {
                return; // Still open: admitted.
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), again)
        .await
        .unwrap();
}

#[tokio::test]
async fn ports_come_from_the_range() {
    let site = Site::new(1);
    let identity = site.identity(Role::Mover);
    let taken = site.mover(LinkOptions::default()).await;
    let port = taken.address().unwrap().port();
    let bind = |range| {
        let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let expect = Expect::role(Role::Manager);
        Listener::bind_in_range(localhost, range, &identity, expect, LinkOptions::default())
    };
    let error = bind(port..=port).await.err().unwrap();
    assert_eq!(
        (error.kind(), error.code()),
        (Kind::Conflict, "protocol.link.no-port")
    );
    let range = port..=port.saturating_add(50);
    let next = bind(range.clone()).await.unwrap().address().unwrap().port();
    assert!(next != port && range.contains(&next));
}

#[tokio::test]
async fn nobody_there_is_said_clearly() {
    let site = Site::new(1);
    let listener = site.mover(LinkOptions::default()).await;
    let gone = address(&listener);
    drop(listener);
    let dialer = site.dialer(Role::Manager);
    for _ in 0..100 {
        // The accepting task ends a moment after its listener.
        let expect = Expect::role(Role::Mover);
        let error = dialer
            .dial(&gone, expect, Purpose::Calls)
            .await
            .err()
            .unwrap();
        if error.causes().iter().any(|cause| cause.contains("refused")) {
            assert_eq!(error.kind(), Kind::Unreachable);
            assert!(error.message().contains(&gone) && error.hint_text().is_some());
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the port is still open");
}

#[tokio::test]
async fn an_idle_link_lives_and_a_frozen_peer_is_noticed() {
    let (one, two) = pair(Purpose::Calls, QUICK).await;
    let (_sender, mut receiver) = one.split();
    let living = two.split();
    let idle = QUICK.silence * 2;
    assert!(
        tokio::time::timeout(idle, receiver.receive())
            .await
            .is_err(),
        "an idle link ended"
    );
    drop(living);
    assert!(receiver.receive().await.unwrap().is_none(), "no goodbye");

    // A peer that never writes: its sending half is not even started.
    let (one, frozen) = pair(Purpose::Calls, QUICK).await;
    let (_sender, mut receiver) = one.split();
    let began = std::time::Instant::now();
    let error = receiver.receive().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (Kind::Unreachable, "protocol.link.silent")
    );
    assert!(began.elapsed() < QUICK.silence * 3);
    drop(frozen);
}

#[tokio::test]
async fn a_peer_that_takes_nothing_is_noticed() {
    let quiet = Timing {
        keepalive: Duration::from_secs(60),
        ..QUICK
    };
    let (one, _two) = memory_pair(Purpose::Calls, quiet).await;
    let (sender, _receiver) = one.split();
    let began = std::time::Instant::now();
    let frame =
        || protocol::frame::Frame::new(protocol::frame::FrameKind::Request, 1, vec![0; 1 << 20]);
    let error = loop {
        if let Err(error) = sender.send(frame()).await {
            break error;
        }
    };
    assert_eq!(error.code(), "protocol.link.silent");
    assert!(began.elapsed() < QUICK.silence * 3);
}
