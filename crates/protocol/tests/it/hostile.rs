//! Peers that do not keep to the rules.

use crate::world::*;
use base::Result;
use base::random::SeededRandom;
use protocol::frame::{Frame, FrameKind, HEADER_LENGTH};
use protocol::link::{LinkLimits, Timing};
use protocol::verify::client_config;
use protocol::{Call, Expect, LinkOptions, Listener, Role, Service, serve};
use rustls::pki_types::ServerName;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

struct Echo;

impl Service for Echo {
    type Request = String;
    type Response = String;
    async fn answer(&self, request: String, _call: Call<String>) -> Result<String> {
        Ok(request)
    }
}

/// A mover that serves, and how its links ended.
fn serve_all(mut listener: Listener) -> tokio::sync::mpsc::UnboundedReceiver<Result<()>> {
    let (ended, ends) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok(link) = listener.accept().await {
            let ended = ended.clone();
            tokio::spawn(async move {
                let _ = ended.send(serve(link, Arc::new(Echo)).await);
            });
        }
    });
    ends
}

/// A TLS connection of a rightful manager that will speak as it likes.
async fn raw(site: &Site, address: &str) -> TlsStream<TcpStream> {
    let clock = Arc::new(base::os::OsClock);
    let identity = site.identity(Role::Manager);
    let config = client_config(&identity, Expect::role(Role::Mover), clock).unwrap();
    let socket = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("x.invalid").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, socket)
        .await
        .unwrap()
}

fn hello(oldest: u16, newest: u16) -> Vec<u8> {
    let mut payload = [oldest.to_le_bytes(), newest.to_le_bytes()].concat();
    payload.extend_from_slice(&[1, 3]);
    payload.extend_from_slice(b"\x1b[x");
    Frame::new(FrameKind::Hello, 0, payload).to_bytes().unwrap()
}

async fn read_to_end(mut stream: impl AsyncReadExt + Unpin) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut all))
        .await
        .expect("the other end keeps the connection open");
    all
}

#[tokio::test]
async fn a_client_without_tls_learns_nothing() {
    let site = Site::new(1);
    let listener = site.mover(options(QUICK)).await;
    let mut socket = TcpStream::connect(address(&listener)).await.unwrap();
    socket
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let answer = read_to_end(&mut socket).await;
    // At most a TLS alert: type 21, seven bytes.
    assert!(
        answer.is_empty() || (answer[0] == 21 && answer.len() == 7),
        "{answer:?}"
    );
    eventually("the count", || listener.counts().refused == 1).await;
    assert_eq!(listener.counts().accepted, 0);
}

/// A well-formed ClientHello of TLS 1.2: no `supported_versions` extension.
#[tokio::test]
async fn tls_1_2_is_refused() {
    let site = Site::new(1);
    let listener = site.mover(options(QUICK)).await;
    let mut body = vec![3, 3];
    body.extend_from_slice(&[0x42; 32]);
    body.push(0); // no session
    // ECDHE with AES-128-GCM, no compression.
    body.extend_from_slice(&[0, 4, 0xc0, 0x2b, 0xc0, 0x2f, 1, 0]);
    let extensions: [&[u8]; 3] = [
        &[0, 10, 0, 4, 0, 2, 0, 23],      // supported_groups: P-256
        &[0, 11, 0, 2, 1, 0],             // ec_point_formats: uncompressed
        &[0, 13, 0, 6, 0, 4, 4, 3, 8, 4], // signature_algorithms
    ];
    let extensions = extensions.concat();
    body.extend_from_slice(&(extensions.len() as u16).to_be_bytes());
    body.extend_from_slice(&extensions);
    let mut record = vec![22, 3, 1];
    record.extend_from_slice(&(body.len() as u16 + 4).to_be_bytes());
    record.extend_from_slice(&[1, 0]);
    record.extend_from_slice(&(body.len() as u16).to_be_bytes());
    record.extend_from_slice(&body);
    let mut socket = TcpStream::connect(address(&listener)).await.unwrap();
    socket.write_all(&record).await.unwrap();
    let answer = read_to_end(&mut socket).await;
    // Fatal alert protocol_version.
    assert_eq!(answer, [21, 3, 3, 0, 2, 2, 70]);
}

#[tokio::test]
async fn a_tls_client_without_certificate_is_refused() {
    let site = Site::new(1);
    let listener = site.mover(options(QUICK)).await;
    let clock = Arc::new(base::os::OsClock);
    let identity = site.identity(Role::Manager);
    let mut config = client_config(&identity, Expect::role(Role::Mover), clock).unwrap();
    config.client_auth_cert_resolver = Arc::new(NoCertificate);
    let socket = TcpStream::connect(address(&listener)).await.unwrap();
    let name = ServerName::try_from("x.invalid").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config))
        .connect(name, socket)
        .await
        .unwrap();
    // In TLS 1.3 the client thinks it is done; the refusal is the first thing it reads.
    let _ = stream.write_all(&hello(1, 1)).await;
    let error = stream.read_u8().await.unwrap_err();
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
    eventually("the count", || listener.counts().refused == 1).await;
}

#[derive(Debug)]
struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(
        &self,
        _: &[&[u8]],
        _: &[rustls::SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }
    fn has_certs(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn a_session_is_never_resumed() {
    let site = Site::new(1);
    let listener = site.mover(options(QUICK)).await;
    let to = address(&listener);
    let _ends = serve_all(listener);
    let clock = Arc::new(base::os::OsClock);
    let identity = site.identity(Role::Manager);
    let mut config = client_config(&identity, Expect::role(Role::Mover), clock).unwrap();
    config.resumption = rustls::client::Resumption::in_memory_sessions(8);
    let connector = TlsConnector::from(Arc::new(config));
    for _ in 0..3 {
        let socket = TcpStream::connect(&to).await.unwrap();
        let name = ServerName::try_from("x.invalid").unwrap();
        let mut stream = connector.connect(name, socket).await.unwrap();
        stream.write_all(&hello(1, 1)).await.unwrap();
        stream.read_exact(&mut [0; HEADER_LENGTH]).await.unwrap();
        let kind = stream.get_ref().1.handshake_kind();
        assert_eq!(kind, Some(rustls::HandshakeKind::Full));
    }
}

#[tokio::test]
async fn other_versions_are_told_apart() {
    let site = Site::new(1);
    let listener = site.mover(options(QUICK)).await;
    let mut stream = raw(&site, &address(&listener)).await;
    stream.write_all(&hello(7, 9)).await.unwrap();
    let answer = read_to_end(&mut stream).await;
    // The hello comes back, so that the other end can say which versions it met.
    let (frame, _) = Frame::from_bytes(&answer, 1024).unwrap().unwrap();
    assert_eq!(
        (frame.kind, &frame.payload[..4]),
        (FrameKind::Hello, &[1, 0, 1, 0][..])
    );
    eventually("the count", || listener.counts().refused == 1).await;
}

#[tokio::test]
async fn a_slow_loris_does_not_keep_others_out() {
    let site = Site::new(1);
    let limits = LinkLimits {
        handshakes_per_address: 4,
        ..LinkLimits::default()
    };
    let listener = site
        .mover(LinkOptions {
            limits,
            ..options(QUICK)
        })
        .await;
    let to = address(&listener);
    let began = Instant::now();
    let mut slow = Vec::new();
    for _ in 0..8 {
        let mut socket = TcpStream::connect(&to).await.unwrap();
        let _ = socket.write_all(&[22, 3, 1]).await;
        slow.push(socket);
    }
    // Half of them are refused at once, the others when their time is over.
    eventually("the surplus is refused", || listener.counts().refused >= 4).await;
    eventually("the rest is refused", || listener.counts().refused == 8).await;
    assert!(began.elapsed() >= QUICK.handshake);
    for socket in &mut slow {
        read_to_end(socket).await;
    }
    let dialer = site.dialer(Role::Manager);
    let expect = Expect::role(Role::Mover);
    dialer
        .dial(&to, expect, protocol::Purpose::Calls)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_slow_loris_inside_is_cut_too() {
    let site = Site::new(1);
    let timing = Timing {
        frame: Duration::from_millis(700),
        ..QUICK
    };
    let listener = site.mover(options(timing)).await;
    let to = address(&listener);
    let mut ends = serve_all(listener);
    let mut stream = raw(&site, &to).await;
    stream.write_all(&hello(1, 1)).await.unwrap();
    let frame = Frame::new(FrameKind::Request, 1, vec![0; 4096])
        .to_bytes()
        .unwrap();
    let dripping = async {
        for byte in frame {
            if stream.write_all(&[byte]).await.is_err() || stream.flush().await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let ended = tokio::select! {
        ended = ends.recv() => ended.unwrap(),
        () = dripping => panic!("a frame could take as long as it liked"),
    };
    assert_eq!(ended.unwrap_err().code(), "protocol.link.slow");
}

#[tokio::test]
async fn frames_out_of_place_end_the_link_and_nothing_else() {
    let site = Site::new(1);
    let listener = site.mover(options(QUICK)).await;
    let to = address(&listener);
    let mut ends = serve_all(listener);
    let mut oversize = Frame::new(FrameKind::Request, 1, Vec::new())
        .to_bytes()
        .unwrap();
    oversize[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut large = oversize.clone();
    large[..4].copy_from_slice(&(5u32 << 20).to_le_bytes());
    let mut flagged = Frame::new(FrameKind::Request, 1, Vec::new())
        .to_bytes()
        .unwrap();
    flagged[5] = 1;
    let mut broken = Frame::new(FrameKind::Request, 1, vec![1, 0, 0])
        .to_bytes()
        .unwrap();
    broken[21] ^= 1;
    let frame = |kind, payload: &[u8]| Frame::new(kind, 1, payload.to_vec()).to_bytes().unwrap();
    let cases = [
        (oversize, "protocol.frame.too-large"),
        (large, "protocol.frame.too-large"),
        (flagged, "protocol.frame.unknown"),
        (broken, "protocol.frame.checksum"),
        (hello(1, 1), "protocol.frame.unexpected"),
        (frame(FrameKind::Response, b""), "protocol.frame.unexpected"),
        (frame(FrameKind::Data, b"x"), "protocol.frame.unexpected"),
        (frame(FrameKind::Credit, b"x"), "protocol.frame.unexpected"),
        (
            frame(FrameKind::Goodbye, b"\xff"),
            "protocol.frame.unexpected",
        ),
    ];
    for (bytes, code) in cases {
        let mut stream = raw(&site, &to).await;
        stream.write_all(&hello(1, 1)).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let error = ends.recv().await.unwrap().unwrap_err();
        assert_eq!(error.code(), code);
    }
    // A request that is no message fails alone.
    let mut stream = raw(&site, &to).await;
    stream.write_all(&hello(1, 1)).await.unwrap();
    let good = [1, 0, 2, b'h', b'i'];
    for (id, payload) in [(1, &[9, 9, 9][..]), (2, &[1, 0, 200, 1]), (3, &good)] {
        let frame = Frame::new(FrameKind::Request, id, payload.to_vec());
        stream.write_all(&frame.to_bytes().unwrap()).await.unwrap();
    }
    stream
        .write_all(&frame(FrameKind::Goodbye, b""))
        .await
        .unwrap();
    let answers = read_to_end(&mut stream).await;
    ends.recv().await.unwrap().unwrap();
    let mut rest = &answers[..];
    let mut kinds = Vec::new();
    while let Some((frame, used)) = Frame::from_bytes(rest, 1 << 20).unwrap() {
        kinds.push((frame.id, frame.kind));
        rest = &rest[used..];
    }
    kinds.sort_by_key(|(id, kind)| (*id, *kind as u8));
    assert_eq!(
        kinds,
        [
            (0, FrameKind::Hello),
            (0, FrameKind::Goodbye),
            (1, FrameKind::Failure),
            (2, FrameKind::Failure),
            (3, FrameKind::Response)
        ]
    );
}

#[tokio::test]
async fn garbage_after_the_handshake_ends_the_link_in_time() {
    let site = Site::new(1);
    let listener = site.mover(options(QUICK)).await;
    let to = address(&listener);
    let mut ends = serve_all(listener);
    let mut failed = 0;
    for seed in 0..40u64 {
        let random = SeededRandom::new(seed);
        let mut bytes = vec![0; 64 + random.below(4000) as usize];
        base::random::Random::fill(&random, &mut bytes);
        if seed % 2 == 0 {
            // Likely lengths and kinds, so that garbage gets further inside.
            bytes[1..4].fill(0);
            bytes[4] = [16, 20, 21, 2][seed as usize / 2 % 4];
            bytes[5] = 0;
        }
        let mut stream = raw(&site, &to).await;
        stream.write_all(&hello(1, 1)).await.unwrap();
        let _ = stream.write_all(&bytes).await;
        let _ = stream.flush().await;
        let ended = tokio::time::timeout(Duration::from_secs(10), ends.recv()).await;
        failed += u64::from(ended.expect("garbage hangs the service").unwrap().is_err());
    }
    assert_eq!(failed, 40);
}

/// More requests at a time than a client of ours would send: they are answered, not piled up.
#[tokio::test]
async fn a_flood_of_requests_is_bounded() {
    struct Stuck;
    impl Service for Stuck {
        type Request = String;
        type Response = String;
        async fn answer(&self, _: String, call: Call<String>) -> Result<String> {
            call.cancelled().await;
            Ok(String::new())
        }
    }
    let site = Site::new(1);
    let mut listener = site.mover(options(QUICK)).await;
    let to = address(&listener);
    tokio::spawn(async move {
        let link = listener.accept().await.unwrap();
        let _ = serve(link, Arc::new(Stuck)).await;
    });
    let mut stream = raw(&site, &to).await;
    stream.write_all(&hello(1, 1)).await.unwrap();
    let most = protocol::call::CALLS_PER_LINK_MAX as u64;
    for id in 0..most + 50 {
        let frame = Frame::new(FrameKind::Request, id, vec![1, 0, 0])
            .to_bytes()
            .unwrap();
        stream.write_all(&frame).await.unwrap();
    }
    stream.flush().await.unwrap();
    let mut refused = 0;
    while refused < 50 {
        let mut header = [0; HEADER_LENGTH];
        stream.read_exact(&mut header).await.unwrap();
        let length = u32::from_le_bytes(header[..4].try_into().unwrap()) as usize;
        stream.read_exact(&mut vec![0; length]).await.unwrap();
        refused += u64::from(header[4] == FrameKind::Failure as u8);
        assert_ne!(header[4], FrameKind::Response as u8);
    }
}
