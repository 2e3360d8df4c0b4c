//! How an error crosses the wire.
//!
//! Knows: the parts of [`base::Error`] and a number for each kind. Refuses to know: what failed.
//!
//! What a peer says is shown to people and written to logs, so text that comes in is bounded and
//! loses its control characters: no peer can repaint a terminal or forge a line of a log.

use base::{Error, Kind};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The longest sentence (message, hint or cause) that is carried, in bytes.
const TEXT_LENGTH_MAX: usize = 4096;
/// The most causes that are carried.
const CAUSES_MAX: usize = 16;
/// The longest code that is carried, in bytes.
const CODE_LENGTH_MAX: usize = 100;

/// An error as it is sent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ErrorWord {
    /// The kind as a stable number; see [`kind_number`].
    pub kind: u8,
    /// The stable code.
    pub code: String,
    /// What happened.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    /// The causes, outermost first.
    pub causes: Vec<String>,
}

/// The number of each kind on the wire. Never changes; new kinds get new numbers.
const KINDS: [(Kind, u8); 14] = [
    (Kind::Invalid, 1),
    (Kind::NotFound, 2),
    (Kind::Exists, 3),
    (Kind::Conflict, 4),
    (Kind::Denied, 5),
    (Kind::Corrupt, 6),
    (Kind::Unsupported, 7),
    (Kind::Limit, 8),
    (Kind::Full, 9),
    (Kind::Io, 10),
    (Kind::Unreachable, 11),
    (Kind::Timeout, 12),
    (Kind::Cancelled, 13),
    (Kind::Bug, 14),
];

/// The number of a kind on the wire.
pub fn kind_number(kind: Kind) -> u8 {
    KINDS
        .iter()
        .find(|(known, _)| *known == kind)
        .map_or(10, |(_, number)| *number)
}

/// The kind of a number on the wire. A number from a newer program reads as `Io`: it failed, and
/// nothing more can be said.
pub fn kind_of_number(number: u8) -> Kind {
    KINDS
        .iter()
        .find(|(_, known)| *known == number)
        .map_or(Kind::Io, |(kind, _)| *kind)
}

impl From<&Error> for ErrorWord {
    fn from(error: &Error) -> Self {
        Self {
            kind: kind_number(error.kind()),
            code: error.code().to_owned(),
            message: clean(error.message()),
            hint: error.hint_text().map(clean),
            causes: error
                .causes()
                .iter()
                .take(CAUSES_MAX)
                .map(|cause| clean(cause))
                .collect(),
        }
    }
}

impl From<ErrorWord> for Error {
    fn from(word: ErrorWord) -> Self {
        let code = if is_code(&word.code) {
            word.code
        } else {
            "protocol.error.code-malformed".to_owned()
        };
        let error = Self::new(kind_of_number(word.kind), code, clean(&word.message));
        let error = match &word.hint {
            Some(hint) => error.hint(clean(hint)),
            None => error,
        };
        let innermost_first = word.causes.iter().take(CAUSES_MAX).rev();
        let cause = innermost_first.fold(None, |inner, text| {
            Some(Box::new(RemoteCause {
                text: clean(text),
                inner,
            }))
        });
        match cause {
            Some(cause) => error.caused_by(*cause),
            None => error,
        }
    }
}

/// A cause that happened in another process: its sentence and its own cause.
#[derive(Debug)]
struct RemoteCause {
    text: String,
    inner: Option<Box<RemoteCause>>,
}

impl fmt::Display for RemoteCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for RemoteCause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner.as_deref().map(|inner| inner as _)
    }
}

/// Whether it looks like `room.noun.reason`.
fn is_code(code: &str) -> bool {
    code.len() <= CODE_LENGTH_MAX
        && code.split('.').count() >= 2
        && code.split('.').all(|part| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        })
}

/// The text, bounded and with every control character replaced by a space.
pub(crate) fn clean(text: &str) -> String {
    let mut end = text.len().min(TEXT_LENGTH_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end]
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_arrives_as_it_was() {
        let inner = Error::io("writing pack 7", std::io::Error::from_raw_os_error(28));
        let sent = inner
            .context("sealing the pack")
            .context("backing up disk vda");
        let arrived = Error::from(ErrorWord::from(&sent));
        assert_eq!(arrived.kind(), Kind::Full);
        assert_eq!(arrived.code(), sent.code());
        assert_eq!(arrived.message(), sent.message());
        assert_eq!(arrived.hint_text(), sent.hint_text());
        assert_eq!(arrived.causes(), sent.causes());
        assert!(arrived.causes().len() >= 3, "{:?}", arrived.causes());
    }

    #[test]
    fn every_kind_has_its_own_number() {
        for (kind, number) in KINDS {
            assert_eq!(kind_number(kind), number);
            assert_eq!(kind_of_number(number), kind);
        }
        assert_eq!(kind_of_number(200), Kind::Io);
    }

    #[test]
    fn a_hostile_peer_cannot_repaint_the_terminal() {
        let word = ErrorWord {
            kind: 1,
            code: "Robert'); DROP".into(),
            message: "\u{1b}[2Jall is well\r\n".into(),
            hint: Some("\u{e9}".repeat(9000)),
            causes: vec!["x\u{7}".into(); 1000],
        };
        let error = Error::from(word);
        assert_eq!(error.code(), "protocol.error.code-malformed");
        assert_eq!(error.message(), " [2Jall is well  ");
        assert!(error.hint_text().unwrap().len() <= TEXT_LENGTH_MAX);
        assert!(error.causes().len() <= CAUSES_MAX);
    }
}
