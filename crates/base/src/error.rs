//! How an error is said.
//!
//! Knows: the small kind that programs match on, the stable code that people search for, the
//! sentence that says what happened, the hint that says what to do, and the chain of causes.
//! Refuses to know: how it is shown or carried over a wire.
//!
//! Codes are `room.noun.reason`, lower case with dashes, and never change meaning once released.

use std::borrow::Cow;
use std::fmt;

/// The house's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of failure it is: the only part of an error that programs decide on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Kind {
    /// The input does not make sense (a name, an option, a hostile header).
    Invalid,
    /// The thing asked for does not exist.
    NotFound,
    /// The thing to be made is there already.
    Exists,
    /// Something else is using it, or the state does not allow it now.
    Conflict,
    /// Not allowed, or the password is wrong.
    Denied,
    /// Bytes are not what was written.
    Corrupt,
    /// A version, format or feature this program does not have.
    Unsupported,
    /// A bound on size, count, depth or memory was reached.
    Limit,
    /// The disk or quota is full.
    Full,
    /// Reading or writing failed.
    Io,
    /// A host, hypervisor or process does not answer.
    Unreachable,
    /// It took longer than allowed.
    Timeout,
    /// Somebody asked to stop.
    Cancelled,
    /// A mistake in Backstay itself.
    Bug,
}

impl Kind {
    /// Whether the same request may succeed later without anybody changing anything.
    pub const fn retry_can_help(self) -> bool {
        matches!(
            self,
            Self::Conflict | Self::Io | Self::Unreachable | Self::Timeout
        )
    }

    /// The exit code of the command line for this kind. Stable: scripts rely on it.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Invalid => 2,
            Self::NotFound => 3,
            Self::Exists | Self::Conflict => 4,
            Self::Denied => 5,
            Self::Corrupt => 6,
            Self::Unsupported | Self::Limit => 7,
            Self::Full | Self::Io => 8,
            Self::Unreachable | Self::Timeout => 9,
            Self::Cancelled => 10,
            Self::Bug => 70,
        }
    }
}

/// What happened, what to do, and a code.
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    code: Cow<'static, str>,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// A new error. `code` is stable; `message` is a sentence without a full stop.
    pub fn new(kind: Kind, code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            code: code.into(),
            message: message.into(),
            hint: None,
            source: None,
        }))
    }

    /// Bytes that are not what was written.
    pub fn corrupt(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Kind::Corrupt, code, message)
    }

    /// Input that does not make sense.
    pub fn invalid(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, code, message)
    }

    /// An error of the operating system, with what was being done. The kind follows from it.
    pub fn io(doing: impl Into<String>, source: std::io::Error) -> Self {
        let kind = kind_of(&source);
        let code = match kind {
            Kind::NotFound => "base.io.not-found",
            Kind::Exists => "base.io.exists",
            Kind::Denied => "base.io.denied",
            Kind::Full => "base.io.full",
            Kind::Timeout => "base.io.timeout",
            Kind::Unreachable => "base.io.unreachable",
            _ => "base.io.failed",
        };
        let error = Self::new(kind, code, doing).caused_by(source);
        if kind == Kind::Full {
            error.hint("free some space, then try again")
        } else {
            error
        }
    }

    /// Adds what a person can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn caused_by(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The same kind, code and hint, said from one storey up; this error becomes the cause.
    #[must_use]
    pub fn context(self, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind: self.0.kind,
            code: self.0.code.clone(),
            message: message.into(),
            hint: self.0.hint.clone(),
            source: Some(Box::new(self)),
        }))
    }

    /// What sort of failure it is.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The stable code.
    pub fn code(&self) -> &str {
        &self.0.code
    }

    /// The sentence, without causes.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What to do, where something can be done.
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The causes, outermost first, each as a sentence.
    pub fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            let text = match cause.downcast_ref::<Error>() {
                Some(error) => error.message().to_owned(),
                None => cause.to_string(),
            };
            if causes.last() != Some(&text) {
                causes.push(text);
            }
            next = cause.source();
        }
        causes
    }
}

fn kind_of(error: &std::io::Error) -> Kind {
    use std::io::ErrorKind as E;
    match error.kind() {
        E::NotFound => Kind::NotFound,
        E::AlreadyExists => Kind::Exists,
        E::PermissionDenied => Kind::Denied,
        E::StorageFull | E::QuotaExceeded | E::FileTooLarge => Kind::Full,
        E::TimedOut | E::WouldBlock => Kind::Timeout,
        E::ConnectionRefused
        | E::ConnectionReset
        | E::ConnectionAborted
        | E::NotConnected
        | E::BrokenPipe
        | E::HostUnreachable
        | E::NetworkUnreachable => Kind::Unreachable,
        E::InvalidInput => Kind::Invalid,
        E::Unsupported => Kind::Unsupported,
        _ => Kind::Io,
    }
}

impl fmt::Display for Error {
    /// The sentence and its causes on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        for cause in self.causes() {
            write!(f, ": {cause}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {self}", self.0.code)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_keeps_kind_code_and_hint() {
        let error = Error::io("writing pack 7", std::io::Error::from_raw_os_error(28))
            .context("backing up disk vda");
        assert_eq!(error.kind(), Kind::Full);
        assert_eq!(error.code(), "base.io.full");
        assert!(error.hint_text().is_some());
        assert!(
            error
                .to_string()
                .starts_with("backing up disk vda: writing pack 7: ")
        );
    }
}
