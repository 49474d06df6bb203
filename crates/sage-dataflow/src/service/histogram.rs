//! Sampled latencies, in buckets a quarter of a power of two wide. So any quantile is right to within a fifth.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Four buckets for each of the 64 powers of two of a number of nanoseconds.
const BUCKETS: usize = 256;

/// A histogram of durations.
#[derive(Debug)]
pub(crate) struct Histogram(Box<[AtomicU32]>);

impl Histogram {
    pub(crate) fn new() -> Self {
        Self((0..BUCKETS).map(|_| AtomicU32::new(0)).collect())
    }

    pub(crate) fn record(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).max(4);
        self.0[Self::bucket(nanos)].fetch_add(1, Ordering::Relaxed);
    }

    fn bucket(nanos: u64) -> usize {
        let power = nanos.ilog2();
        (power * 4) as usize + ((nanos >> (power - 2)) & 3) as usize
    }

    fn middle(bucket: usize) -> u64 {
        let (power, quarter) = ((bucket / 4) as u32, (bucket % 4) as u64);
        let width = (1_u64 << power) / 4;
        (1_u64 << power) + quarter * width + width / 2
    }

    /// The duration that the share `quantile` (0 to 1) of the samples does not exceed; `None` without samples.
    pub(crate) fn quantile(&self, quantile: f64) -> Option<Duration> {
        let counts: Vec<u64> = self.0.iter().map(|count| u64::from(count.load(Ordering::Relaxed))).collect();
        let total: u64 = counts.iter().sum();
        if total == 0 {
            return None;
        }
        let rank = ((total as f64 * quantile).ceil() as u64).clamp(1, total);
        let mut seen = 0;
        counts
            .iter()
            .position(|count| {
                seen += count;
                seen >= rank
            })
            .map(|bucket| Duration::from_nanos(Self::middle(bucket)))
    }

    pub(crate) fn clear(&self) {
        self.0.iter().for_each(|count| count.store(0, Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_to_within_a_fifth() {
        let histogram = Histogram::new();
        assert_eq!(histogram.quantile(0.5), None);
        for micros in 1..=1000 {
            histogram.record(Duration::from_micros(micros));
        }
        for (quantile, exact) in [(0.5, 500.0), (0.99, 990.0), (0.0, 1.0), (1.0, 1000.0)] {
            let found = histogram.quantile(quantile).expect("there are samples").as_nanos() as f64 / 1000.0;
            assert!((found / exact - 1.0).abs() < 0.2, "{quantile}: {found} for {exact}");
        }
    }
}
