//! Options of the handshake and the server's replies to them.
//!
//! Knows: headers and data of every option we speak. Refuses to know: their order.

use super::{CONTEXTS_MAX, Fields, OPTION_DATA_MAX, OPTION_MAGIC, violation};
use base::{Error, Kind, Result};

const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;

/// Length of an option's header.
pub const OPTION_SIZE: usize = 16;
/// Length of an option reply's header.
pub const OPTION_REPLY_SIZE: usize = 20;
/// More queries than anybody selects in one option.
const QUERIES_MAX: u32 = 64;

/// What the client asks for in the handshake.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct OptionCode(pub u32);

impl OptionCode {
    /// Take an export and begin; cannot fail but by a hang-up.
    pub const EXPORT_NAME: Self = Self(1);
    /// Good-bye.
    pub const ABORT: Self = Self(2);
    /// List the exports.
    pub const LIST: Self = Self(3);
    /// Switch to TLS.
    pub const STARTTLS: Self = Self(5);
    /// Describe an export.
    pub const INFO: Self = Self(6);
    /// Describe an export and begin.
    pub const GO: Self = Self(7);
    /// Structured replies, please.
    pub const STRUCTURED_REPLY: Self = Self(8);
    /// List metadata contexts.
    pub const LIST_META_CONTEXT: Self = Self(9);
    /// Select metadata contexts.
    pub const SET_META_CONTEXT: Self = Self(10);
    /// 64-bit headers, please.
    pub const EXTENDED_HEADERS: Self = Self(11);
}

/// What kind of reply to an option it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ReplyCode(pub u32);

impl ReplyCode {
    /// Done.
    pub const ACK: Self = Self(1);
    /// One export of a list.
    pub const SERVER: Self = Self(2);
    /// One fact about an export.
    pub const INFO: Self = Self(3);
    /// One metadata context.
    pub const META_CONTEXT: Self = Self(4);
    /// The option is unknown.
    pub const ERR_UNSUP: Self = Self(0x8000_0001);
    /// Forbidden by the server's settings.
    pub const ERR_POLICY: Self = Self(0x8000_0002);
    /// The option's data does not make sense.
    pub const ERR_INVALID: Self = Self(0x8000_0003);
    /// TLS first.
    pub const ERR_TLS_REQD: Self = Self(0x8000_0005);
    /// No such export.
    pub const ERR_UNKNOWN: Self = Self(0x8000_0006);
    /// The server is being shut down.
    pub const ERR_SHUTDOWN: Self = Self(0x8000_0007);
    /// Too large to process.
    pub const ERR_TOO_BIG: Self = Self(0x8000_0009);
    /// Extended headers were agreed on and take precedence.
    pub const ERR_EXT_HEADER_REQD: Self = Self(0x8000_000a);

    /// Whether it says no.
    pub const fn is_error(self) -> bool {
        self.0 & 0x8000_0000 != 0
    }
}

/// An option's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OptionHeader {
    /// What is asked for.
    pub code: OptionCode,
    /// Length of its data, not yet bounded: a server may skip what is too long.
    pub length: u32,
}

impl OptionHeader {
    /// Reads the header.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut fields = Fields::new("an option", bytes);
        let magic = fields.u64()?;
        if magic != OPTION_MAGIC {
            return Err(violation(format!("an option starts with {magic:#x}")));
        }
        let header = Self {
            code: OptionCode(fields.u32()?),
            length: fields.u32()?,
        };
        fields.finish()?;
        Ok(header)
    }
}

/// An option with its data.
pub fn encode_option(code: OptionCode, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(OPTION_SIZE + data.len());
    out.extend_from_slice(&OPTION_MAGIC.to_be_bytes());
    out.extend_from_slice(&code.0.to_be_bytes());
    put_length(&mut out, data.len());
    out.extend_from_slice(data);
    out
}

/// The header of a reply to an option.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OptionReply {
    /// Which option it answers.
    pub option: OptionCode,
    /// What it says.
    pub code: ReplyCode,
    /// Length of its data, within `OPTION_DATA_MAX`.
    pub length: u32,
}

impl OptionReply {
    /// Reads the header.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut fields = Fields::new("a reply to an option", bytes);
        let magic = fields.u64()?;
        if magic != REPLY_MAGIC {
            return Err(violation(format!(
                "a reply to an option starts with {magic:#x}"
            )));
        }
        let reply = Self {
            option: OptionCode(fields.u32()?),
            code: ReplyCode(fields.u32()?),
            length: fields.u32()?,
        };
        fields.finish()?;
        if reply.length > OPTION_DATA_MAX {
            return Err(violation(format!(
                "a reply to an option has {} bytes",
                reply.length
            )));
        }
        Ok(reply)
    }
}

/// A reply to an option with its data.
pub fn encode_option_reply(option: OptionCode, code: ReplyCode, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(OPTION_REPLY_SIZE + data.len());
    out.extend_from_slice(&REPLY_MAGIC.to_be_bytes());
    out.extend_from_slice(&option.0.to_be_bytes());
    out.extend_from_slice(&code.0.to_be_bytes());
    put_length(&mut out, data.len());
    out.extend_from_slice(data);
    out
}

/// What an error reply to an option means to us.
pub fn refusal(option: OptionCode, code: ReplyCode, text: &str) -> Error {
    let said = if text.is_empty() {
        String::new()
    } else {
        format!(": {text}")
    };
    let (kind, name, what) = match code {
        ReplyCode::ERR_UNKNOWN => (
            Kind::NotFound,
            "mount.nbd.export-unknown",
            "the server has no such export",
        ),
        ReplyCode::ERR_TLS_REQD => (
            Kind::Denied,
            "mount.nbd.tls-required",
            "the server demands TLS",
        ),
        ReplyCode::ERR_POLICY => (
            Kind::Denied,
            "mount.nbd.option-forbidden",
            "the server forbids it",
        ),
        ReplyCode::ERR_SHUTDOWN => (
            Kind::Unreachable,
            "mount.nbd.server-stopping",
            "the server is being shut down",
        ),
        ReplyCode::ERR_UNSUP => (
            Kind::Unsupported,
            "mount.nbd.option-unsupported",
            "the server does not support it",
        ),
        _ => (
            Kind::Invalid,
            "mount.nbd.option-refused",
            "the server refuses it",
        ),
    };
    let error = Error::new(kind, name, format!("{what} (option {}){said}", option.0));
    match code {
        ReplyCode::ERR_TLS_REQD => error.hint("use an nbds:// address and give certificates"),
        ReplyCode::ERR_UNKNOWN => error.hint("list the server's exports"),
        _ => error,
    }
}

/// Facts about an export that a client may ask for.
pub mod info {
    /// Size and transmission flags.
    pub const EXPORT: u16 = 0;
    /// The name that the server itself uses.
    pub const NAME: u16 = 1;
    /// A text for people.
    pub const DESCRIPTION: u16 = 2;
    /// Block sizes.
    pub const BLOCK_SIZE: u16 = 3;
}

/// The data of `INFO` and `GO`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InfoQuery {
    /// The export.
    pub export: String,
    /// Facts asked for.
    pub wanted: Vec<u16>,
}

impl InfoQuery {
    /// Reads the option's data.
    pub fn decode(data: &[u8]) -> Result<Self> {
        let mut fields = Fields::new("an INFO or GO option", data);
        let export = fields.counted_string()?;
        let count = fields.u16()?;
        let wanted = (0..count).map(|_| fields.u16()).collect::<Result<_>>()?;
        fields.finish()?;
        Ok(Self { export, wanted })
    }

    /// The option's data.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_string(&mut out, &self.export);
        let wanted = &self.wanted[..self.wanted.len().min(usize::from(u16::MAX))];
        out.extend_from_slice(&u16::try_from(wanted.len()).unwrap_or(0).to_be_bytes());
        for code in wanted {
            out.extend_from_slice(&code.to_be_bytes());
        }
        out
    }
}

/// The data of an `INFO` reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Info {
    /// Size in bytes and transmission flags.
    Export(u64, u16),
    /// Minimum, preferred and maximum block size in bytes.
    BlockSize(u32, u32, u32),
    /// The server's own name of the export.
    Name(String),
    /// A text for people.
    Description(String),
    /// A fact we do not know.
    Other(u16),
}

impl Info {
    /// Reads the reply's data.
    pub fn decode(data: &[u8]) -> Result<Self> {
        let mut fields = Fields::new("a fact about an export", data);
        let info = match fields.u16()? {
            info::EXPORT => Self::Export(fields.u64()?, fields.u16()?),
            info::BLOCK_SIZE => Self::BlockSize(fields.u32()?, fields.u32()?, fields.u32()?),
            info::NAME => Self::Name(fields.string(fields.remaining())?),
            info::DESCRIPTION => Self::Description(fields.text()),
            other => return Ok(Self::Other(other)),
        };
        fields.finish()?;
        Ok(info)
    }

    /// The reply's data.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Export(size, flags) => {
                out.extend_from_slice(&info::EXPORT.to_be_bytes());
                out.extend_from_slice(&size.to_be_bytes());
                out.extend_from_slice(&flags.to_be_bytes());
            }
            Self::BlockSize(minimum, preferred, maximum) => {
                out.extend_from_slice(&info::BLOCK_SIZE.to_be_bytes());
                for size in [minimum, preferred, maximum] {
                    out.extend_from_slice(&size.to_be_bytes());
                }
            }
            Self::Name(text) => {
                out.extend_from_slice(&info::NAME.to_be_bytes());
                out.extend_from_slice(text.as_bytes());
            }
            Self::Description(text) => {
                out.extend_from_slice(&info::DESCRIPTION.to_be_bytes());
                out.extend_from_slice(text.as_bytes());
            }
            Self::Other(code) => out.extend_from_slice(&code.to_be_bytes()),
        }
        out
    }
}

/// The data of `LIST_META_CONTEXT` and `SET_META_CONTEXT`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ContextQuery {
    /// The export.
    pub export: String,
    /// Names, or namespaces with a colon; none asks for all.
    pub queries: Vec<String>,
}

impl ContextQuery {
    /// Reads the option's data.
    pub fn decode(data: &[u8]) -> Result<Self> {
        let mut fields = Fields::new("a metadata context option", data);
        let export = fields.counted_string()?;
        let count = fields.u32()?;
        if count > QUERIES_MAX {
            return Err(violation(format!(
                "{count} metadata contexts are asked for"
            )));
        }
        let queries = (0..count)
            .map(|_| fields.counted_string())
            .collect::<Result<_>>()?;
        fields.finish()?;
        Ok(Self { export, queries })
    }

    /// The option's data.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_string(&mut out, &self.export);
        put_length(&mut out, self.queries.len());
        for query in &self.queries {
            put_string(&mut out, query);
        }
        out
    }
}

/// The data of a `META_CONTEXT` reply: id and name.
pub fn decode_context(data: &[u8]) -> Result<(u32, String)> {
    let mut fields = Fields::new("a metadata context", data);
    let id = fields.u32()?;
    let name = fields.string(fields.remaining())?;
    Ok((id, name))
}

/// The data of a `META_CONTEXT` reply.
pub fn encode_context(id: u32, name: &str) -> Vec<u8> {
    let mut out = id.to_be_bytes().to_vec();
    out.extend_from_slice(name.as_bytes());
    out
}

/// The data of a `SERVER` reply: name and description.
pub fn decode_server(data: &[u8]) -> Result<(String, String)> {
    let mut fields = Fields::new("an entry of the list of exports", data);
    let name = fields.counted_string()?;
    Ok((name, fields.text()))
}

/// The data of a `SERVER` reply.
pub fn encode_server(name: &str, description: &str) -> Vec<u8> {
    let mut out = Vec::new();
    put_string(&mut out, name);
    out.extend_from_slice(description.as_bytes());
    out
}

/// An error unless the number of contexts is one that we keep.
pub fn check_context_count(count: usize) -> Result<()> {
    if count <= CONTEXTS_MAX {
        Ok(())
    } else {
        Err(violation(format!(
            "{count} metadata contexts are in use at once"
        )))
    }
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    put_length(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
}
