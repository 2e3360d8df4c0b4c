//! Danger lives in labelled rooms: SQL, async, serialisation, the machine's senses.
//!
//! Knows: which words may stand in which folders and which packages on which floors.
//! Refuses to know: what the code around them does.

use super::Fault;
use super::floors::{self, BESIDE};
use super::source::{Source, line_of};
use serde_json::Value;

/// Words of code that may stand only under some folders.
struct Words {
    words: &'static [&'static str],
    /// Where the rule applies; empty means everywhere.
    under: &'static [&'static str],
    /// Where the words are at home all the same.
    except: &'static [&'static str],
    why: &'static str,
}

const WORDS: &[Words] = &[
    Words {
        words: &["rusqlite::", "tokio_postgres::"],
        under: &[],
        except: &["crates/server/src/db"],
        why: "the database is spoken to in server/src/db alone",
    },
    Words {
        words: &["SystemTime::now", "Instant::now", "thread::sleep"],
        under: &["crates/disk/src", "crates/store/src"],
        except: &[],
        why: "formats have no clock of their own: take base::clock::Clock",
    },
    Words {
        words: &["std::fs", "std::net", "std::process", "std::env", "tokio::"],
        under: &["crates/disk/src", "crates/store/src"],
        except: &[
            "crates/disk/src/file.rs",
            "crates/disk/src/opener.rs",
            "crates/disk/src/in_use.rs",
        ],
        why: "formats reach the world through the doors of base alone, so that sim can stand in",
    },
    Words {
        words: &["Serialize", "Deserialize", "serde_json", "postcard"],
        under: &["crates/store/src/format"],
        except: &[],
        why: "bytes on disk are written by hand, field by field, as their page describes them",
    },
    Words {
        words: &["store::", "disk::", "mount::", "mover::"],
        under: &[
            "crates/server/src",
            "crates/manager/src",
            "crates/console/src",
        ],
        except: &[],
        why: "the control plane never opens a backup",
    },
];

/// Pieces of SQL, searched in the text itself because they stand in strings.
const SQL: &[&str] = &[
    "SELECT ",
    "INSERT INTO ",
    "DELETE FROM ",
    "CREATE TABLE ",
    "CREATE INDEX ",
    "PRAGMA ",
];

/// Where SQL is at home; this file names the words it looks for.
const SQL_HOMES: &[&str] = &["crates/server/src/db", "xtask/src/tidy/placement.rs"];

/// Packages that may be direct dependencies of some crates only.
const PACKAGES: &[(&str, &[&str], &str)] = &[
    ("rusqlite", &["server"], "only the server has a database"),
    (
        "tokio-postgres",
        &["server"],
        "only the server has a database",
    ),
    (
        "postcard",
        &["protocol", "mover"],
        "only protocol and mover speak on the wire",
    ),
];

/// Words in places where they may not stand.
pub fn faults(source: &Source) -> Vec<Fault> {
    let mut faults = Vec::new();
    if source.is_test() {
        return faults;
    }
    let code = source.product_code();
    let inside = |folders: &[&str]| folders.iter().any(|folder| source.path.starts_with(folder));
    for rule in WORDS {
        if (!rule.under.is_empty() && !inside(rule.under)) || inside(rule.except) {
            continue;
        }
        for word in rule.words {
            for at in whole_words(code, word) {
                let what = format!("`{word}` does not belong here: {}", rule.why);
                faults.push(Fault::new(&source.path, line_of(code, at), what));
            }
        }
    }
    if !inside(SQL_HOMES) {
        let text = &source.text[..code.len()];
        for word in SQL {
            for (at, _) in text.match_indices(word) {
                let what = format!("`{}` is SQL and belongs into server/src/db", word.trim());
                faults.push(Fault::new(&source.path, line_of(text, at), what));
            }
        }
    }
    faults
}

/// Places where the word does not continue another one.
fn whole_words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(at, _)| at).filter(|at| {
        let before = code[..*at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    })
}

/// Packages on floors or in rooms where they may not be.
pub fn manifest_faults(metadata: &Value) -> Vec<Fault> {
    let empty = Vec::new();
    let mut faults = Vec::new();
    for package in metadata["packages"].as_array().unwrap_or(&empty) {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(room) = floors::room_of(name).filter(|_| package["source"].is_null()) else {
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap_or(&empty) {
            let used = dependency["name"].as_str().unwrap_or_default();
            if room.floor <= 1 && ["tokio", "async-std", "smol", "futures"].contains(&used) {
                let what = format!("uses `{used}`: nothing waits asynchronously on floors 0 and 1");
                faults.push(Fault::new(name, 0, what));
            }
            for (guarded, homes, why) in PACKAGES {
                if used == *guarded && room.floor != BESIDE && !homes.contains(&name) {
                    faults.push(Fault::new(name, 0, format!("uses `{used}`: {why}")));
                }
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        let source = Source::new(path.to_owned(), text.to_owned());
        faults(&source).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn words_stay_in_their_rooms() {
        let sql = "//! A.\nconst A: &str = \"SELECT x FROM y\";\n";
        assert_eq!(found("crates/manager/src/a.rs", sql).len(), 1);
        assert!(found("crates/server/src/db/a.rs", sql).is_empty());
        let clock = "//! A.\nfn a() { Instant::now(); }\n";
        assert!(found("crates/store/src/a.rs", clock)[0].contains("a.rs:2"));
        assert!(found("crates/mover/src/a.rs", clock).is_empty());
        assert_eq!(
            found("crates/server/src/a.rs", "//! A.\nuse store::Pack;\n").len(),
            1
        );
        assert!(
            found(
                "crates/server/src/a.rs",
                "//! A.\nuse crate::store::Pack;\n"
            )
            .is_empty()
        );
    }

    #[test]
    fn tests_may_use_what_they_need() {
        let text = "//! A.\n#[cfg(test)]\nmod tests { use std::fs; }\n";
        assert!(found("crates/store/src/a.rs", text).is_empty());
        assert!(found("crates/store/src/a/tests.rs", "use std::fs;\n").is_empty());
        assert_eq!(found("crates/store/src/a.rs", "use std::fs;\n").len(), 1);
    }

    #[test]
    fn packages_stay_on_their_floors() {
        let metadata = serde_json::json!({ "packages": [
            { "name": "store", "source": null, "dependencies": [{ "name": "tokio" }] },
            { "name": "mover", "source": null, "dependencies": [
                { "name": "tokio" }, { "name": "rusqlite" }] },
            { "name": "server", "source": null, "dependencies": [{ "name": "rusqlite" }] } ] });
        let text: Vec<_> = manifest_faults(&metadata)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(text.len(), 2, "{text:?}");
        assert!(text[0].starts_with("store: uses `tokio`"), "{text:?}");
        assert!(text[1].starts_with("mover: uses `rusqlite`"), "{text:?}");
    }
}
