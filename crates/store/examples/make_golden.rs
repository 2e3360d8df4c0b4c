//! Makes the golden repositories of `fixtures/store`: `cargo run -p store --example make_golden -- FOLDER`.
//!
//! Knows: two small repositories with the same points, one open and one behind the password
//! `sesame`, and a list of what a restore must give. They are made once for each version of the
//! format and then kept: today's program must always read what an earlier one wrote.
//! Refuses to know: how they are read; `tests/it/recover.rs` does that, and `recover/restore.py`.

#[path = "../tests/it/support.rs"]
#[allow(dead_code, unreachable_pub, clippy::unwrap_used)]
mod support;

use base::Result;
use base::files::Files;
use base::os::OsFiles;
use base::size::{ByteCount, ByteRange};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use store::{Password, Point, Repository, WriterOptions};
use support::{backup_changes, disk, draft, environment, noise, options, sample, write_disk};

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args_os()
        .nth(1)
        .ok_or("say into which folder the repositories go")?;
    let folder = Path::new(&folder);
    let mut expected = String::new();
    for (name, password) in [("open", None), ("sealed", Some("sesame"))] {
        let root = folder.join(name);
        std::fs::create_dir_all(&root)?;
        make(
            Arc::new(OsFiles::open(&root)?),
            password,
            &mut expected,
            name,
        )?;
    }
    std::fs::write(folder.join("expected.txt"), expected)?;
    Ok(())
}

/// One repository: a point with two disks and a file, then one of what changed on its first disk.
fn make(
    files: Arc<dyn Files>,
    password: Option<&str>,
    expected: &mut String,
    name: &str,
) -> Result<()> {
    let mut options = options(password);
    options.reserve = Some(ByteCount(0));
    let made = Repository::create(Arc::clone(&files), environment(1), &options)?;
    drop(made);
    // Opened as a user would, so that a wrong slot shows here and not in a fixture.
    let password = password.map(Password::new);
    let repository = Repository::open(files, environment(2), password.as_ref())?;

    let mut first = sample(11, 260_000);
    // 150 windows of 64 KiB: two levels of inner nodes, most of them zero.
    let mut second = vec![0; 150 * 65536 + 700];
    second[65_000..90_000].copy_from_slice(&noise(12, 25_000));
    let end = second.len();
    second[end - 1200..].copy_from_slice(&noise(13, 1200));
    let configuration = b"<domain type='kvm'><name>golden</name></domain>\n";

    let writer = repository.writer(WriterOptions::default())?;
    let (vda, vdb) = (write_disk(&writer, &first)?, write_disk(&writer, &second)?);
    let file = writer.put_file("machine.xml", configuration)?;
    let disks = vec![
        disk("vda", first.len(), vda),
        disk("vdb", second.len(), vdb),
    ];
    let point = writer.commit(draft("golden", disks, vec![file]))?;
    drop(writer);
    note(expected, name, &point, "vda", &first);
    note(expected, name, &point, "vdb", &second);
    note(expected, name, &point, "machine.xml", configuration);

    let dirty = ByteRange::new(130_000, 9_000);
    first[130_000..139_000].copy_from_slice(&noise(14, 9_000));
    let changed = backup_changes(&repository, &point, &first, &[dirty])?;
    note(expected, name, &changed, "vda", &first);
    Ok(())
}

/// Notes the digest (BLAKE3) that a restore must have.
fn note(expected: &mut String, repository: &str, point: &Point, name: &str, bytes: &[u8]) {
    let digest = blake3::hash(bytes);
    let _ = writeln!(
        expected,
        "{repository} {} {name} {} {digest}",
        point.id,
        bytes.len()
    );
}
