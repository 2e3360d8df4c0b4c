//! Packs read back; damaged trailers are replaced by a search.

use super::*;
use crate::frame::{Codecs, Maker};
use crate::key::KeySet;
use base::files::{FileRead, Path};
use base::os::OsFiles;
use base::random::SeededRandom;
use base::size::{ByteCount, ByteOffset};
use base::{Error, Kind};

/// A file in memory.
struct Bytes(Vec<u8>);

impl FileRead for Bytes {
    fn length(&self) -> Result<ByteCount> {
        Ok(ByteCount(self.0.len() as u64))
    }
    fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> Result<()> {
        let start = offset.0 as usize;
        match self.0.get(start..start.saturating_add(buffer.len())) {
            Some(bytes) => {
                buffer.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(Error::corrupt("base.files.short", "too short")),
        }
    }
}

/// A pack of five frames: its bytes and what its trailer lists.
fn sample() -> (Vec<u8>, Vec<FrameEntry>, crate::PackId) {
    let folder = tempfile::tempdir().unwrap();
    let files = OsFiles::open(folder.path()).unwrap();
    let random = SeededRandom::new(1);
    let repository = RepositoryId::from_bytes([1; 16]);
    let keys = KeySet::generate(&random);
    let cipher = crate::seal::Cipher::None;
    let maker = Maker::new(repository, &keys, cipher, [2; 32], 1, true).unwrap();
    let header = Header {
        content: Content::Data,
        cipher: 0,
        repository,
        writer: WriterId::from_bytes([3; 16]),
        sequence: 7,
    };
    let path = Path::new("pack").unwrap();
    let mut writer = PackWriter::create(&files, path, header).unwrap();
    for number in 0..5u8 {
        let plain = vec![number; 5000 + usize::from(number)];
        let rows = vec![
            Row {
                id: BlockId::from_bytes([number; 32]),
                length: 1000,
            },
            Row {
                id: BlockId::from_bytes([number + 100; 32]),
                length: plain.len() as u32 - 1000,
            },
        ];
        let codecs = Codecs::default();
        let (made, bytes) = maker.make(Content::Data, rows, &plain, &codecs).unwrap();
        writer.push(made.rows, &bytes).unwrap();
    }
    let done = writer.finish().unwrap();
    let bytes = std::fs::read(folder.path().join("pack")).unwrap();
    assert_eq!(bytes.len() as u64, done.length);
    (bytes, done.frames, done.id)
}

#[test]
fn a_pack_lists_its_frames_and_is_named_after_its_bytes() {
    let (bytes, frames, id) = sample();
    assert_eq!(blake3::hash(&bytes).as_bytes(), id.bytes());
    let listed = list_frames(&Bytes(bytes.clone())).unwrap();
    assert!(listed.trailer_damage.is_none());
    assert_eq!(listed.frames, frames);
    assert_eq!(
        (listed.header.sequence, listed.length),
        (7, bytes.len() as u64)
    );
    assert_eq!(scan(&Bytes(bytes)).unwrap(), frames);
}

#[test]
fn every_cut_gives_the_frames_before_it() {
    let (bytes, frames, _) = sample();
    for length in 0..bytes.len() {
        match list_frames(&Bytes(bytes[..length].to_vec())) {
            Ok(listed) => {
                let whole = frames
                    .iter()
                    .take_while(|frame| (frame.offset + frame.length) as usize <= length)
                    .count();
                assert!(listed.trailer_damage.is_some());
                assert_eq!(listed.frames, frames[..whole], "cut at {length}");
            }
            Err(error) => {
                assert!(
                    length < HEADER && error.kind() == Kind::Corrupt,
                    "{length} {error:?}"
                );
            }
        }
    }
}

#[test]
fn every_flip_costs_one_frame_at_most() {
    let (bytes, frames, _) = sample();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let found = scan(&Bytes(flipped.clone())).unwrap();
        assert!(found.len() + 1 >= frames.len(), "bit {bit}");
        assert!(
            found.iter().all(|frame| frames.contains(frame)),
            "bit {bit}"
        );
        match list_frames(&Bytes(flipped)) {
            Ok(listed) if listed.trailer_damage.is_none() => assert_eq!(listed.frames, frames),
            Ok(listed) => assert_eq!(listed.frames, frames, "the frames are whole: bit {bit}"),
            Err(error) => assert!(bit / 8 < HEADER && error.code().starts_with("store.object")),
        }
    }
}

#[test]
fn hostile_lengths_are_refused() {
    let (bytes, _, _) = sample();
    let at = bytes.len() - FOOTER;
    for (place, value) in [
        (0, u64::MAX),
        (0, 0),
        (8, u64::from(u32::MAX)),
        (12, 0xffff_ffff),
    ] {
        let mut forged = bytes.clone();
        let width = if place == 0 { 8 } else { 4 };
        forged[at + place..at + place + width].copy_from_slice(&value.to_le_bytes()[..width]);
        let crc = crc32c::crc32c(&forged[at..at + 20]);
        forged[at + 20..at + 24].copy_from_slice(&crc.to_le_bytes());
        let listed = list_frames(&Bytes(forged)).unwrap();
        assert!(listed.trailer_damage.is_some());
        assert_eq!(listed.frames.len(), 5);
    }
    let files: &dyn FileRead = &Bytes(Vec::new());
    assert_eq!(list_frames(files).err().unwrap().kind(), Kind::Corrupt);
}
