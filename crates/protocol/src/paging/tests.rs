use super::*;
use base::limit::MESSAGE_SIZE_MAX;
use std::cell::RefCell;

#[test]
fn pages_hold_everything_in_order_and_none_is_too_large() {
    let items: Vec<(u32, Vec<u8>)> = (0..5000).map(|n| (n, vec![7; 1500])).collect();
    let pages = pages(items.clone()).unwrap();
    assert!(pages.len() > 1);
    for (number, page) in pages.iter().enumerate() {
        assert!(encoded_size(&page.items).unwrap() < MESSAGE_SIZE_MAX);
        assert_eq!(page.more, number + 1 < pages.len());
    }
    let first = page(items.iter().cloned().map(Ok)).unwrap();
    assert_eq!(first, pages[0]);
    let all: Vec<_> = pages.into_iter().flat_map(|page| page.items).collect();
    assert!(all == items);
    let none = super::pages(Vec::<u8>::new()).unwrap();
    assert_eq!(none.len(), 1);
    assert!(none[0].items.is_empty() && !none[0].more);
    // One that is larger than a page travels alone.
    let large = vec![vec![0u8; PAGE_SIZE + 1]; 2];
    assert_eq!(super::pages(large).unwrap().len(), 2);
}

/// An agent with one file that may change between two pieces.
fn file(contents: Vec<(Vec<u8>, u64)>) -> impl Fn(&Q) -> Result<A> {
    let left = RefCell::new(contents);
    move |request| {
        let Q::ReadHostFile { from, .. } = request else {
            panic!("{request:?}");
        };
        let mut left = left.borrow_mut();
        let (bytes, revision) = if left.len() > 1 {
            left.remove(0)
        } else {
            left[0].clone()
        };
        let at = from.0 as usize;
        let end = bytes.len().min(at + PIECE_SIZE);
        Ok(A::Piece(Piece {
            bytes: bytes.get(at..end).unwrap_or_default().to_vec(),
            total: ByteCount(bytes.len() as u64),
            revision,
        }))
    }
}

#[test]
fn a_file_that_changes_is_read_anew_and_given_up_in_the_end() {
    let (old, new) = (vec![1; 2 * PIECE_SIZE + 5], vec![2; 2 * PIECE_SIZE + 5]);
    let once = file(vec![(old.clone(), 1), (new.clone(), 2)]);
    assert!(read_host_file(once, "/f").unwrap() == new);
    let shorter = file(vec![(old.clone(), 1), (vec![3; 9], 1)]);
    assert_eq!(read_host_file(shorter, "/f").unwrap(), vec![3; 9]);
    let restless = (0..20).map(|revision| (old.clone(), revision)).collect();
    let error = read_host_file(file(restless), "/f").unwrap_err();
    assert_eq!(error.code(), "protocol.file.changed");
    let huge = |_: &Q| {
        Ok(A::Piece(Piece {
            bytes: vec![0; PIECE_SIZE],
            total: ByteCount(POINT_FILE_SIZE_MAX + 1),
            revision: 0,
        }))
    };
    let error = read_host_file(huge, "/f").unwrap_err();
    assert_eq!(error.code(), "protocol.file.too-large");
}

#[test]
fn files_leave_in_pieces_that_follow_each_other() {
    for length in [0, 1, PIECE_SIZE, PIECE_SIZE + 1, 14_000_000] {
        let bytes: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
        let arrived = RefCell::new((Vec::<u8>::new(), false));
        let agent = |request: &Q| {
            let Q::WriteHostFile {
                from, bytes, more, ..
            } = request
            else {
                panic!("{request:?}");
            };
            let mut arrived = arrived.borrow_mut();
            assert!(!arrived.1, "after the end");
            assert_eq!(from.0, arrived.0.len() as u64);
            assert!(encoded_size(request).unwrap() < MESSAGE_SIZE_MAX);
            arrived.0.extend(bytes);
            arrived.1 = !more;
            Ok(A::Done)
        };
        write_host_file(agent, "/f", &bytes).unwrap();
        let (all, ended) = arrived.into_inner();
        assert!(ended && all == bytes, "{length}");
    }
}

#[test]
fn a_list_without_progress_is_an_error() {
    let endless = |_: &Q| {
        Ok(A::Points {
            points: Vec::new(),
            more: true,
        })
    };
    assert_eq!(points(endless).unwrap_err().code(), "protocol.paging.order");
}
