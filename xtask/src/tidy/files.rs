//! Rules about whole files: the opening comment, length, names, leftovers, white space.
//!
//! Knows: the limits and the forbidden words. Refuses to know: what the files are for.

use super::Fault;
use super::source::{Source, line_of};

/// The length a Rust file should stay below.
pub const LINES_AIM: usize = 500;
/// The length no Rust file may pass.
const LINES_MAX: usize = 800;
/// Longest line of a Rust file or a page, in characters, where the formatter does not decide.
const COLUMNS_MAX: usize = 200;

/// Names that say nothing about what is inside. Such a drawer fills with everything.
const DRAWERS: &[&str] = &[
    "util", "utils", "common", "helper", "helpers", "misc", "tool", "tools", "types",
];

/// Code that was meant to be temporary. Searched where comments and strings are blanked.
const LEFTOVERS_IN_CODE: &[&str] = &[
    "todo!",
    "unimplemented!",
    "dbg!",
    "#[ignore",
    "#[should_panic",
];
/// Words that mark unfinished work, put together here so that this file does not hold them.
const LEFTOVERS_IN_WORDS: &[&str] = &[concat!("FIX", "ME")];

/// Whether a Rust file is longer than the aim.
pub fn is_long(source: &Source) -> bool {
    source.is_rust() && source.text.lines().count() > LINES_AIM
}

/// What is wrong with this file.
pub fn faults(source: &Source) -> Vec<Fault> {
    let mut faults = Vec::new();
    white_space(source, &mut faults);
    if source.is_rust() {
        opening(source, &mut faults);
        length(source, &mut faults);
        name(source, &mut faults);
        leftovers(source, &mut faults);
    }
    faults
}

fn opening(source: &Source, faults: &mut Vec<Fault>) {
    // `tests.rs` tests the file beside it, which says what that is.
    if !source.path.ends_with("/tests.rs") && !source.text.starts_with("//! ") {
        faults.push(Fault::new(
            &source.path,
            1,
            "the file must open with `//!`: what it knows and what it refuses to know",
        ));
    }
}

fn length(source: &Source, faults: &mut Vec<Fault>) {
    let lines = source.text.lines().count();
    if lines > LINES_MAX {
        faults.push(Fault::new(
            &source.path,
            0,
            format!("{lines} lines; at most {LINES_MAX}: split it by noun or deed"),
        ));
    }
}

fn name(source: &Source, faults: &mut Vec<Fault>) {
    let parts = source.path.trim_end_matches(".rs").split('/');
    for part in parts.filter(|part| DRAWERS.contains(part)) {
        faults.push(Fault::new(
            &source.path,
            0,
            format!("\u{201c}{part}\u{201d} is the name of a drawer: say what is inside"),
        ));
    }
}

fn leftovers(source: &Source, faults: &mut Vec<Fault>) {
    let in_code = LEFTOVERS_IN_CODE.iter().map(|word| (word, &source.code));
    let in_words = LEFTOVERS_IN_WORDS.iter().map(|word| (word, &source.text));
    for (word, text) in in_code.chain(in_words) {
        for (at, _) in text.match_indices(word) {
            if inner_test(source, at) {
                continue;
            }
            faults.push(Fault::new(
                &source.path,
                line_of(text, at),
                format!("`{word}` was left here: finish it, or write an issue"),
            ));
        }
    }
}

/// How many tests of this file are only started by other tests, in a process of their own.
pub fn inner_tests(source: &Source) -> usize {
    source
        .code
        .match_indices("#[ignore")
        .filter(|(at, _)| inner_test(source, *at))
        .count()
}

/// Whether an ignored test is the inner half of one that is not: its reason names the test that
/// starts it, and that test stands in the same file.
fn inner_test(source: &Source, at: usize) -> bool {
    const BEFORE: &str = "#[ignore = \"started by ";
    const AFTER: &str = " in a process of its own\"]";
    let outer = source.text.get(at..).and_then(|rest| {
        let reason = rest.lines().next()?.strip_prefix(BEFORE)?;
        reason.strip_suffix(AFTER)
    });
    outer.is_some_and(|name| source.code.contains(&format!("fn {name}(")))
}

fn white_space(source: &Source, faults: &mut Vec<Fault>) {
    let judged = [
        ".rs", ".toml", ".md", ".sh", ".py", ".yml", ".json", ".xml", ".sql",
    ];
    if !judged.iter().any(|ending| source.path.ends_with(ending)) {
        return;
    }
    for (index, line) in source.text.split('\n').enumerate() {
        let line_number = index + 1;
        if line.ends_with([' ', '\t', '\r']) {
            faults.push(Fault::new(
                &source.path,
                line_number,
                "white space at the end of the line",
            ));
        }
        if source.is_rust() && line.chars().count() > COLUMNS_MAX {
            faults.push(Fault::new(
                &source.path,
                line_number,
                format!("longer than {COLUMNS_MAX} characters"),
            ));
        }
    }
    if !source.text.is_empty() && (!source.text.ends_with('\n') || source.text.ends_with("\n\n")) {
        faults.push(Fault::new(
            &source.path,
            0,
            "must end with exactly one line break",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        let source = Source::new(path.to_owned(), text.to_owned());
        faults(&source)
            .into_iter()
            .map(|fault| fault.to_string())
            .collect()
    }

    #[test]
    fn a_good_file_has_no_fault() {
        assert!(found("crates/disk/src/raw.rs", "//! Raw images.\n\nfn a() {}\n").is_empty());
    }

    #[test]
    fn each_rule_finds_its_fault() {
        let one = |path: &str, text: &str, part: &str| {
            let faults = found(path, text);
            assert_eq!(faults.len(), 1, "{faults:?}");
            assert!(faults[0].contains(part), "{faults:?}");
        };
        one("a/src/b.rs", "fn a() {}\n", "open with");
        one("a/src/utils.rs", "//! A.\n", "drawer");
        one("a/src/common/b.rs", "//! A.\n", "drawer");
        one(
            "a/src/b.rs",
            "//! A.\nfn a() { todo!() }\n",
            "b.rs:2: `todo!`",
        );
        one(
            "a/src/b.rs",
            concat!("//! A.\n// FIX", "ME later\n"),
            "b.rs:2",
        );
        one("a/src/b.rs", "//! A. \n", "white space");
        one("a/b.md", "A\n\n", "line break");
        one(
            "a/src/b.rs",
            &format!("//! A.\n{}", "//\n".repeat(LINES_MAX)),
            "lines; at most",
        );
    }

    #[test]
    fn the_inner_half_of_a_test_may_be_ignored_if_its_outer_half_is_there() {
        let with = |outer: &str| {
            format!(
                "//! A.\nfn {outer}() {{}}\n{}\nfn inner() {{}}\n",
                "#[ignore = \"started by outer in a process of its own\"]"
            )
        };
        let source = |text: String| Source::new("a/tests/it/b.rs".to_owned(), text);
        assert_eq!(inner_tests(&source(with("outer"))), 1);
        assert!(faults(&source(with("outer"))).is_empty());
        assert_eq!(inner_tests(&source(with("another"))), 0);
        assert_eq!(faults(&source(with("another"))).len(), 1);
    }

    #[test]
    fn words_about_leftovers_are_not_leftovers() {
        assert!(
            found(
                "a/src/b.rs",
                "//! Never `todo!`.\nconst A: &str = \"dbg!\";\n"
            )
            .is_empty()
        );
    }
}
