//! Whose code we may build on.
//!
//! Knows: the licences we accept, how an SPDX expression is read, and the packages that must never
//! come in, whatever their licence.
//! Refuses to know: what any package is for.

use super::Fault;
use serde_json::Value;

/// Licences that let anybody use, change and ship the product under Apache-2.0.
const ACCEPTED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "OpenSSL",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Packages that would bring a C library which must be installed, or a second TLS.
const FORBIDDEN: &[&str] = &[
    "openssl",
    "openssl-sys",
    "native-tls",
    "libssh2-sys",
    "libgit2-sys",
];

/// Deepest nesting of an expression that is followed.
const DEPTH_MAX: usize = 16;

/// Packages that we may not build on.
pub fn faults(metadata: &Value) -> Vec<Fault> {
    let empty = Vec::new();
    let mut faults = Vec::new();
    for package in metadata["packages"].as_array().unwrap_or(&empty) {
        let name = package["name"].as_str().unwrap_or("a package without name");
        let licence = package["license"].as_str().unwrap_or_default();
        if FORBIDDEN.contains(&name) {
            faults.push(Fault::new(
                name,
                0,
                "must not be built on: hosts need no C library but the kernel (ARCHITECTURE.md)",
            ));
        }
        if !is_accepted(licence) {
            faults.push(Fault::new(
                name,
                0,
                format!(
                    "licence \u{201c}{licence}\u{201d} is not one of those in tidy/licences.rs"
                ),
            ));
        }
    }
    faults
}

/// Whether the expression leaves us a way that is accepted. An unreadable one does not.
fn is_accepted(expression: &str) -> bool {
    // Old packages write `MIT/Apache-2.0` for a choice.
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut reader = Reader {
        words: &words,
        at: 0,
    };
    reader
        .choice(0)
        .is_some_and(|accepted| accepted && reader.at == words.len())
}

/// Reads `choice = both {OR both}`, `both = one {AND one}`, `one = ( choice ) | id [WITH id]`.
struct Reader<'a> {
    words: &'a [&'a str],
    at: usize,
}

impl Reader<'_> {
    fn take(&mut self, word: &str) -> bool {
        let there = self.words.get(self.at) == Some(&word);
        self.at += usize::from(there);
        there
    }

    fn choice(&mut self, depth: usize) -> Option<bool> {
        let mut accepted = self.both(depth)?;
        while self.take("OR") {
            accepted |= self.both(depth)?;
        }
        Some(accepted)
    }

    fn both(&mut self, depth: usize) -> Option<bool> {
        let mut accepted = self.one(depth)?;
        while self.take("AND") {
            accepted &= self.one(depth)?;
        }
        Some(accepted)
    }

    fn one(&mut self, depth: usize) -> Option<bool> {
        if self.take("(") {
            let inside = if depth < DEPTH_MAX {
                self.choice(depth + 1)
            } else {
                None
            };
            return inside.filter(|_| self.take(")"));
        }
        let mut name = (*self.words.get(self.at)?).to_owned();
        if ["OR", "AND", "WITH", ")"].contains(&name.as_str()) {
            return None;
        }
        self.at += 1;
        if self.take("WITH") {
            name = format!("{name} WITH {}", self.words.get(self.at)?);
            self.at += 1;
        }
        Some(ACCEPTED.contains(&name.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_read() {
        for good in [
            "MIT",
            "MIT OR Apache-2.0",
            "MIT/Apache-2.0",
            "GPL-3.0-only OR MIT",
            "(MIT OR GPL-2.0-only) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT",
            "ISC AND (Apache-2.0 OR ISC)",
        ] {
            assert!(is_accepted(good), "{good}");
        }
        for bad in [
            "",
            "GPL-3.0-only",
            "MIT AND GPL-3.0-only",
            "Apache-2.0 WITH",
            "Apache-2.0 WITH Something",
            "(MIT",
            "MIT)",
            "MIT MIT",
            "OR",
        ] {
            assert!(!is_accepted(bad), "{bad}");
        }
        let deep = format!("{}MIT{}", "(".repeat(10_000), ")".repeat(10_000));
        assert!(!is_accepted(&deep));
    }

    #[test]
    fn a_forbidden_package_and_one_without_licence_are_found() {
        let metadata = serde_json::json!({ "packages": [
            { "name": "openssl-sys", "license": "MIT" },
            { "name": "mystery" },
            { "name": "serde", "license": "MIT OR Apache-2.0" } ] });
        let text: Vec<_> = faults(&metadata).iter().map(ToString::to_string).collect();
        assert_eq!(text.len(), 2, "{text:?}");
        assert!(text[0].starts_with("openssl-sys: must not"), "{text:?}");
        assert!(text[1].starts_with("mystery: licence"), "{text:?}");
    }
}
