//! How an error is shown, and which exit code it gives.
//!
//! Knows: the sentence, what to do, the code. Refuses to know: what went wrong.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | done |
//! | 2 | the command or its input does not make sense |
//! | 3 | what was named does not exist |
//! | 4 | it exists already, or something else uses it now |
//! | 5 | not allowed, or wrong password |
//! | 6 | bytes are not what was written |
//! | 7 | not supported, or over a limit |
//! | 8 | disk full or input/output failed |
//! | 9 | not reachable, or took too long |
//! | 10 | stopped on request |
//! | 11 | the session ended with warnings |
//! | 12 | the session failed |
//! | 13 | the session was stopped |
//! | 70 | a mistake in Backstay itself |

use base::Error;
use std::io::Write;

/// Shows an error on standard error; its exit code. Where nobody reads, the exit code says it.
pub fn report(error: &Error, json: bool) -> u8 {
    let text = if json {
        let word = serde_json::json!({
            "error": {
                "code": error.code(),
                "kind": error.kind(),
                "message": error.to_string(),
                "hint": error.hint_text(),
            }
        });
        word.to_string()
    } else {
        let hint = error.hint_text().map(|hint| format!("\n hint: {hint}"));
        format!(
            "error: {error}{}\n code: {}",
            hint.unwrap_or_default(),
            error.code()
        )
    };
    let _ = writeln!(std::io::stderr(), "{text}");
    error.kind().exit_code()
}
