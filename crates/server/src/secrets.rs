//! Secrets at rest: passwords of repositories, sealed with a key that is not in the database.
//!
//! Knows: one key file of the state folder, readable by the server only. Refuses to know: what the
//! secrets open. Whoever has the database alone has no secret.
//!
//! A sealed secret is `nonce (12 bytes) ‖ AES-256-GCM(secret)` with the purpose as associated data,
//! so that a secret copied to another row does not open.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base::random::Random;
use base::{Error, Kind, Result};
use protocol::words::secret::Secret;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const KEY_LENGTH: usize = 32;

/// The key to all secrets of a site.
pub struct Secrets {
    key: LessSafeKey,
}

impl Secrets {
    /// Opens the key file, making it where missing.
    pub fn open(path: &Path, random: &dyn Random) -> Result<Self> {
        let doing = || format!("reading the key of secrets {}", path.display());
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let mut bytes = vec![0; KEY_LENGTH];
                random.fill(&mut bytes);
                write_new(path, &bytes)?;
                bytes
            }
            Err(error) => return Err(Error::io(doing(), error)),
        };
        let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| {
            Error::corrupt("server.secrets.key", doing()).hint(
                "the file must hold 32 bytes; bring it back from a copy, or remove it and give \
                 each repository's password again",
            )
        })?;
        Ok(Self {
            key: LessSafeKey::new(key),
        })
    }

    /// Seals a secret for a purpose.
    pub fn seal(&self, purpose: &str, secret: &Secret, random: &dyn Random) -> Result<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        random.fill(&mut nonce);
        let mut sealed = secret.reveal().as_bytes().to_vec();
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(purpose.as_bytes()),
                &mut sealed,
            )
            .map_err(|_| Error::new(Kind::Bug, "server.secrets.seal", "sealing a secret"))?;
        Ok([&nonce[..], &sealed].concat())
    }

    /// Opens a secret that was sealed for this purpose.
    pub fn open_sealed(&self, purpose: &str, sealed: &[u8]) -> Result<Secret> {
        let broken = || {
            Error::corrupt(
                "server.secrets.sealed",
                format!("the secret of {purpose} does not open"),
            )
            .hint("the key of secrets is not the one it was sealed with; give the secret again")
        };
        let (nonce, rest) = sealed.split_at_checked(NONCE_LEN).ok_or_else(broken)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| broken())?;
        let mut rest = rest.to_vec();
        let plain = self
            .key
            .open_in_place(nonce, Aad::from(purpose.as_bytes()), &mut rest)
            .map_err(|_| broken())?;
        let text = std::str::from_utf8(plain).map_err(|_| broken())?;
        Ok(Secret::new(text))
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let doing = || format!("writing the key of secrets {}", path.display());
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| Error::io(doing(), error))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(|error| Error::io(doing(), error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::random::SeededRandom;

    #[test]
    fn opens_for_its_purpose_only_and_with_its_key_only() {
        let folder = tempfile::tempdir().unwrap();
        let random = SeededRandom::new(7);
        let path = folder.path().join("key");
        let secrets = Secrets::open(&path, &random).unwrap();
        let sealed = secrets
            .seal("repository/a", &Secret::new("pass"), &random)
            .unwrap();
        assert!(!sealed.windows(4).any(|bytes| bytes == b"pass"));
        let again = Secrets::open(&path, &random).unwrap();
        assert_eq!(
            again.open_sealed("repository/a", &sealed).unwrap().reveal(),
            "pass"
        );
        assert!(again.open_sealed("repository/b", &sealed).is_err());
        assert!(again.open_sealed("repository/a", &sealed[..10]).is_err());
        let other = Secrets::open(&folder.path().join("other"), &random).unwrap();
        assert!(other.open_sealed("repository/a", &sealed).is_err());
        let mode = std::fs::metadata(&path).unwrap();
        assert_eq!(
            std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777,
            0o600
        );
    }
}
