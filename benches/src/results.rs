//! The rows that a reader judges us by, and the three forms they are written in: a table on the terminal, JSON, and
//! the table between two markers of `docs/benchmarks.md`.
//!
//! Every value is a cost (time, or growth of memory), so lower is better and a ratio is ours over theirs.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::measure::{Measured, Measurement, Side};

/// Above this, the slowest run is so far from the fastest that the median deserves doubt.
const NOISY_SPREAD: f64 = 1.5;

const TABLE_BEGIN: &str = "<!-- table:begin -->";
const TABLE_END: &str = "<!-- table:end -->";

/// What we promised for a row.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// Our time is at most this many times theirs.
    RatioAtMost(f64),
    /// Their time is at least this many times ours.
    TimesFaster(f64),
    /// Our value is at most this, in the unit of the row.
    AtMost(f64),
    /// Measured because a reader wants to know; nothing was promised.
    Reported,
    /// As `Reported`, since the loop by hand is no more than this many times as fast as theirs.
    OutOfReach(f64),
}

impl Goal {
    fn text(self, unit: &str) -> String {
        match self {
            Goal::RatioAtMost(limit) => format!("ratio ≤ {limit:.2}"),
            Goal::TimesFaster(times) => format!("ratio ≤ {:.3} (≥ {times}× faster)", 1.0 / times),
            Goal::AtMost(limit) => format!("≤ {limit} {unit}"),
            Goal::Reported => "reported".to_owned(),
            Goal::OutOfReach(by_hand) => format!("reported (by hand only {}× faster)", round(by_hand)),
        }
    }

    /// Drops the goal to be so many times as fast as theirs where the loop by hand is not so fast itself; `by_hand` is
    /// how many times as fast that is, if there is one.
    fn within_reach(self, by_hand: Option<f64>) -> Self {
        match (self, by_hand) {
            (Goal::TimesFaster(times), Some(by_hand)) if by_hand < times => Goal::OutOfReach(by_hand),
            _ => self,
        }
    }

    fn met(self, ours: f64, ratio: f64) -> Option<bool> {
        match self {
            Goal::RatioAtMost(limit) => Some(ratio <= limit),
            Goal::TimesFaster(times) => Some(ratio <= 1.0 / times),
            Goal::AtMost(limit) => Some(ours <= limit),
            Goal::Reported | Goal::OutOfReach(_) => None,
        }
    }
}

/// One comparison.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    name: String,
    ours: f64,
    unit: String,
    versus: String,
    other: f64,
    ratio: f64,
    goal: String,
    met: Option<bool>,
    spread_ours: f64,
    spread_other: f64,
}

impl Row {
    /// Sets our best beside the best of `side`. A goal that the best loop by hand does not reach is dropped.
    ///
    /// # Errors
    /// One of the two did not take part in `measurement`.
    pub(crate) fn compare(name: &str, unit: &str, measurement: &Measurement, side: Side, goal: Goal) -> Result<Self> {
        let ours = measurement.best(Side::Ours)?;
        let other = measurement.best(side)?;
        let by_hand = measurement.best(Side::Hand).ok().map(|hand| other.median / hand.median);
        Ok(Self::new(name, unit, ours, other, goal.within_reach(by_hand)))
    }

    /// Sets one contender beside another.
    pub(crate) fn new(name: &str, unit: &str, ours: &Measured, other: &Measured, goal: Goal) -> Self {
        let ratio = ours.median / other.median;
        Self {
            name: name.to_owned(),
            ours: round(ours.median),
            unit: unit.to_owned(),
            versus: other.name.clone(),
            other: round(other.median),
            ratio: round(ratio),
            goal: goal.text(unit),
            met: goal.met(ours.median, ratio),
            spread_ours: round(ours.spread),
            spread_other: round(other.spread),
        }
    }

    /// Sets our value beside a fixed limit, where there is nobody to compare with.
    pub(crate) fn against_limit(name: &str, unit: &str, ours: &Measured, limit: f64) -> Self {
        let ratio = ours.median / limit;
        let goal = Goal::AtMost(limit);
        Self {
            name: name.to_owned(),
            ours: round(ours.median),
            unit: unit.to_owned(),
            versus: "the limit".to_owned(),
            other: limit,
            ratio: round(ratio),
            goal: goal.text(unit),
            met: goal.met(ours.median, ratio),
            spread_ours: round(ours.spread),
            spread_other: 1.0,
        }
    }

    /// A row made of values that are not plain medians; `ratio` says what a reader should know of it.
    pub(crate) fn derived(
        name: &str,
        unit: &str,
        ours: f64,
        (versus, other): (&str, f64),
        ratio: f64,
        goal: Goal,
    ) -> Self {
        Self {
            name: name.to_owned(),
            ours: round(ours),
            unit: unit.to_owned(),
            versus: versus.to_owned(),
            other: round(other),
            ratio: round(ratio),
            goal: goal.text(unit),
            met: goal.met(ours, ratio),
            spread_ours: 1.0,
            spread_other: 1.0,
        }
    }

    /// Carries the spreads of the two medians a derived row was made of.
    pub(crate) fn with_spreads(mut self, ours: f64, other: f64) -> Self {
        self.spread_ours = round(ours);
        self.spread_other = round(other);
        self
    }

    fn verdict(&self) -> &'static str {
        match self.met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "–",
        }
    }

    fn is_noisy(&self) -> bool {
        self.spread_ours > NOISY_SPREAD || self.spread_other > NOISY_SPREAD
    }
}

/// Keeps four significant digits: more would claim a precision that no run has.
fn round(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let scale = 10f64.powf(3.0 - value.abs().log10().floor());
    (value * scale).round() / scale
}

/// The geometric mean of the ratios of the rows with these names.
///
/// Gives `None` unless every one of them was measured: a mean over a part would flatter or slander.
pub(crate) fn geometric_mean(rows: &[Row], names: &[&str]) -> Option<f64> {
    let mut sum = 0.0;
    for name in names {
        let row = rows.iter().find(|row| row.name == *name)?;
        sum += row.ratio.ln();
    }
    let count = names.len() as f64;
    Some((sum / count).exp())
}

const HEADINGS: [&str; 8] = ["workload", "ours", "unit", "versus", "other", "ratio", "goal", "verdict"];

fn cells(row: &Row) -> [String; 8] {
    [
        row.name.clone(),
        row.ours.to_string(),
        row.unit.clone(),
        row.versus.clone(),
        row.other.to_string(),
        row.ratio.to_string(),
        row.goal.clone(),
        row.verdict().to_owned(),
    ]
}

/// The table for a terminal, with warnings for missed goals and noisy rows beneath it.
pub(crate) fn terminal_table(rows: &[Row]) -> String {
    let lines: Vec<[String; 8]> = std::iter::once(HEADINGS.map(str::to_owned)).chain(rows.iter().map(cells)).collect();
    let mut widths = [0; 8];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for line in &lines {
        for (column, (cell, width)) in line.iter().zip(widths).enumerate() {
            let padding = " ".repeat(width - cell.chars().count());
            let number = matches!(column, 1 | 4 | 5);
            let (before, after) = if number { (padding.as_str(), "") } else { ("", padding.as_str()) };
            out.push_str(before);
            out.push_str(cell);
            out.push_str(after);
            out.push_str(if column == 7 { "\n" } else { "  " });
        }
    }
    out.push_str("ratio = ours / other; every value is a cost, lower is better\n");
    for row in rows.iter().filter(|row| row.met == Some(false)) {
        writeln_to(
            &mut out,
            format_args!("MISSED {}: {} {} (ratio {}), goal {}", row.name, row.ours, row.unit, row.ratio, row.goal),
        );
    }
    for row in rows.iter().filter(|row| row.is_noisy()) {
        writeln_to(
            &mut out,
            format_args!(
                "NOISE {}: slowest run over fastest is {} (ours) and {} (other); repeat on a quiet machine",
                row.name, row.spread_ours, row.spread_other
            ),
        );
    }
    out
}

fn writeln_to(out: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(out, "{line}").expect("a String takes every write");
}

/// The same table in Markdown, under a caption that tells the machine.
pub(crate) fn markdown_table(rows: &[Row], caption: &str) -> String {
    let mut out = format!("{caption}\n\n");
    writeln_to(&mut out, format_args!("| {} |", HEADINGS.join(" | ")));
    out.push_str("|---|--:|---|---|--:|--:|---|---|\n");
    for row in rows {
        let mut cells = cells(row);
        if row.is_noisy() {
            cells[7].push_str(" (noisy)");
        }
        if row.met == Some(false) {
            cells[7] = format!("**{}**", cells[7]);
        }
        writeln_to(&mut out, format_args!("| {} |", cells.join(" | ")));
    }
    out
}

/// Writes the rows as a JSON array.
///
/// # Errors
/// The folder or the file cannot be written.
pub(crate) fn write_json(rows: &[Row], path: &Path) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let mut text = serde_json::to_string_pretty(rows).context("rows are plain data")?;
    text.push('\n');
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Puts `table` between the markers of the document at `path`.
///
/// # Errors
/// The document cannot be read or written, or lacks a marker.
pub(crate) fn rewrite_document(path: &Path, table: &str) -> Result<()> {
    let old = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let new = between_markers(&old, table)
        .with_context(|| format!("{} lacks {TABLE_BEGIN} or {TABLE_END}", path.display()))?;
    std::fs::write(path, new).with_context(|| format!("cannot write {}", path.display()))
}

fn between_markers(document: &str, table: &str) -> Option<String> {
    let (before, rest) = document.split_once(TABLE_BEGIN)?;
    let (_, after) = rest.split_once(TABLE_END)?;
    Some(format!("{before}{TABLE_BEGIN}\n{table}{TABLE_END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::{Contender, Sample, alternate};

    fn row(name: &str, ours: f64, other: f64, goal: Goal) -> Row {
        Row::derived(name, "ns", ours, ("x", other), ours / other, goal)
    }

    #[test]
    fn goals_judge_ratio_or_value() {
        assert_eq!(row("a", 1.1, 1.0, Goal::RatioAtMost(1.1)).met, Some(true));
        assert_eq!(row("a", 1.0, 2.9, Goal::TimesFaster(3.0)).met, Some(false));
        assert_eq!(row("a", 101.0, 1.0, Goal::AtMost(100.0)).met, Some(false));
        assert_eq!(row("a", 1.0, 1.0, Goal::Reported).met, None);
    }

    #[test]
    fn a_goal_that_no_loop_by_hand_reaches_is_dropped() {
        let judged = |hand: Option<f64>, goal| {
            let sample = |value| move || Ok(Sample { value, digest: 7 });
            let mut contenders =
                vec![Contender::new(Side::Ours, "", sample(2.0)), Contender::new(Side::Renoir, "", sample(5.0))];
            contenders.extend(hand.map(|value| Contender::new(Side::Hand, "", sample(value))));
            let measurement = alternate("w", "ns", 1, &mut contenders).expect("answers agree");
            let row = Row::compare("w_renoir", "ns", &measurement, Side::Renoir, goal).expect("both took part");
            (row.goal, row.met)
        };
        let times = Goal::TimesFaster(3.0);
        let kept = ("ratio ≤ 0.333 (≥ 3× faster)".to_owned(), Some(false));
        assert_eq!(judged(None, times), kept);
        assert_eq!(judged(Some(1.6), times), kept);
        assert_eq!(judged(Some(2.0), times), ("reported (by hand only 2.5× faster)".to_owned(), None));
        assert_eq!(judged(Some(2.0), Goal::RatioAtMost(0.1)).1, Some(false));
    }

    #[test]
    fn the_mean_needs_every_row() {
        let rows = [row("a", 1.0, 2.0, Goal::Reported), row("b", 1.0, 8.0, Goal::Reported)];
        let mean = geometric_mean(&rows, &["a", "b"]).expect("both rows exist");
        assert!((mean - 0.25).abs() < 1e-12);
        assert_eq!(geometric_mean(&rows, &["a", "c"]), None);
    }

    #[test]
    fn rewriting_keeps_what_is_around_the_markers() {
        let document = format!("intro\n{TABLE_BEGIN}\nold\n{TABLE_END}\nend\n");
        assert_eq!(
            between_markers(&document, "new\n").as_deref(),
            Some(format!("intro\n{TABLE_BEGIN}\nnew\n{TABLE_END}\nend\n").as_str())
        );
        assert_eq!(between_markers("no markers", "new"), None);
    }

    #[test]
    fn four_digits_are_kept() {
        assert_eq!(round(1234.56), 1235.0);
        assert_eq!(round(0.123_456), 0.1235);
        assert_eq!(round(0.0), 0.0);
    }
}
