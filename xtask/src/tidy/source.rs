//! One file as the rules see it.
//!
//! Knows: its path, its text, and for Rust the same text with comments, strings and character
//! literals blanked, so that a rule about code is not fooled by words about code.
//! Refuses to know: any rule.

/// A text file of the repository.
pub struct Source {
    /// Path from the root, with `/`.
    pub path: String,
    /// The text as it is.
    pub text: String,
    /// The text with comments and literals replaced by spaces, line for line; for Rust only.
    pub code: String,
}

impl Source {
    /// A file with this path and text.
    pub fn new(path: String, text: String) -> Self {
        let code = if path.ends_with(".rs") {
            blank(&text)
        } else {
            String::new()
        };
        Self { path, text, code }
    }

    /// Whether it is Rust.
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether it holds tests and nothing else.
    pub fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.split('/').any(|part| part == "tests")
    }

    /// The code up to the tests at its end, if it has any.
    pub fn product_code(&self) -> &str {
        let end = self
            .code
            .find("#[cfg(test)]\nmod tests")
            .unwrap_or(self.code.len());
        &self.code[..end]
    }
}

/// The line, counted from 1, in which byte `at` of `text` stands.
pub fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
        + 1
}

/// Replaces comments, strings and character literals by spaces and keeps every line break.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_or_comment(bytes, at);
        if let Some(end) = end {
            for byte in &mut code[at..end] {
                if *byte != b'\n' {
                    *byte = b' ';
                }
            }
            at = end;
        } else {
            at += 1;
        }
    }
    // Only whole literals and comments were blanked, so what is left is still text.
    String::from_utf8(code).unwrap_or_default()
}

/// Where the literal or comment that starts at `at` ends; `None` when none starts there.
fn literal_or_comment(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    let after_word = at > 0 && is_word(bytes[at - 1]);
    match rest {
        [b'/', b'/', ..] => Some(at + rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len())),
        [b'/', b'*', ..] => Some(block_comment(bytes, at)),
        [b'"', ..] => Some(string(bytes, at + 1)),
        [b'r', b'"' | b'#', ..] if !after_word => raw_string(bytes, at + 1),
        [b'b' | b'c', b'r', b'"' | b'#', ..] if !after_word => raw_string(bytes, at + 2),
        [b'\'', ..] => character(bytes, at),
        _ => None,
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Block comments nest.
fn block_comment(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = start;
    while at < bytes.len() {
        match &bytes[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => {
                (depth, at) = (depth - 1, at + 2);
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    bytes.len()
}

fn string(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// A raw string whose hashes start at `hashes`; `None` for a raw identifier such as `r#type`.
fn raw_string(bytes: &[u8], hashes: usize) -> Option<usize> {
    let count = bytes[hashes..]
        .iter()
        .take_while(|byte| **byte == b'#')
        .count();
    if bytes.get(hashes + count) != Some(&b'"') {
        return None;
    }
    let mut end = vec![b'"'];
    end.resize(count + 1, b'#');
    let from = hashes + count + 1;
    let found = bytes[from..]
        .windows(end.len())
        .position(|window| window == end);
    Some(found.map_or(bytes.len(), |offset| from + offset + end.len()))
}

/// A character literal; `None` for a lifetime or a label.
fn character(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at + 1) == Some(&b'\\') {
        let close = bytes
            .get(at + 3..)?
            .iter()
            .take(12)
            .position(|byte| *byte == b'\'')?;
        return Some(at + 3 + close + 1);
    }
    let first = *bytes.get(at + 1)?;
    let width = match first {
        0..=0x7f => 1,
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        _ => 4,
    };
    (bytes.get(at + 1 + width) == Some(&b'\'')).then_some(at + width + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        blank(text).split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_and_literals_are_blanked_and_lines_kept() {
        assert_eq!(code("a // b {\nc"), "a c");
        assert_eq!(code("a /* b /* c */ { */ d"), "a d");
        assert_eq!(code("f(\"{ \\\" }\", 1)"), "f( , 1)");
        assert_eq!(code("f(r#\"{ \" }\"#, 1)"), "f( , 1)");
        assert_eq!(code("f('{', '\\'', '\\u{7b}', '\u{e9}')"), "f( , , , )");
        assert_eq!(blank("/*\n\n*/x").matches('\n').count(), 2);
    }

    #[test]
    fn lifetimes_and_raw_names_are_code() {
        assert_eq!(code("fn f<'a>(x: &'a str)"), "fn f<'a>(x: &'a str)");
        assert_eq!(code("let r#type = 1; bar\"x\""), "let r#type = 1; bar");
    }

    #[test]
    fn unfinished_text_ends_at_the_end() {
        for text in ["\"abc", "r#\"abc", "/* abc", "'", "'\\", "b'", "r#", "\"\\"] {
            assert!(blank(text).len() <= text.len());
        }
    }

    #[test]
    fn tests_at_the_end_are_not_product_code() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests { fn b() {} }\n".to_owned();
        let source = Source::new("crates/store/src/pack.rs".to_owned(), text);
        assert_eq!(source.product_code().trim(), "fn a() {}");
        assert!(!source.is_test());
        assert!(Source::new("sim/tests/it/main.rs".to_owned(), String::new()).is_test());
    }
}
