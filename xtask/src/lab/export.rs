//! What the hypervisor exports for a checkpoint, taken independently of Backstay.
//!
//! Knows: how to notice that a backup of a machine begins, hold Backstay still before it has read a
//! byte, copy the very export that it is about to read with `nbdcopy`, and let it go on.
//! Refuses to know: what Backstay makes of it.
//!
//! A guest that runs writes all the time, so two exports taken one after the other differ. The only
//! honest comparison is with the same export: QEMU keeps it constant while the guest goes on. QEMU
//! reports the jobs behind a backup as they are created, some milliseconds before libvirt answers
//! whoever asked for the backup; that is when the program is held.

use super::virsh::Virsh;
use crate::command::{Run, stop};
use crate::marked::Mark;
use crate::step::{detail, said};
use base::cancel::Cancel;
use base::{Error, Kind, Result};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Time for `virsh` to have asked for the events.
const LISTEN: Duration = Duration::from_millis(700);
/// The longest libvirt may take from QEMU's first job to a finished export.
const BEGIN_DEADLINE: Duration = Duration::from_secs(20);

/// Waits for one backup of one machine.
pub struct Watch {
    child: Child,
    taker: Option<JoinHandle<Result<Taken>>>,
    seen: Arc<AtomicBool>,
}

/// An export that was copied.
pub struct Taken {
    /// The raw copy.
    pub file: PathBuf,
    /// How long Backstay was held still for it.
    pub held: Duration,
}

impl Watch {
    /// From now on the next backup of `machine` is noticed, everything with `mark` held, and the first disk's
    /// export copied to `file`.
    pub fn begin(
        virsh: &Virsh,
        machine: &str,
        mark: &Mark,
        file: &Path,
        cancel: &Cancel,
    ) -> Result<Self> {
        let mut run = Run::new("virsh");
        run.command().stdout(Stdio::piped());
        let mut child = virsh
            .to(run)
            .args([
                "qemu-monitor-event",
                machine,
                "--event",
                "JOB_STATUS_CHANGE",
                "--loop",
            ])
            .start()?;
        let events = child.stdout.take();
        let seen = Arc::new(AtomicBool::new(false));
        let taker = {
            let (virsh, machine) = (virsh.clone(), machine.to_owned());
            let (mark, file) = (mark.clone(), file.to_owned());
            let (cancel, seen) = (cancel.clone(), Arc::clone(&seen));
            std::thread::spawn(move || {
                let events = BufReader::new(events.ok_or_else(unnoticed)?);
                events
                    .lines()
                    .next()
                    .and_then(std::result::Result::ok)
                    .ok_or_else(unnoticed)?;
                let started = Instant::now();
                let held = mark.hold()?;
                seen.store(true, Ordering::Release);
                take(&virsh, &machine, &file, &cancel)?;
                detail(format!(
                    "nbdcopy took the same export meanwhile ({} processes held for {})",
                    held.count(),
                    said(started.elapsed())
                ));
                Ok(Taken {
                    file,
                    held: started.elapsed(),
                })
            })
        };
        std::thread::sleep(LISTEN);
        Ok(Self {
            child,
            taker: Some(taker),
            seen,
        })
    }

    /// The copy, after the backup has ended. An error when no backup was noticed.
    pub fn end(mut self) -> Result<Taken> {
        if !self.seen.load(Ordering::Acquire) {
            // Ends the stream of events, and with it the waiting thread.
            stop(&mut self.child, true);
        }
        match self.taker.take().map(JoinHandle::join) {
            Some(Ok(taken)) => taken,
            _ => Err(unnoticed()),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        stop(&mut self.child, true);
        if let Some(taker) = self.taker.take() {
            let _ = taker.join();
        }
    }
}

fn unnoticed() -> Error {
    Error::new(
        Kind::NotFound,
        "xtask.demo.unnoticed",
        "no backup of the machine was begun while it was watched",
    )
}

/// Copies the first disk of the backup that has just begun.
fn take(virsh: &Virsh, machine: &str, file: &Path, cancel: &Cancel) -> Result<()> {
    let started = Instant::now();
    loop {
        let said = virsh
            .run(&["backup-dumpxml", machine])
            .try_capture(cancel)?;
        if said.status.success()
            && let Some(address) = export_address(&said.text())
        {
            let copied = Run::new("nbdcopy")
                .arg(&address)
                .arg(file)
                .deadline(Duration::from_secs(600))
                .try_capture(cancel)?;
            if copied.status.success() {
                return Ok(());
            }
            if started.elapsed() > BEGIN_DEADLINE {
                return Err(unreadable(&copied.complaint()));
            }
        }
        if started.elapsed() > BEGIN_DEADLINE {
            return Err(unreadable(&said.complaint()));
        }
        // libvirt is between creating the jobs and opening the export.
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn unreadable(complaint: &str) -> Error {
    Error::new(
        Kind::Timeout,
        "xtask.demo.export",
        format!("the export of the backup could not be read: {complaint}"),
    )
}

/// The address of the first export in libvirt's description of a running backup, for a socket
/// (`transport='unix'`) or TCP.
fn export_address(xml: &str) -> Option<String> {
    let server = xml.lines().find(|line| line.contains("<server "))?;
    let name = xml
        .lines()
        .find(|line| line.contains("<disk ") && line.contains("backup='yes'"));
    let name = attribute(name?, "exportname")?;
    match attribute(server, "transport")?.as_str() {
        "unix" => Some(format!(
            "nbd+unix:///{name}?socket={}",
            attribute(server, "socket")?
        )),
        _ => {
            let host = attribute(server, "name").unwrap_or_else(|| "localhost".to_owned());
            Some(format!(
                "nbd://{host}:{}/{name}",
                attribute(server, "port")?
            ))
        }
    }
}

fn attribute(line: &str, name: &str) -> Option<String> {
    let from = line.find(&format!(" {name}='"))? + name.len() + 3;
    let rest = &line[from..];
    Some(rest[..rest.find('\'')?].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_export_is_found_in_libvirt_s_words() {
        let xml = "<domainbackup mode='pull'>\n\
            <server transport='unix' socket='/run/x.sock'/>\n<disks>\n\
            <disk name='vdb' backup='no'/>\n\
            <disk name='vda' backup='yes' type='file' backupmode='full' exportname='vda' index='2'>\n";
        assert_eq!(
            export_address(xml).unwrap(),
            "nbd+unix:///vda?socket=/run/x.sock"
        );
        let tcp = xml.replace(
            "<server transport='unix' socket='/run/x.sock'/>",
            "<server transport='tcp' name='127.0.0.1' port='1809'/>",
        );
        assert_eq!(export_address(&tcp).unwrap(), "nbd://127.0.0.1:1809/vda");
        assert!(export_address("<domainbackup/>").is_none());
    }
}
