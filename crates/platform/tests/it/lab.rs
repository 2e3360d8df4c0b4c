//! A private libvirt: its own daemons, folders and machines, nothing of the host's.
//!
//! Knows: how to start `libvirtd` in session mode under an ordinary user, and small machines without an
//! operating system whose disks are written through QEMU's monitor.
//! Refuses to know: what is tested.

use base::id::{JobId, PointId};
use platform::contract::{MachineKey, Token};
use platform::libvirt::{Address, Libvirt, Options};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// The user that the daemons run as where the tests run as root: libvirt's session mode is not for root.
const NOBODY: u32 = 65_534;

/// What the tests need and where Debian has it.
const TOOLS: [(&str, &str); 7] = [
    ("libvirtd", "libvirt-daemon"),
    ("virtlogd", "libvirt-daemon-log"),
    ("virsh", "libvirt-clients"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("qemu-img", "qemu-utils"),
    ("nbdinfo", "libnbd-bin"),
    ("nbdcopy", "libnbd-bin"),
];

static NUMBER: AtomicU64 = AtomicU64::new(1);
static SHARED: Mutex<Weak<Lab>> = Mutex::new(Weak::new());

/// A private libvirt.
pub struct Lab {
    folder: tempfile::TempDir,
    user: Option<u32>,
    daemons: Mutex<Vec<Child>>,
}

impl Lab {
    /// The one that tests share while any of them runs: starting one takes seconds.
    pub fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let lab = Arc::new(Self::start());
            *shared = Arc::downgrade(&lab);
            lab
        })
    }

    /// One of one's own.
    pub fn start() -> Self {
        for (tool, package) in TOOLS {
            let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
            assert!(
                path.split(':')
                    .any(|folder| Path::new(folder).join(tool).exists()),
                "these tests need {tool}: install the package {package}"
            );
        }
        let folder = tempfile::Builder::new()
            .prefix("platform-lab-")
            .tempdir_in("/tmp")
            .unwrap();
        let root = folder.path().metadata().unwrap().uid() == 0;
        let user = root.then_some(NOBODY);
        for name in ["", "run", "config", "cache", "home", "disks"] {
            let path = folder.path().join(name);
            std::fs::create_dir_all(&path).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            chown(&path, user, user).unwrap();
        }
        let lab = Self {
            folder,
            user,
            daemons: Mutex::new(Vec::new()),
        };
        lab.start_daemon("virtlogd", &[], "run/libvirt/virtlogd-sock");
        lab.start_daemon("libvirtd", &["--timeout=60"], "run/libvirt/libvirt-sock");
        lab
    }

    /// A folder in which the daemons' user may write whoever makes folders in it: it hands down its group.
    pub fn open_scratch(&self, name: &str) {
        let folder = self.path(name);
        std::fs::create_dir_all(&folder).unwrap();
        chown(&folder, None, self.user).unwrap();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o2775)).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LANG", "C.UTF-8");
        command
            .env("HOME", self.path("home"))
            .env("XDG_RUNTIME_DIR", self.path("run"));
        command.env("XDG_CONFIG_HOME", self.path("config"));
        command.env("XDG_CACHE_HOME", self.path("cache"));
        command.stdin(Stdio::null());
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
    }

    fn start_daemon(&self, program: &str, arguments: &[&str], socket: &str) {
        let log = std::fs::File::create(self.path(&format!("{program}.log"))).unwrap();
        let mut command = self.command(program);
        command
            .args(arguments)
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.daemons.lock().unwrap().push(command.spawn().unwrap());
        let begun = Instant::now();
        while std::os::unix::net::UnixStream::connect(self.path(socket)).is_err() {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "{program} does not listen"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kills the daemon without a word, and starts another.
    pub fn restart_libvirtd(&self) {
        let mut daemon = self.daemons.lock().unwrap().pop().unwrap();
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        // The old socket stays and refuses; the new daemon replaces it.
        self.start_daemon("libvirtd", &["--timeout=60"], "run/libvirt/libvirt-sock");
    }

    pub fn options(&self) -> Options {
        let socket = self.path("run/libvirt/libvirt-sock");
        let address: Address = format!("qemu:///session?socket={}", socket.display())
            .parse()
            .unwrap();
        Options {
            address,
            scratch: self.path("scratch"),
        }
    }

    pub fn connect(&self) -> Libvirt {
        Libvirt::connect(self.options()).unwrap()
    }

    /// What `virsh` says; panics where it fails.
    pub fn virsh(&self, arguments: &[&str]) -> String {
        self.try_virsh(arguments)
            .unwrap_or_else(|error| panic!("virsh {arguments:?}: {error}"))
    }

    pub fn try_virsh(&self, arguments: &[&str]) -> Result<String, String> {
        let socket = self.path("run/libvirt/libvirt-sock");
        let uri = format!("qemu:///session?socket={}", socket.display());
        let output = self
            .command("virsh")
            .args(["-q", "-c", &uri])
            .args(arguments)
            .output()
            .unwrap();
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// What a tool says, run as the daemons' user; panics where it fails.
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.command(program).args(arguments).output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {complaint}"
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A new machine that is off, with one disk for each `(target, format, MiB)`.
    pub fn machine(self: &Arc<Self>, disks: &[(&str, &str, u32)]) -> LabMachine {
        let name = format!("m{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut xml = String::new();
        for (target, format, size) in disks {
            let path = self.path(&format!("disks/{name}-{target}.{format}"));
            let path = path.to_str().unwrap();
            self.run(
                "qemu-img",
                &["create", "-q", "-f", format, path, &format!("{size}M")],
            );
            xml += &format!(
                "<disk type='file' device='disk'><driver name='qemu' type='{format}'/>\
                 <source file='{path}'/><target dev='{target}' bus='virtio'/></disk>"
            );
        }
        let xml = format!(
            "<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>\
             <os><type arch='x86_64' machine='q35'>hvm</type></os><devices>{xml}\
             <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>\
             <memballoon model='none'/></devices></domain>"
        );
        let file = self.path(&format!("{name}.xml"));
        std::fs::write(&file, xml).unwrap();
        self.virsh(&["define", file.to_str().unwrap()]);
        let uuid = self.virsh(&["domuuid", &name]).trim().to_owned();
        LabMachine {
            lab: Arc::clone(self),
            name,
            key: MachineKey(uuid),
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Machines outlive their daemon: what a failed test left must go first.
        let names = self.try_virsh(&["list", "--name"]).unwrap_or_default();
        for name in names.lines().filter(|name| !name.is_empty()) {
            let _ = self.try_virsh(&["destroy", name]);
        }
        for daemon in self
            .daemons
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter_mut()
            .rev()
        {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// A machine without an operating system.
pub struct LabMachine {
    pub lab: Arc<Lab>,
    pub name: String,
    pub key: MachineKey,
}

impl LabMachine {
    /// Switches it on, without executing anything: its firmware would only burn time.
    pub fn start(&self) {
        self.lab.virsh(&["start", &self.name, "--paused"]);
    }

    pub fn disk_path(&self, target: &str) -> String {
        let list = self.lab.virsh(&["domblklist", &self.name]);
        let line = list
            .lines()
            .find(|line| line.split_whitespace().next() == Some(target));
        line.unwrap().split_whitespace().nth(1).unwrap().to_owned()
    }

    /// Writes as the guest would: 64 KiB of `byte` at `offset` KiB.
    pub fn write(&self, disk: u32, byte: u8, offset: u64) {
        let command = format!(
            "qemu-io -d /machine/peripheral/virtio-disk{disk}/virtio-backend \
             \"write -P {byte:#x} {offset}k 64k\""
        );
        let said = self
            .lab
            .virsh(&["qemu-monitor-command", &self.name, "--hmp", &command]);
        // What qemu-io says goes to the machine's log; only complaints come here.
        assert_eq!(said.trim(), "");
    }

    /// The process of its QEMU.
    pub fn process(&self) -> i32 {
        let path = self
            .lab
            .path(&format!("run/libvirt/qemu/run/{}.pid", self.name));
        std::fs::read_to_string(path)
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    }
}

impl Drop for LabMachine {
    fn drop(&mut self) {
        let _ = self.lab.try_virsh(&["destroy", &self.name]);
        let _ = self
            .lab
            .try_virsh(&["undefine", &self.name, "--checkpoints-metadata"]);
    }
}

/// A token that no other test has.
pub fn token() -> Token {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let mut bytes = [7; 10];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    Token::new(&JobId::new(1, bytes), &PointId::new(number, bytes))
}
