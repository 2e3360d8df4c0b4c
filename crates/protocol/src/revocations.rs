//! Certificates that are no longer to be believed.
//!
//! Knows: serial numbers, and the signed list (an X.509 certificate revocation list) that carries
//! them from the authority to every host. Refuses to know: why one was revoked.
//!
//! The list is signed, so it may travel and lie anywhere. What nobody brings does not arrive: a
//! host that is cut off from the server goes on with the list it has.

use crate::peer::{self, Serial};
use base::{Error, Kind, Result};
use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};
use x509_parser::prelude::{CertificateRevocationList, FromDer};

/// The most certificates on one list: a site has thousands of hosts, not millions.
const REVOKED_MAX: usize = 1 << 20;

/// The serial numbers that are refused. Clones share one set, so that a list that arrives while
/// the program runs holds for the next handshake of every listener.
#[derive(Clone, Default, Debug)]
pub struct Revocations(Arc<RwLock<State>>);

#[derive(Default, Debug)]
struct State {
    number: u64,
    serials: BTreeSet<Serial>,
}

impl Revocations {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether this one is refused.
    pub fn contains(&self, serial: Serial) -> bool {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .serials
            .contains(&serial)
    }

    /// The number of the list in force; 0 before the first.
    pub fn number(&self) -> u64 {
        self.0.read().unwrap_or_else(PoisonError::into_inner).number
    }

    /// Puts a list (PEM) of the authority (DER) into force. A list older than the one in force is
    /// left aside, so that nobody can bring a revoked certificate back by replaying an old list.
    /// Answers whether the list is in force now.
    ///
    /// # Errors
    /// `Invalid` where it does not parse, `Denied` where the authority has not signed it, `Limit`.
    pub fn update(&self, pem: &str, authority: &[u8]) -> Result<bool> {
        let (number, serials) = read_list(pem, authority)?;
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if number < state.number {
            return Ok(false);
        }
        *state = State { number, serials };
        Ok(true)
    }
}

fn read_list(pem: &str, authority: &[u8]) -> Result<(u64, BTreeSet<Serial>)> {
    use rustls::pki_types::{CertificateRevocationListDer, pem::PemObject};
    let malformed = || {
        Error::invalid(
            "protocol.revocations.malformed",
            "a revocation list does not parse",
        )
    };
    let der =
        CertificateRevocationListDer::from_pem_slice(pem.as_bytes()).map_err(|_| malformed())?;
    let Ok(([], list)) = CertificateRevocationList::from_der(&der) else {
        return Err(malformed());
    };
    let authority = peer::parse(authority)?;
    if list.issuer() != authority.subject()
        || list.verify_signature(authority.public_key()).is_err()
    {
        return Err(Error::new(
            Kind::Denied,
            "protocol.revocations.unsigned",
            "a revocation list is not signed by the site's authority",
        ));
    }
    let digits = list.crl_number().ok_or_else(malformed)?.to_u64_digits();
    let number = match digits[..] {
        [] => 0,
        [number] => number,
        _ => return Err(malformed()),
    };
    let mut serials = BTreeSet::new();
    for revoked in list.iter_revoked_certificates() {
        if serials.len() >= REVOKED_MAX {
            return Err(Error::new(
                Kind::Limit,
                "protocol.revocations.too-many",
                format!("a revocation list has more than {REVOKED_MAX} entries"),
            ));
        }
        serials.insert(Serial::from_der(revoked.raw_serial())?);
    }
    Ok((number, serials))
}
