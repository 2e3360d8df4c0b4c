//! A site is upgraded while it runs: its file is replaced, its server is started again.

use crate::command::wait_until;
use crate::images::{self, MIB};
use crate::site::{PROGRAM, SETTLED, Site, kill};
use rustix::process::Signal;
use std::time::Duration;

#[test]
fn a_site_outlives_the_file_it_was_started_from() {
    let mut site = Site::not_up();
    site.program = site.path("backstay");
    std::fs::copy(PROGRAM, &site.program).unwrap();
    site.start();
    site.repository("main");
    let image = images::raw(&site.path("a.raw"), 8 * MIB, 2, 1);
    site.job("daily", "main", "web", &[&image]);
    std::fs::remove_file(&site.program).unwrap();
    // Managers and agents are started, and roles are started again, from what has no name now.
    site.back_up("daily");
    for role in ["server", "mover"] {
        kill(site.of_role(role)[0], Signal::KILL);
    }
    site.settle();
    site.back_up("daily");
    site.end();
}

#[test]
fn watching_a_session_outlives_the_server() {
    let mut site = Site::up();
    site.repository("main");
    let image = images::raw(&site.path("a.raw"), 8 * MIB, 2, 1);
    site.job("daily", "main", "web", &[&image]);
    let session = site.json(&["job", "run", "daily"])["id"]
        .as_str()
        .unwrap()
        .to_owned();
    // The agent that writes is held, so that the session is at work while the server is killed.
    let mut agent = None;
    wait_until("an agent is at work", SETTLED, || {
        agent = site.writer_of("web");
        agent.map(|_| ()).ok_or_else(|| "none".to_owned())
    });
    kill(agent.unwrap(), Signal::STOP);
    let followed = std::thread::scope(|scope| {
        let follower = scope.spawn(|| site.run(&["session", "follow", &session, "--json"]));
        let server = site.of_role("server")[0];
        wait_until("somebody watches", SETTLED, || {
            let watches = site.watchers(&session);
            if watches > 0 {
                Ok(())
            } else {
                Err("nobody".to_owned())
            }
        });
        // Longer than it takes to have a link; nothing outside of it shows that.
        std::thread::sleep(Duration::from_secs(2));
        kill(server, Signal::KILL);
        wait_until("another server is there", SETTLED, || {
            match site.of_role("server")[..] {
                [other] if other != server => Ok(()),
                _ => Err("not yet".to_owned()),
            }
        });
        kill(agent.unwrap(), Signal::CONT);
        follower.join().unwrap()
    });
    let lines = followed.expect(0).json_lines();
    assert_eq!(lines.last().unwrap()["session"]["state"], "success");
    site.end();
}
