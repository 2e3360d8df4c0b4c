//! Links between processes of one host, over a Unix socket.
//!
//! Knows: the socket's file, and that the kernel says who is at the other end. No TLS: nobody is in
//! between. Refuses to know: which users deserve what; it only keeps strangers out.

use super::dial::late;
use super::{Link, LinkOptions, Purpose};
use crate::peer::Peer;
use base::{Error, Kind, Result};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

/// A socket that listens; its file goes with it.
pub(super) struct LocalSocket {
    socket: UnixListener,
    path: PathBuf,
}

impl LocalSocket {
    pub(super) async fn bind(path: &Path) -> Result<Self> {
        let doing = || format!("listening on {}", path.display());
        if UnixStream::connect(path).await.is_ok() {
            return Err(Error::new(
                Kind::Conflict,
                "protocol.link.in-use",
                format!("another process listens on {}", path.display()),
            )
            .hint("stop the other process first"));
        }
        use std::os::unix::fs::FileTypeExt;
        let left_over =
            std::fs::symlink_metadata(path).is_ok_and(|facts| facts.file_type().is_socket());
        if left_over {
            std::fs::remove_file(path).map_err(|error| Error::io(doing(), error))?;
        }
        let socket = UnixListener::bind(path).map_err(|error| Error::io(doing(), error))?;
        // The kernel's word on the peer decides; the mode keeps honest mistakes out. Other users
        // that are welcome must be able to connect.
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o666))
            .map_err(|error| Error::io(doing(), error))?;
        Ok(Self {
            socket,
            path: path.to_owned(),
        })
    }

    pub(super) async fn accept(&self) -> std::io::Result<UnixStream> {
        self.socket.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for LocalSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The user this process acts as.
pub(super) fn own_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Who is at the other end.
///
/// # Errors
/// `Denied` (`protocol.peer.wrong-user`) where it is none of `users`.
pub(super) fn peer_of(socket: &UnixStream, users: &[u32]) -> Result<Peer> {
    let facts = socket
        .peer_cred()
        .map_err(|error| Error::io("asking who connects", error))?;
    let (uid, pid) = (facts.uid(), facts.pid());
    if users.contains(&uid) {
        return Ok(Peer::Local { uid, pid });
    }
    Err(Error::new(
        Kind::Denied,
        "protocol.peer.wrong-user",
        format!("user {uid} is not welcome on this socket"),
    )
    .hint("run the command as root or as the user the server runs as"))
}

/// Connects to a Unix socket of this host. The other end must run as root, as this process's own
/// user or as one of `users`: nobody else can pretend to be the server.
///
/// # Errors
/// `Unreachable` or `NotFound` where nobody listens; `Denied` where a stranger does.
pub async fn dial_local(
    path: &Path,
    users: &[u32],
    purpose: Purpose,
    options: &LinkOptions,
) -> Result<Link> {
    let timing = options.timing;
    let mut welcome = vec![0, own_user()];
    welcome.extend_from_slice(users);
    let connected = async {
        let socket = UnixStream::connect(path).await.map_err(|error| {
            Error::io(format!("connecting to {}", path.display()), error)
                .hint("check that the server runs on this host")
        })?;
        let peer = peer_of(&socket, &welcome)?;
        Link::greet(Box::new(socket), peer, purpose, timing).await
    };
    match timeout(timing.handshake, connected).await {
        Ok(link) => link,
        Err(_) => Err(late("the connection")),
    }
}
