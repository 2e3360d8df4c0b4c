//! TLS on both sides, with QEMU and among ourselves.

use crate::peers::{disk_bytes, folder, run};
use base::Kind;
use base::block::BlockRead;
use base::memory::MemoryDisk;
use base::size::{ByteOffset, MIB};
use mount::nbd::{
    ConnectOptions, Export, ExportTable, Listen, NbdAddress, NbdClient, NbdServer, RunningServer,
};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::path::Path;
use std::sync::Arc;

/// A certificate authority with one certificate for each side.
struct Certificates {
    authority: CertificateDer<'static>,
    authority_pem: String,
    server: (CertificateDer<'static>, KeyPair),
    client: (CertificateDer<'static>, KeyPair),
}

impl Certificates {
    fn make() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
            .distinguished_name
            .push(DnType::CommonName, "test authority");
        let key = KeyPair::generate().unwrap();
        let authority = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        let leaf = |name: &str, purpose| {
            let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
            let mut params = CertificateParams::new(names).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            params.key_usages = vec![
                KeyUsagePurpose::DigitalSignature,
                KeyUsagePurpose::KeyEncipherment,
            ];
            params.extended_key_usages = vec![purpose];
            let key = KeyPair::generate().unwrap();
            (params.signed_by(&key, &issuer).unwrap().der().clone(), key)
        };
        Self {
            authority: authority.der().clone(),
            authority_pem: authority.pem(),
            server: leaf("server", ExtendedKeyUsagePurpose::ServerAuth),
            client: leaf("client", ExtendedKeyUsagePurpose::ClientAuth),
        }
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.clone()).unwrap();
        Arc::new(roots)
    }

    fn client_config(&self, with_certificate: bool) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder().with_root_certificates(self.roots());
        Arc::new(if with_certificate {
            builder
                .with_client_auth_cert(vec![self.client.0.clone()], key(&self.client.1))
                .unwrap()
        } else {
            builder.with_no_client_auth()
        })
    }

    fn server_config(&self) -> Arc<ServerConfig> {
        let verifier = rustls::server::WebPkiClientVerifier::builder(self.roots())
            .build()
            .unwrap();
        let builder = ServerConfig::builder().with_client_cert_verifier(verifier);
        Arc::new(
            builder
                .with_single_cert(vec![self.server.0.clone()], key(&self.server.1))
                .unwrap(),
        )
    }

    /// The files in the form that QEMU and GnuTLS want.
    fn write(&self, folder: &Path) {
        let pem = |der: &CertificateDer<'_>| {
            let file = folder.join("der");
            std::fs::write(&file, der.as_ref()).unwrap();
            run(
                "openssl",
                &["x509", "-inform", "DER", "-in", file.to_str().unwrap()],
            )
        };
        std::fs::write(folder.join("ca-cert.pem"), &self.authority_pem).unwrap();
        for (name, (certificate, key)) in [("server", &self.server), ("client", &self.client)] {
            std::fs::write(folder.join(format!("{name}-cert.pem")), pem(certificate)).unwrap();
            std::fs::write(folder.join(format!("{name}-key.pem")), key.serialize_pem()).unwrap();
        }
    }
}

fn key(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::try_from(key.serialize_der()).unwrap()
}

fn provider() {
    // Another test of this program may have been first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

fn serve(certificates: &Certificates, bytes: &[u8]) -> (RunningServer, NbdAddress) {
    let table = ExportTable::new();
    table
        .add(
            "vda",
            Export::read_only(Arc::new(MemoryDisk::from(bytes.to_vec()))),
        )
        .unwrap();
    let server = NbdServer::new(table).tls(certificates.server_config());
    let server = server
        .start(&Listen::Tcp("127.0.0.1:0".parse().unwrap()))
        .unwrap();
    let port = server.tcp_address().unwrap().port();
    (server, NbdAddress::tcp("localhost", port, "vda").with_tls())
}

#[test]
fn both_our_sides_speak_tls() {
    provider();
    let certificates = Certificates::make();
    let bytes = disk_bytes(1, 12 * MIB as usize);
    let (_server, address) = serve(&certificates, &bytes);
    let options = ConnectOptions::default().tls(certificates.client_config(true));
    let disk = Arc::new(NbdClient::connect(&address, options).unwrap());
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let disk = Arc::clone(&disk);
            std::thread::spawn(move || {
                let mut back = vec![0; 12 * MIB as usize];
                disk.read_at(ByteOffset(0), &mut back).unwrap();
                back
            })
        })
        .collect();
    threads
        .into_iter()
        .for_each(|thread| assert!(thread.join().unwrap() == bytes));
}

#[test]
fn whoever_lacks_the_right_certificate_is_refused() {
    provider();
    let certificates = Certificates::make();
    let (_server, address) = serve(&certificates, &[1; 4096]);
    let open = |address: &NbdAddress, options| NbdClient::connect(address, options);
    let plain = NbdAddress {
        tls: false,
        ..address.clone()
    };
    let error = open(&plain, ConnectOptions::default()).err().unwrap();
    assert_eq!(
        (error.kind(), error.code()),
        (Kind::Denied, "mount.nbd.tls-required")
    );
    let nameless = ConnectOptions::default().tls(certificates.client_config(false));
    // TLS 1.3 lets the client believe for a moment that it is through.
    let error = match open(&address, nameless) {
        Ok(disk) => disk.read_at(ByteOffset(0), &mut [0; 10]).unwrap_err(),
        Err(error) => error,
    };
    assert!(
        matches!(error.kind(), Kind::Denied | Kind::Unreachable),
        "{error:?}"
    );
    let stranger = ConnectOptions::default().tls(Certificates::make().client_config(true));
    let error = open(&address, stranger).err().unwrap();
    assert_eq!(
        (error.kind(), error.code()),
        (Kind::Denied, "mount.nbd.tls-failed")
    );
    let mut other = address.clone();
    other.tls_name = Some("elsewhere.example".to_owned());
    let options = ConnectOptions::default().tls(certificates.client_config(true));
    assert_eq!(open(&other, options).err().unwrap().kind(), Kind::Denied);
}

#[test]
fn qemu_reads_us_over_tls() {
    provider();
    let certificates = Certificates::make();
    let folder = folder();
    certificates.write(folder.path());
    let bytes = disk_bytes(2, 4 * MIB as usize);
    let (_server, address) = serve(&certificates, &bytes);
    let mount::nbd::NbdSocket::Tcp(_, port) = &address.socket else {
        unreachable!()
    };
    let credentials = format!(
        "tls-creds-x509,id=t0,endpoint=client,dir={}",
        folder.path().display()
    );
    let image = format!("driver=nbd,host=localhost,port={port},export=vda,tls-creds=t0");
    let copy = folder.path().join("copy.raw");
    let arguments = [
        "convert",
        "--object",
        &credentials,
        "--image-opts",
        &image,
        "-O",
        "raw",
    ];
    run(
        "qemu-img",
        &[&arguments[..], &[copy.to_str().unwrap()]].concat(),
    );
    assert!(std::fs::read(&copy).unwrap() == bytes);
}

#[test]
fn we_read_qemu_over_tls() {
    provider();
    let certificates = Certificates::make();
    let folder = folder();
    certificates.write(folder.path());
    let image = folder.path().join("disk.raw");
    let bytes = disk_bytes(3, 4 * MIB as usize);
    std::fs::write(&image, &bytes).unwrap();
    let credentials = format!(
        "tls-creds-x509,id=t0,endpoint=server,verify-peer=yes,dir={}",
        folder.path().display()
    );
    let options = ["-f", "raw", "--object", &credentials, "--tls-creds", "t0"];
    let server = crate::peers::Server::qemu_nbd(folder.path(), &image, &options);
    let address = NbdAddress::unix(&server.socket, "vda").with_tls();
    let secure = ConnectOptions::default().tls(certificates.client_config(true));
    let disk = NbdClient::connect(&address, secure).unwrap();
    let mut back = vec![0; bytes.len()];
    disk.read_at(ByteOffset(0), &mut back).unwrap();
    assert!(back == bytes);
    disk.close();
    let plain = NbdAddress::unix(&server.socket, "vda");
    let error = NbdClient::connect(&plain, ConnectOptions::default())
        .err()
        .unwrap();
    assert_eq!(
        (error.kind(), error.code()),
        (Kind::Denied, "mount.nbd.tls-required")
    );
}

#[test]
fn a_server_without_tls_is_refused_not_trusted() {
    provider();
    let certificates = Certificates::make();
    let folder = folder();
    let image = folder.path().join("disk.raw");
    std::fs::write(&image, [1; 4096]).unwrap();
    let server = crate::peers::Server::qemu_nbd(folder.path(), &image, &["-f", "raw"]);
    let address = NbdAddress::unix(&server.socket, "vda").with_tls();
    let options = ConnectOptions::default().tls(certificates.client_config(true));
    let error = NbdClient::connect(&address, options).err().unwrap();
    assert_eq!(
        (error.kind(), error.code()),
        (Kind::Denied, "mount.nbd.tls-refused")
    );
}
