//! The program's file is replaced while a site runs, as package managers do.

use crate::images::{self, MIB};
use crate::site::{PROGRAM, Site, kill};
use rustix::process::Signal;

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
