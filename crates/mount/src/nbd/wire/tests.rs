use super::option::{
    ContextQuery, Info, InfoQuery, OptionHeader, OptionReply, decode_context, decode_server,
    encode_context, encode_server,
};
use super::reply::{
    Chunk, ChunkKind, Reply, decode_error, decode_hole, decode_status, encode_error, encode_status,
    header_size,
};
use super::request::{Command, Request};
use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    /// Anything may come from a peer: every decoder answers, none panics.
    #[test]
    fn decoders_answer_to_any_bytes(bytes in vec(any::<u8>(), 0..200), kind in 0u16..8) {
        let _ = OptionHeader::decode(&bytes);
        let _ = OptionReply::decode(&bytes);
        let _ = InfoQuery::decode(&bytes);
        let _ = ContextQuery::decode(&bytes);
        let _ = Info::decode(&bytes);
        let _ = decode_context(&bytes);
        let _ = decode_server(&bytes);
        let _ = Request::decode(false, &bytes);
        let _ = Request::decode(true, &bytes);
        let _ = Reply::decode(&bytes);
        let _ = decode_hole(&bytes);
        let _ = decode_error(&bytes);
        let _ = decode_status(ChunkKind(kind), &bytes);
    }

    #[test]
    fn requests_read_back(
        extended: bool, flags: u16, command: u16, cookie: u64, offset: u64, length: u32,
    ) {
        let request = Request {
            flags, command: Command(command), cookie, offset, length: u64::from(length),
        };
        let mut bytes = Vec::new();
        request.encode(extended, &mut bytes);
        prop_assert_eq!(Request::decode(extended, &bytes).unwrap(), request);
        prop_assert!(Request::decode(!extended, &bytes).is_err());
        bytes.pop();
        prop_assert!(Request::decode(extended, &bytes).is_err());
    }

    #[test]
    fn status_reads_back(
        extended: bool, context: u32, list in vec((1u64..u64::from(u32::MAX), 0u64..9), 1..50),
    ) {
        let mut bytes = Vec::new();
        encode_status(context, &list, extended, &mut bytes);
        let kind = if extended { ChunkKind::BLOCK_STATUS_EXT } else { ChunkKind::BLOCK_STATUS };
        prop_assert_eq!(decode_status(kind, &bytes).unwrap(), (context, list));
        bytes.push(0);
        prop_assert!(decode_status(kind, &bytes).is_err());
    }

    #[test]
    fn options_read_back(export in "[a-z/é]{0,40}", queries in vec("[a-z:]{0,20}", 0..10)) {
        let query = ContextQuery { export: export.clone(), queries };
        prop_assert_eq!(ContextQuery::decode(&query.encode()).unwrap(), query);
        let info = InfoQuery { export: export.clone(), wanted: vec![3, 1] };
        prop_assert_eq!(InfoQuery::decode(&info.encode()).unwrap(), info);
        let server = encode_server(&export, "text");
        prop_assert_eq!(decode_server(&server).unwrap(), (export.clone(), "text".to_owned()));
        let context = encode_context(7, &export);
        prop_assert_eq!(decode_context(&context).unwrap(), (7, export));
    }
}

/// Bytes as the protocol's document lays them out, written down by hand.
#[test]
fn layouts_are_those_of_the_document() {
    let mut bytes = Vec::new();
    Request {
        flags: 4,
        command: Command::READ,
        cookie: 7,
        offset: 8,
        length: 9,
    }
    .encode(false, &mut bytes);
    let expected = [
        [0x25, 0x60, 0x95, 0x13, 0, 4, 0, 0].as_slice(),
        &[0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 9],
    ];
    assert_eq!(bytes, expected.concat());
    let chunk = Chunk {
        flags: 1,
        kind: ChunkKind::NONE,
        cookie: 7,
        offset: 5,
        length: 0,
    };
    bytes.clear();
    Reply::Chunk(chunk).encode(true, &mut bytes);
    assert_eq!(
        header_size([0x6e, 0x8a, 0x27, 0x8c], true).unwrap(),
        bytes.len()
    );
    assert_eq!(Reply::decode(&bytes).unwrap(), Reply::Chunk(chunk));
    assert!(header_size([0x6e, 0x8a, 0x27, 0x8c], false).is_err());
}

#[test]
fn lengths_that_would_make_us_allocate_are_refused() {
    for (kind, length) in [
        (ChunkKind::OFFSET_DATA, u64::from(u32::MAX)),
        (ChunkKind::OFFSET_DATA, 8),
        (ChunkKind::OFFSET_HOLE, 13),
        (ChunkKind::BLOCK_STATUS, 4),
        (ChunkKind::BLOCK_STATUS, 1 << 30),
        (ChunkKind::ERROR, 1 << 20),
        (ChunkKind::ERROR, 5),
        (ChunkKind(0x8fff), 1 << 20),
        (ChunkKind(3), 0),
    ] {
        let chunk = Chunk {
            flags: 1,
            kind,
            cookie: 0,
            offset: 0,
            length,
        };
        for extended in [false, true] {
            let mut bytes = Vec::new();
            Reply::Chunk(chunk).encode(extended, &mut bytes);
            assert_eq!(
                Reply::decode(&bytes).unwrap_err().code(),
                "mount.nbd.protocol-violation",
                "{chunk:?}"
            );
        }
    }
}

#[test]
fn errors_of_the_wire_and_ours_match() {
    for errno in [
        Errno::PERM,
        Errno::IO,
        Errno::INVAL,
        Errno::NOSPC,
        Errno::NOTSUP,
    ] {
        let (kind, code) = errno.kind_and_code();
        assert_eq!(Errno::of(&Error::new(kind, code, "")), errno);
    }
    let mut bytes = Vec::new();
    encode_error(Errno::IO, &"é".repeat(5000), &mut bytes);
    let (errno, text) = decode_error(&bytes).unwrap();
    assert_eq!((errno, text.len()), (Errno::IO, STRING_MAX));
}
