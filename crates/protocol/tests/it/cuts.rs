//! A small conversation cut, or stalled, after every byte, in both directions: each end comes to
//! its end in bounded time, and what was answered is right.

use crate::world::*;
use base::{Kind, Result};
use protocol::link::{Timing, dial_local};
use protocol::{Call, Client, Listener, Purpose, Service, serve};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

struct Echo;

impl Service for Echo {
    type Request = u32;
    type Response = u32;
    async fn answer(&self, request: u32, call: Call<u32>) -> Result<u32> {
        call.send(&(request + 1)).await?;
        Ok(request + 2)
    }
}

const TIMING: Timing = Timing {
    connect: Duration::from_secs(5),
    handshake: Duration::from_millis(400),
    keepalive: Duration::from_secs(60),
    silence: Duration::from_millis(400),
    frame: Duration::from_millis(400),
};

/// What the wire in the middle does after so many bytes of one direction.
#[derive(Clone, Copy)]
struct Fault {
    to_server: bool,
    after: usize,
    stall: bool,
}

/// Carries bytes one way until the fault, and returns how many.
async fn carry(
    mut from: tokio::net::unix::OwnedReadHalf,
    mut to: tokio::net::unix::OwnedWriteHalf,
    fault: Option<Fault>,
) -> (usize, bool) {
    let mut carried = 0;
    let mut byte = [0];
    loop {
        if fault.is_some_and(|fault| fault.after == carried) {
            if fault.is_some_and(|fault| fault.stall) {
                tokio::time::sleep(TIMING.silence * 4).await;
            }
            return (carried, true);
        }
        match from.read(&mut byte).await {
            Ok(1) => {
                if to.write_all(&byte).await.is_err() {
                    return (carried, false);
                }
                carried += 1;
            }
            _ => {
                let _ = to.shutdown().await;
                return (carried, false);
            }
        }
    }
}

/// One conversation over a wire with a fault. Gives what the client saw and the bytes each way.
async fn converse(folder: PathBuf, fault: Option<Fault>) -> (Result<Vec<u32>>, [usize; 2]) {
    std::fs::create_dir_all(&folder).unwrap();
    let (front, back) = (folder.join("front"), folder.join("back"));
    let mut listener = Listener::bind_local(&back, &[], options(TIMING))
        .await
        .unwrap();
    let serving = tokio::spawn(async move {
        match tokio::time::timeout(TIMING.silence * 3, listener.accept()).await {
            Ok(link) => serve(link.unwrap(), Arc::new(Echo)).await,
            Err(_) => Ok(()), // The hello never came.
        }
    });
    let entry = UnixListener::bind(&front).unwrap();
    let wire = tokio::spawn(async move {
        let (client, _) = entry.accept().await.unwrap();
        let server = UnixStream::connect(&back).await.unwrap();
        let (client, server) = (client.into_split(), server.into_split());
        let there = fault.filter(|fault| fault.to_server);
        let here = fault.filter(|fault| !fault.to_server);
        let there = tokio::spawn(carry(client.0, server.1, there));
        let here = tokio::spawn(carry(server.0, client.1, here));
        // A cut cuts both ways.
        let (mut there, mut here) = (there, here);
        tokio::select! {
            end = &mut there => {
                let (count, cut) = end.unwrap();
                if cut { here.abort(); [count, 0] } else { [count, here.await.unwrap().0] }
            }
            end = &mut here => {
                let (count, cut) = end.unwrap();
                if cut { there.abort(); [0, count] } else { [there.await.unwrap().0, count] }
            }
        }
    });
    let talk = async {
        let link = dial_local(&front, &[], Purpose::Calls, &options(TIMING)).await?;
        let client: Client<u32, u32> = Client::new(link);
        let mut watch = client.watch(&7).await?;
        let mut answers = Vec::new();
        while let Some(answer) = watch.next().await? {
            answers.push(answer);
        }
        Ok(answers)
    };
    let limit = Duration::from_secs(20);
    let seen = tokio::time::timeout(limit, talk)
        .await
        .expect("the client hangs");
    let _ = tokio::time::timeout(limit, serving)
        .await
        .expect("the service hangs");
    let counts = tokio::time::timeout(limit, wire)
        .await
        .expect("the wire hangs")
        .unwrap();
    (seen, counts)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_byte_may_be_the_last() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, counts) = converse(folder.path().join("whole"), None).await;
    assert_eq!(whole.unwrap(), [8, 9]);
    assert!(counts.iter().all(|count| *count > 60), "{counts:?}");

    let mut cases = Vec::new();
    for (to_server, count) in [(true, counts[0]), (false, counts[1])] {
        for after in 0..=count {
            cases.push(Fault {
                to_server,
                after,
                stall: false,
            });
            cases.push(Fault {
                to_server,
                after,
                stall: true,
            });
        }
    }
    let total = cases.len();
    let mut running = tokio::task::JoinSet::new();
    let (mut failed, mut succeeded) = (0, 0);
    let mut check = |(fault, seen): (Fault, Result<Vec<u32>>)| match seen {
        Ok(answers) => {
            assert_eq!(answers, [8, 9]);
            succeeded += 1;
        }
        Err(error) => {
            let kind = error.kind();
            let fits = matches!(kind, Kind::Unreachable | Kind::Timeout);
            assert!(
                fits,
                "after {} of {}: {error:?}",
                fault.after, fault.to_server
            );
            failed += 1;
        }
    };
    for (number, fault) in cases.into_iter().enumerate() {
        while running.len() >= 64 {
            check(running.join_next().await.unwrap().unwrap());
        }
        let folder = folder.path().join(number.to_string());
        running.spawn(async move { (fault, converse(folder, Some(fault)).await.0) });
    }
    while let Some(ended) = running.join_next().await {
        check(ended.unwrap());
    }
    assert_eq!(failed + succeeded, total);
    // Most cuts come before the last answer; those after it change nothing.
    assert!(
        failed > total / 2 && succeeded > 0,
        "{failed} of {total} failed"
    );
}
