//! The table at the end.
//!
//! Knows: columns, alignment, how bytes are said. Refuses to know: where the figures come from.

/// One row: a title and a cell for each column.
pub struct Row {
    /// What the row is about.
    pub title: String,
    /// Its cells; empty ones are shown as a dash.
    pub cells: Vec<String>,
}

/// Lays the rows out under their headings.
pub fn lay_out(headings: &[&str], rows: &[Row]) -> String {
    let width = |column: usize| {
        let cells = rows
            .iter()
            .filter_map(|row| row.cells.get(column))
            .map(|c| shown(c));
        cells
            .chain(headings.get(column).copied())
            .map(|c| c.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let title_width = rows
        .iter()
        .map(|row| row.title.chars().count())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    let mut line = |title: &str, cells: &[&str]| {
        text.push_str(&format!("  {title:title_width$}"));
        for (cell, width) in cells.iter().zip(&widths) {
            text.push_str(&format!("  {cell:>width$}"));
        }
        text.push('\n');
    };
    line("", headings);
    for row in rows {
        let cells: Vec<&str> = row.cells.iter().map(|cell| shown(cell)).collect();
        line(&row.title, &cells);
    }
    text
}

fn shown(cell: &str) -> &str {
    if cell.is_empty() { "-" } else { cell }
}

/// Bytes as people say them.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{count} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [
            Row {
                title: "full".into(),
                cells: vec!["1.0 GiB".into(), "yes".into()],
            },
            Row {
                title: "incremental".into(),
                cells: vec![String::new(), "yes".into()],
            },
        ];
        let text = lay_out(&["read", "equal"], &rows);
        let expected = "                  read  equal\n  \
                        full         1.0 GiB    yes\n  \
                        incremental        -    yes\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn bytes_are_said_in_the_right_unit() {
        assert_eq!(bytes(17), "17 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(5 << 30), "5.0 GiB");
    }
}
