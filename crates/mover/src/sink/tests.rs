use super::*;
use base::size::{ByteOffset, MIB};

fn target(path: &Path, format: &str, overwrite: bool) -> ImageTarget {
    ImageTarget {
        path: path.display().to_string(),
        format: format.to_owned(),
        overwrite,
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_new_file_is_private_and_goes_away_unless_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new.raw");
    drop(Sink::open(&target(&path, "raw", false), ByteCount(MIB)).unwrap());
    assert_eq!(names(folder.path()), Vec::<String>::new());
    let sink = Sink::open(&target(&path, "raw", false), ByteCount(MIB)).unwrap();
    assert!(sink.target().unwrap().blank);
    sink.target()
        .unwrap()
        .disk
        .write_at(ByteOffset(5), b"x")
        .unwrap();
    sink.keep().unwrap();
    let metadata = std::fs::metadata(&path).unwrap();
    assert_eq!((metadata.len(), metadata.mode() & 0o777), (MIB, 0o600));
}

#[test]
fn what_is_there_is_refused_or_stays_whole_until_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("old.raw");
    std::fs::write(&path, b"precious").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let error = Sink::open(&target(&path, "raw", false), ByteCount(MIB))
        .err()
        .unwrap();
    assert_eq!(
        (error.code(), error.kind()),
        ("mover.target.exists", Kind::Exists)
    );

    let sink = Sink::open(&target(&path, "raw", true), ByteCount(MIB)).unwrap();
    sink.target()
        .unwrap()
        .disk
        .write_at(ByteOffset(0), b"new")
        .unwrap();
    drop(sink);
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    assert_eq!(names(folder.path()), ["old.raw"]);

    let sink = Sink::open(&target(&path, "raw", true), ByteCount(MIB)).unwrap();
    sink.target()
        .unwrap()
        .disk
        .write_at(ByteOffset(0), b"new")
        .unwrap();
    sink.keep().unwrap();
    assert_eq!(&std::fs::read(&path).unwrap()[..4], b"new\0");
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
    assert_eq!(names(folder.path()), ["old.raw"]);
}

#[test]
fn nonsense_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let code = |target: &ImageTarget| {
        Sink::open(target, ByteCount(MIB))
            .err()
            .unwrap()
            .code()
            .to_owned()
    };
    assert_eq!(
        code(&target(Path::new("relative.raw"), "raw", false)),
        "mover.path.relative"
    );
    assert_eq!(
        code(&target(&folder.path().join("x"), "floppy", false)),
        "mover.target.format"
    );
    assert_eq!(
        code(&target(folder.path(), "raw", true)),
        "mover.target.not-a-file"
    );
    assert_eq!(names(folder.path()), Vec::<String>::new());
}
