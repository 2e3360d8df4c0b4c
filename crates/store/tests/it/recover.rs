//! The second reader: `recover/restore.py`, which was written from the format page alone, restores
//! what today's writer makes and what an earlier one left in `fixtures/store`.
//!
//! Needs `python3`, as everybody does who restores with that script.

use crate::support::*;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use store::*;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Runs the script. Without `site`, Python finds none of the modules that people install, so the
/// script must do all by itself.
fn script(site: bool, password: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new("python3");
    command.arg(if site { "-I" } else { "-IS" });
    command.arg(root().join("recover/restore.py"));
    command.args(arguments).env("BACKSTAY_PASSWORD", password);
    match command.output() {
        Ok(output) => output,
        Err(error) => panic!("this test needs python3 (apt install python3): {error}"),
    }
}

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    String::from_utf8_lossy(&[out.as_slice(), err].concat()).into_owned()
}

/// What the script restores of one disk or file, and its exit code.
fn restored(site: bool, password: &str, repository: &Path, what: [&str; 2]) -> (Vec<u8>, i32) {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    let (from, to) = (repository.to_str().unwrap(), output.to_str().unwrap());
    let run = script(site, password, &[from, "restore", what[0], what[1], to]);
    let bytes = std::fs::read(&output).unwrap_or_else(|_| panic!("{}", text(&run)));
    (bytes, run.status.code().unwrap())
}

#[test]
fn its_known_answers_are_right() {
    for site in [true, false] {
        let run = script(site, "", &["selftest"]);
        assert!(run.status.success(), "{}", text(&run));
    }
}

#[test]
fn it_restores_what_is_written_today_with_index_and_without() {
    let defaults = CreateOptions {
        argon_memory_kib: 64,
        argon_passes: 1,
        reserve: Some(base::size::ByteCount(0)),
        ..CreateOptions::default()
    };
    let sealed = CreateOptions {
        password: Some(Password::new("pass wörd")),
        ..defaults.clone()
    };
    for options in [defaults, sealed, options(None), options(Some("pass wörd"))] {
        let place = place();
        let path = place.folder.path();
        let files = Arc::clone(&place.files);
        let repository = Repository::create(files, environment(1), &options).unwrap();
        let old = sample(21, 4_700_001);
        let first = backup(&repository, "web", &old).unwrap();
        let mut new = old.clone();
        new[4_150_000..4_250_000].copy_from_slice(&noise(22, 100_000));
        let dirty = base::size::ByteRange::new(4_150_000, 100_000);
        let second = backup_changes(&repository, &first, &new, &[dirty]).unwrap();
        drop(repository);

        let (first, second) = (first.id.to_string(), second.id.to_string());
        let restore = |id: &str, name: &str| restored(true, "pass wörd", path, [id, name]);
        assert_eq!(restore(&first, "vda"), (old, 0));
        assert_eq!(restore("latest", "vda"), (new.clone(), 0));
        let machine = b"<domain>web</domain>".to_vec();
        assert_eq!(restore(&first, "machine.xml"), (machine, 0));
        for entry in std::fs::read_dir(path.join("index")).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
        // Neither the index nor any module that people install.
        let bare = restored(false, "pass wörd", path, [&second, "vda"]);
        assert!(
            bare == (new, 0),
            "restored other bytes without index and modules"
        );
    }
}

#[test]
fn it_names_what_is_damaged_and_restores_the_rest() {
    let place = place();
    let bytes = sample(23, 700_000);
    let point = backup(&create(&place), "web", &bytes).unwrap();
    let data = place.folder.path().join("packs/data");
    let packs: Vec<PathBuf> = std::fs::read_dir(data)
        .unwrap()
        .flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap())
        .map(|entry| entry.unwrap().path())
        .collect();
    let id = point.id.to_string();
    let restore = || restored(true, "", place.folder.path(), [&id, "vda"]);
    let damage = |pack: &Path, from_end: usize| {
        let mut content = std::fs::read(pack).unwrap();
        let at = content.len() - from_end;
        content[at] ^= 1;
        std::fs::write(pack, content).unwrap();
    };
    // A footer that is gone costs nothing: the frames are searched for.
    for pack in &packs {
        damage(pack, 5);
    }
    assert!(restore() == (bytes.clone(), 0), "a footer is not needed");
    // A byte in the middle costs one frame.
    let largest = packs
        .iter()
        .max_by_key(|pack| pack.metadata().unwrap().len())
        .unwrap();
    damage(largest, largest.metadata().unwrap().len() as usize / 2);
    let (found, code) = restore();
    assert_eq!((found.len(), code), (bytes.len(), 3));
    let differ = found.iter().zip(&bytes).filter(|(a, b)| a != b).count();
    assert!((1..200_000).contains(&differ), "{differ} bytes differ");
    let zeroed = found.iter().zip(&bytes).all(|(a, b)| a == b || *a == 0);
    assert!(zeroed, "wrong bytes were written for right ones");
}

#[test]
fn it_refuses_in_words() {
    let place = place();
    let files = Arc::clone(&place.files);
    Repository::create(files, environment(1), &options(Some("sesame"))).unwrap();
    let path = place.folder.path();
    let refused = |password: &str, arguments: &[&str], words: &str| {
        let run = script(true, password, arguments);
        assert_eq!(run.status.code(), Some(1));
        assert!(text(&run).contains(words), "{}", text(&run));
        assert!(!text(&run).contains("Traceback"), "{}", text(&run));
    };
    let folder = path.to_str().unwrap();
    refused("Sesame", &[folder, "list"], "the password is wrong");
    refused("sesame", &[folder, "show", "latest"], "no points fit");
    refused("", &["/nonexistent", "list"], "there is no repository");
    // Of two copies the higher edition counts: a copy from before a feature must not hide it.
    let copy = path.join("repository.copy");
    let text = std::fs::read_to_string(&copy).unwrap();
    let newer = text
        .replace("\"major\":1", "\"major\":2")
        .replace("\"edition\":1", "\"edition\":2");
    assert_ne!(newer, text);
    std::fs::write(&copy, newer).unwrap();
    refused("sesame", &[folder, "list"], "format 2");
    // Damage, however, only costs the copy it hit.
    std::fs::write(&copy, "{").unwrap();
    assert!(script(true, "sesame", &[folder, "list"]).status.success());
    std::fs::write(path.join("repository"), &text[1..]).unwrap();
    refused("sesame", &[folder, "list"], "cannot be opened");
    std::fs::write(&copy, &text).unwrap();
    assert!(script(true, "sesame", &[folder, "list"]).status.success());
}

/// Copies a golden repository, with the empty folders that version control leaves out.
fn golden(name: &str) -> Place {
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            if entry.path().is_dir() {
                copy(&entry.path(), &to);
            } else {
                std::fs::copy(entry.path(), to).unwrap();
            }
        }
    }
    let place = place();
    copy(
        &root().join("fixtures/store/v1").join(name),
        place.folder.path(),
    );
    for folder in ["collect", "deleted", "fenced", "readers", "writers"] {
        std::fs::create_dir_all(place.folder.path().join(folder)).unwrap();
    }
    place
}

#[test]
fn golden_repositories_restore_in_both_readers() {
    let expected = std::fs::read_to_string(root().join("fixtures/store/v1/expected.txt")).unwrap();
    let mut seen = 0;
    for (name, password) in [("open", None), ("sealed", Some("sesame"))] {
        let place = golden(name);
        let key = password.map(Password::new);
        let files = Arc::clone(&place.files);
        let repository = Repository::open(files, environment(3), key.as_ref()).unwrap();
        let options = VerifyOptions {
            read_data: true,
            ..VerifyOptions::default()
        };
        let verified = repository.verify(&options, &|_| {}).unwrap();
        assert!(verified.is_clean() && verified.points == 2, "{verified:?}");
        let fixture = root().join("fixtures/store/v1").join(name);
        for line in expected.lines().filter(|line| line.starts_with(name)) {
            let [_, id, what, length, digest] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{line}");
            };
            let point = repository.point(id.parse().unwrap()).unwrap();
            let ours = match what.ends_with(".xml") {
                true => repository.read_file(&point, what).unwrap(),
                false => {
                    let reader = repository.open_disk(&point, what).unwrap();
                    let size = base::block::BlockRead::size(&reader).as_usize().unwrap();
                    let mut bytes = vec![0xaa; size];
                    let start = base::size::ByteOffset::ZERO;
                    base::block::BlockRead::read_at(&reader, start, &mut bytes).unwrap();
                    bytes
                }
            };
            assert_eq!(ours.len().to_string(), length);
            assert_eq!(blake3::hash(&ours).to_hex().as_str(), digest, "{line}");
            let theirs = restored(true, password.unwrap_or(""), &fixture, [id, what]);
            assert!(theirs == (ours, 0), "{line}");
            seen += 1;
        }
    }
    assert_eq!(seen, 8);
}
