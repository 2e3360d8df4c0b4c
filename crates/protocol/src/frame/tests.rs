use super::*;
use proptest::prelude::*;

const LIMIT: usize = 1 << 20;

#[test]
fn a_frame_reads_back() {
    for kind in FrameKind::ALL {
        let frame = Frame {
            kind,
            tag: 7,
            id: u64::MAX - 3,
            payload: b"backstay".to_vec(),
        };
        let bytes = frame.to_bytes().unwrap();
        assert_eq!(
            Frame::from_bytes(&bytes, LIMIT).unwrap(),
            Some((frame, bytes.len()))
        );
    }
}

#[test]
fn every_prefix_asks_for_more_and_every_flipped_bit_is_seen() {
    let frame = Frame {
        kind: FrameKind::Data,
        tag: 3,
        id: 42,
        payload: vec![0x5a; 100],
    };
    let bytes = frame.to_bytes().unwrap();
    for end in 0..bytes.len() {
        assert_eq!(
            Frame::from_bytes(&bytes[..end], LIMIT).unwrap(),
            None,
            "cut at {end}"
        );
    }
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        // A longer length asks for more bytes; then the checksum is wrong.
        bad.resize(bytes.len() + LIMIT, 0);
        assert!(Frame::from_bytes(&bad, LIMIT).is_err(), "bit {bit}");
    }
}

#[test]
fn a_length_beyond_the_limit_is_refused_before_any_payload_is_read() {
    let mut header = Frame::new(FrameKind::Request, 1, Vec::new())
        .header()
        .unwrap();
    header[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    let error = Header::read(&header, LIMIT).unwrap_err();
    assert_eq!(error.code(), "protocol.frame.too-large");
    let payload = vec![0; base::limit::FRAME_SIZE_MAX + 1];
    let error = Frame::new(FrameKind::Data, 1, payload)
        .header()
        .unwrap_err();
    assert_eq!(error.code(), "protocol.frame.too-large");
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(Some((frame, used))) = Frame::from_bytes(&bytes, LIMIT) {
            prop_assert!(used <= bytes.len());
            prop_assert_eq!(frame.to_bytes().unwrap(), &bytes[..used]);
        }
    }
}
