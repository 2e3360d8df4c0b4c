use super::*;
use crate::identity::KeyRequest;
use crate::peer::PeerIdentity;
use base::Kind;
use base::os::{OsClock, OsRandom};
use std::os::unix::fs::PermissionsExt;

fn site(number: u8) -> SiteId {
    SiteId::new(1, [number; 10])
}

fn host() -> HostId {
    HostId::new(2, [7; 10])
}

fn authority(number: u8) -> Authority {
    Authority::create(site(number), &OsClock, &OsRandom).unwrap()
}

fn issue(authority: &Authority, role: Role) -> Identity {
    authority
        .issue(role, host(), IDENTITY_VALIDITY, &OsClock, &OsRandom)
        .unwrap()
}

#[test]
fn an_authority_and_its_identities_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let made = authority(1);
    made.save(folder.path()).unwrap();
    let key = folder.path().join("authority-key.pem");
    assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let loaded = Authority::load(folder.path()).unwrap();
    assert_eq!(loaded.site(), site(1));
    assert_eq!(loaded.certificate_pem(), made.certificate_pem());

    let identity = issue(&loaded, Role::Mover);
    assert_eq!(
        (identity.own().role, identity.own().host),
        (Role::Mover, host())
    );
    let own = folder.path().join("identity");
    identity.save(&own).unwrap();
    assert_eq!(Identity::load(&own).unwrap().own(), identity.own());
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    authority(1).save(folder.path()).unwrap();
    let key = folder.path().join("authority-key.pem");
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o640)).unwrap();
    let error = Authority::load(folder.path()).unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (Kind::Denied, "protocol.key.exposed")
    );
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    let (first, second) = (authority(1), authority(2));
    first.save(&one).unwrap();
    second.save(&two).unwrap();
    std::fs::copy(one.join("authority-key.pem"), two.join("authority-key.pem")).unwrap();
    assert_eq!(Authority::load(&two).unwrap_err().kind(), Kind::Invalid);

    issue(&first, Role::Agent).save(&one).unwrap();
    issue(&second, Role::Agent).save(&two).unwrap();
    std::fs::copy(one.join("key.pem"), two.join("key.pem")).unwrap();
    assert!(
        Identity::load(&two)
            .unwrap_err()
            .to_string()
            .contains("key is not the certificate's")
    );
    std::fs::copy(one.join("certificate.pem"), two.join("certificate.pem")).unwrap();
    assert!(
        Identity::load(&two)
            .unwrap_err()
            .to_string()
            .contains("another site")
    );
    for name in ["key.pem", "certificate.pem", "authority.pem"] {
        std::fs::write(two.join(name), "nonsense").unwrap();
        assert_eq!(
            Identity::load(&two).unwrap_err().kind(),
            Kind::Invalid,
            "{name}"
        );
    }
}

#[test]
fn a_request_gets_the_role_the_authority_decides() {
    let authority = authority(1);
    let asking = KeyRequest::new().unwrap();
    let sign = |request: &str| {
        authority.sign_request(
            request,
            Role::Mover,
            host(),
            IDENTITY_VALIDITY,
            &OsClock,
            &OsRandom,
        )
    };
    let chain = sign(asking.request()).unwrap();
    let identity = asking.finish(&chain, authority.certificate_pem()).unwrap();
    assert_eq!(identity.own().role, Role::Mover);

    // Another host's certificate is of no use with this key.
    assert!(
        KeyRequest::new()
            .unwrap()
            .finish(&chain, authority.certificate_pem())
            .is_err()
    );
    // A request whose signature is broken shows nothing.
    let asking = KeyRequest::new().unwrap();
    let mut lines: Vec<String> = asking.request().lines().map(str::to_owned).collect();
    let last = lines.len() - 2;
    lines[last] = lines[last].chars().rev().collect();
    let error = sign(&lines.join("\n")).unwrap_err();
    assert_eq!(error.code(), "protocol.request.malformed");
    assert!(sign(&"x".repeat(1 << 20)).is_err());
}

#[test]
fn revocation_lists_are_signed_and_never_go_back() {
    let (own, other) = (authority(1), authority(2));
    let identity = issue(&own, Role::Agent);
    let serial = identity.own().serial;
    let now = OsClock.now();
    let folder = tempfile::tempdir().unwrap();
    identity.save(folder.path()).unwrap();

    let foreign = other
        .revocation_list(9, &[(serial, now)], &OsClock)
        .unwrap();
    let error = identity
        .save_revocations(folder.path(), &foreign)
        .unwrap_err();
    assert_eq!(error.code(), "protocol.revocations.unsigned");
    assert!(!identity.revocations().contains(serial));

    let list = own.revocation_list(2, &[(serial, now)], &OsClock).unwrap();
    identity.save_revocations(folder.path(), &list).unwrap();
    assert!(identity.revocations().contains(serial));
    let old = own.revocation_list(1, &[], &OsClock).unwrap();
    identity.save_revocations(folder.path(), &old).unwrap();
    assert!(identity.revocations().contains(serial));
    assert!(
        Identity::load(folder.path())
            .unwrap()
            .revocations()
            .contains(serial)
    );
    assert!(
        identity
            .save_revocations(folder.path(), "nonsense")
            .is_err()
    );
}

#[test]
fn renewal_is_due_after_two_thirds() {
    let identity = issue(&authority(1), Role::Agent);
    let now = OsClock.now();
    assert!(!identity.renewal_due(now));
    assert!(!identity.renewal_due(later(now, IDENTITY_VALIDITY / 2)));
    assert!(identity.renewal_due(later(now, IDENTITY_VALIDITY * 3 / 4)));
}

#[test]
fn an_authority_is_no_identity_and_garbage_is_no_certificate() {
    let der = &certificates_of(authority(1).certificate_pem()).unwrap()[0];
    assert!(PeerIdentity::from_certificate(der).is_err());
    for length in 0..der.len() {
        assert!(PeerIdentity::from_certificate(&der[..length]).is_err());
    }
}
