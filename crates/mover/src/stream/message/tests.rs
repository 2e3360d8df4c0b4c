use super::*;

#[test]
fn a_message_is_read_back_and_nothing_else_is_taken_for_one() {
    let want = Want {
        index: 7,
        segments: vec![0, 3],
    };
    let bytes = encode(&want, b"body").unwrap();
    assert_eq!(
        decode::<Want>(&bytes).unwrap(),
        (want.clone(), &b"body"[..])
    );
    for end in 0..bytes.len() - 4 {
        assert!(decode::<Want>(&bytes[..end]).is_err(), "{end}");
    }
    let mut hostile = bytes;
    hostile[0] = 0xff;
    assert!(decode::<Want>(&hostile).is_err());
    assert!(MessageKind::from_number(0).is_err());
    assert_eq!(MessageKind::from_number(4).unwrap(), MessageKind::Blocks);
}

#[test]
fn windows_must_be_covered() {
    let block = Some(BlockId::from_bytes([1; 32]));
    let window = |segments: &[(u32, Option<BlockId>)]| Window {
        index: 0,
        segments: segments.to_vec(),
        packing: Packing::Plain,
    };
    let length = ByteCount(8192);
    assert_eq!(
        window(&[(4096, block), (4096, None)])
            .checked(length)
            .unwrap()
            .len(),
        2
    );
    assert!(window(&[]).checked(length).unwrap().is_empty());
    for bad in [
        &[(4096, block)][..],
        &[(8192, block), (0, None)],
        &[(u32::MAX, None), (8193, None)],
    ] {
        assert_eq!(
            window(bad).checked(length).unwrap_err().code(),
            "mover.stream.malformed"
        );
    }
    // More segments than pages.
    assert!(window(&[(2048, block); 4]).checked(length).is_err());
}

#[test]
fn changed_ranges_must_be_in_order_and_whole_pages() {
    let changed = |ranges: &[(u32, u32)]| Changed {
        index: 0,
        ranges: ranges.to_vec(),
        packing: Packing::Plain,
    };
    let length = ByteCount(3 * 4096 + 100);
    assert_eq!(
        changed(&[(0, 4096), (8192, 4196)])
            .checked(length)
            .unwrap()
            .len(),
        2
    );
    for bad in [
        &[(4096, 4096), (0, 4096)][..],
        &[(0, 8192), (4096, 4096)],
        &[(0, 0)],
        &[(1, 4096)],
        &[(0, 100)],
        &[(8192, u32::MAX)],
    ] {
        assert!(changed(bad).checked(length).is_err(), "{bad:?}");
    }
}

#[test]
fn bodies_unpack_to_their_length_only() {
    let plain = vec![7; 10_000];
    let (packing, body) = pack(&plain).unwrap();
    assert_eq!(packing, Packing::Zstd);
    assert!(body.len() < 200);
    assert_eq!(&*unpack(packing, &body, 10_000).unwrap(), &plain[..]);
    for wrong in [9_999, 10_001] {
        assert!(unpack(packing, &body, wrong).is_err());
        assert!(unpack(Packing::Plain, &plain, wrong).is_err());
    }
    assert!(unpack(Packing::Zstd, b"garbage", 10).is_err());
    assert_eq!(pack(b"x").unwrap().0, Packing::Plain);
}
