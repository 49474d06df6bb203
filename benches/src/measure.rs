//! Runs the contenders of one workload in turn and refuses to time what does not agree.
//!
//! Invariants:
//!  1. Contenders alternate (A B C A B C …), so that a slow minute of the machine hits all of them.
//!  2. The first round is thrown away. It warms caches and the allocator, and its answers are compared.
//!  3. Every later answer is compared too: a contender that differs once ends the program with an error.
//!
//! Knows nothing of what a workload computes; an answer is a 64-bit digest here.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// Who a contender stands for. Several variants may stand for one side; the fastest of them counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The engine of this repository, with its defaults.
    Ours,
    /// The engine of this repository otherwise used, as the variant says.
    Baseline,
    /// The loop an expert writes for this one problem.
    Hand,
    /// A loop by hand that moves the data as the engine does: it owns each record.
    HandOwning,
    /// Renoir 0.6, a typed dataflow engine in Rust.
    Renoir,
    /// Renoir's aggregating operator, which sends one partial result per key instead of every record.
    RenoirCombining,
}

impl Side {
    /// The name of the side in the tables.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Side::Ours | Side::Baseline => "ours",
            Side::Hand => "hand-written",
            Side::HandOwning => "hand-written, owning each word",
            Side::Renoir => "Renoir",
            Side::RenoirCombining => "Renoir, combining",
        }
    }
}

/// What one run of one contender gave.
pub(crate) struct Sample {
    /// The measured value, in the unit of the workload.
    pub(crate) value: f64,
    /// A digest of the answer, equal for equal answers.
    pub(crate) digest: u64,
}

/// One program that solves the workload.
pub(crate) struct Contender<'a> {
    side: Side,
    variant: String,
    run: Box<dyn FnMut() -> Result<Sample> + 'a>,
}

impl<'a> Contender<'a> {
    /// Names a contender; `variant` tells it from others of its side and may be empty.
    pub(crate) fn new(side: Side, variant: impl Into<String>, run: impl FnMut() -> Result<Sample> + 'a) -> Self {
        Self { side, variant: variant.into(), run: Box::new(run) }
    }

    fn name(&self) -> String {
        if self.variant.is_empty() {
            self.side.label().to_owned()
        } else {
            format!("{} ({})", self.side.label(), self.variant)
        }
    }
}

/// The timed runs of one contender, in the unit of the workload.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    /// Whom it stands for.
    pub(crate) side: Side,
    /// Its side, and its variant in brackets.
    pub(crate) name: String,
    /// The median of the runs.
    pub(crate) median: f64,
    /// The slowest run over the fastest.
    pub(crate) spread: f64,
}

/// All contenders of one workload, measured.
pub(crate) struct Measurement(Vec<Measured>);

impl Measurement {
    /// The fastest variant of a side.
    ///
    /// # Errors
    /// No contender stood for `side`.
    pub(crate) fn best(&self, side: Side) -> Result<&Measured> {
        self.0
            .iter()
            .filter(|m| m.side == side)
            .min_by(|a, b| a.median.total_cmp(&b.median))
            .with_context(|| format!("no contender stands for {}", side.label()))
    }
}

/// Runs every contender `runs` times in turn, after one round that only warms up and compares.
///
/// # Errors
/// A contender failed, or two of them gave different answers.
pub(crate) fn alternate(
    workload: &str,
    unit: &str,
    runs: usize,
    contenders: &mut [Contender<'_>],
) -> Result<Measurement> {
    let mut values = vec![Vec::with_capacity(runs); contenders.len()];
    let mut agreed: Option<(u64, String)> = None;
    for round in 0..=runs {
        for (contender, values) in contenders.iter_mut().zip(&mut values) {
            let name = contender.name();
            let sample = (contender.run)().with_context(|| format!("{workload}: {name} failed"))?;
            match &agreed {
                None => agreed = Some((sample.digest, name.clone())),
                Some((digest, first)) => ensure!(
                    *digest == sample.digest,
                    "{workload}: results differ: {first} has {digest:016x}, {name} has {:016x}",
                    sample.digest
                ),
            }
            if round == 0 {
                eprintln!("{workload:<22} check      {name:<34} same answer");
            } else {
                values.push(sample.value);
                let value = sample.value;
                eprintln!("{workload:<22} run {round:>2}/{runs:<2}  {name:<34} {value:>12.3} {unit}");
            }
        }
    }
    let measured = contenders
        .iter()
        .zip(values)
        .map(|(contender, values)| summarise(contender.side, contender.name(), values))
        .collect();
    Ok(Measurement(measured))
}

/// Reduces the runs of one contender to a median and a spread.
pub(crate) fn summarise(side: Side, name: String, mut values: Vec<f64>) -> Measured {
    let median = median(&mut values);
    let spread = match (values.first(), values.last()) {
        (Some(min), Some(max)) if *min > 0.0 => max / min,
        _ => 1.0,
    };
    Measured { side, name, median, spread }
}

/// Nanoseconds for each of `count` records or calls.
pub(crate) fn nanos_per(elapsed: Duration, count: u64) -> f64 {
    elapsed.as_secs_f64() * 1e9 / count as f64
}

/// Sorts `values` and gives the middle one, or the mean of the middle two; zero if there is none.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle), middle.checked_sub(1).and_then(|m| values.get(m))) {
        (Some(upper), Some(lower)) if values.len().is_multiple_of(2) => f64::midpoint(*lower, *upper),
        (Some(upper), _) => *upper,
        (None, _) => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_odd_even_and_no_values() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&mut []), 0.0);
    }

    #[test]
    fn contenders_that_differ_are_an_error() {
        let sample = |digest| move || Ok(Sample { value: 1.0, digest });
        let mut contenders = [Contender::new(Side::Ours, "", sample(1)), Contender::new(Side::Hand, "loop", sample(2))];
        let error = alternate("w", "ns", 1, &mut contenders).err().map(|e| e.to_string());
        assert_eq!(
            error.as_deref(),
            Some("w: results differ: ours has 0000000000000001, hand-written (loop) has 0000000000000002")
        );
    }

    #[test]
    fn the_fastest_variant_stands_for_its_side() {
        let sample = |value| move || Ok(Sample { value, digest: 7 });
        let mut contenders =
            [Contender::new(Side::Hand, "small", sample(3.0)), Contender::new(Side::Hand, "large", sample(2.0))];
        let measurement = alternate("w", "ns", 3, &mut contenders).expect("answers agree");
        let best = measurement.best(Side::Hand).expect("a hand-written contender");
        assert_eq!((best.name.as_str(), best.median), ("hand-written (large)", 2.0));
        assert!(measurement.best(Side::Renoir).is_err());
    }
}
