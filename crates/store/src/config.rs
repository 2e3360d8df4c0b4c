//! The files that open a repository: its description and its key slots, two copies each (format
//! page, section "Opening").
//!
//! Knows: their bytes: a line of JSON, then a line with a check. Refuses to know: anything else.

use crate::cut::CutParameters;
use crate::key::slot::{Password, Slot, hex};
use crate::key::{CONFIG_MAC, KeySet};
use crate::layout::{CONFIG, FORMAT_MAJOR, FORMAT_MINOR};
use crate::limit::CONFIG_SIZE_MAX;
use crate::publish::publish_bytes;
use crate::seal::Cipher;
use base::clock::Timestamp;
use base::files::{Files, Path, read_all};
use base::id::RepositoryId;
use base::size::ByteCount;
use base::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The word at the start of a repository's description.
const MAGIC: &str = "backstay repository";

/// A repository's description of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Config {
    magic: String,
    pub(crate) major: u16,
    pub(crate) minor: u16,
    /// Features without which the repository must not be touched.
    pub(crate) must_understand: Vec<String>,
    /// Features without which the repository may be read but not changed.
    #[serde(default)]
    pub(crate) must_understand_to_write: Vec<String>,
    /// Rises whenever the description is rewritten: of two copies the higher counts.
    #[serde(default)]
    pub(crate) edition: u64,
    pub(crate) id: RepositoryId,
    pub(crate) created: Timestamp,
    pub(crate) cipher: Cipher,
    pub(crate) cut: CutParameters,
    /// Bytes at which a pack is closed.
    pub(crate) pack_size: ByteCount,
    /// Bytes kept back for deleting.
    pub(crate) reserve: ByteCount,
}

/// The part of a description that every version has.
#[derive(Deserialize)]
struct Version {
    magic: String,
    major: u16,
    #[serde(default)]
    must_understand: Vec<String>,
    #[serde(default)]
    edition: u64,
}

impl Config {
    pub(crate) fn new(
        id: RepositoryId,
        created: Timestamp,
        cipher: Cipher,
        cut: CutParameters,
        pack_size: ByteCount,
        reserve: ByteCount,
    ) -> Self {
        Self {
            magic: MAGIC.to_owned(),
            major: FORMAT_MAJOR,
            minor: FORMAT_MINOR,
            must_understand: Vec::new(),
            must_understand_to_write: Vec::new(),
            edition: 1,
            id,
            created,
            cipher,
            cut,
            pack_size,
            reserve,
        }
    }

    /// An error where this program does not know all that is needed to change the repository.
    pub(crate) fn check_writable(&self) -> Result<()> {
        if self.must_understand_to_write.is_empty() {
            return Ok(());
        }
        Err(Error::new(
            Kind::Unsupported,
            "store.repository.version",
            format!(
                "changing the repository needs features this program does not have: {}",
                self.must_understand_to_write.join(", ")
            ),
        )
        .hint("use a newer Backstay; reading works, and nothing was changed"))
    }

    fn check(&self) -> Result<()> {
        self.cut.check()?;
        let pack = self.pack_size.0;
        if pack == 0 || pack > crate::limit::PACK_SIZE_MAX / 2 {
            return Err(Error::invalid(
                "store.config.pack-size",
                format!("packs of {} are not possible", self.pack_size),
            )
            .hint("choose between 1 MiB and 512 MiB"));
        }
        Ok(())
    }
}

/// A line, and a line with its check.
fn two_lines(json: &str, check: &[u8; 32]) -> Vec<u8> {
    format!("{json}\n{}\n", hex(check)).into_bytes()
}

fn split_lines(bytes: &[u8]) -> Result<(&str, &str)> {
    let damaged = || Error::corrupt("store.config.malformed", "it is not two lines of text");
    let text = std::str::from_utf8(bytes).map_err(|_| damaged())?;
    let (json, rest) = text.split_once('\n').ok_or_else(damaged)?;
    let check = rest
        .strip_suffix('\n')
        .filter(|line| !line.contains('\n'))
        .ok_or_else(damaged)?;
    Ok((json, check))
}

fn unwritable(error: serde_json::Error) -> Error {
    Error::new(
        Kind::Bug,
        "store.config.unwritable",
        "a description cannot be written",
    )
    .caused_by(error)
}

/// Writes key slot 1 and the description, each twice; the description's first copy last, because
/// with it the repository exists.
pub(crate) fn publish(
    files: &dyn Files,
    config: &Config,
    keys: &KeySet,
    slot: &Slot,
) -> Result<()> {
    config.check()?;
    let slot = SlotFile {
        edition: 1,
        slot: slot.clone(),
    };
    let json = serde_json::to_string(&slot).map_err(unwritable)?;
    let bytes = two_lines(&json, blake3::hash(json.as_bytes()).as_bytes());
    for name in ["keys/1", "keys/1.copy"] {
        publish_bytes(
            files,
            &Path::new(format!("{name}.new"))?,
            &Path::new(name)?,
            &bytes,
        )?;
    }
    let json = serde_json::to_string(config).map_err(unwritable)?;
    let mac = blake3::keyed_hash(&keys.lasting(CONFIG_MAC), json.as_bytes());
    let bytes = two_lines(&json, mac.as_bytes());
    for name in CONFIG.iter().rev() {
        publish_bytes(
            files,
            &Path::new(format!("{name}.new"))?,
            &Path::new(*name)?,
            &bytes,
        )?;
    }
    Ok(())
}

/// Opens a repository: finds a copy of the description and a slot that are whole and belong
/// together. Of two copies the higher edition counts; the lower one only where the higher turns out
/// damaged, never because the higher is not understood.
pub(crate) fn open(
    files: &dyn Files,
    password: Option<&Password>,
) -> Result<(Config, KeySet, bool)> {
    let mut copies: Vec<(u64, Vec<u8>)> = Vec::new();
    let mut first_error = None;
    for name in CONFIG {
        match read_all(files, &Path::new(name)?, CONFIG_SIZE_MAX) {
            Ok(bytes) => copies.push((edition_of(&bytes), bytes)),
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => {
                first_error.get_or_insert(error);
            }
        }
    }
    if copies.is_empty() && first_error.is_none() {
        return Err(Error::new(
            Kind::NotFound,
            "store.repository.not-found",
            "there is no repository in this folder",
        )
        .hint("check the path, or make a repository there first"));
    }
    copies.sort_by_key(|(edition, _)| std::cmp::Reverse(*edition));
    let mut refused_at = 0;
    for (edition, bytes) in copies {
        if edition < refused_at {
            break;
        }
        match open_with(files, &bytes, password) {
            Ok(opened) => return Ok(opened),
            Err(error) if error.kind() == Kind::Denied => return Err(error),
            Err(error) => {
                // Damage may look like a newer format: then a copy of the same edition opens.
                if error.kind() == Kind::Unsupported {
                    refused_at = edition;
                    first_error = Some(error);
                } else {
                    first_error.get_or_insert(error);
                }
            }
        }
    }
    let error = first_error.unwrap_or_else(|| Error::corrupt("store.config.malformed", "no copy"));
    Err(error.context("the repository cannot be opened"))
}

/// The edition of a description, 0 where it cannot be told.
fn edition_of(bytes: &[u8]) -> u64 {
    let version = split_lines(bytes)
        .ok()
        .and_then(|(json, _)| serde_json::from_str(json).ok());
    version.map_or(0, |version: Version| version.edition)
}

fn open_with(
    files: &dyn Files,
    bytes: &[u8],
    password: Option<&Password>,
) -> Result<(Config, KeySet, bool)> {
    let (json, check) = split_lines(bytes)?;
    let malformed = |error: serde_json::Error| {
        Error::corrupt(
            "store.config.malformed",
            "the repository's description is damaged",
        )
        .caused_by(error)
    };
    let version: Version = serde_json::from_str(json).map_err(malformed)?;
    if version.magic != MAGIC {
        return Err(Error::corrupt(
            "store.config.malformed",
            "this is no description",
        ));
    }
    if version.major != FORMAT_MAJOR || !version.must_understand.is_empty() {
        return Err(Error::new(
            Kind::Unsupported,
            "store.repository.version",
            format!(
                "the repository has format {} with features [{}]; this program knows {FORMAT_MAJOR}",
                version.major,
                version.must_understand.join(", ")
            ),
        )
        .hint("use a newer Backstay; nothing was changed"));
    }
    let config: Config = serde_json::from_str(json).map_err(malformed)?;
    let (keys, open) = open_slots(files, config.id, password)?;
    let mac = blake3::keyed_hash(&keys.lasting(CONFIG_MAC), json.as_bytes());
    if check.parse::<base::digest::Digest>()?.0 != *mac.as_bytes() {
        return Err(Error::corrupt(
            "store.config.forged",
            "the repository's description was changed, or its keys belong to another one",
        ));
    }
    config.check()?;
    Ok((config, keys, open))
}

/// A key slot as a file.
#[derive(Serialize, Deserialize)]
struct SlotFile {
    /// Rises whenever the slot is rewritten: of two copies the higher counts.
    #[serde(default)]
    edition: u64,
    #[serde(flatten)]
    slot: Slot,
}

/// Tries all slots: the password may be that of any.
fn open_slots(
    files: &dyn Files,
    repository: RepositoryId,
    password: Option<&Password>,
) -> Result<(KeySet, bool)> {
    let folder = Path::new("keys")?;
    let mut first_error = None;
    let mut slots: BTreeMap<String, SlotFile> = BTreeMap::new();
    for entry in files.list(&folder)? {
        let name = entry
            .name
            .strip_suffix(".copy")
            .unwrap_or(&entry.name)
            .to_owned();
        if entry.is_folder || entry.name.ends_with(".new") {
            continue;
        }
        match read_slot(files, &folder.join(&entry.name)?) {
            Ok(slot)
                if slots
                    .get(&name)
                    .is_some_and(|known| known.edition >= slot.edition) => {}
            Ok(slot) => {
                slots.insert(name, slot);
            }
            Err(error) => {
                first_error.get_or_insert(error);
            }
        }
    }
    // What a password says counts more than damage elsewhere.
    let mut denied = None;
    for file in slots.values() {
        match file.slot.unwrap(password, repository) {
            Ok(keys) => return Ok((keys, file.slot.is_open())),
            Err(error) if error.kind() == Kind::Denied => denied = Some(error),
            Err(error) => {
                first_error.get_or_insert(error);
            }
        }
    }
    Err(denied.or(first_error).unwrap_or_else(|| {
        Error::corrupt("store.key.none", "the repository has no key slots")
            .hint("restore the folder \u{201c}keys\u{201d} from a copy of the repository")
    }))
}

fn read_slot(files: &dyn Files, path: &Path) -> Result<SlotFile> {
    let bytes = read_all(files, path, CONFIG_SIZE_MAX)?;
    let (json, check) = split_lines(&bytes)?;
    if check.parse::<base::digest::Digest>()?.0 != *blake3::hash(json.as_bytes()).as_bytes() {
        return Err(Error::corrupt(
            "store.key.malformed",
            format!("{path} is damaged"),
        ));
    }
    // The slot is whole, so what is not understood in it is newer than this program.
    serde_json::from_str(json).map_err(|error| {
        let message = format!("the key slot {path} is of a kind this program does not know");
        Error::new(Kind::Unsupported, "store.key.slot-unknown", message).caused_by(error)
    })
}
