//! Bad input: each gives its exit code, its error code, what to do about it, and loses nothing.

use crate::command::{self, Ended};
use crate::damage::files_in;
use crate::images::{self, MIB};
use crate::site::{PROGRAM, Site, kill};
use rustix::process::Signal;
use serde_json::Value;
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
pub fn fails(site: &Site, words: &[&str], code: &str) -> String {
    let ended = site.run(&[words, &["--json"]].concat()).expect(12);
    failure(&ended, code)
}

/// The text of the line with this code, of a session that failed.
#[track_caller]
pub fn failure(ended: &Ended, code: &str) -> String {
    let lines = ended.json_lines();
    let coded = |line: &&Value| line["line"]["code"] == code && line["line"]["level"] == "error";
    let line = lines
        .iter()
        .find(coded)
        .unwrap_or_else(|| panic!("no line {code}: {ended}"));
    line["line"]["text"].as_str().unwrap().to_owned()
}

/// Commands, what they exit with and the code they name. `IMAGE` and `POINT` stand for those of the
/// test.
const NONSENSE: &[(&str, i32, &str)] = &[
    ("job run nothing", 3, "job.not-found"),
    ("job show nothing", 3, "job.not-found"),
    ("job stop nothing", 3, "job.not-found"),
    ("job delete nothing", 3, "job.not-found"),
    ("job edit nothing --keep 3", 3, "job.not-found"),
    ("job stop daily", 4, "job.not-running"),
    ("session show ffffffff", 3, "session.not-found"),
    ("session follow x", 3, "session.not-found"),
    ("session stop ffffffff", 3, "session.not-found"),
    ("session list --job nothing", 3, "job.not-found"),
    ("point show ffffffff", 3, "point.not-found"),
    ("point delete ffffffff", 3, "point.not-found"),
    ("point list --repository nothing", 3, "repository.not-found"),
    ("machine show nothing", 3, "machine.not-found"),
    ("repository rescan nothing", 3, "repository.not-found"),
    ("repository collect nothing", 3, "repository.not-found"),
    ("repository remove nothing", 3, "repository.not-found"),
    ("repository remove main", 4, "repository.in-use"),
    (
        "repository create main --path /x --no-encryption",
        4,
        "repository.name-taken",
    ),
    ("repository create other --path /x", 2, "password.missing"),
    ("verify nothing", 3, "repository.not-found"),
    ("verify main --point ffffffff", 3, "point.not-found"),
    ("host remove nothing", 3, "host.not-found"),
    ("host remove local", 4, "host.in-use"),
    ("restore disk ffffffff disk0 --to /x", 3, "point.not-found"),
    (
        "restore disk POINT vdz --to /x",
        3,
        "restore.disk-not-found",
    ),
    (
        "job create daily --repository main --image IMAGE",
        4,
        "job.name-taken",
    ),
    (
        "job create x --repository nothing --image IMAGE",
        3,
        "repository.not-found",
    ),
    (
        "job create x --repository main --image IMAGE --host nothing",
        3,
        "host.not-found",
    ),
    (
        "job create x --repository main --image IMAGE --daily 25:00",
        2,
        "job.schedule.invalid",
    ),
    (
        "job create x --repository main --image IMAGE --every 0",
        2,
        "job.schedule.invalid",
    ),
    (
        "job create x --repository main --image IMAGE --daily 22:00 --zone Moon",
        2,
        "job.schedule.invalid",
    ),
    (
        "job create x --repository main --image IMAGE --keep 0",
        2,
        "job.keep-invalid",
    ),
    (
        "job create x --repository main --image web",
        2,
        "job.image-malformed",
    ),
];

#[test]
fn names_and_words_that_make_no_sense() {
    let mut site = Site::up();
    site.repository("main");
    let image = images::raw(&site.path("a.raw"), 4 * MIB, 1, 1);
    site.job("daily", "main", "web", &[&image]);
    site.back_up("daily");
    let point = site.points().remove(0);
    let image = format!("web={}", image.display());
    for (line, exit, code) in NONSENSE {
        let word = |word| match word {
            "IMAGE" => image.as_str(),
            "POINT" => point.as_str(),
            other => other,
        };
        let words: Vec<&str> = line.split(' ').map(word).collect();
        refused(&site, &words, *exit, code);
    }
    assert_eq!(site.points(), [point], "nothing was lost");
    let state = site.state();
    let mut second = Command::new(PROGRAM);
    second.args([
        "up",
        "--state",
        state.to_str().unwrap(),
        "--listen",
        "127.0.0.1:1",
    ]);
    let second = command::run(&mut second, &site.path("")).expect(4);
    assert!(second.err.contains(" code: state.in-use\n"), "{second}");
    site.end();
    refused(&site, &["status"], 9, "base.io.unreachable");
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
