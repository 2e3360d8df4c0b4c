//! The client's part of the handshake.
//!
//! Knows: which options are asked for in which order, what to do when a server lacks one, and
//! when not to go on. Refuses to know: the transmission that follows.

use super::super::stream::{ByteStream, HangUp, Inbox, start_tls};
use super::super::wire::option::{
    ContextQuery, Info, InfoQuery, OPTION_REPLY_SIZE, OptionCode, OptionReply, ReplyCode,
    check_context_count, decode_context, decode_server, encode_option, info, refusal,
};
use super::super::wire::{
    FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES, Fields, OLDSTYLE_MAGIC, OPTION_MAGIC, PAYLOAD_MAX,
    SERVER_MAGIC, violation,
};
use super::fault::broken_stream;
use super::{BlockSizes, ConnectOptions, ExportEntry};
use base::limit::DISK_SIZE_MAX;
use base::{Error, Kind, Result};
use rustls::pki_types::ServerName;
use std::io::Write;
use std::sync::Arc;

/// The most replies to one option: exports of a list, facts, contexts.
const REPLIES_MAX: usize = 65_536;
/// The most bytes of all replies to one option.
const REPLY_BYTES_MAX: usize = 16 << 20;

/// What the server said of the export.
#[derive(Clone, Copy, Debug)]
pub struct ExportFacts {
    /// Bytes.
    pub size: u64,
    /// Transmission flags.
    pub flags: u16,
    /// Block sizes, ours where the server has none.
    pub sizes: BlockSizes,
}

/// What came of an option.
enum Answer {
    /// Accepted, with these replies before the acknowledgement.
    Done(Vec<(ReplyCode, Vec<u8>)>),
    /// Refused, with the server's words.
    Refused(ReplyCode, String),
}

/// A connection in its handshake.
pub struct Handshake {
    inbox: Inbox,
    writer: Box<dyn Write + Send>,
    control: Arc<dyn HangUp>,
    fixed: bool,
    no_zeroes: bool,
}

impl Handshake {
    /// Exchanges greetings.
    pub fn greet(stream: ByteStream) -> Result<Self> {
        let ByteStream {
            reader,
            writer,
            control,
        } = stream;
        let mut inbox = Inbox::new(reader);
        let greeting = inbox.array::<18>().map_err(broken_stream)?;
        let mut fields = Fields::new("a server's greeting", &greeting);
        let (magic, style, flags) = (fields.u64()?, fields.u64()?, fields.u16()?);
        if magic != SERVER_MAGIC {
            return Err(violation("what listens there is not an NBD server"));
        }
        if style == OLDSTYLE_MAGIC {
            return Err(Error::new(
                Kind::Unsupported,
                "mount.nbd.oldstyle",
                "the NBD server speaks the oldstyle handshake of before 2011",
            )
            .hint("start the server without its option for oldstyle (nbdkit -o)"));
        }
        if style != OPTION_MAGIC {
            return Err(violation("what listens there is not an NBD server"));
        }
        let known = flags & (FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES);
        let mut handshake = Self {
            inbox,
            writer,
            control,
            fixed: known & FLAG_FIXED_NEWSTYLE != 0,
            no_zeroes: known & FLAG_NO_ZEROES != 0,
        };
        handshake.send(&u32::from(known).to_be_bytes())?;
        Ok(handshake)
    }

    /// Switches to TLS; there is no way on without it.
    pub fn secure(
        mut self,
        config: Arc<rustls::ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self> {
        if !self.fixed {
            return Err(no_tls("its handshake has no options"));
        }
        match self.option(OptionCode::STARTTLS, &[])? {
            Answer::Done(_) => {}
            Answer::Refused(_, text) => return Err(no_tls(&text)),
        }
        let Self {
            inbox,
            writer,
            control,
            fixed,
            no_zeroes,
        } = self;
        let reader = inbox.into_reader().map_err(|_| {
            violation("the server sent bytes in the clear after it agreed to encrypt")
        })?;
        let stream = start_tls(
            ByteStream {
                reader,
                writer,
                control,
            },
            config,
            name,
        )
        .map_err(broken_stream)?;
        let ByteStream {
            reader,
            writer,
            control,
        } = stream;
        Ok(Self {
            inbox: Inbox::new(reader),
            writer,
            control,
            fixed,
            no_zeroes,
        })
    }

    /// Asks for 64-bit headers. False where the server has none.
    pub fn extended_headers(&mut self) -> Result<bool> {
        self.accepted(OptionCode::EXTENDED_HEADERS)
    }

    /// Asks for structured replies. False where the server has none.
    pub fn structured_replies(&mut self) -> Result<bool> {
        self.accepted(OptionCode::STRUCTURED_REPLY)
    }

    /// An option whose refusal changes what follows but stops nothing, unless it asks for TLS.
    fn accepted(&mut self, code: OptionCode) -> Result<bool> {
        if !self.fixed {
            return Ok(false);
        }
        match self.option(code, &[])? {
            Answer::Done(_) => Ok(true),
            Answer::Refused(ReplyCode::ERR_TLS_REQD, text) => {
                Err(refusal(code, ReplyCode::ERR_TLS_REQD, &text))
            }
            Answer::Refused(..) => Ok(false),
        }
    }

    /// Selects contexts of an export: ids and names of those the server has.
    pub fn set_contexts(
        &mut self,
        export: &str,
        queries: Vec<String>,
    ) -> Result<Vec<(u32, String)>> {
        let code = OptionCode::SET_META_CONTEXT;
        let data = ContextQuery {
            export: export.to_owned(),
            queries,
        }
        .encode();
        let replies = match self.option(code, &data)? {
            Answer::Done(replies) => replies,
            // A server without contexts may have the export all the same; GO tells.
            Answer::Refused(..) => return Ok(Vec::new()),
        };
        check_context_count(replies.len())?;
        let mut contexts: Vec<(u32, String)> = Vec::new();
        for (kind, data) in replies {
            if kind != ReplyCode::META_CONTEXT {
                return Err(violation(
                    "the server answers a question about contexts with others",
                ));
            }
            let context = decode_context(&data)?;
            if contexts
                .iter()
                .any(|(id, name)| *id == context.0 || *name == context.1)
            {
                return Err(violation("the server names a context twice"));
            }
            contexts.push(context);
        }
        Ok(contexts)
    }

    /// Takes the export and begins the transmission.
    pub fn go(mut self, export: &str) -> Result<(ByteStream, ExportFacts)> {
        if !self.fixed {
            return self.go_by_name(export);
        }
        let code = OptionCode::GO;
        let query = InfoQuery {
            export: export.to_owned(),
            wanted: vec![info::BLOCK_SIZE],
        };
        let replies = match self.option(code, &query.encode())? {
            Answer::Done(replies) => replies,
            Answer::Refused(ReplyCode::ERR_UNSUP, _) => return self.go_by_name(export),
            Answer::Refused(kind, text) => return Err(refusal(code, kind, &text)),
        };
        let (mut facts, mut sizes) = (None, None);
        for (kind, data) in replies {
            if kind != ReplyCode::INFO {
                return Err(violation(
                    "the server describes an export with something else",
                ));
            }
            match Info::decode(&data)? {
                Info::Export(size, flags) => facts = Some((size, flags)),
                Info::BlockSize(minimum, preferred, maximum) => {
                    sizes = Some(check_sizes(minimum, preferred, maximum)?);
                }
                Info::Name(_) | Info::Description(_) | Info::Other(_) => {}
            }
        }
        let (size, flags) =
            facts.ok_or_else(|| violation("the server does not tell the export's size"))?;
        self.begin(size, flags, sizes)
    }

    /// The way of old servers, which cannot say why they refuse.
    fn go_by_name(mut self, export: &str) -> Result<(ByteStream, ExportFacts)> {
        self.send(&encode_option(OptionCode::EXPORT_NAME, export.as_bytes()))?;
        let answer = self.inbox.array::<10>().map_err(|error| {
            broken_stream(error).context(format!(
                "the server closed on the export \u{201c}{export}\u{201d}"
            ))
        })?;
        if !self.no_zeroes {
            self.inbox.skip(124).map_err(broken_stream)?;
        }
        let mut fields = Fields::new("the description of an export", &answer);
        let (size, flags) = (fields.u64()?, fields.u16()?);
        self.begin(size, flags, None)
    }

    fn begin(
        self,
        size: u64,
        flags: u16,
        sizes: Option<BlockSizes>,
    ) -> Result<(ByteStream, ExportFacts)> {
        let sizes = sizes.unwrap_or_default();
        if size > DISK_SIZE_MAX {
            return Err(Error::new(
                Kind::Limit,
                "mount.nbd.export-too-large",
                format!("the NBD server claims an export of {size} bytes"),
            ));
        }
        if !size.is_multiple_of(u64::from(sizes.minimum)) {
            return Err(Error::new(
                Kind::Unsupported,
                "mount.nbd.export-unaligned",
                format!(
                    "the last bytes of the export cannot be reached: its size, {size}, is not a \
                     multiple of the server's block size, {}",
                    sizes.minimum
                ),
            )
            .hint("let the server allow smaller blocks, or give the image a round size"));
        }
        let reader = self
            .inbox
            .into_reader()
            .map_err(|_| violation("the server sends replies before the first request"))?;
        let stream = ByteStream {
            reader,
            writer: self.writer,
            control: self.control,
        };
        Ok((stream, ExportFacts { size, flags, sizes }))
    }

    /// The exports that the server lists. Ends the connection.
    pub fn list(mut self) -> Result<Vec<ExportEntry>> {
        let code = OptionCode::LIST;
        let replies = match self.option(code, &[])? {
            Answer::Done(replies) => replies,
            Answer::Refused(kind, text) => return Err(refusal(code, kind, &text)),
        };
        // The server may hang up at once, which is as good.
        let _ = self.send(&encode_option(OptionCode::ABORT, &[]));
        replies
            .into_iter()
            .map(|(_, data)| decode_server(&data))
            .map(|entry| entry.map(|(name, description)| ExportEntry { name, description }))
            .collect()
    }

    /// Sends an option and collects the replies to it.
    fn option(&mut self, code: OptionCode, data: &[u8]) -> Result<Answer> {
        if !self.fixed {
            return Ok(Answer::Refused(ReplyCode::ERR_UNSUP, String::new()));
        }
        self.send(&encode_option(code, data))?;
        let mut replies = Vec::new();
        let mut bytes = 0;
        loop {
            let header = self
                .inbox
                .array::<OPTION_REPLY_SIZE>()
                .map_err(broken_stream)?;
            let reply = OptionReply::decode(&header)?;
            if reply.option != code {
                return Err(violation("the server answers an option that was not sent"));
            }
            let data = self
                .inbox
                .vec(reply.length as usize)
                .map_err(broken_stream)?;
            if reply.code == ReplyCode::ACK {
                return Ok(Answer::Done(replies));
            }
            if reply.code.is_error() {
                let text = Fields::new("an error reply", &data).text();
                return Ok(Answer::Refused(reply.code, text));
            }
            bytes += data.len();
            if replies.len() >= REPLIES_MAX || bytes > REPLY_BYTES_MAX {
                return Err(violation("the server's answer to an option has no end"));
            }
            replies.push((reply.code, data));
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.write_all(bytes).map_err(broken_stream)
    }
}

/// The name that the server's certificate must carry.
pub fn tls_name(options: &ConnectOptions, host: Option<&str>) -> Result<ServerName<'static>> {
    let name = options.tls_name.as_deref().or(host).unwrap_or("localhost");
    ServerName::try_from(name.to_owned()).map_err(|error| {
        Error::invalid(
            "mount.nbd.tls-name",
            format!("\u{201c}{name}\u{201d} cannot be the name in a certificate"),
        )
        .hint("give the name in the address: ?tls-hostname=NAME")
        .caused_by(error)
    })
}

fn no_tls(text: &str) -> Error {
    let said = if text.is_empty() {
        String::new()
    } else {
        format!(": {text}")
    };
    Error::new(
        Kind::Denied,
        "mount.nbd.tls-refused",
        format!("the NBD server does not encrypt, and the address demands it{said}"),
    )
    .hint("switch TLS on at the server; without it use an nbd:// address")
}

/// Sizes that make sense, cut to what we ever ask for.
fn check_sizes(minimum: u32, preferred: u32, maximum: u32) -> Result<BlockSizes> {
    let sound = minimum.is_power_of_two()
        && minimum <= 65_536
        && preferred.is_power_of_two()
        && preferred >= minimum
        && maximum >= minimum;
    if !sound {
        return Err(violation(format!(
            "the server's block sizes make no sense: {minimum}, {preferred}, {maximum}"
        )));
    }
    let maximum = maximum.min(PAYLOAD_MAX);
    let maximum = maximum - maximum % minimum;
    Ok(BlockSizes {
        minimum,
        preferred: preferred.min(maximum),
        maximum,
    })
}
