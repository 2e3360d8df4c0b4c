//! How answers look.
//!
//! Knows: text for people, JSON for programs. Refuses to know: where answers come from. Names from
//! a repository may hold anything, so control characters are escaped before they reach a terminal.

use super::place::Listed;
use base::size::ByteRange;
use base::{Error, Result};
use protocol::words::agent::Damage;
use protocol::words::point::{Point, PointDisk};
use protocol::words::repository::RepositorySummary;
use serde::Serialize;
use std::io::Write;

/// Writes a text as it is.
///
/// # Errors
/// Of standard output.
pub fn text(text: &str) -> Result<()> {
    bytes(format!("{}\n", text.trim_end()).as_bytes())
}

/// Writes bytes as they are.
///
/// # Errors
/// Of standard output.
pub fn bytes(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::BrokenPipe => reader_gone(),
            _ => Error::io("writing to standard output", error),
        })
}

/// The reader of standard output wants no more (`| head`): work ends, and nothing is wrong.
fn reader_gone() -> Error {
    Error::new(
        base::Kind::Cancelled,
        super::READER_GONE,
        "the reader of standard output has gone",
    )
}

/// Writes a value as one line of JSON.
///
/// # Errors
/// Of standard output.
pub fn json(value: &impl Serialize) -> Result<()> {
    text(&serde_json::to_string(value).map_err(unshowable)?)
}

fn unshowable(error: serde_json::Error) -> Error {
    Error::new(
        base::Kind::Bug,
        "mover.client.show",
        "an answer cannot be shown",
    )
    .caused_by(error)
}

/// An error with its code and hint, on standard error.
pub fn error(error: &Error) {
    eprintln!("error: {} [{}]", clean(&error.to_string()), error.code());
    if let Some(hint) = error.hint_text() {
        eprintln!("  hint: {}", clean(hint));
    }
}

/// Text from elsewhere without control characters. Line ends of our own messages stay.
pub fn clean(text: &str) -> String {
    let escape = |c: char| {
        if c.is_control() && c != '\n' {
            c.escape_default().collect()
        } else {
            String::from(c)
        }
    };
    text.chars().map(escape).collect()
}

/// What `point.json` holds.
pub fn description(point: &Point) -> String {
    serde_json::to_string_pretty(point).unwrap_or_default() + "\n"
}

/// What `disks/NAME.json` holds.
pub fn descriptor(disk: &PointDisk) -> String {
    serde_json::to_string_pretty(disk).unwrap_or_default() + "\n"
}

/// A repository in a few lines.
pub fn summary(summary: &RepositorySummary) -> String {
    let mut text = format!(
        "repository {}\nformat     {}\nencrypted  {}\npoints     {}\nstored     {}\nfree       {} of {}\n",
        summary.id,
        summary.format_version,
        if summary.encrypted { "yes" } else { "no" },
        summary.points,
        summary.stored,
        summary.free,
        summary.capacity,
    );
    for (name, reason) in &summary.damaged_points {
        text += &format!("DAMAGED    point {}: {}\n", clean(name), clean(reason));
    }
    text
}

/// A point in one line.
pub fn point_line(point: &Point) -> String {
    let size: base::size::ByteCount = point.disks.iter().map(|disk| disk.size).sum();
    clean(&format!(
        "{}  {}  {:<11}  {:>10}  {}",
        point.id,
        time(point.created),
        kind(point),
        size.to_string(),
        point.draft.machine.name,
    ))
}

fn kind(point: &Point) -> &'static str {
    match point.kind {
        protocol::words::point::PointKind::Full => "full",
        protocol::words::point::PointKind::Incremental => "incremental",
    }
}

/// A moment as people read it, in UTC: `2026-11-22 10:29:31Z`.
pub fn time(time: base::clock::Timestamp) -> String {
    let seconds = time.unix_seconds();
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of a day counted from 1970-01-01 in the Gregorian calendar: years are counted
/// from March, so that the leap day is the last of its year, and in eras of 400 years.
const fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

/// A file of a point in one line.
pub fn file_line(point: &Point, file: &Listed<'_>, long: bool) -> String {
    if !long {
        return clean(&file.path);
    }
    let machine = &point.draft.machine;
    clean(&format!(
        "{:>16}  {} ({})/{}",
        file.size.0, machine.id, machine.name, file.path
    ))
}

/// A point in many lines.
pub fn point(point: &Point) -> String {
    let draft = &point.draft;
    let mut text = format!(
        "point       {}\ncreated     {}\nmachine     {} ({} on {})\nkind        {}\nconsistency {:?}\n",
        point.id,
        time(point.created),
        draft.machine.name,
        draft.machine.platform,
        draft.machine.host,
        kind(point),
        draft.consistency,
    );
    if let Some((_, name)) = &draft.job {
        text += &format!("job         {name}\n");
    }
    let counters = &point.counters;
    text += &format!(
        "read        {}\ntransferred {}\nstored      {}\n",
        counters.read, counters.transferred, counters.stored
    );
    for disk in &point.disks {
        text += &format!(
            "disk        {} {} root {}\n",
            disk.name, disk.size, disk.root
        );
    }
    for file in &point.files {
        text += &format!(
            "file        {} {} root {}\n",
            file.path, file.size, file.root
        );
    }
    clean(&text)
}

/// A range in one line: offset and length in bytes.
pub fn range_line(range: &ByteRange) -> String {
    format!("{:>16} {:>16}", range.offset.0, range.length.0)
}

/// A damage in one line.
pub fn damage_line(damage: &Damage) -> String {
    let place = match damage.point {
        Some(point) if damage.range.is_empty() => format!("{point} {}: ", damage.file),
        Some(point) => format!("{point} {} {}: ", damage.file, damage.range),
        None => String::new(),
    };
    clean(&format!("DAMAGED {place}{}", damage.what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::clock::Timestamp;

    #[test]
    fn moments_are_right_around_leap_days_and_centuries() {
        let shown = |seconds: i64| time(Timestamp(seconds * 1_000_000));
        assert_eq!(shown(0), "1970-01-01 00:00:00Z");
        assert_eq!(shown(951_782_399), "2000-02-28 23:59:59Z");
        assert_eq!(shown(951_782_400), "2000-02-29 00:00:00Z");
        assert_eq!(shown(4_107_542_400), "2100-03-01 00:00:00Z");
        assert_eq!(shown(-1), "1969-12-31 23:59:59Z");
    }

    #[test]
    fn names_cannot_repaint_the_terminal() {
        assert_eq!(clean("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
    }
}
