//! The connection to a real libvirt, cut after each single message of a run.
//!
//! A proxy stands between the code under test and the daemon and hangs up after the n-th message to the
//! daemon, so that the call takes effect and its answer is lost: what happens when the process that
//! runs a backup is killed.

use crate::lab::{Lab, LabMachine, token};
use platform::contract::{
    BackupRequest, Backups, Control, DiskRequest, DiskTracker, Hygiene, Inventory, Keep, Power,
    Token,
};
use platform::libvirt::{Libvirt, Options};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// The proxy hides from us who the daemon is, so its folder is open to the daemon by other means.
const SCRATCH: &str = "cut-scratch";

/// Hands on so many messages in one connection, and refuses any further connection then.
struct Proxy {
    socket: PathBuf,
    left: Arc<AtomicI64>,
}

impl Proxy {
    fn start(lab: &Lab, messages: i64) -> Self {
        let socket = lab.path(&format!("cut-{}", token()));
        let listener = UnixListener::bind(&socket).unwrap();
        let daemon = lab.path("run/libvirt/libvirt-sock");
        let left = Arc::new(AtomicI64::new(messages));
        let counter = Arc::clone(&left);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if counter.load(Ordering::SeqCst) > 0 {
                    hand_on(client, UnixStream::connect(&daemon).unwrap(), &counter);
                }
            }
        });
        Self { socket, left }
    }

    fn connect(&self, lab: &Lab) -> base::Result<Libvirt> {
        let address = format!("qemu:///session?socket={}", self.socket.display());
        let scratch = lab.path(SCRATCH);
        Libvirt::connect(Options {
            address: address.parse()?,
            scratch,
        })
    }
}

fn hand_on(mut client: UnixStream, mut daemon: UnixStream, left: &AtomicI64) {
    let (mut back_from, mut back_to) = (daemon.try_clone().unwrap(), client.try_clone().unwrap());
    let back = std::thread::spawn(move || {
        // Ends when either side hangs up.
        let _ = std::io::copy(&mut back_from, &mut back_to);
    });
    let mut length = [0; 4];
    while client.read_exact(&mut length).is_ok() {
        let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
        client.read_exact(&mut body).unwrap();
        daemon.write_all(&[&length[..], &body].concat()).unwrap();
        if left.fetch_sub(1, Ordering::SeqCst) == 1 {
            // The message is with the daemon; nobody will hear its answer. Give it the time that a
            // killed client would have given it: none.
            let _ = client.shutdown(Shutdown::Both);
            break;
        }
    }
    let _ = daemon.shutdown(Shutdown::Both);
    back.join().unwrap();
}

fn run(
    libvirt: &Libvirt,
    machine: &LabMachine,
    token: &Token,
    base: &DiskTracker,
) -> base::Result<()> {
    let disks = vec![DiskRequest {
        target: "vda".to_owned(),
        base: Some(base.clone()),
    }];
    let (machine, token) = (machine.key.clone(), token.clone());
    let request = BackupRequest {
        machine: machine.clone(),
        token: token.clone(),
        track: true,
        disks,
    };
    libvirt.begin_backup(&request)?;
    // Others look at the machine meanwhile.
    assert_eq!(libvirt.machine(&machine)?.disks.len(), 1);
    libvirt.end_backup(&machine, &token, Keep::Tracker)
}

/// Cuts a run at each message; gives how many messages a whole run takes.
fn cut_everywhere(lab: &Arc<Lab>, off: bool) -> i64 {
    let machine = lab.machine(&[("vda", "qcow2", 4)]);
    lab.open_scratch(SCRATCH);
    let scratch = lab.path(SCRATCH);
    let direct = Libvirt::connect(Options {
        scratch,
        ..lab.options()
    })
    .unwrap();
    machine.start();
    let first = token();
    let disks = vec![DiskRequest {
        target: "vda".to_owned(),
        base: None,
    }];
    let full = direct
        .begin_backup(&BackupRequest {
            machine: machine.key.clone(),
            token: first.clone(),
            track: true,
            disks,
        })
        .unwrap();
    direct
        .end_backup(&machine.key, &first, Keep::Tracker)
        .unwrap();
    let base = full.disks[0].tracker.clone().unwrap();
    if off {
        direct.destroy(&machine.key).unwrap();
    }
    for messages in 1.. {
        let proxy = Proxy::start(lab, messages);
        let token = token();
        let done = proxy
            .connect(lab)
            .and_then(|libvirt| run(&libvirt, &machine, &token, &base));
        let finished = done.is_ok() && proxy.left.load(Ordering::SeqCst) > 0;
        // Nobody notices a killed process sooner; what it asked for last has reached a worker then.
        std::thread::sleep(Duration::from_millis(50));
        direct
            .clean_up(&token, Keep::Nothing)
            .unwrap_or_else(|error| {
                panic!("cleaning up after {messages} messages: {error:?}");
            });
        assert_eq!(
            direct.resources_of(&token).unwrap(),
            [],
            "after {messages} messages"
        );
        assert!(direct.running_backup(&machine.key).unwrap().is_none());
        assert_eq!(
            direct.power(&machine.key).unwrap() == Power::Off,
            off,
            "{messages} messages"
        );
        // The tracker of the run before stays. Of a machine that is off it may be lost when its
        // QEMU is ended while libvirt begins the backup (docs/protocols/libvirt.md): the next run
        // then reads all and says so.
        let kept = direct.resources_of(&first).unwrap().len();
        assert!(
            kept == 1 || (off && kept == 0),
            "{messages} messages: {kept}"
        );
        if finished {
            return messages;
        }
        if let Err(error) = done {
            assert_eq!(
                error.kind(),
                base::Kind::Unreachable,
                "{messages} messages: {error:?}"
            );
        }
    }
    unreachable!("a run has an end")
}

#[test]
fn a_run_cut_after_any_message_leaves_nothing_after_the_clean_up() {
    assert!(cut_everywhere(&Lab::shared(), false) > 20);
}

#[test]
fn a_run_of_a_machine_that_is_off_leaves_nothing_either() {
    assert!(cut_everywhere(&Lab::shared(), true) > 30);
}
