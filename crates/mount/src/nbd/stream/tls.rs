//! TLS over a byte stream whose two halves are used by different threads.
//!
//! Knows: one TLS session behind a lock that is never held while the socket is read or written,
//! so that a full send buffer cannot stop the receiving side. Refuses to know: which certificates
//! are right; the given configuration decides.

use super::ByteStream;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Plain bytes that are sealed at one go: sixteen records.
const SEAL_STEP: usize = 256 * 1024;

/// Starts TLS as the client and completes the handshake.
pub fn start_tls(
    stream: ByteStream,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> io::Result<ByteStream> {
    let session = ClientConnection::new(config, name).map_err(io::Error::other)?;
    establish(stream, Connection::Client(session))
}

/// Starts TLS as the server and completes the handshake.
pub fn accept_tls(stream: ByteStream, config: Arc<ServerConfig>) -> io::Result<ByteStream> {
    let session = ServerConnection::new(config).map_err(io::Error::other)?;
    establish(stream, Connection::Server(session))
}

fn establish(stream: ByteStream, mut session: Connection) -> io::Result<ByteStream> {
    let ByteStream {
        reader,
        writer,
        control,
    } = stream;
    session.set_buffer_limit(None);
    let mut both = Both { reader, writer };
    // complete_io sends an alert of its own before it fails.
    while session.is_handshaking() {
        session.complete_io(&mut both)?;
    }
    let session = Arc::new(Mutex::new(session));
    Ok(ByteStream {
        reader: Box::new(Unsealing {
            session: Arc::clone(&session),
            reader: both.reader,
            raw: vec![0; 64 * 1024],
            start: 0,
            end: 0,
        }),
        writer: Box::new(Sealing {
            session,
            writer: both.writer,
            sealed: Vec::new(),
        }),
        control,
    })
}

struct Both {
    reader: Box<dyn Read + Send>,
    writer: Box<dyn Write + Send>,
}

impl Read for Both {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

impl Write for Both {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

struct Unsealing {
    session: Arc<Mutex<Connection>>,
    reader: Box<dyn Read + Send>,
    /// Sealed bytes that the session has not yet taken: `start..end`.
    raw: Vec<u8>,
    start: usize,
    end: usize,
}

impl Read for Unsealing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            {
                let mut session = lock(&self.session);
                loop {
                    match session.reader().read(buffer) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        result => return result,
                    }
                    if self.start == self.end {
                        break;
                    }
                    let mut rest = &self.raw[self.start..self.end];
                    self.start += session.read_tls(&mut rest)?;
                    session
                        .process_new_packets()
                        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                }
            }
            self.start = 0;
            self.end = 0;
            self.end = self.reader.read(&mut self.raw)?;
            if self.end == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

struct Sealing {
    session: Arc<Mutex<Connection>>,
    writer: Box<dyn Write + Send>,
    sealed: Vec<u8>,
}

impl Sealing {
    /// Takes what the session wants to send and sends it, the session unlocked.
    fn send(&mut self, mut session: MutexGuard<'_, Connection>) -> io::Result<()> {
        self.sealed.clear();
        while session.wants_write() {
            session.write_tls(&mut self.sealed)?;
        }
        drop(session);
        self.writer.write_all(&self.sealed)
    }
}

impl Write for Sealing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let step = &bytes[..bytes.len().min(SEAL_STEP)];
        let session = Arc::clone(&self.session);
        let mut session = lock(&session);
        session.writer().write_all(step)?;
        self.send(session)?;
        Ok(step.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Sealing {
    fn drop(&mut self) {
        let session = Arc::clone(&self.session);
        let mut session = lock(&session);
        session.send_close_notify();
        // The peer may have gone; the close is a courtesy.
        let _ = self.send(session);
    }
}

fn lock(session: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}
