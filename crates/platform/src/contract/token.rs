//! The name that everything carries that one run creates on a hypervisor.
//!
//! Knows: how such a name is made and recognised. Refuses to know: what carries it.
//!
//! `backstay-<last 8 digits of the job's id>-<id of the point>`. It names the tracker, the folder of
//! scratch files and the export, so that whoever finds one of them after a crash knows whose it is.

use base::id::{JobId, PointId};
use base::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

const PREFIX: &str = "backstay-";
const JOB_DIGITS: usize = 8;

/// The name that one run's resources carry. Safe as a file name and inside XML.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Token {
    text: String,
    point: PointId,
}

impl Token {
    /// The token of the run of `job` that makes `point`.
    pub fn new(job: &JobId, point: &PointId) -> Self {
        Self {
            text: format!("{PREFIX}{}-{point}", job.short()),
            point: *point,
        }
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The point that the run makes.
    pub const fn point(&self) -> PointId {
        self.point
    }

    /// The last eight digits of the job's id.
    pub fn job_short(&self) -> &str {
        &self.text[PREFIX.len()..PREFIX.len() + JOB_DIGITS]
    }

    /// The token that `name` is, if Backstay made that name.
    pub fn recognise(name: &str) -> Option<Self> {
        let rest = name.strip_prefix(PREFIX)?;
        let (job, point) = rest.split_at_checked(JOB_DIGITS)?;
        let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if !job.bytes().all(lower_hex) {
            return None;
        }
        let text = point.strip_prefix('-')?;
        let point: PointId = text.parse().ok()?;
        // Only the one canonical spelling: a token is compared as text on the hypervisor.
        (point.to_string() == text).then(|| Self {
            text: name.to_owned(),
            point,
        })
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Token {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::recognise(text).ok_or_else(|| {
            Error::invalid(
                "platform.token.malformed",
                format!("\u{201c}{text}\u{201d} is not a token of Backstay"),
            )
        })
    }
}

impl TryFrom<String> for Token {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Token> for String {
    fn from(token: Token) -> Self {
        token.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_are_recognised() {
        let job = JobId::new(7, [9; 10]);
        let point = PointId::new(8, [3; 10]);
        let token = Token::new(&job, &point);
        let read: Token = token.to_string().parse().unwrap();
        assert_eq!(read, token);
        assert_eq!(
            (read.point(), read.job_short()),
            (point, job.short().as_str())
        );

        let upper = token.as_str().to_uppercase();
        for name in [
            "backup-0",
            "backstay-",
            "backstay-0909",
            "backstay-zz090909-0192f0c1-7a1b-7c3d-8e4f-0123456789ab",
            "backstay-09090909-0192f0c17a1b7c3d8e4f0123456789ab",
            "backstay-0909\u{e9}\u{e9}-0192f0c1-7a1b-7c3d-8e4f-0123456789ab",
            upper.as_str(),
        ] {
            assert!(Token::recognise(name).is_none(), "{name}");
        }
    }
}
