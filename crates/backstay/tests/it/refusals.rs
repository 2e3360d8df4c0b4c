//! Bad input: each gives its exit code, its error code, what to do about it, and loses nothing.

use crate::command::{self, Ended};
use crate::images::{self, MIB};
use crate::site::{Site, kill};
use rustix::process::Signal;
use serde_json::Value;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Asserts that a command is refused in the same way as text and as JSON.
#[track_caller]
fn refused(site: &Site, words: &[&str], exit: i32, code: &str) {
    let text = site.run(words).expect(exit);
    assert!(text.err.starts_with("error: "), "{text}");
    assert!(text.err.contains(&format!(" code: {code}\n")), "{text}");
    assert!(text.err.contains("\n hint: "), "says what to do: {text}");
    assert_eq!(text.out, "", "{text}");
    let json = site.run(&[words, &["--json"]].concat()).expect(exit);
    let error = json.json_error();
    assert_eq!(error["code"], code, "{json}");
    assert!(
        error["hint"].is_string() && error["kind"].is_string(),
        "{json}"
    );
}

/// Asserts that a session fails with this code in its log; the text of that line.
#[track_caller]
fn fails(site: &Site, words: &[&str], code: &str) -> String {
    let ended = site.run(&[words, &["--json"]].concat()).expect(12);
    failure(&ended, code)
}

#[track_caller]
fn failure(ended: &Ended, code: &str) -> String {
    let lines = ended.json_lines();
    let coded = |line: &&Value| line["line"]["code"] == code && line["line"]["level"] == "error";
    let line = lines
        .iter()
        .find(coded)
        .unwrap_or_else(|| panic!("no line {code}: {ended}"));
    line["line"]["text"].as_str().unwrap().to_owned()
}

#[test]
fn names_and_words_that_make_no_sense() {
    let mut site = Site::up();
    site.repository("main");
    let image = images::raw(&site.path("a.raw"), 4 * MIB, 1, 1);
    site.job("daily", "main", "web", &[&image]);
    site.back_up("daily");
    let point = site.points().remove(0);
    let file = format!("web={}", image.display());
    let image_job = |name, repository| {
        ["job", "create", name, "--repository", repository, "--image"].map(str::to_owned)
    };
    let create = |name, repository, rest: &[&str]| -> Vec<String> {
        let rest = rest.iter().map(|word| (*word).to_owned());
        image_job(name, repository)
            .into_iter()
            .chain([file.clone()])
            .chain(rest)
            .collect()
    };
    let table: Vec<(Vec<String>, i32, &str)> = vec![
        (words(&["job", "run", "nothing"]), 3, "job.not-found"),
        (words(&["job", "show", "nothing"]), 3, "job.not-found"),
        (words(&["job", "stop", "nothing"]), 3, "job.not-found"),
        (words(&["job", "delete", "nothing"]), 3, "job.not-found"),
        (
            words(&["job", "edit", "nothing", "--keep", "3"]),
            3,
            "job.not-found",
        ),
        (words(&["job", "stop", "daily"]), 4, "job.not-running"),
        (
            words(&["session", "show", "ffffffff"]),
            3,
            "session.not-found",
        ),
        (words(&["session", "follow", "x"]), 3, "session.not-found"),
        (
            words(&["session", "stop", "ffffffff"]),
            3,
            "session.not-found",
        ),
        (
            words(&["session", "list", "--job", "nothing"]),
            3,
            "job.not-found",
        ),
        (words(&["point", "show", "ffffffff"]), 3, "point.not-found"),
        (
            words(&["point", "delete", "ffffffff"]),
            3,
            "point.not-found",
        ),
        (
            words(&["point", "list", "--repository", "nothing"]),
            3,
            "repository.not-found",
        ),
        (
            words(&["machine", "show", "nothing"]),
            3,
            "machine.not-found",
        ),
        (
            words(&["repository", "rescan", "nothing"]),
            3,
            "repository.not-found",
        ),
        (
            words(&["repository", "collect", "nothing"]),
            3,
            "repository.not-found",
        ),
        (
            words(&["repository", "remove", "nothing"]),
            3,
            "repository.not-found",
        ),
        (
            words(&["repository", "remove", "main"]),
            4,
            "repository.in-use",
        ),
        (words(&["verify", "nothing"]), 3, "repository.not-found"),
        (
            words(&["verify", "main", "--point", "ffffffff"]),
            3,
            "point.not-found",
        ),
        (words(&["host", "remove", "nothing"]), 3, "host.not-found"),
        (words(&["host", "remove", "local"]), 4, "host.in-use"),
        (
            words(&["restore", "disk", "ffffffff", "disk0", "--to", "/x"]),
            3,
            "point.not-found",
        ),
        (
            words(&["restore", "disk", &point, "vdz", "--to", "/x"]),
            3,
            "restore.disk-not-found",
        ),
        (create("daily", "main", &[]), 4, "job.name-taken"),
        (create("other", "nothing", &[]), 3, "repository.not-found"),
        (
            create("other", "main", &["--host", "nothing"]),
            3,
            "host.not-found",
        ),
        (
            create("other", "main", &["--daily", "25:00"]),
            2,
            "job.schedule.invalid",
        ),
        (
            create("other", "main", &["--keep", "0"]),
            2,
            "job.keep-invalid",
        ),
        (
            create("other", "main", &["--daily", "22:00", "--zone", "Moon"]),
            2,
            "job.schedule.invalid",
        ),
        (
            words(&[
                "job",
                "create",
                "x",
                "--repository",
                "main",
                "--image",
                "web",
            ]),
            2,
            "job.image-malformed",
        ),
        (
            words(&[
                "repository",
                "create",
                "main",
                "--path",
                "/x",
                "--no-encryption",
            ]),
            4,
            "repository.name-taken",
        ),
        (
            words(&["repository", "create", "other", "--path", "/x"]),
            2,
            "password.missing",
        ),
    ];
    for (line, exit, code) in &table {
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        refused(&site, &line, *exit, code);
    }
    assert_eq!(site.points(), [point], "nothing was lost");
    site.end();
    refused(&site, &["status"], 9, "base.io.unreachable");
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Writes bytes into the header of an image.
fn patched(from: &Path, to: PathBuf, at: u64, bytes: &[u8]) -> PathBuf {
    std::fs::copy(from, &to).unwrap();
    File::options()
        .write(true)
        .open(&to)
        .unwrap()
        .write_all_at(bytes, at)
        .unwrap();
    to
}

#[test]
fn hostile_images_fail_alone() {
    let mut site = Site::up();
    site.repository("main");
    let good = images::raw(&site.path("good.raw"), 8 * MIB, 2, 1);
    let qcow2 = images::qcow2_of(&good, &site.path("good.qcow2"));
    // Offsets of the qcow2 header: docs/interop/qcow2.rst of QEMU.
    let hostile = [
        (
            "size",
            patched(&qcow2, site.path("size.qcow2"), 24, &[0x7f; 8]),
        ),
        (
            "l1-size",
            patched(&qcow2, site.path("l1-size.qcow2"), 36, &[0xff; 4]),
        ),
        (
            "l1-place",
            patched(&qcow2, site.path("l1-place.qcow2"), 40, &[0x7f; 8]),
        ),
        (
            "clusters",
            patched(&qcow2, site.path("clusters.qcow2"), 20, &[0, 0, 0, 63]),
        ),
        (
            "version",
            patched(&qcow2, site.path("version.qcow2"), 4, &[0, 0, 0, 9]),
        ),
        (
            "features",
            patched(&qcow2, site.path("features.qcow2"), 72, &[0xff; 8]),
        ),
    ];
    let cut = site.path("cut.qcow2");
    std::fs::write(&cut, &std::fs::read(&qcow2).unwrap()[..60]).unwrap();
    let climbs = site.path("climbs.vmdk");
    std::fs::write(
        &climbs,
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n\
         createType=\"monolithicFlat\"\nRW 2048 FLAT \"/etc/passwd\" 0\n",
    )
    .unwrap();
    let others = [("cut", cut), ("climbs", climbs)];
    for (name, image) in hostile.iter().chain(&others) {
        let [bad, fine] = [
            format!("bad={}", image.display()),
            format!("fine-{name}={}", good.display()),
        ];
        site.ok(&[
            "job",
            "create",
            name,
            "--repository",
            "main",
            "--image",
            &bad,
            "--image",
            &fine,
        ]);
        let ended = site
            .run(&["job", "run", name, "--follow", "--json"])
            .expect(12);
        let of_bad = |line: &Value| {
            let line = &line["line"];
            let said = line["code"]
                .as_str()
                .is_some_and(|code| code.starts_with("disk."));
            line["level"] == "error" && said && line["subject"].as_str().unwrap().contains("bad")
        };
        assert!(ended.json_lines().iter().any(of_bad), "{name}: {ended}");
        let fine = site.json(&["point", "list", "--machine", &format!("fine-{name}")]);
        assert_eq!(
            fine.as_array().unwrap().len(),
            1,
            "{name}: the other machine has its point"
        );
    }
    assert_eq!(site.points().len(), hostile.len() + others.len());
    site.ok(&["verify", "main"]);
    site.end();
}

/// Files below a folder.
fn files_in(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_in(&path))
        } else {
            found.push(path)
        }
    }
    found
}

#[test]
fn a_truncated_pack_hurts_only_what_lies_in_it() {
    let mut site = Site::up();
    let repository = site.repository("main");
    let [hurt, whole] = [("hurt", 31), ("whole", 32)].map(|(name, seed)| {
        let image = images::raw(&site.path(&format!("{name}.raw")), 16 * MIB, 6, seed);
        site.job(name, "main", name, &[&image]);
        image
    });
    site.back_up("hurt");
    let packs = files_in(&repository.join("packs/data"));
    site.back_up("whole");
    let longest = packs
        .iter()
        .max_by_key(|path| path.metadata().unwrap().len())
        .unwrap();
    let length = longest.metadata().unwrap().len();
    File::options()
        .write(true)
        .open(longest)
        .unwrap()
        .set_len(length / 2)
        .unwrap();

    let point_of = |machine| {
        site.json(&["point", "list", "--machine", machine])[0]["id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let (bad, good) = (point_of("hurt"), point_of("whole"));
    let short = &bad[bad.len() - 8..];
    for words in [&["verify", "main"][..], &["verify", "main", "--read-data"]] {
        let ended = site.run(&[words, &["--json"]].concat()).expect(12);
        failure(&ended, "verify.damaged");
        let names_it = |line: &Value| {
            let line = &line["line"];
            line["code"] == "verify.damaged" && line["text"].as_str().unwrap().contains(short)
        };
        assert!(
            ended.json_lines().iter().any(names_it),
            "names the point: {ended}"
        );
    }
    // The other point is whole; that something is broken beside it is a warning.
    let beside = site
        .run(&["verify", "main", "--read-data", "--point", &good])
        .expect(11);
    assert!(beside.out.contains("1 points are whole"), "{beside}");
    let to = site.path("bad.raw");
    let restore = [
        "restore",
        "disk",
        &bad,
        "disk0",
        "--to",
        to.to_str().unwrap(),
    ];
    let ended = site.run(&[&restore[..], &["--json"]].concat()).expect(12);
    let says_so = |line: &Value| {
        let line = &line["line"];
        line["level"] == "error"
            && line["text"]
                .as_str()
                .is_some_and(|text| text.contains("backstay verify"))
    };
    assert!(ended.json_lines().iter().any(says_so), "{ended}");
    assert!(!to.exists(), "half a disk does not stay");
    let restored = site.restore(&good, "disk0", "good.raw", "raw");
    images::assert_equal(&whole, "raw", &restored, "raw");

    // The next run of the hurt machine stores again what is missing, and restores.
    let ended = site.run(&["job", "run", "hurt", "--follow"]);
    assert!([0, 11].contains(&ended.code.unwrap()), "{ended}");
    let restored = site.restore(&point_of("hurt"), "disk0", "again.raw", "raw");
    images::assert_equal(&hurt, "raw", &restored, "raw");
    site.end();
}

/// A file system of its own, as small as a test wants it.
struct Small(PathBuf);

impl Small {
    fn mounted(at: PathBuf, mib: u64) -> Self {
        std::fs::create_dir(&at).unwrap();
        let size = format!("size={mib}m");
        let folder = at.to_str().unwrap().to_owned();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "backstay-test", &folder]);
        let ended = command::run(&mut mount, &std::env::temp_dir());
        assert_eq!(
            ended.code,
            Some(0),
            "this test mounts a tmpfs: run it as root: {ended}"
        );
        Self(at)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_loses_nothing() {
    let mut site = Site::up();
    let small = Small::mounted(site.path("small"), 48);
    let repository = small.0.join("main");
    let path = repository.to_str().unwrap();
    site.ok(&[
        "repository",
        "create",
        "main",
        "--path",
        path,
        "--no-encryption",
    ]);
    let fits = images::raw(&site.path("fits.raw"), 16 * MIB, 6, 41);
    let large = images::raw(&site.path("large.raw"), 96 * MIB, 96, 42);
    site.job("fits", "main", "fits", &[&fits]);
    site.job("large", "main", "large", &[&large]);
    site.back_up("fits");
    let point = site.points().remove(0);

    let text = fails(&site, &["job", "run", "large", "--follow"], "base.io.full");
    assert!(text.contains("free some space"), "says what to do: {text}");
    assert_eq!(site.points(), std::slice::from_ref(&point), "no half point");

    // Now down to the last byte.
    let ballast = small.0.join("ballast");
    let mut file = File::create(&ballast).unwrap();
    let full = std::io::copy(&mut std::io::repeat(7), &mut file).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    drop(file);
    let restored = site.restore(&point, "disk0", "restored.raw", "raw");
    images::assert_equal(&fits, "raw", &restored, "raw");
    site.ok(&["verify", "main", "--read-data"]);
    images::scribble(&fits, 1, MIB, 43);
    fails(&site, &["job", "run", "fits", "--follow"], "base.io.full");
    site.ok(&["repository", "rescan", "main"]);
    assert_eq!(site.points(), std::slice::from_ref(&point));

    // Deleting and collecting make room from nothing.
    site.ok(&["point", "delete", &point]);
    site.ok(&["repository", "collect", "main"]);
    site.ok(&["repository", "collect", "main"]);
    site.back_up("fits");
    let restored = site.restore(&site.points()[0], "disk0", "again.raw", "raw");
    images::assert_equal(&fits, "raw", &restored, "raw");
    drop(small);
    site.end();
}

#[test]
fn what_is_there_is_not_written_over() {
    let mut site = Site::up();
    site.repository("main");
    let image = images::raw(&site.path("a.raw"), 8 * MIB, 2, 1);
    site.job("daily", "main", "web", &[&image]);
    site.back_up("daily");
    let point = site.points().remove(0);

    let kept = site.path("kept");
    std::fs::write(&kept, "precious").unwrap();
    let to = kept.to_str().unwrap();
    fails(
        &site,
        &["restore", "disk", &point, "disk0", "--to", to],
        "restore.file-exists",
    );
    assert_eq!(std::fs::read_to_string(&kept).unwrap(), "precious");

    let folder = site.path("folder");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("letter"), "precious").unwrap();
    let path = folder.to_str().unwrap();
    let create = [
        "repository",
        "create",
        "two",
        "--path",
        path,
        "--no-encryption",
    ];
    let ended = site.run(&create).expect(12);
    assert!(ended.out.contains("[store."), "{ended}");
    assert_eq!(files_in(&folder), [folder.join("letter")]);
    let again = ["repository", "create", "again", "--no-encryption", "--path"];
    let main = site.path("main");
    refused(
        &site,
        &[&again[..], &[main.to_str().unwrap()]].concat(),
        4,
        "repository.place-taken",
    );
    let nowhere = site.path("nowhere");
    let open = [
        "repository",
        "open",
        "x",
        "--no-encryption",
        "--path",
        nowhere.to_str().unwrap(),
    ];
    let ended = site.run(&open).expect(12);
    assert!(
        ended.out.contains("see whether its disk is there") && !nowhere.exists(),
        "{ended}"
    );
    assert_eq!(
        site.json(&["repository", "list"]).as_array().unwrap().len(),
        1
    );
    site.end();
}

#[test]
fn two_runs_of_one_job_and_a_stop() {
    let mut site = Site::up();
    site.repository("main");
    let image = images::raw(&site.path("a.raw"), 64 * MIB, 32, 1);
    site.job("daily", "main", "web", &[&image]);
    let session = site.json(&["job", "run", "daily"]);
    // The agent that writes is held, so that the run cannot end before it is asked to.
    let mut agent = None;
    command::wait_until("an agent is at work", crate::site::SETTLED, || {
        agent = site.writer_of("web");
        agent.map(|_| ()).ok_or_else(|| "none".to_owned())
    });
    kill(agent.unwrap(), Signal::STOP);
    refused(&site, &["job", "run", "daily"], 4, "job.already-running");
    site.ok(&["job", "stop", "daily"]);
    // Longer than a manager takes to hear of it: it asks every second.
    std::thread::sleep(std::time::Duration::from_secs(5));
    kill(agent.unwrap(), Signal::CONT);
    site.run(&["session", "follow", session["id"].as_str().unwrap()])
        .expect(13);
    site.settle();
    assert!(site.points().is_empty(), "a stopped run leaves no point");
    site.back_up("daily");
    site.end();
}

#[test]
fn a_hypervisor_that_is_not_there() {
    let mut site = Site::up();
    site.repository("main");
    let uri = format!("qemu:///system?socket={}", site.path("no-socket").display());
    let job = [
        "job",
        "create",
        "vm",
        "--repository",
        "main",
        "--machine",
        "web",
        "--libvirt",
        &uri,
    ];
    site.ok(&job);
    let ended = site.run(&["job", "run", "vm", "--follow"]).expect(12);
    assert!(
        ended.out.contains("no-socket") && ended.out.contains("[platform."),
        "{ended}"
    );
    let ended = site
        .run(&["machine", "discover", "--libvirt", &uri])
        .expect(12);
    assert!(ended.out.contains("no-socket"), "{ended}");
    site.settle();
    site.end();
}

#[test]
fn a_mover_that_is_down_comes_back() {
    let mut site = Site::up();
    site.repository("main");
    let image = images::raw(&site.path("a.raw"), 8 * MIB, 2, 1);
    site.job("daily", "main", "web", &[&image]);
    // The supervisor is held, or it would start the mover again at once.
    let up = site.of_role("up")[0];
    kill(up, Signal::STOP);
    kill(site.of_role("mover")[0], Signal::KILL);
    let hosts = site.json(&["host", "list"]);
    assert_eq!(hosts[0]["online"], Value::Null, "{hosts}");
    let ended = site.run(&["job", "run", "daily", "--follow"]).expect(12);
    assert!(
        ended.out.contains("reaching the mover of host local"),
        "{ended}"
    );
    kill(up, Signal::CONT);
    command::wait_until("the mover is back", crate::site::SETTLED, || {
        match &site.json(&["host", "list"])[0]["online"] {
            Value::Null => Err("offline".to_owned()),
            _ => Ok(()),
        }
    });
    site.back_up("daily");
    site.end();
}
