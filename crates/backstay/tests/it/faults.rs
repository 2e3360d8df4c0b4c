//! Calls of the operating system that fail or never return, in a running agent: `strace` injects
//! them.
//!
//! The agent is held with SIGSTOP as soon as it is seen, so that `strace` is there before its work
//! begins.

use crate::command::wait_until;
use crate::images::{self, MIB};
use crate::site::{Site, is_final, kill};
use rustix::process::Signal;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// System calls, what happens to them, and at which call of a thread.
const FAULTS: [(&str, &str, u32); 12] = [
    ("fsync,fdatasync", "signal=KILL", 1),
    ("fsync,fdatasync", "signal=KILL", 3),
    ("fsync,fdatasync", "signal=KILL", 6),
    ("fsync,fdatasync", "error=EIO", 1),
    ("fsync,fdatasync", "error=EIO", 4),
    ("fsync,fdatasync", "error=ENOSPC", 2),
    ("rename,renameat,renameat2", "signal=KILL", 1),
    ("rename,renameat,renameat2", "signal=KILL", 2),
    ("rename,renameat,renameat2", "error=EIO", 1),
    ("rename,renameat,renameat2", "error=ENOSPC", 3),
    ("link,linkat", "signal=KILL", 1),
    ("mkdir,mkdirat", "error=ENOSPC", 1),
];

/// Holds the agent that writes the machine's point, attaches `strace`, lets it go on.
fn attach(site: &Site, fault: (&str, &str, u32), log: &Path) -> Option<Child> {
    let (calls, what, when) = fault;
    let until = Instant::now() + Duration::from_secs(10);
    let agent = loop {
        match site.writer_of("web") {
            Some(agent) => break agent,
            None if Instant::now() > until => return None,
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    kill(agent, Signal::STOP);
    let mut strace = Command::new("strace");
    strace.args([
        "-f",
        "-p",
        &agent.to_string(),
        "-e",
        &format!("trace={calls}"),
    ]);
    strace
        .args(["-e", &format!("inject={calls}:{what}:when={when}"), "-o"])
        .arg(log);
    let said = log.with_extension("said");
    let stderr = std::fs::File::create(&said).unwrap();
    let child = strace
        .stdin(Stdio::null())
        .stderr(stderr)
        .spawn()
        .expect("strace is installed");
    wait_until("strace is attached", Duration::from_secs(20), || {
        let text = std::fs::read_to_string(&said).unwrap_or_default();
        assert!(
            !text.contains("Operation not permitted"),
            "strace may not attach: {text}"
        );
        if text.contains("attached") {
            Ok(())
        } else {
            Err(text)
        }
    });
    kill(agent, Signal::CONT);
    Some(child)
}

#[test]
fn calls_that_fail_in_an_agent() {
    let mut site = Site::up();
    site.repository("main");
    let image = images::raw(&site.path("a.raw"), 64 * MIB, 8, 51);
    site.job("daily", "main", "web", &[&image]);
    site.back_up("daily");
    let mut hits = 0;
    for (number, fault) in FAULTS.into_iter().enumerate() {
        images::scribble(&image, 2, MIB, 52 + number as u64);
        let before = site.points();
        let session = site.json(&["job", "run", "daily"])["id"]
            .as_str()
            .unwrap()
            .to_owned();
        let log = site.path(&format!("strace-{number}"));
        let strace = attach(&site, fault, &log);
        site.settle();
        if let Some(mut strace) = strace {
            // It ends with the agent.
            strace.wait().unwrap();
        }
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let hit = text.contains("INJECTED") || text.contains("killed by SIGKILL");
        hits += u32::from(hit);
        let shown = site.json(&["session", "show", &session]);
        let state = &shown["session"]["state"];
        println!("{fault:?}: {}, {state}", if hit { "hit" } else { "missed" });
        assert!(is_final(state), "{shown}");
        if state == "failed" {
            let said = shown["lines"].as_array().unwrap();
            let error = said
                .iter()
                .find(|line| line["level"] == "error")
                .expect("says why");
            assert!(error["code"].as_str().unwrap().contains('.'), "{error}");
            // Either no point, or a whole one whose maker died before it could say so.
            assert!(site.points().len() <= before.len() + 1);
        } else {
            assert_eq!(site.points().len(), before.len() + 1, "{fault:?}: {shown}");
        }
        site.ok(&["verify", "main", "--read-data"]);
        site.back_up("daily");
        let newest = site.points().remove(0);
        let restored = site.restore(&newest, "disk0", "restored.raw", "raw");
        images::assert_equal(&image, "raw", &restored, "raw");
        std::fs::remove_file(restored).unwrap();
    }
    assert!(hits >= 8, "only {hits} of the faults hit anything");
    site.end();
}
