//! libvirt on another host, by way of a real `sshd` on this one.

use crate::conformance::LibvirtSubject;
use crate::lab::{Lab, token};
use base::Kind;
use base::size::{ByteRange, MIB};
use platform::conformance::Subject;
use platform::contract::{BackupRequest, Backups, DiskRequest, Hygiene, Inventory, Keep};
use platform::libvirt::{Libvirt, Options};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

struct Sshd {
    folder: tempfile::TempDir,
    port: u16,
    child: Child,
}

impl Sshd {
    fn start() -> Self {
        for (tool, package) in [
            ("/usr/sbin/sshd", "openssh-server"),
            ("/usr/bin/ssh", "openssh-client"),
            ("/usr/bin/ssh-keygen", "openssh-client"),
            ("/usr/bin/virt-ssh-helper", "libvirt-daemon-common"),
        ] {
            assert!(
                Path::new(tool).exists(),
                "this test needs {tool}: install {package}"
            );
        }
        let folder = tempfile::Builder::new()
            .prefix("platform-ssh-")
            .tempdir_in("/tmp")
            .unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        for key in ["host", "user"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f", &path(key)])
                .status();
            assert!(made.unwrap().success());
        }
        std::fs::copy(path("user.pub"), path("authorized")).unwrap();
        if rustix::process::geteuid().is_root() {
            // Where it gives up its rights; Debian's service makes it at boot.
            std::fs::create_dir_all("/run/sshd").unwrap();
        }
        // A free port, taken by asking for any.
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let config = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {}\nAuthorizedKeysFile {}\n\
             StrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin yes\n\
             PasswordAuthentication no\n",
            path("host"),
            path("authorized"),
        );
        std::fs::write(path("config"), config).unwrap();
        let host_key = std::fs::read_to_string(path("host.pub")).unwrap();
        std::fs::write(path("known"), format!("[127.0.0.1]:{port} {host_key}")).unwrap();
        let child = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f", &path("config")])
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(path("log")).unwrap())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "sshd does not listen"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        Self {
            folder,
            port,
            child,
        }
    }

    fn options(&self, lab: &Lab, known_hosts: &str) -> Options {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let user = Command::new("id").arg("-un").output().unwrap().stdout;
        let address = format!(
            "qemu+ssh://{}@127.0.0.1:{}/session?socket={}&keyfile={}&known_hosts={}",
            String::from_utf8(user).unwrap().trim(),
            self.port,
            lab.path("run/libvirt/libvirt-sock").display(),
            path("user"),
            path(known_hosts),
        );
        Options {
            address: address.parse().unwrap(),
            scratch: lab.path("remote-scratch"),
        }
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_machine_on_another_host_is_backed_up_over_ssh() {
    let lab = Lab::shared();
    let machine = lab.machine(&[("vda", "qcow2", 4)]);
    machine.start();
    machine.write(0, 0x42, 1024);
    let sshd = Sshd::start();
    let options = sshd.options(&lab, "known");
    // The lab's QEMU runs as another user than the one who logs in here; on real hosts the folder is
    // given to QEMU's user. A folder that hands down its group does the same.
    lab.open_scratch("remote-scratch");

    let libvirt = Libvirt::connect(options.clone()).unwrap();
    assert_eq!(libvirt.machine(&machine.key).unwrap().name, machine.name);
    let token = token();
    let request = BackupRequest {
        machine: machine.key.clone(),
        token: token.clone(),
        track: true,
        disks: vec![DiskRequest {
            target: "vda".to_owned(),
            base: None,
        }],
    };
    let backup = libvirt.begin_backup(&request).unwrap();
    let read = LibvirtSubject(&machine).read(&backup.disks[0], ByteRange::new(MIB, 65_536));
    assert!(read.unwrap().iter().all(|byte| *byte == 0x42));
    assert!(options.scratch.join(token.as_str()).exists());
    // Found and removed by somebody who knows only the token.
    drop(libvirt);
    let libvirt = Libvirt::connect(options.clone()).unwrap();
    assert_eq!(libvirt.clean_up(&token, Keep::Nothing).unwrap().len(), 3);
    assert!(!options.scratch.join(token.as_str()).exists());
    assert_eq!(libvirt.resources_of(&token).unwrap(), []);
}

#[test]
fn a_host_whose_key_is_another_or_that_does_not_answer_is_told_with_ssh_s_own_words() {
    let lab = Lab::shared();
    let sshd = Sshd::start();
    std::fs::write(sshd.folder.path().join("strange"), "").unwrap();
    let error = Libvirt::connect(sshd.options(&lab, "strange"))
        .err()
        .unwrap();
    assert_eq!(error.kind(), Kind::Unreachable);
    assert!(
        error.to_string().contains("Host key verification failed"),
        "{error}"
    );
    let options = sshd.options(&lab, "known");
    drop(sshd);
    let error = Libvirt::connect(options).err().unwrap();
    assert_eq!(error.kind(), Kind::Unreachable);
    assert!(error.hint_text().is_some());
}
