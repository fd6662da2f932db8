//! Figures of a run as a table for people and one JSON line for scripts.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::measure::tally::Faults;

/// One number of one run.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) value: f64,
}

/// What one scenario measured on one server in one round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) figures: Vec<Figure>,
    pub(crate) faults: Faults,
    /// Reasons of broken connections, a few.
    pub(crate) reasons: Vec<String>,
}

impl Outcome {
    pub(crate) fn add(&mut self, name: &'static str, value: f64) {
        self.figures.push(Figure { name, value });
    }

    fn value(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|figure| figure.name == name).map(|figure| figure.value)
    }
}

/// All rounds of one scenario, target by target; the first target is what the others are compared with.
pub(crate) struct Report {
    pub(crate) scenario: String,
    /// The figure whose ratio to the first target matters.
    pub(crate) headline: &'static str,
    pub(crate) targets: Vec<(String, Vec<Outcome>)>,
}

impl Report {
    pub(crate) fn failed(&self) -> bool {
        self.targets.iter().flat_map(|(_, rounds)| rounds).any(|outcome| outcome.faults.any())
    }

    /// Medians over the rounds, and per round ratios of the headline to the first target's.
    pub(crate) fn print(&self) {
        println!("\n## {}", self.scenario);
        let names: Vec<&str> = self.names();
        let mut rows = vec![[vec!["target"], names.clone(), vec!["ratio", "(min..max)", "faults"]].concat()]
            .into_iter()
            .map(|row| row.into_iter().map(str::to_owned).collect::<Vec<_>>())
            .collect::<Vec<_>>();
        for (label, rounds) in &self.targets {
            let mut row = vec![label.clone()];
            row.extend(names.iter().map(|name| median_of(rounds, name).map_or("-".to_owned(), number)));
            let mut ratios = self.ratios(rounds);
            let spread =
                match (ratios.iter().copied().reduce(f64::min), ratios.iter().copied().reduce(f64::max)) {
                    (Some(low), Some(high)) => format!("({low:.3}..{high:.3})"),
                    _ => "-".to_owned(),
                };
            row.push(median(&mut ratios).map_or("-".to_owned(), |ratio| format!("{ratio:.3}")));
            row.push(spread);
            row.push(faults(rounds).map_or("none".to_owned(), |faults| faults.to_string()));
            rows.push(row);
        }
        let columns = rows.first().map_or(0, Vec::len);
        let widths: Vec<usize> =
            (0..columns).map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0)).collect();
        for row in &rows {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}")).collect();
            println!("{}", cells.join("  "));
        }
        for (label, rounds) in &self.targets {
            let mut reasons: Vec<&String> = rounds.iter().flat_map(|outcome| &outcome.reasons).collect();
            reasons.dedup();
            for reason in reasons.iter().take(5) {
                println!("   {label}: {reason}");
            }
        }
    }

    /// The report as one JSON line.
    pub(crate) fn json(&self) -> String {
        let targets: Vec<Value> = self
            .targets
            .iter()
            .map(|(label, rounds)| {
                let medians: Map<String, Value> = self
                    .names()
                    .into_iter()
                    .filter_map(|name| Some((name.to_owned(), json!(median_of(rounds, name)?))))
                    .collect();
                let values: Vec<Option<f64>> =
                    rounds.iter().map(|outcome| outcome.value(self.headline)).collect();
                let mut ratios = self.ratios(rounds);
                json!({
                    "target": label, "median": medians, "rounds": values, "ratio": median(&mut ratios),
                    "faults": faults(rounds).unwrap_or_default(),
                })
            })
            .collect();
        json!({ "scenario": self.scenario, "headline": self.headline, "targets": targets }).to_string()
    }

    fn names(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        for figure in self.targets.iter().flat_map(|(_, rounds)| rounds).flat_map(|outcome| &outcome.figures)
        {
            if !names.contains(&figure.name) {
                names.push(figure.name);
            }
        }
        names
    }

    /// Each round against the first target's same round: the machine's slow states then hit both.
    fn ratios(&self, rounds: &[Outcome]) -> Vec<f64> {
        let Some((_, base)) = self.targets.first() else { return Vec::new() };
        rounds
            .iter()
            .zip(base)
            .filter_map(|(ours, theirs)| Some((ours.value(self.headline)?, theirs.value(self.headline)?)))
            .filter(|(_, theirs)| *theirs > 0.0)
            .map(|(ours, theirs)| ours / theirs)
            .collect()
    }
}

fn faults(rounds: &[Outcome]) -> Option<Faults> {
    let mut sum = Faults::default();
    for outcome in rounds {
        sum += outcome.faults;
    }
    sum.any().then_some(sum)
}

fn median_of(rounds: &[Outcome], name: &str) -> Option<f64> {
    median(&mut rounds.iter().filter_map(|outcome| outcome.value(name)).collect::<Vec<_>>())
}

fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        length if length % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

/// Three significant places for small numbers, whole ones for large.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1_000.0 => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.1}"),
        size if size >= 10.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(value: f64) -> Outcome {
        let mut outcome = Outcome::default();
        outcome.add("cpu_us", value);
        outcome
    }

    #[test]
    fn ratios_compare_the_same_round() {
        let report = Report {
            scenario: "test".to_owned(),
            headline: "cpu_us",
            targets: vec![
                ("floor".to_owned(), vec![outcome(2.0), outcome(4.0), outcome(8.0)]),
                ("server".to_owned(), vec![outcome(3.0), outcome(4.0), outcome(16.0)]),
            ],
        };
        assert_eq!(report.ratios(&report.targets[1].1), [1.5, 1.0, 2.0]);
        assert!(report.json().contains("\"ratio\":1.5"), "{}", report.json());
        assert!(!report.failed());
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        for (mut values, expected) in [
            (vec![], None),
            (vec![3.0], Some(3.0)),
            (vec![4.0, 1.0], Some(2.5)),
            (vec![9.0, 1.0, 2.0], Some(2.0)),
        ] {
            assert_eq!(median(&mut values), expected);
        }
    }
}
