use super::*;
use base::Kind;
use base::block::{BlockRead, BlockWrite, ExtentKind, all_extents, is_zero};
use base::memory::MemoryDisk;
use base::random::{Random, SeededRandom};
use base::size::{ByteCount, ByteOffset, ByteRange, KIB, MIB};
use std::sync::Arc;

fn noise(size: u64) -> Vec<u8> {
    let mut bytes = vec![0; size as usize];
    SeededRandom::new(1).fill(&mut bytes);
    bytes
}

#[test]
fn an_overlay_keeps_the_lower_disk_as_it_was() {
    for size in [MIB, MIB + 1000, 5000] {
        let lower = Arc::new(MemoryDisk::from(noise(size)));
        let mut model = lower.to_vec();
        // What is in the upper disk before must never be seen.
        let upper = MemoryDisk::from(vec![0xdd; 2 * MIB as usize]);
        let overlay = Overlay::new(lower.clone(), upper).unwrap();
        let random = SeededRandom::new(size);
        for _ in 0..200 {
            let at = random.below(size);
            let length = (1 + random.below(20 * KIB)).min(size - at);
            let place = at as usize..(at + length) as usize;
            if random.one_in(3) {
                overlay.write_zeroes(ByteRange::new(at, length)).unwrap();
                model[place].fill(0);
            } else {
                let mut bytes = vec![0; length as usize];
                random.fill(&mut bytes);
                overlay.write_at(ByteOffset(at), &bytes).unwrap();
                model[place].copy_from_slice(&bytes);
            }
            if random.one_in(20) {
                let mut bytes = vec![0; size as usize];
                overlay.read_at(ByteOffset::ZERO, &mut bytes).unwrap();
                assert!(bytes == model, "size {size}");
            }
        }
        for extent in all_extents(&overlay, ByteRange::new(0, size)).unwrap() {
            let place = extent.range.offset.0 as usize..extent.range.end().0 as usize;
            assert!(extent.kind == ExtentKind::Data || is_zero(&model[place]));
        }
        assert!(lower.to_vec() == noise(size), "the lower disk was changed");
        assert!(overlay.written() > ByteCount::ZERO);
    }
    let small = MemoryDisk::from(vec![0; 10]);
    let error = Overlay::new(MemoryDisk::from(vec![0; 11]), small)
        .err()
        .unwrap();
    assert_eq!(error.code(), "disk.overlay.too-small");
}

#[test]
fn a_window_shows_its_part_only() {
    let disk = Arc::new(MemoryDisk::from(noise(MIB)));
    let window = Window::new(disk.clone(), ByteRange::new(1000, 5000)).unwrap();
    window.write_at(ByteOffset(4990), &[7; 10]).unwrap();
    window.write_zeroes(ByteRange::new(0, 10)).unwrap();
    let bytes = disk.to_vec();
    assert_eq!(&bytes[5990..6000], &[7; 10]);
    assert_eq!(&bytes[1000..1010], &[0; 10]);
    assert_eq!(
        (&bytes[..1000], &bytes[6000..]),
        (&noise(MIB)[..1000], &noise(MIB)[6000..])
    );
    let mut read = vec![0; 5000];
    window.read_at(ByteOffset::ZERO, &mut read).unwrap();
    assert!(read == bytes[1000..6000]);
    assert!(window.read_at(ByteOffset(4999), &mut [0; 2]).is_err());
    assert!(window.write_at(ByteOffset(u64::MAX), &[0]).is_err());
    assert_eq!(
        all_extents(&window, ByteRange::new(0, 5000)).unwrap()[0]
            .range
            .offset
            .0,
        0
    );
    assert!(Window::new(disk.clone(), ByteRange::new(MIB - 1, 2)).is_err());
    assert!(Window::new(disk.clone(), ByteRange::new(2, u64::MAX)).is_err());
}

#[test]
fn faults_happen_where_and_as_often_as_asked() {
    let disk = FaultDisk::new(MemoryDisk::from(vec![5; 1000]));
    let mut buffer = [0; 10];
    let place = ByteRange::new(100, 10);
    disk.arm(place, Fault::ReadError, 1);
    disk.read_at(ByteOffset(90), &mut buffer).unwrap();
    let error = disk.read_at(ByteOffset(109), &mut buffer).unwrap_err();
    assert_eq!(error.kind(), Kind::Io);
    disk.read_at(ByteOffset(109), &mut buffer).unwrap();
    disk.arm(place, Fault::Flip, 1);
    disk.read_at(ByteOffset(95), &mut buffer).unwrap();
    assert_eq!(buffer, [5, 5, 5, 5, 5, 4, 4, 4, 4, 4]);
    disk.arm(place, Fault::Full, 1);
    assert_eq!(
        disk.write_at(ByteOffset(100), &[1]).unwrap_err().kind(),
        Kind::Full
    );
    disk.arm(place, Fault::WriteError, 1);
    assert_eq!(disk.write_zeroes(place).unwrap_err().kind(), Kind::Io);
    disk.arm(place, Fault::Forget, 1);
    disk.write_at(ByteOffset(100), &[1]).unwrap();
    assert_eq!(disk.inner().to_vec(), vec![5; 1000]);
    disk.arm(place, Fault::ClaimZero, 3);
    let zero: Vec<_> = all_extents(&disk, ByteRange::new(0, 1000))
        .unwrap()
        .into_iter()
        .filter(|extent| extent.kind == ExtentKind::Zero)
        .map(|extent| extent.range)
        .collect();
    assert_eq!(zero, [place]);
    disk.disarm();
    assert_eq!(disk.extents(ByteRange::new(0, 1000)).unwrap().len(), 1);
    disk.arm(place, Fault::Delay(std::time::Duration::from_millis(20)), 1);
    let start = std::time::Instant::now();
    disk.read_at(ByteOffset(100), &mut buffer).unwrap();
    assert!(start.elapsed() >= std::time::Duration::from_millis(20));
}
