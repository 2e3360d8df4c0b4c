//! Drawing answers: tables, times, JSON.
//!
//! Knows: columns and their widths. Refuses to know: what is in them.

use base::clock::Timestamp;
use base::{Error, Kind, Result};
use protocol::words::counters::Counters;
use serde::Serialize;
use std::io::Write;

/// Writes JSON to standard output.
pub fn json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Error::new(Kind::Bug, "console.json", "writing JSON").caused_by(error))?;
    line(&text)
}

/// Writes JSON on one line to standard output, for answers that come one after another.
pub fn json_line(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(value)
        .map_err(|error| Error::new(Kind::Bug, "console.json", "writing JSON").caused_by(error))?;
    line(&text)
}

/// Says that something was done that has no other answer.
pub fn done(as_json: bool, text: &str) -> Result<()> {
    if as_json {
        json(&serde_json::json!({ "done": text }))
    } else {
        line(text)
    }
}

/// Writes a line to standard output. A reader that has gone away (`| head`) is no error.
pub fn line(text: &str) -> Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::io("writing to standard output", error))
        }
        _ => Ok(()),
    }
}

/// A table: a head and rows of as many cells.
pub struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new(head: &[&'static str]) -> Self {
        Self {
            head: head.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows
            .push(cells.iter().map(|cell| clean(cell)).collect());
    }

    /// As text, columns aligned.
    pub fn text(&self) -> String {
        let widths: Vec<usize> = (0..self.head.len())
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
                widest.max(self.head[column].chars().count())
            })
            .collect();
        let draw = |cells: Vec<&str>| {
            let padded: Vec<String> = cells
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:<width$}"))
                .collect();
            padded.join("  ").trim_end().to_owned()
        };
        let mut lines = vec![draw(self.head.clone())];
        lines.extend(
            self.rows
                .iter()
                .map(|row| draw(row.iter().map(String::as_str).collect())),
        );
        lines.join("\n")
    }

    /// Writes it, or a sentence where there is no row.
    pub fn print(&self, empty: &str) -> Result<()> {
        if self.rows.is_empty() {
            line(empty)
        } else {
            line(&self.text())
        }
    }
}

/// Text from elsewhere, without what would move the cursor or colour the screen.
pub fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// A moment in the zone of this machine.
pub fn time(time: Timestamp) -> String {
    match jiff::Timestamp::from_microsecond(time.0) {
        Ok(time) => {
            let local = time.to_zoned(jiff::tz::TimeZone::system());
            local.strftime("%Y-%m-%d %H:%M:%S").to_string()
        }
        Err(_) => "-".to_owned(),
    }
}

/// A moment, where there is one.
pub fn time_or_dash(time: Option<Timestamp>) -> String {
    time.map_or_else(|| "-".to_owned(), self::time)
}

/// How long, as people say it: `4.2 s`, `3 min 12 s`, `2 h 5 min`.
pub fn duration(duration: std::time::Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{:.1} s", duration.as_secs_f64()),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// The counters on one line.
pub fn counters(counters: &Counters) -> String {
    let mut text = format!(
        "{} processed, {} read, {} transferred, {} stored",
        counters.processed, counters.read, counters.transferred, counters.stored
    );
    if let Some(stage) = counters.busy.bottleneck() {
        text += &format!(", bottleneck: {stage}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_nothing_moves_the_cursor() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.row(vec!["web1".into(), "ok".into()]);
        table.row(vec!["a\u{1b}[2J".into(), "x".into()]);
        assert_eq!(table.text(), "NAME   STATE\nweb1   ok\na\u{fffd}[2J  x");
    }

    #[test]
    fn durations_are_said_as_people_say_them() {
        let seconds = std::time::Duration::from_secs;
        assert_eq!(duration(std::time::Duration::from_millis(4200)), "4.2 s");
        assert_eq!(duration(seconds(192)), "3 min 12 s");
        assert_eq!(duration(seconds(7500)), "2 h 5 min");
    }
}
