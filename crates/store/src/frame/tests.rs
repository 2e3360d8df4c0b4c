//! Frames read back, and anything else is refused.

use super::*;
use base::random::SeededRandom;

fn keys() -> KeySet {
    KeySet::generate(&SeededRandom::new(1))
}

fn id() -> RepositoryId {
    RepositoryId::from_bytes([4; 16])
}

fn sample(cipher: Cipher, level: i32) -> (Vec<u8>, Vec<u8>) {
    let maker = Maker::new(id(), &keys(), cipher, [8; 32], level, true).unwrap();
    let plain: Vec<u8> = (0..900u32).flat_map(|i| (i / 7).to_le_bytes()).collect();
    let rows = vec![
        Row {
            id: BlockId::from_bytes([1; 32]),
            length: 1000,
        },
        Row {
            id: BlockId::from_bytes([2; 32]),
            length: 2600,
        },
    ];
    let (_, bytes) = maker
        .make(Content::Data, rows, &plain, &Codecs::default())
        .unwrap();
    (bytes, plain)
}

fn read(bytes: &[u8], cipher: Cipher) -> Result<Vec<u8>> {
    let header = Header::parse(bytes)?;
    let start = header_length(header.rows.len());
    let sealed = bytes
        .get(start..)
        .ok_or_else(|| malformed("a frame", "short"))?;
    open(&header, sealed, id(), cipher, &keys(), &Codecs::default())
}

#[test]
fn reads_back_and_refuses_every_flip_and_cut() {
    for (cipher, level) in [(Cipher::None, 0), (Cipher::None, 1), (Cipher::Aes256Gcm, 1)] {
        let (bytes, plain) = sample(cipher, level);
        assert_eq!(read(&bytes, cipher).unwrap(), plain);
        assert_eq!(Header::parse(&bytes).unwrap().total(), bytes.len());
        for length in 0..bytes.len() {
            assert_eq!(
                read(&bytes[..length], cipher).unwrap_err().kind(),
                Kind::Corrupt
            );
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                read(&flipped, cipher).unwrap_err().kind(),
                Kind::Corrupt,
                "bit {bit}"
            );
        }
    }
}

/// With checksums put right again the seal alone must find a changed header.
#[test]
fn the_seal_binds_the_header() {
    let (bytes, _) = sample(Cipher::Aes256Gcm, 1);
    let length = header_length(2);
    let crc_of_sealed = FIXED - 4..FIXED;
    for at in 4..length - 4 {
        if crc_of_sealed.contains(&at) {
            continue;
        }
        for bit in 0..8 {
            let mut forged = bytes.clone();
            forged[at] ^= 1 << bit;
            let crc = crc32c::crc32c(&forged[..length - 4]);
            forged[length - 4..length].copy_from_slice(&crc.to_le_bytes());
            assert!(
                read(&forged, Cipher::Aes256Gcm).is_err(),
                "byte {at} bit {bit}"
            );
        }
    }
}

#[test]
fn a_bomb_stays_within_its_length() {
    let codecs = Codecs::default();
    let (_, bomb) = codecs.compress(&vec![0; 64 << 20], 1).unwrap();
    let error = codecs.decompress(Codec::Zstd, bomb, 1000).unwrap_err();
    assert_eq!(error.code(), "store.frame.compression");
    assert!(codecs.decompress(Codec::Zstd, vec![1, 2, 3], 1000).is_err());
    assert!(codecs.decompress(Codec::Stored, vec![1, 2, 3], 4).is_err());
}

#[test]
fn no_number_is_used_twice() {
    let maker = Maker::new(id(), &keys(), Cipher::Aes256Gcm, [8; 32], 0, false).unwrap();
    let mut seen = std::collections::HashSet::new();
    let codecs = Codecs::default();
    for _ in 0..1000 {
        let rows = vec![Row {
            id: BlockId::default(),
            length: 1,
        }];
        let (header, _) = maker.make(Content::Tree, rows, &[1], &codecs).unwrap();
        assert!(seen.insert(header.number));
    }
}
