//! The figures of all rounds as a table.
//!
//! Knows: medians, and ratios taken within one round. Refuses to know: how they were measured.

use super::measure::Cost;
use crate::demo::table::{self, Row};

/// The tool that others are compared with.
const OURS: &str = "backstay";

/// Everything that was noted.
#[derive(Default)]
pub struct Report {
    rounds: Vec<Vec<Note>>,
}

struct Note {
    operation: &'static str,
    tool: &'static str,
    cost: Cost,
}

impl Report {
    /// What is noted from now on belongs to a new round.
    pub fn begin_round(&mut self) {
        self.rounds.push(Vec::new());
    }

    /// Notes one run.
    pub fn note(&mut self, operation: &'static str, tool: &'static str, cost: Cost) {
        crate::step::detail(format!(
            "{operation:15} {tool:12} {:6.2} s wall  {:6.2} s processor",
            cost.wall.as_secs_f64(),
            cost.cpu.as_secs_f64()
        ));
        if let Some(round) = self.rounds.last_mut() {
            round.push(Note {
                operation,
                tool,
                cost,
            });
        }
    }

    /// The table: medians of all rounds, and of the ratios within each.
    pub fn text(&self) -> String {
        let Some(first) = self.rounds.first() else {
            return String::new();
        };
        let rows: Vec<Row> = first
            .iter()
            .map(|note| self.row(note.operation, note.tool))
            .collect();
        let headings = [
            "wall s",
            "cpu s",
            "stored",
            "backstay/it wall",
            "backstay/it cpu",
        ];
        format!(
            "{}\n  medians of {} rounds; ratios are taken within a round, below 1 Backstay is better;\n  Backstay's runs end when all is on stable storage, the others' when all is written\n",
            table::lay_out(&headings, &rows),
            self.rounds.len()
        )
    }

    fn row(&self, operation: &str, tool: &str) -> Row {
        let costs = self.costs(operation, tool);
        let ours = self.costs(operation, OURS);
        let wall = |cost: &Cost| cost.wall.as_secs_f64();
        let cpu = |cost: &Cost| cost.cpu.as_secs_f64();
        let ratio = |of: &dyn Fn(&Cost) -> f64| {
            if tool == OURS {
                return String::new();
            }
            let ratios = ours
                .iter()
                .zip(&costs)
                .map(|(ours, it)| of(ours) / of(it).max(0.01));
            format!("{:.2}", median(ratios.collect()))
        };
        let stored = costs.iter().filter_map(|cost| cost.stored).max();
        Row {
            title: format!("{operation}: {tool}"),
            cells: vec![
                format!("{:.2}", median(costs.iter().map(wall).collect())),
                format!("{:.2}", median(costs.iter().map(cpu).collect())),
                stored.map_or_else(String::new, table::bytes),
                ratio(&wall),
                ratio(&cpu),
            ],
        }
    }

    /// One cost a round, in order.
    fn costs(&self, operation: &str, tool: &str) -> Vec<Cost> {
        let notes = self.rounds.iter().flatten();
        notes
            .filter(|n| n.operation == operation && n.tool == tool)
            .map(|n| n.cost)
            .collect()
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn ratios_are_taken_within_a_round() {
        let cost = |seconds| Cost {
            wall: Duration::from_secs(seconds),
            cpu: Duration::from_secs(seconds),
            stored: None,
        };
        let mut report = Report::default();
        // A neighbour slowed the second round down tenfold; the ratio is the same in each.
        for factor in [1, 10, 1] {
            report.begin_round();
            report.note("full", "backstay", cost(factor));
            report.note("full", "cp", cost(2 * factor));
        }
        let row = report.row("full", "cp");
        assert_eq!(row.cells, ["2.00", "2.00", "", "0.50", "0.50"]);
    }

    #[test]
    fn medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0]), 2.5);
        assert_eq!(median(Vec::new()), 0.0);
    }
}
