//! Calls over links.

use crate::world::*;
use base::{Error, Kind, Result};
use protocol::link::{Link, Timing};
use protocol::{BlockingClient, Call, Client, Expect, Purpose, Role, Service, serve};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
enum Ask {
    Double(u64),
    WhoAmI,
    Fail,
    Panic,
    Count(u64),
    Never,
    Big(Vec<u8>),
    Huge,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
enum Answer {
    Number(u64),
    Text(String),
    Bytes(Vec<u8>),
}

#[derive(Default)]
struct Sums {
    cancelled: AtomicU64,
    sent: AtomicU64,
}

impl Service for Sums {
    type Request = Ask;
    type Response = Answer;

    async fn answer(&self, request: Ask, call: Call<Answer>) -> Result<Answer> {
        match request {
            Ask::Double(number) => {
                tokio::time::sleep(Duration::from_millis(number % 7)).await;
                Ok(Answer::Number(number * 2))
            }
            Ask::WhoAmI => Ok(Answer::Text(call.peer().to_string())),
            Ask::Fail => Err(Error::new(Kind::Full, "store.disk.full", "no room")
                .hint("buy a disk")
                .caused_by(std::io::Error::from_raw_os_error(28))),
            Ask::Panic => panic!("on purpose"),
            Ask::Count(to) => {
                for number in 0..to {
                    call.send(&Answer::Number(number)).await?;
                    self.sent.fetch_add(1, Ordering::SeqCst);
                }
                Ok(Answer::Text("end".into()))
            }
            Ask::Never => {
                call.cancelled().await;
                assert!(call.cancel().is_cancelled());
                self.cancelled.fetch_add(1, Ordering::SeqCst);
                Err(Error::new(
                    Kind::Cancelled,
                    "test.never.cancelled",
                    "cancelled",
                ))
            }
            Ask::Big(bytes) => Ok(Answer::Bytes(bytes)),
            Ask::Huge => Ok(Answer::Bytes(vec![0; 5 << 20])),
        }
    }
}

type SumsClient = Client<Ask, Answer>;

fn start((one, two): (Link, Link)) -> (SumsClient, Arc<Sums>, tokio::task::JoinHandle<Result<()>>) {
    let sums = Arc::new(Sums::default());
    let serving = tokio::spawn(serve(two, Arc::clone(&sums)));
    (Client::new(one), sums, serving)
}

#[tokio::test]
async fn answers_errors_and_panics_arrive() {
    let (client, _, serving) = start(pair(Purpose::Calls, Timing::default()).await);
    assert_eq!(
        client.call(&Ask::Double(21)).await.unwrap(),
        Answer::Number(42)
    );
    let Answer::Text(who) = client.call(&Ask::WhoAmI).await.unwrap() else {
        panic!()
    };
    assert!(who.starts_with("manager on host "), "{who}");

    let error = client.call(&Ask::Fail).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (Kind::Full, "store.disk.full")
    );
    assert_eq!(error.hint_text(), Some("buy a disk"));
    assert!(error.to_string().contains("No space left"));

    let error = client.call(&Ask::Panic).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (Kind::Bug, "protocol.serve.panicked")
    );
    let bytes = vec![7; 3 << 20];
    let answer = client.call(&Ask::Big(bytes.clone())).await.unwrap();
    assert_eq!(answer, Answer::Bytes(bytes));
    let error = client.call(&Ask::Huge).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (Kind::Limit, "protocol.message.too-large")
    );
    let error = client.call(&Ask::Big(vec![0; 5 << 20])).await.unwrap_err();
    assert_eq!(error.code(), "protocol.message.too-large");
    assert_eq!(
        client.call(&Ask::Double(1)).await.unwrap(),
        Answer::Number(2)
    );

    drop(client);
    serving.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_calls_at_a_time() {
    let (client, _, _serving) = start(pair(Purpose::Calls, Timing::default()).await);
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..3000 {
        let client = client.clone();
        calls.spawn(async move { (number, client.call(&Ask::Double(number)).await) });
    }
    let mut answered = 0;
    while let Some(call) = calls.join_next().await {
        let (number, answer) = call.unwrap();
        assert_eq!(answer.unwrap(), Answer::Number(number * 2));
        answered += 1;
    }
    assert_eq!(answered, 3000);
}

#[tokio::test]
async fn a_call_that_takes_too_long_is_cancelled_on_both_sides() {
    let (client, sums, _serving) = start(pair(Purpose::Calls, Timing::default()).await);
    let deadline = Duration::from_millis(100);
    let error = client.call_within(&Ask::Never, deadline).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.code()),
        (Kind::Timeout, "protocol.call.timeout")
    );
    eventually("the cancellation", || {
        sums.cancelled.load(Ordering::SeqCst) == 1
    })
    .await;
    assert_eq!(
        client.call(&Ask::Double(4)).await.unwrap(),
        Answer::Number(8)
    );
}

#[tokio::test]
async fn events_come_in_order_and_a_slow_reader_only_slows_its_own_call() {
    let (client, sums, _serving) = start(pair(Purpose::Calls, Timing::default()).await);
    let mut watch = client.watch(&Ask::Count(1000)).await.unwrap();
    assert_eq!(watch.next().await.unwrap(), Some(Answer::Number(0)));
    // Nobody reads on: the sender stops after its credit, other calls go on.
    for number in 0..50 {
        assert!(client.call(&Ask::Double(number)).await.is_ok());
    }
    let sent = sums.sent.load(Ordering::SeqCst);
    assert!(
        sent <= 1 + u64::from(protocol::call::EVENTS_IN_FLIGHT_MAX),
        "{sent}"
    );
    for number in 1..1000 {
        assert_eq!(watch.next().await.unwrap(), Some(Answer::Number(number)));
    }
    assert_eq!(
        watch.next().await.unwrap(),
        Some(Answer::Text("end".into()))
    );
    assert_eq!(watch.next().await.unwrap(), None);
    // Who wants the last answer only gets it, past all events.
    assert_eq!(
        client.call(&Ask::Count(500)).await.unwrap(),
        Answer::Text("end".into())
    );
}

#[tokio::test]
async fn a_dropped_watch_ends_the_sender_of_events() {
    let (client, sums, _serving) = start(pair(Purpose::Calls, Timing::default()).await);
    let watch = client.watch(&Ask::Count(u64::MAX)).await.unwrap();
    eventually("a full window", || sums.sent.load(Ordering::SeqCst) >= 16).await;
    drop(watch);
    let weak = Arc::downgrade(&sums);
    drop((client, sums));
    // The service is let go of only when its last call has returned.
    eventually("the call's end", || weak.strong_count() == 0).await;
}

#[tokio::test]
async fn the_end_of_a_link_ends_its_calls() {
    let (client, sums, serving) = start(pair(Purpose::Calls, Timing::default()).await);
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.call(&Ask::Never).await }
    });
    assert!(client.call(&Ask::Double(1)).await.is_ok());
    serving.abort();
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable, "{error:?}");
    let error = client.call(&Ask::Double(1)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable, "{error:?}");
    assert!(client.is_closed());
    drop(sums);

    // The other way round: the service learns that the asker is gone.
    let (client, sums, serving) = start(pair(Purpose::Calls, Timing::default()).await);
    let waiting = tokio::spawn(async move { client.call(&Ask::Never).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    waiting.abort();
    eventually("the cancellation", || {
        sums.cancelled.load(Ordering::SeqCst) == 1
    })
    .await;
    serving.await.unwrap().unwrap();
}

#[test]
fn threads_call_too() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let site = Site::new(1);
    let mut listener = runtime.block_on(site.mover(protocol::LinkOptions::default()));
    let to = address(&listener);
    runtime.spawn(async move {
        while let Ok(link) = listener.accept().await {
            tokio::spawn(serve(link, Arc::new(Sums::default())));
        }
    });
    let client: BlockingClient<Ask, Answer> = BlockingClient::dial(
        runtime.handle(),
        &site.dialer(Role::Manager),
        &to,
        Expect::role(Role::Mover),
    )
    .unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let client = client.clone();
            scope.spawn(move || {
                for number in 0..50 {
                    let number = thread * 100 + number;
                    assert_eq!(
                        client.call(&Ask::Double(number)).unwrap(),
                        Answer::Number(number * 2)
                    );
                }
            });
        }
    });
    let mut watch = client.watch(&Ask::Count(40)).unwrap();
    let mut seen = 0;
    while let Some(answer) = watch.next_answer().unwrap() {
        seen += u64::from(matches!(answer, Answer::Number(number) if number == seen));
    }
    assert_eq!(seen, 40);
    // Inside a runtime it does not panic either.
    let inside = client.clone();
    let answer =
        runtime.block_on(async { tokio::spawn(async move { inside.call(&Ask::Double(3)) }).await });
    assert_eq!(answer.unwrap().unwrap(), Answer::Number(6));
    runtime.shutdown_timeout(Duration::from_millis(100));
    assert_eq!(
        client.call(&Ask::Double(1)).unwrap_err().kind(),
        Kind::Cancelled
    );
}
