//! Links over Unix sockets.

use crate::world::*;
use base::Kind;
use protocol::link::dial_local;
use protocol::{LinkOptions, Listener, Peer, Purpose};

#[tokio::test]
async fn processes_of_one_user_reach_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server.sock");
    let options = LinkOptions::default();
    let error = dial_local(&path, &[], Purpose::Calls, &options)
        .await
        .err()
        .unwrap();
    assert_eq!(error.kind(), Kind::NotFound);

    let mut listener = Listener::bind_local(&path, &[], options.clone())
        .await
        .unwrap();
    let link = dial_local(&path, &[], Purpose::Calls, &options)
        .await
        .unwrap();
    let accepted = listener.accept().await.unwrap();
    let own = rustix::process::geteuid().as_raw();
    for end in [link.peer(), accepted.peer()] {
        assert!(
            matches!(end, Peer::Local { uid, .. } if uid == own),
            "{end}"
        );
    }

    // A second one is refused while the first lives, and what a dead one left is replaced.
    let error = Listener::bind_local(&path, &[], options.clone())
        .await
        .err()
        .unwrap();
    assert_eq!(
        (error.kind(), error.code()),
        (Kind::Conflict, "protocol.link.in-use")
    );
    drop(listener);
    eventually("the socket's file", || !path.exists()).await;
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let _listener = Listener::bind_local(&path, &[], options.clone())
        .await
        .unwrap();
    dial_local(&path, &[], Purpose::Calls, &options)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_file_that_is_no_socket_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("precious");
    std::fs::write(&path, "precious").unwrap();
    assert!(
        Listener::bind_local(&path, &[], LinkOptions::default())
            .await
            .is_err()
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}
