//! Ctrl-C and its relatives.
//!
//! Knows: that a first signal asks to stop, so that whoever is working can clean up.
//! Refuses to know: what there is to clean up.

use base::cancel::Cancel;
use base::{Error, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// A flag that is raised by SIGINT, SIGTERM and SIGHUP. The program goes on running until the work
/// in hand has looked at the flag and put everything back.
pub fn on_signal() -> Result<Cancel> {
    let cancel = Cancel::new();
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])
        .map_err(|error| Error::io("listening for Ctrl-C", error))?;
    let raised = cancel.clone();
    std::thread::spawn(move || {
        for _ in &mut signals {
            if raised.is_cancelled() {
                eprintln!("still cleaning up; this takes a few seconds");
            } else {
                eprintln!("stopping: cleaning up first");
            }
            raised.cancel();
        }
    });
    Ok(cancel)
}
