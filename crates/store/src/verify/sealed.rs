//! Checking a repository without its keys.
//!
//! Knows: that packs and index segments are named after the digest of their bytes, and that records
//! end with one; so a host that must not read the data can still prove every byte of it.
//! Refuses to know: what is inside.

use super::push_damage;
use crate::blocks::packs_of;
use crate::digest::hash_range;
use crate::id::{PackId, SegmentId};
use crate::layout::{self, Content};
use crate::limit::RECORD_SIZE_MAX;
use crate::record;
use crate::report::{Damage, Progress, VerifyReport};
use base::cancel::Cancel;
use base::files::{Files, Path, read_all};
use base::size::ByteCount;
use base::{Kind, Result};

/// Checks every pack, index segment and point of a repository against its name or digest. Needs no
/// password and decrypts nothing.
///
/// # Errors
/// `NotFound` where there is no repository; `Cancelled`; `Io`.
pub fn verify_sealed(
    files: &dyn Files,
    cancel: &Cancel,
    progress: &dyn Fn(Progress),
) -> Result<VerifyReport> {
    let mut report = VerifyReport::default();
    for content in Content::ALL {
        let packs = packs_of(files, content)?;
        for (done, (id, _)) in packs.iter().enumerate() {
            cancel.check()?;
            progress(Progress {
                step: "packs",
                done: done as u64,
                total: packs.len() as u64,
                bytes: false,
            });
            report.packs += 1;
            let path = layout::pack(content, id)?;
            if let Some(reason) = check_file(files, &path, id.bytes(), &mut report.read)? {
                push_damage(&mut report, Damage::Pack { pack: *id, reason });
            }
        }
    }
    let index = Path::new("index")?;
    for entry in files.list(&index)? {
        cancel.check()?;
        let Ok(segment) = entry.name.parse::<SegmentId>() else {
            continue;
        };
        let path = index.join(&entry.name)?;
        if let Some(reason) = check_file(files, &path, segment.bytes(), &mut report.read)? {
            push_damage(&mut report, Damage::Segment { segment, reason });
        }
    }
    check_records(files, &mut report)?;
    Ok(report)
}

/// Checks the digests at the ends of all records.
fn check_records(files: &dyn Files, report: &mut VerifyReport) -> Result<()> {
    for name in ["points", "deleted", "collect"] {
        let folder = Path::new(name)?;
        for entry in files
            .list(&folder)?
            .into_iter()
            .filter(|entry| entry.name != "lock")
        {
            let path = folder.join(&entry.name)?;
            let checked = read_all(files, &path, RECORD_SIZE_MAX)
                .and_then(|bytes| record::check_digest(&bytes));
            report.points += u64::from(name == "points");
            match checked {
                Ok(()) => {}
                // Deleted, forgotten or superseded meanwhile.
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) if name == "points" => {
                    let reason = error.to_string();
                    push_damage(
                        report,
                        Damage::Point {
                            name: entry.name,
                            reason,
                        },
                    );
                }
                Err(error) => {
                    let (path, reason) = (path.to_string(), error.to_string());
                    push_damage(report, Damage::Object { path, reason });
                }
            }
        }
    }
    Ok(())
}

/// Compares a file with the digest it is named after: what is wrong, if anything. Read twice before
/// it is accused. A file that is gone meanwhile was collected.
fn check_file(
    files: &dyn Files,
    path: &Path,
    digest: &[u8; 32],
    read: &mut ByteCount,
) -> Result<Option<String>> {
    for attempt in 0..2 {
        match digest_of(files, path, read) {
            Ok(found) if found == *digest => return Ok(None),
            Err(error) if error.kind() == Kind::NotFound => return Ok(None),
            Err(error) if attempt == 1 => return Ok(Some(error.to_string())),
            _ => {}
        }
    }
    Ok(Some("its bytes are not those it is named after".to_owned()))
}

fn digest_of(files: &dyn Files, path: &Path, read: &mut ByteCount) -> Result<[u8; 32]> {
    let file = files.open(path)?;
    let length = file.length()?.0;
    *read += ByteCount(length);
    hash_range(&*file, 0, length, &mut blake3::Hasher::new())
}

/// The digest a pack is named after.
pub(super) fn is_named(digest: &[u8; 32], pack: &PackId) -> bool {
    digest == pack.bytes()
}
