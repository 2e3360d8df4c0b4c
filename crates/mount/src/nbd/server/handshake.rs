//! The server's part of the handshake.
//!
//! Knows: which options are answered and how, and the bounds on a client that never comes to the
//! point. Refuses to know: the transmission that follows.

use super::super::client::broken_stream;
use super::super::stream::{ByteStream, HangUp, Inbox, accept_tls};
use super::super::wire::option::{
    ContextQuery, Info, InfoQuery, OPTION_SIZE, OptionCode, OptionHeader, ReplyCode,
    encode_context, encode_option_reply, encode_server, info,
};
use super::super::wire::{
    FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES, OPTION_DATA_MAX, OPTION_MAGIC, SERVER_MAGIC, violation,
};
use super::export::{Export, ExportTable};
use base::Result;
use std::io::Write;
use std::sync::Arc;

/// The most options of one handshake. A client that describes a thousand exports needs some
/// thousands.
const OPTIONS_MAX: usize = 8192;
/// The longest data of an option that is skipped with an error; a longer one ends the connection.
const SKIPPED_MAX: u32 = 1 << 20;

/// What client and server agreed on.
pub struct Agreed {
    pub stream: ByteStream,
    pub export: Export,
    /// Replies come in chunks.
    pub structured: bool,
    /// Headers have 64-bit lengths.
    pub extended: bool,
    /// Places of the selected contexts in the export's list; also their ids.
    pub contexts: Vec<usize>,
}

/// A connection in its handshake.
struct Handshake<'a> {
    inbox: Inbox,
    writer: Box<dyn Write + Send>,
    control: Arc<dyn HangUp>,
    exports: &'a ExportTable,
    no_zeroes: bool,
    terms: Terms,
}

/// What was agreed on so far; forgotten when TLS starts.
#[derive(Default)]
struct Terms {
    structured: bool,
    extended: bool,
    contexts: Option<(String, Vec<usize>)>,
}

/// What follows after an option.
enum Next {
    Option,
    Tls,
    Begin(Export, String),
    End,
}

/// Speaks with a client until it takes an export; `None` where it leaves without one.
pub fn negotiate(
    stream: ByteStream,
    exports: &ExportTable,
    tls: Option<&Arc<rustls::ServerConfig>>,
) -> Result<Option<Agreed>> {
    let mut handshake = Handshake::greet(stream, exports)?;
    let mut secure = false;
    for _ in 0..OPTIONS_MAX {
        let header = OptionHeader::decode(&handshake.take::<OPTION_SIZE>()?)?;
        if header.length > OPTION_DATA_MAX {
            handshake.refuse_long(header)?;
            continue;
        }
        let data = handshake
            .inbox
            .vec(header.length as usize)
            .map_err(broken_stream)?;
        let next = match header.code {
            OptionCode::STARTTLS => handshake.start_tls(tls.is_some(), secure, &data)?,
            OptionCode::ABORT => handshake.abort()?,
            OptionCode::EXPORT_NAME if tls.is_some() && !secure => Next::End,
            code if tls.is_some() && !secure => {
                handshake.refuse(code, ReplyCode::ERR_TLS_REQD, "this server demands TLS")?
            }
            code => handshake.option(code, &data)?,
        };
        match (next, tls) {
            (Next::Option, _) => {}
            (Next::Tls, Some(config)) => {
                handshake = handshake.secure(Arc::clone(config))?;
                secure = true;
            }
            (Next::Begin(export, name), _) => return handshake.begin(export, &name).map(Some),
            (Next::Tls | Next::End, _) => return Ok(None),
        }
    }
    Err(violation("a client sends options without end"))
}

impl<'a> Handshake<'a> {
    fn greet(stream: ByteStream, exports: &'a ExportTable) -> Result<Self> {
        let ByteStream {
            reader,
            mut writer,
            control,
        } = stream;
        let mut inbox = Inbox::new(reader);
        let mut greeting = Vec::with_capacity(18);
        greeting.extend_from_slice(&SERVER_MAGIC.to_be_bytes());
        greeting.extend_from_slice(&OPTION_MAGIC.to_be_bytes());
        greeting.extend_from_slice(&(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES).to_be_bytes());
        writer.write_all(&greeting).map_err(broken_stream)?;
        let flags = u32::from_be_bytes(inbox.array().map_err(broken_stream)?);
        if flags & !u32::from(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES) != 0 {
            return Err(violation(format!(
                "a client greets with the flags {flags:#x}"
            )));
        }
        let no_zeroes = flags & u32::from(FLAG_NO_ZEROES) != 0;
        Ok(Self {
            inbox,
            writer,
            control,
            exports,
            no_zeroes,
            terms: Terms::default(),
        })
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.inbox.array().map_err(broken_stream)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.write_all(bytes).map_err(broken_stream)
    }

    fn reply(&mut self, option: OptionCode, code: ReplyCode, data: &[u8]) -> Result<Next> {
        self.send(&encode_option_reply(option, code, data))?;
        Ok(Next::Option)
    }

    fn refuse(&mut self, option: OptionCode, code: ReplyCode, text: &str) -> Result<Next> {
        self.reply(option, code, text.as_bytes())
    }

    /// An option that is too long to look at.
    fn refuse_long(&mut self, header: OptionHeader) -> Result<()> {
        if header.length > SKIPPED_MAX || header.code == OptionCode::EXPORT_NAME {
            return Err(violation(format!(
                "a client sends an option of {} bytes",
                header.length
            )));
        }
        self.inbox
            .skip(u64::from(header.length))
            .map_err(broken_stream)?;
        self.refuse(
            header.code,
            ReplyCode::ERR_TOO_BIG,
            "the option is too long",
        )
        .map(|_| ())
    }

    fn start_tls(&mut self, offered: bool, secure: bool, data: &[u8]) -> Result<Next> {
        let code = OptionCode::STARTTLS;
        if !offered {
            return self.refuse(code, ReplyCode::ERR_POLICY, "this server does not encrypt");
        }
        if secure || !data.is_empty() {
            return self.refuse(
                code,
                ReplyCode::ERR_INVALID,
                "TLS is there, or data is not empty",
            );
        }
        self.reply(code, ReplyCode::ACK, &[])?;
        Ok(Next::Tls)
    }

    /// Goes on over TLS; what was agreed on before is forgotten.
    fn secure(self, config: Arc<rustls::ServerConfig>) -> Result<Self> {
        let Self {
            inbox,
            writer,
            control,
            exports,
            no_zeroes,
            ..
        } = self;
        let reader = inbox.into_reader().map_err(|_| {
            violation("a client sent bytes ahead of the answer to its wish for TLS")
        })?;
        let stream = accept_tls(
            ByteStream {
                reader,
                writer,
                control,
            },
            config,
        )
        .map_err(broken_stream)?;
        let ByteStream {
            reader,
            writer,
            control,
        } = stream;
        let inbox = Inbox::new(reader);
        Ok(Self {
            inbox,
            writer,
            control,
            exports,
            no_zeroes,
            terms: Terms::default(),
        })
    }

    fn abort(&mut self) -> Result<Next> {
        // The client may have gone without waiting.
        let _ = self.reply(OptionCode::ABORT, ReplyCode::ACK, &[]);
        Ok(Next::End)
    }

    fn option(&mut self, code: OptionCode, data: &[u8]) -> Result<Next> {
        match code {
            OptionCode::EXPORT_NAME => self.export_name(data),
            OptionCode::LIST => self.list(data),
            OptionCode::INFO | OptionCode::GO => self.info(code, data),
            OptionCode::STRUCTURED_REPLY | OptionCode::EXTENDED_HEADERS => self.agree(code, data),
            OptionCode::LIST_META_CONTEXT | OptionCode::SET_META_CONTEXT => {
                self.contexts(code, data)
            }
            _ => self.refuse(code, ReplyCode::ERR_UNSUP, "the option is unknown"),
        }
    }

    /// The old way in: an export that is not there can only be told by hanging up.
    fn export_name(&mut self, data: &[u8]) -> Result<Next> {
        let found = std::str::from_utf8(data).ok().and_then(|name| {
            self.exports
                .get(name)
                .map(|export| (export, name.to_owned()))
        });
        let Some((export, name)) = found.filter(|_| !self.terms.extended) else {
            return Ok(Next::End);
        };
        let mut answer = export.read.size().0.to_be_bytes().to_vec();
        let flags = export.transmission_flags(self.terms.structured);
        answer.extend_from_slice(&flags.to_be_bytes());
        if !self.no_zeroes {
            answer.extend_from_slice(&[0; 124]);
        }
        self.send(&answer)?;
        Ok(Next::Begin(export, name))
    }

    fn list(&mut self, data: &[u8]) -> Result<Next> {
        let code = OptionCode::LIST;
        if !data.is_empty() {
            return self.refuse(code, ReplyCode::ERR_INVALID, "LIST takes no data");
        }
        for (name, description) in self.exports.list() {
            self.reply(code, ReplyCode::SERVER, &encode_server(&name, &description))?;
        }
        self.reply(code, ReplyCode::ACK, &[])
    }

    fn info(&mut self, code: OptionCode, data: &[u8]) -> Result<Next> {
        let query = match InfoQuery::decode(data) {
            Ok(query) => query,
            Err(error) => return self.refuse(code, ReplyCode::ERR_INVALID, error.message()),
        };
        let Some(export) = self.exports.get(&query.export) else {
            return self.refuse(code, ReplyCode::ERR_UNKNOWN, "there is no such export");
        };
        let flags = export.transmission_flags(self.terms.structured);
        let (minimum, preferred, maximum) = export.block_sizes();
        let mut facts = vec![
            Info::Export(export.read.size().0, flags),
            Info::BlockSize(minimum, preferred, maximum),
        ];
        if query.wanted.contains(&info::NAME) {
            facts.push(Info::Name(query.export.clone()));
        }
        if query.wanted.contains(&info::DESCRIPTION) {
            facts.push(Info::Description(export.description.clone()));
        }
        for fact in facts {
            self.reply(code, ReplyCode::INFO, &fact.encode())?;
        }
        self.reply(code, ReplyCode::ACK, &[])?;
        if code == OptionCode::GO {
            Ok(Next::Begin(export, query.export))
        } else {
            Ok(Next::Option)
        }
    }

    /// Structured replies or 64-bit headers, which include them.
    fn agree(&mut self, code: OptionCode, data: &[u8]) -> Result<Next> {
        if !data.is_empty() {
            return self.refuse(code, ReplyCode::ERR_INVALID, "the option takes no data");
        }
        if code == OptionCode::EXTENDED_HEADERS {
            self.terms.extended = true;
        } else if self.terms.extended {
            let text = "64-bit headers take precedence";
            return self.refuse(code, ReplyCode::ERR_EXT_HEADER_REQD, text);
        }
        self.terms.structured = true;
        self.reply(code, ReplyCode::ACK, &[])
    }

    fn contexts(&mut self, code: OptionCode, data: &[u8]) -> Result<Next> {
        let setting = code == OptionCode::SET_META_CONTEXT;
        if setting {
            // Also where it fails, the earlier choice is void.
            self.terms.contexts = None;
        }
        if !self.terms.structured {
            let text = "contexts need structured replies";
            return self.refuse(code, ReplyCode::ERR_INVALID, text);
        }
        let query = match ContextQuery::decode(data) {
            Ok(query) => query,
            Err(error) => return self.refuse(code, ReplyCode::ERR_INVALID, error.message()),
        };
        let Some(export) = self.exports.get(&query.export) else {
            return self.refuse(code, ReplyCode::ERR_UNKNOWN, "there is no such export");
        };
        let mut chosen = Vec::new();
        for (index, name) in export.context_names().enumerate() {
            let wanted = query
                .queries
                .iter()
                .any(|query| matches(query, name, !setting));
            if wanted || (query.queries.is_empty() && !setting) {
                // An export has few contexts, so that the id fits.
                let id = if setting {
                    u32::try_from(index).unwrap_or(0)
                } else {
                    0
                };
                self.reply(code, ReplyCode::META_CONTEXT, &encode_context(id, name))?;
                chosen.push(index);
            }
        }
        if setting {
            self.terms.contexts = Some((query.export, chosen));
        }
        self.reply(code, ReplyCode::ACK, &[])
    }

    fn begin(self, export: Export, name: &str) -> Result<Agreed> {
        let contexts = match self.terms.contexts {
            Some((of, chosen)) if of == name => chosen,
            _ => Vec::new(),
        };
        let reader = self.inbox;
        let stream = ByteStream {
            reader: reader.into_rest(),
            writer: self.writer,
            control: self.control,
        };
        let Terms {
            structured,
            extended,
            ..
        } = self.terms;
        Ok(Agreed {
            stream,
            export,
            structured,
            extended,
            contexts,
        })
    }
}

/// Whether a query asks for a context: by its name, or in a list by the beginning of it that ends
/// with a colon.
fn matches(query: &str, name: &str, wildcards: bool) -> bool {
    query == name || (wildcards && query.ends_with(':') && name.starts_with(query))
}
