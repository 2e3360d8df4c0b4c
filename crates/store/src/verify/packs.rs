//! Checking packs and index segments.
//!
//! Knows: presence, length, digest, frames, blocks. What is good is noted entry by entry.
//! Refuses to know: which points need them.

use super::Check;
use super::sealed::is_named;
use crate::blocks::{packs_of, unlisted_packs};
use crate::digest::hash_range;
use crate::id::PackId;
use crate::index::{self, Entry, Index, Segment};
use crate::layout::{self, Content};
use crate::pack::{self, FrameEntry};
use crate::report::Damage;
use base::files::FileRead;
use base::size::{ByteCount, ByteOffset};
use base::{Kind, Result};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Why a pack is bad that is not there.
const MISSING: &str = "it is missing";

impl Check<'_> {
    /// Looks into packs that no segment lists: a lost segment loses nothing.
    pub(super) fn adopt_unlisted(&mut self) -> Result<()> {
        let listed = self.index.listed_packs();
        let found = unlisted_packs(&*self.inner.files, &listed)?;
        if !found.is_empty() {
            self.index = self.index.with_orphans(&found);
        }
        Ok(())
    }

    /// Reads every index segment and compares it with its name.
    pub(super) fn check_segments(&mut self) -> Result<()> {
        for segment in self.index.segments.clone() {
            self.step("index", 0, 0)?;
            let file = self.inner.files.open(&layout::segment(&segment.id)?);
            let digest = file
                .and_then(|file| hash_range(&*file, 0, segment.length, &mut blake3::Hasher::new()));
            let reason = match digest {
                Ok(digest) if digest == *segment.id.bytes() => continue,
                Ok(_) => "its bytes are not those it is named after".to_owned(),
                // Merged into another one meanwhile.
                Err(error) if error.kind() == Kind::NotFound => continue,
                Err(error) => error.to_string(),
            };
            self.damage(Damage::Segment {
                segment: segment.id,
                reason,
            });
        }
        Ok(())
    }

    /// Looks at all packs that are there or that segments list.
    pub(super) fn check_packs(&mut self) -> Result<()> {
        let mut all: Vec<(Content, HashMap<PackId, u64>)> = Vec::new();
        for content in Content::ALL {
            let present = packs_of(&*self.inner.files, content)?;
            all.push((content, present.into_iter().collect()));
        }
        let stored: u64 = all.iter().flat_map(|(_, packs)| packs.values()).sum();
        for (content, present) in all {
            let segments: Vec<Arc<Segment>> = self
                .index
                .segments
                .iter()
                .filter(|segment| segment.content == content)
                .cloned()
                .collect();
            for row in segments.iter().flat_map(|segment| &segment.packs) {
                let reason = match present.get(&row.id) {
                    None => MISSING.to_owned(),
                    Some(length) if *length != row.length => {
                        format!("it has {length} bytes in place of {}", row.length)
                    }
                    Some(_) => continue,
                };
                self.bad_packs.insert(row.id, reason);
            }
            let mut names: Vec<PackId> = present.keys().copied().collect();
            names.sort_unstable();
            self.report.packs += names.len() as u64;
            if self.options.read_data {
                for id in &names {
                    self.step_bytes(stored)?;
                    self.read_pack(content, id, &segments)?;
                }
                self.step_bytes(stored)?;
            }
        }
        let mut bad: Vec<(PackId, String)> = self.bad_packs.clone().into_iter().collect();
        bad.sort();
        let listed = match bad.is_empty() {
            true => HashSet::new(),
            false => self.listed_now()?,
        };
        for (pack, reason) in bad {
            // A pack that no segment lists any more was collected while we looked. It stays bad for
            // the walk over points, which then looks for other places of its blocks.
            if reason == MISSING && !listed.contains(&pack) {
                continue;
            }
            self.damage(Damage::Pack { pack, reason });
        }
        Ok(())
    }

    /// The packs that segments list by now.
    fn listed_now(&self) -> Result<HashSet<PackId>> {
        let loaded = index::load(&*self.inner.files, self.inner.config.id, &[])?;
        Ok(Index::new(loaded.segments, Default::default()).listed_packs())
    }

    /// Reads a pack from its first byte to its last. Read again before it is accused.
    fn read_pack(
        &mut self,
        content: Content,
        id: &PackId,
        segments: &[Arc<Segment>],
    ) -> Result<()> {
        let mut last = None;
        for _ in 0..2 {
            let file = match self.inner.files.open(&layout::pack(content, id)?) {
                // Collected meanwhile.
                Err(error) if error.kind() == Kind::NotFound => return Ok(()),
                other => other?,
            };
            last = match self.try_pack(&*file, id, content, segments) {
                Ok(None) => return Ok(()),
                Ok(reason) => reason,
                Err(error) => Some(error.to_string()),
            };
        }
        if let Some(reason) = last {
            self.bad_packs.entry(*id).or_insert(reason);
        }
        Ok(())
    }

    /// What is wrong with a pack, if anything; good blocks are noted either way.
    fn try_pack(
        &mut self,
        file: &dyn FileRead,
        id: &PackId,
        content: Content,
        segments: &[Arc<Segment>],
    ) -> Result<Option<String>> {
        let length = file.length()?.0;
        self.report.read += ByteCount(length);
        let listed = match pack::list_frames(file) {
            Ok(listed) => listed,
            Err(error) if error.kind() != Kind::Corrupt => return Err(error),
            Err(error) => {
                let damage = Some(error.to_string());
                // The header is gone, but frames need none.
                for frame in pack::scan(file)? {
                    self.try_frame(file, id, &frame, segments)?;
                }
                return Ok(damage);
            }
        };
        let mut damage = listed.trailer_damage.map(|error| error.to_string());
        if listed.header.content != content || listed.header.repository != self.inner.config.id {
            damage.get_or_insert_with(|| "it belongs elsewhere".to_owned());
        }
        let mut hasher = blake3::Hasher::new();
        let mut at = 0;
        for frame in &listed.frames {
            let start = u64::from(frame.offset);
            hash_range(file, at, start, &mut hasher)?;
            let (bytes, problem) = self.try_frame(file, id, frame, segments)?;
            hasher.update(&bytes);
            at = start + bytes.len() as u64;
            if let Some(problem) = problem {
                damage.get_or_insert(problem);
            }
        }
        let digest = hash_range(file, at, length, &mut hasher)?;
        if !is_named(&digest, id) {
            damage.get_or_insert_with(|| "its bytes are not those it is named after".to_owned());
        }
        Ok(damage)
    }

    /// Reads a frame and notes its blocks as good where they are: its bytes, and what is wrong.
    fn try_frame(
        &mut self,
        file: &dyn FileRead,
        pack: &PackId,
        frame: &FrameEntry,
        segments: &[Arc<Segment>],
    ) -> Result<(Vec<u8>, Option<String>)> {
        let mut bytes = vec![0; frame.length as usize];
        file.read_at(ByteOffset(u64::from(frame.offset)), &mut bytes)?;
        match self.inner.blocks.open_frame(&bytes) {
            Ok(opened) if opened.rows() == frame.rows => {
                for (position, row) in frame.rows.iter().enumerate() {
                    for segment in segments {
                        if let Ok(Some((number, entry))) = segment.locate(&row.id)
                            && is_place(segment, &entry, pack, frame, position)
                        {
                            self.good.set(segment.id, segment.count, number);
                        }
                    }
                }
                Ok((bytes, None))
            }
            Ok(_) => Ok((
                bytes,
                Some("its trailer lists other blocks than it has".to_owned()),
            )),
            Err(error) => Ok((bytes, Some(error.to_string()))),
        }
    }
}

/// Whether an entry means this block of this frame.
fn is_place(
    segment: &Segment,
    entry: &Entry,
    pack: &PackId,
    frame: &FrameEntry,
    position: usize,
) -> bool {
    segment.pack(entry).is_ok_and(|row| row.id == *pack)
        && entry.offset == frame.offset
        && entry.length == frame.length
        && usize::from(entry.position) == position
}
