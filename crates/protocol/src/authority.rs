//! The site's own certificate authority.
//!
//! Knows: how to make itself, keep itself in a folder, give identities to roles on hosts, and sign
//! the list of those that are no longer good. Refuses to know: who deserves one; the server decides
//! and keeps the register.
//!
//! No other authority is ever trusted, neither the system's nor another site's.

use crate::identity::{Identity, certificates_of, failed, malformed, new_key};
use crate::keyfile;
use crate::peer::{self, Role, Serial};
use base::clock::{Clock, Timestamp};
use base::id::{HostId, SiteId};
use base::random::Random;
use base::{Error, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams,
    CertificateSigningRequestParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PublicKeyData, RevokedCertParams, SanType,
    SerialNumber,
};
use std::fmt;
use std::path::Path;
use std::time::Duration;
use x509_parser::time::ASN1Time;
use zeroize::Zeroizing;

const DAY: Duration = Duration::from_secs(86_400);
/// How long the authority's own certificate is good: longer than points are kept at most sites.
pub const AUTHORITY_VALIDITY: Duration = Duration::from_secs(86_400 * 365 * 20);
/// How long an identity is good unless said otherwise. It is renewed when two thirds are over.
pub const IDENTITY_VALIDITY: Duration = Duration::from_secs(86_400 * 365);
/// Certificates are good from so long before they were made: clocks of hosts differ.
const BACKDATING: Duration = DAY;
/// The longest signing request, in bytes.
const REQUEST_SIZE_MAX: usize = 16 * 1024;
const CERTIFICATE: &str = "authority.pem";
const KEY: &str = "authority-key.pem";

/// The authority.
pub struct Authority {
    site: SiteId,
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new authority for a new site.
    pub fn create(site: SiteId, clock: &dyn Clock, random: &dyn Random) -> Result<Self> {
        let key = new_key()?;
        let mut params = params(&peer::site_name(site), AUTHORITY_VALIDITY, clock, random)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
            .distinguished_name
            .push(DnType::CommonName, format!("Backstay site {site}"));
        let certificate = params
            .self_signed(&key)
            .map_err(|error| failed("making the authority's certificate", error))?;
        Self::from_parts(certificate.pem(), key)
    }

    fn from_parts(certificate_pem: String, key: KeyPair) -> Result<Self> {
        let [der] = &certificates_of(&certificate_pem)?[..] else {
            return Err(malformed("there is not exactly one authority"));
        };
        let site = peer::site_of_authority(der)?;
        if peer::parse(der)?.public_key().subject_public_key.data != key.der_bytes() {
            return Err(malformed("the key is not the authority's"));
        }
        let issuer = Issuer::from_ca_cert_der(der, key)
            .map_err(|error| failed("reading the authority's certificate", error))?;
        Ok(Self {
            site,
            certificate_pem,
            issuer,
        })
    }

    /// Reads it from a folder.
    ///
    /// # Errors
    /// `NotFound`; `Denied` (`protocol.key.exposed`) where others can read the key; `Invalid`.
    pub fn load(folder: &Path) -> Result<Self> {
        let load = || {
            let key = keyfile::read_secret(folder, KEY)?;
            let key = KeyPair::from_pem(&key).map_err(|_| malformed("the key does not parse"))?;
            Self::from_parts(keyfile::read(folder, CERTIFICATE)?, key)
        };
        load().map_err(|error: Error| {
            error.context(format!(
                "loading the certificate authority in {}",
                folder.display()
            ))
        })
    }

    /// Writes it to a folder: `authority.pem`, and `authority-key.pem` with mode 0600.
    pub fn save(&self, folder: &Path) -> Result<()> {
        keyfile::make_folder(folder)?;
        let key = Zeroizing::new(self.issuer.key().serialize_pem());
        keyfile::write(folder, KEY, key.as_bytes(), 0o600)?;
        keyfile::write(folder, CERTIFICATE, self.certificate_pem.as_bytes(), 0o644)
    }

    /// The site it is the authority of.
    pub const fn site(&self) -> SiteId {
        self.site
    }

    /// Its certificate, PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// A new identity, key and all, for a process on this very host (or handed over a channel that
    /// is secret, such as SSH). For other hosts prefer [`Authority::sign_request`].
    pub fn issue(
        &self,
        role: Role,
        host: HostId,
        validity: Duration,
        clock: &dyn Clock,
        random: &dyn Random,
    ) -> Result<Identity> {
        let key = new_key()?;
        let certificate = self
            .identity_params(role, host, validity, clock, random)?
            .signed_by(&key, &self.issuer)
            .map_err(|error| failed("making a certificate", error))?;
        let key = Zeroizing::new(key.serialize_pem());
        Identity::from_pem(&certificate.pem(), key, &self.certificate_pem)
    }

    /// A certificate (PEM) for the key of a signing request. Of the request nothing but its public
    /// key is used: names, usages and validity are this authority's own.
    ///
    /// # Errors
    /// `Invalid` (`protocol.request.malformed`) where the request does not parse or its signature
    /// does not show that the asker has the key.
    pub fn sign_request(
        &self,
        request: &str,
        role: Role,
        host: HostId,
        validity: Duration,
        clock: &dyn Clock,
        random: &dyn Random,
    ) -> Result<String> {
        let malformed = || {
            Error::invalid(
                "protocol.request.malformed",
                "a signing request does not parse",
            )
        };
        if request.len() > REQUEST_SIZE_MAX {
            return Err(malformed());
        }
        let mut asked =
            CertificateSigningRequestParams::from_pem(request).map_err(|_| malformed())?;
        asked.params = self.identity_params(role, host, validity, clock, random)?;
        asked
            .signed_by(&self.issuer)
            .map(|certificate| certificate.pem())
            .map_err(|error| failed("making a certificate", error))
    }

    /// The signed list of revoked certificates, PEM. `number` grows with every list of a site.
    pub fn revocation_list(
        &self,
        number: u64,
        revoked: &[(Serial, Timestamp)],
        clock: &dyn Clock,
    ) -> Result<String> {
        let entries = revoked.iter().map(|(serial, when)| {
            Ok(RevokedCertParams {
                serial_number: SerialNumber::from_slice(&serial.0),
                revocation_time: moment(*when)?.to_datetime(),
                reason_code: None,
                invalidity_date: None,
            })
        });
        let now = clock.now();
        CertificateRevocationListParams {
            this_update: moment(now)?.to_datetime(),
            next_update: moment(later(now, AUTHORITY_VALIDITY))?.to_datetime(),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: entries.collect::<Result<_>>()?,
            key_identifier_method: KeyIdMethod::Sha256,
        }
        .signed_by(&self.issuer)
        .and_then(|list| list.pem())
        .map_err(|error| failed("signing the revocation list", error))
    }

    fn identity_params(
        &self,
        role: Role,
        host: HostId,
        validity: Duration,
        clock: &dyn Clock,
        random: &dyn Random,
    ) -> Result<CertificateParams> {
        let mut params = params(&peer::name(self.site, role, host), validity, clock, random)?;
        params
            .distinguished_name
            .push(DnType::CommonName, format!("Backstay {role}"));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // Both: agents dial each other, and either side may be the one that listens.
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }
}

impl fmt::Debug for Authority {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({})", self.site)
    }
}

/// What every certificate has: a URI, a serial number, a time.
fn params(
    uri: &str,
    validity: Duration,
    clock: &dyn Clock,
    random: &dyn Random,
) -> Result<CertificateParams> {
    let mut serial = [0; 16];
    random.fill(&mut serial);
    let now = clock.now();
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(&Serial::new(serial).0));
    params.distinguished_name = DistinguishedName::new();
    let uri = uri
        .try_into()
        .map_err(|error| failed("naming a certificate", error))?;
    params.subject_alt_names = vec![SanType::URI(uri)];
    let backdating = i64::try_from(BACKDATING.as_micros()).unwrap_or(0);
    params.not_before = moment(Timestamp(now.0.saturating_sub(backdating)))?.to_datetime();
    params.not_after = moment(later(now, validity))?.to_datetime();
    Ok(params)
}

fn later(now: Timestamp, by: Duration) -> Timestamp {
    Timestamp(
        now.0
            .saturating_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)),
    )
}

fn moment(at: Timestamp) -> Result<ASN1Time> {
    ASN1Time::from_timestamp(at.unix_seconds()).map_err(|_| {
        Error::invalid(
            "protocol.certificate.time",
            "a time does not fit in a certificate",
        )
        .hint("check the clock of this host")
    })
}

#[cfg(test)]
mod tests;
