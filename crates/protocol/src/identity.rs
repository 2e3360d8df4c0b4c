//! Who this process is.
//!
//! Knows: a certificate chain, its key and the authority's certificate, in memory and in a folder;
//! when to renew; how a host asks for a certificate without its key ever leaving it.
//! Refuses to know: how the authority decides, and how a peer is verified.
//!
//! # The folder
//! | file | content | mode |
//! |---|---|---|
//! | `certificate.pem` | this process's certificate | 0644 |
//! | `key.pem` | its key, PKCS #8 | 0600 |
//! | `authority.pem` | the certificate of the site's authority | 0644 |
//! | `revoked.pem` | the newest revocation list; may be absent | 0644 |

use crate::keyfile;
use crate::peer::{self, PeerIdentity};
use crate::revocations::Revocations;
use base::clock::Timestamp;
use base::{Error, Kind, Result};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use zeroize::Zeroizing;

const CERTIFICATE: &str = "certificate.pem";
const KEY: &str = "key.pem";
const AUTHORITY: &str = "authority.pem";
const REVOKED: &str = "revoked.pem";
/// Links of a chain below the authority: one certificate, and one more if an intermediate comes.
const CHAIN_LENGTH_MAX: usize = 4;

/// Who this process is. Clones share the revocations.
#[derive(Clone)]
pub struct Identity {
    own: PeerIdentity,
    validity: Validity,
    chain: Vec<CertificateDer<'static>>,
    chain_pem: String,
    key_pem: Arc<Zeroizing<String>>,
    authority: CertificateDer<'static>,
    authority_pem: String,
    revocations: Revocations,
}

/// From when and until when a certificate is good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Validity {
    /// Not before.
    pub from: Timestamp,
    /// Not after.
    pub until: Timestamp,
}

impl Identity {
    /// Puts an identity together and checks that its parts belong together.
    ///
    /// # Errors
    /// `Invalid` where a part does not parse, where the key is not the certificate's or where the
    /// certificate names another site than the authority.
    pub fn from_pem(chain: &str, key: Zeroizing<String>, authority: &str) -> Result<Self> {
        let certificates = certificates(chain)?;
        let Some(leaf) = certificates.first() else {
            return Err(malformed("there is no certificate"));
        };
        let own = PeerIdentity::from_certificate(leaf)?;
        let parsed = peer::parse(leaf)?;
        let validity = Validity {
            from: Timestamp(
                parsed
                    .validity()
                    .not_before
                    .timestamp()
                    .saturating_mul(1_000_000),
            ),
            until: Timestamp(
                parsed
                    .validity()
                    .not_after
                    .timestamp()
                    .saturating_mul(1_000_000),
            ),
        };
        let pair = KeyPair::from_pem(&key).map_err(|_| malformed("the key does not parse"))?;
        if pair.public_key_raw() != &*parsed.public_key().subject_public_key.data {
            return Err(malformed("the key is not the certificate's"));
        }
        let authority_der = match &certificates_of(authority)?[..] {
            [only] => only.clone(),
            _ => return Err(malformed("there is not exactly one authority")),
        };
        if peer::site_of_authority(&authority_der)? != own.site {
            return Err(malformed(
                "the certificate belongs to another site than the authority",
            ));
        }
        Ok(Self {
            own,
            validity,
            chain: certificates,
            chain_pem: chain.to_owned(),
            key_pem: Arc::new(key),
            authority: authority_der,
            authority_pem: authority.to_owned(),
            revocations: Revocations::new(),
        })
    }

    /// Reads the folder.
    ///
    /// # Errors
    /// As [`Identity::from_pem`]; `NotFound`; `Denied` where others can read the key.
    pub fn load(folder: &Path) -> Result<Self> {
        let load = || {
            let key = keyfile::read_secret(folder, KEY)?;
            let identity = Self::from_pem(
                &keyfile::read(folder, CERTIFICATE)?,
                key,
                &keyfile::read(folder, AUTHORITY)?,
            )?;
            identity.load_revocations(folder)?;
            Ok(identity)
        };
        load().map_err(|error: Error| {
            error.context(format!("loading the identity in {}", folder.display()))
        })
    }

    /// Reads the folder's revocation list again, for a list that arrived while the program runs.
    pub fn load_revocations(&self, folder: &Path) -> Result<()> {
        match keyfile::read(folder, REVOKED) {
            Ok(list) => self.revocations.update(&list, &self.authority).map(|_| ()),
            Err(error) if error.kind() == Kind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Writes the folder, made where it is missing.
    pub fn save(&self, folder: &Path) -> Result<()> {
        keyfile::make_folder(folder)?;
        keyfile::write(folder, AUTHORITY, self.authority_pem.as_bytes(), 0o644)?;
        keyfile::write(folder, KEY, self.key_pem.as_bytes(), 0o600)?;
        keyfile::write(folder, CERTIFICATE, self.chain_pem.as_bytes(), 0o644)
    }

    /// Checks a revocation list (PEM), puts it into force and keeps it in the folder. A list older
    /// than the one in force is left aside.
    pub fn save_revocations(&self, folder: &Path, list: &str) -> Result<()> {
        if self.revocations.update(list, &self.authority)? {
            keyfile::write(folder, REVOKED, list.as_bytes(), 0o644)?;
        }
        Ok(())
    }

    /// Site, role, host and serial number.
    pub const fn own(&self) -> PeerIdentity {
        self.own
    }

    /// From when and until when its certificate is good.
    pub const fn validity(&self) -> Validity {
        self.validity
    }

    /// Whether two thirds of its time are over: ask for the next certificate now.
    pub fn renewal_due(&self, now: Timestamp) -> bool {
        let whole = self.validity.until.since(self.validity.from);
        now.since(self.validity.from) >= whole * 2 / 3
    }

    /// The revocations in force, shared with every link and listener of this identity.
    pub const fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// The authority's certificate, PEM.
    pub fn authority_pem(&self) -> &str {
        &self.authority_pem
    }

    /// The authority's certificate, DER.
    pub(crate) const fn authority(&self) -> &CertificateDer<'static> {
        &self.authority
    }

    /// The chain as TLS wants it.
    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.chain.clone()
    }

    /// The key as TLS wants it.
    pub(crate) fn key(&self) -> Result<PrivateKeyDer<'static>> {
        PrivatePkcs8KeyDer::from_pem_slice(self.key_pem.as_bytes())
            .map(PrivateKeyDer::Pkcs8)
            .map_err(|_| malformed("the key is not in PKCS #8"))
    }
}

impl fmt::Debug for Identity {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({}, {})", self.own, self.own.serial)
    }
}

/// A key that was made on this host and waits for its certificate. The key never leaves the host:
/// only [`KeyRequest::request`] does.
pub struct KeyRequest {
    key: KeyPair,
    request: String,
}

impl KeyRequest {
    /// Makes a key and asks for a certificate. What role and host it gets, the authority decides.
    pub fn new() -> Result<Self> {
        let key = new_key()?;
        let request = CertificateParams::default()
            .serialize_request(&key)
            .and_then(|request| request.pem())
            .map_err(|error| failed("asking for a certificate", error))?;
        Ok(Self { key, request })
    }

    /// The request (PKCS #10, PEM), for [`crate::authority::Authority::sign_request`].
    pub fn request(&self) -> &str {
        &self.request
    }

    /// The identity, now that the certificate has come.
    ///
    /// # Errors
    /// `Invalid` where the certificate is not for this key or not of this authority's site.
    pub fn finish(self, chain: &str, authority: &str) -> Result<Identity> {
        Identity::from_pem(chain, Zeroizing::new(self.key.serialize_pem()), authority)
    }
}

/// A new key: ECDSA on P-256, which every tool and hardware module can read.
pub(crate) fn new_key() -> Result<KeyPair> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|error| failed("making a key", error))
}

/// The certificates of a PEM text.
pub(crate) fn certificates_of(pem: &str) -> Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .take(CHAIN_LENGTH_MAX + 1)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| malformed("a certificate is not in PEM"))
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>> {
    let chain = certificates_of(pem)?;
    if chain.len() > CHAIN_LENGTH_MAX {
        return Err(malformed("the chain of certificates is too long"));
    }
    Ok(chain)
}

pub(crate) fn failed(doing: &str, error: rcgen::Error) -> Error {
    Error::new(Kind::Bug, "protocol.certificate.failed", doing).caused_by(error)
}

pub(crate) fn malformed(message: &str) -> Error {
    Error::invalid("protocol.identity.malformed", message)
        .hint("ask the server for a new identity for this host")
}
