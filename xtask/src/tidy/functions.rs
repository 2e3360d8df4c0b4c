//! The rule about the length of functions, with a ratchet.
//!
//! Knows: how long a function may be, and the few that were longer when they were last looked at.
//! Refuses to know: why they are long.
//!
//! The ratchet only turns one way: a listed function may not grow, and once it is shorter its
//! number here must follow.

use super::Fault;
use super::source::{Source, line_of};

/// Longest function, from `fn` to its closing brace.
const LINES_MAX: usize = 70;
/// The same in files that hold tests: a test that tells a story may be longer.
const TEST_LINES_MAX: usize = 120;

/// Functions longer than allowed: file, name, lines.
const RATCHET: &[(&str, &str, usize)] = &[];

/// One function of a file.
#[derive(PartialEq, Eq, Debug)]
struct Function<'a> {
    name: &'a str,
    line: usize,
    lines: usize,
}

/// The functions of this file that are too long.
pub fn faults(source: &Source) -> Vec<Fault> {
    let limit = if source.is_test() {
        TEST_LINES_MAX
    } else {
        LINES_MAX
    };
    functions(&source.code)
        .iter()
        .filter_map(|f| judge(source, f, limit, RATCHET))
        .collect()
}

fn judge(
    source: &Source,
    function: &Function<'_>,
    limit: usize,
    ratchet: &[(&str, &str, usize)],
) -> Option<Fault> {
    let Function { name, line, lines } = *function;
    let listed = ratchet
        .iter()
        .find(|(path, listed, _)| *path == source.path && *listed == name);
    let what = match listed {
        Some((.., allowed)) if lines > *allowed => {
            format!("`{name}` grew from {allowed} to {lines} lines; split it")
        }
        Some((.., allowed)) if lines < *allowed => {
            format!(
                "`{name}` has {lines} lines now: write that into the ratchet of tidy/functions.rs"
            )
        }
        None if lines > limit => {
            format!("`{name}` has {lines} lines; at most {limit}: split it by deed")
        }
        _ => return None,
    };
    Some(Fault::new(&source.path, line, what))
}

/// Every function with a body in blanked code, also functions inside functions.
fn functions(code: &str) -> Vec<Function<'_>> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let name_at = at + 3;
        let name_len = code[name_at..]
            .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '#'))
            .unwrap_or(0);
        // `fn (` is the type of a function, not a function.
        if name_len == 0 {
            continue;
        }
        if let Some(end) = body_end(&code[name_at..]) {
            let line = line_of(code, at);
            let lines = line_of(code, name_at + end) - line + 1;
            found.push(Function {
                name: &code[name_at..name_at + name_len],
                line,
                lines,
            });
        }
    }
    found
}

/// Offset of the brace that closes the body; `None` for a declaration without one.
fn body_end(code: &str) -> Option<usize> {
    let (mut braces, mut others) = (0_usize, 0_usize);
    for (at, byte) in code.bytes().enumerate() {
        match byte {
            b'(' | b'[' => others += 1,
            b')' | b']' => others = others.saturating_sub(1),
            b'{' => braces += 1,
            b'}' => {
                braces = braces.saturating_sub(1);
                if braces == 0 && others == 0 {
                    return Some(at);
                }
            }
            b';' if braces == 0 && others == 0 => return None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::new("crates/a/src/b.rs".to_owned(), text.to_owned())
    }

    #[test]
    fn functions_are_found_with_their_length() {
        let text = "trait T { fn declared(x: [u8; 4]); }\nfn one() {}\n\
                    pub async fn two(\n    f: fn(u8) -> u8,\n) -> u8 {\n    if true { 1 } else { 2 }\n}\n";
        let source = source(text);
        let found = functions(&source.code);
        let names: Vec<_> = found.iter().map(|f| (f.name, f.line, f.lines)).collect();
        assert_eq!(names, [("one", 2, 1), ("two", 3, 5)]);
    }

    #[test]
    fn long_functions_are_faults_and_braces_in_strings_do_not_count() {
        let long = format!(
            "fn a() {{\n{}}}\n",
            "    let x = \"}\";\n".repeat(LINES_MAX)
        );
        let faults = faults(&source(&long));
        assert_eq!(faults.len(), 1);
        assert!(faults[0].what.contains("72 lines"), "{faults:?}");
    }

    #[test]
    fn the_ratchet_turns_one_way() {
        let source = source("fn a() {\n\n\n}\n");
        let function = &functions(&source.code)[0];
        let with = |allowed| judge(&source, function, 2, &[("crates/a/src/b.rs", "a", allowed)]);
        assert!(with(4).is_none());
        assert!(with(3).unwrap().what.contains("grew"));
        assert!(with(9).unwrap().what.contains("now"));
        assert!(
            judge(&source, function, 2, &[])
                .unwrap()
                .what
                .contains("at most")
        );
    }
}
