//! The database itself: opening, versions, rows kept once.

use crate::scene::point;
use base::Kind;
use base::clock::Timestamp;
use base::id::{HostId, JobId, RepositoryId, SessionId};
use base::size::ByteCount;
use protocol::words::console::Repository;
use protocol::words::manager::NewLine;
use protocol::words::repository::RepositoryLocation;
use protocol::words::session::{Level, Session, SessionKind, SessionState};
use protocol::words::span::Span;
use server::db::{self, Database};

fn repository(database: &Database) -> RepositoryId {
    let host = HostId::new(1, [1; 10]);
    let id = RepositoryId::new(1, [2; 10]);
    let row = Repository {
        id,
        name: "main".into(),
        host,
        location: RepositoryLocation::Folder {
            path: "/backup".into(),
        },
        encrypted: false,
        points: 0,
        capacity: ByteCount::ZERO,
        free: ByteCount::ZERO,
        stored: ByteCount::ZERO,
        summary: None,
    };
    database
        .transaction(|t| {
            db::host::put(t, host, "local", "x:1")?;
            db::repository::add(t, &row, None)
        })
        .unwrap();
    id
}

fn session(database: &Database, repository: RepositoryId) -> SessionId {
    let id = SessionId::new(5, [5; 10]);
    let session = Session {
        id,
        kind: SessionKind::CollectRepository { repository },
        name: "main".into(),
        initiator: "tester".into(),
        state: SessionState::Queued,
        created: Timestamp(1),
        started: None,
        ended: None,
        counters: Default::default(),
        tasks: Vec::new(),
        outcome: None,
    };
    database
        .transaction(|t| db::session::add(t, &session, None, Some(repository)))
        .unwrap();
    id
}

#[test]
fn a_database_is_opened_again_and_one_of_a_newer_program_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let version = Database::open(&path).unwrap().schema_version();
    assert_eq!(Database::open(&path).unwrap().schema_version(), version);
    {
        let newer = rusqlite::Connection::open(&path).unwrap();
        newer
            .execute(
                "INSERT INTO schema_steps VALUES (?1, 'future')",
                [version + 1],
            )
            .unwrap();
    }
    let before = std::fs::read(&path).unwrap();
    let error = Database::open(&path).err().unwrap();
    assert_eq!(
        (error.kind(), error.code()),
        (Kind::Unsupported, "server.database.newer")
    );
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn garbage_is_refused_with_a_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    std::fs::write(
        &path,
        b"this is not a database, whatever its name says ............",
    )
    .unwrap();
    let error = Database::open(&path).err().unwrap();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(error.hint_text().unwrap().contains("repository open"));
}

#[test]
fn a_line_said_twice_is_kept_once_and_numbers_have_no_gaps() {
    let database = Database::in_memory().unwrap();
    let repository = repository(&database);
    let id = session(&database, repository);
    let line = |number: u64, text: &str| NewLine {
        number,
        time: Timestamp(1),
        level: Level::Info,
        code: "c".into(),
        subject: String::new(),
        text: text.into(),
    };
    let lines = database
        .transaction(|t| {
            db::log::add(t, id, "7", &[line(1, "a"), line(2, "b")])?;
            db::log::add(t, id, "7", &[line(2, "b"), line(3, "c")])?;
            db::log::add(t, id, "8", &[line(1, "d")])?;
            db::log::list(t, id, 0, 100)
        })
        .unwrap();
    let seen: Vec<_> = lines
        .iter()
        .map(|line| (line.number, line.text.as_str()))
        .collect();
    assert_eq!(seen, [(1, "a"), (2, "b"), (3, "c"), (4, "d")]);
}

#[test]
fn points_are_found_by_their_last_digits_and_forgotten_by_a_rescan() {
    let database = Database::in_memory().unwrap();
    let repository = repository(&database);
    let job = JobId::new(1, [9; 10]);
    let points = [point(1, repository, job), point(2, repository, job)];
    database
        .transaction(|t| db::point::put(t, &points))
        .unwrap();
    database
        .transaction(|t| db::point::put(t, &points))
        .unwrap();
    let find = |key: &str| database.transaction(|t| db::point::find(t, key));
    assert_eq!(find(&points[0].id.short()).unwrap(), points[0]);
    assert_eq!(
        find(&points[1].id.to_string().to_uppercase()).unwrap(),
        points[1]
    );
    for bad in ["", "0", "%", "zzzzzzzz", "' OR 1=1 --", "_______"] {
        assert_eq!(find(bad).unwrap_err().kind(), Kind::NotFound, "{bad}");
    }
    let list = |machine| {
        database
            .transaction(|t| {
                let wanted = db::point::Wanted {
                    machine,
                    repository: Some(repository),
                    ..db::point::Wanted::default()
                };
                db::point::list(t, wanted)
            })
            .unwrap()
            .len()
    };
    assert_eq!(
        (list(Some("web1")), list(Some("other")), list(None)),
        (2, 0, 2)
    );
    database
        .transaction(|t| db::point::retain(t, repository, &Span::all(), &points[1..]))
        .unwrap();
    assert_eq!(list(None), 1);
}

#[test]
fn a_transaction_that_fails_leaves_nothing() {
    let database = Database::in_memory().unwrap();
    let failed: base::Result<()> = database.transaction(|t| {
        db::host::put(t, HostId::new(1, [1; 10]), "a", "x:1")?;
        Err(base::Error::invalid("test", "on purpose"))
    });
    assert!(failed.is_err());
    assert!(database.transaction(db::host::list).unwrap().is_empty());
}
