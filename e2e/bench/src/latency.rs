//! Latencies: from samples, and from a histogram in the Prometheus text format.

use std::collections::BTreeMap;
use std::time::Duration;

/// Samples of one run.
#[derive(Default)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    pub(crate) fn push(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The `share` quantile (0..=1) in milliseconds; 0 without samples.
    pub(crate) fn quantile(&mut self, share: f64) -> f64 {
        self.0.sort_unstable();
        let below = self.0.len() as f64 * share;
        let at = (1..=self.0.len()).find(|rank| *rank as f64 >= below).and_then(|rank| self.0.get(rank - 1));
        at.map_or(0.0, |sample| sample.as_secs_f64() * 1e3)
    }
}

/// A cumulative histogram: count, sum in seconds, and the count below each upper bound.
#[derive(Clone, Default)]
pub(crate) struct Histogram {
    pub(crate) count: f64,
    sum: f64,
    buckets: BTreeMap<Duration, f64>,
}

impl Histogram {
    /// Adds up the series of `metric` that carry every one of `labels` (written as `name="value"`).
    pub(crate) fn read(text: &str, metric: &str, labels: &[&str]) -> Self {
        let mut histogram = Self::default();
        for line in text.lines().filter(|line| line.starts_with(metric)) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            if !labels.iter().all(|label| series.contains(label)) {
                continue;
            }
            let name = series.split('{').next().unwrap_or_default();
            match name.strip_prefix(metric) {
                Some("_count") => histogram.count += value,
                Some("_sum") => histogram.sum += value,
                Some("_bucket") => {
                    let bound = series.split("le=\"").nth(1).and_then(|rest| rest.split('"').next());
                    let bound = bound.and_then(|bound| bound.parse::<f64>().ok()).unwrap_or(f64::INFINITY);
                    let bound = Duration::try_from_secs_f64(bound).unwrap_or(Duration::MAX);
                    *histogram.buckets.entry(bound).or_default() += value;
                }
                _ => {}
            }
        }
        histogram
    }

    /// What came since `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let buckets = self
            .buckets
            .iter()
            .map(|(bound, count)| (*bound, count - before.buckets.get(bound).copied().unwrap_or_default()));
        Self { count: self.count - before.count, sum: self.sum - before.sum, buckets: buckets.collect() }
    }

    /// Mean in milliseconds.
    pub(crate) fn mean(&self) -> f64 {
        if self.count > 0.0 { self.sum / self.count * 1e3 } else { 0.0 }
    }

    /// Upper bound of the bucket that holds the `share` quantile, in milliseconds.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let wanted = self.count * share;
        let bucket = self.buckets.iter().find(|(_, count)| **count >= wanted);
        bucket.map_or(0.0, |(bound, _)| bound.as_secs_f64() * 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_is_the_difference_of_two_readings() {
        let at = |low: u32, all: u32, sum: f64| {
            format!(
                "m_bucket{{name=\"a\",le=\"0.005\"}} {low}\nm_bucket{{name=\"a\",le=\"+Inf\"}} {all}\n\
                 m_sum{{name=\"a\"}} {sum}\nm_count{{name=\"a\"}} {all}\nm_count{{name=\"b\"}} 7\n"
            )
        };
        let read = |text: &str| Histogram::read(text, "m", &["name=\"a\""]);
        let run = read(&at(9, 10, 0.06)).since(&read(&at(0, 0, 0.0)));
        assert!((run.mean() - 6.0).abs() < 1e-9);
        assert!((run.quantile(0.9) - 5.0).abs() < 1e-9);
        assert!(run.quantile(0.99) > 1e9);
    }

    #[test]
    fn quantiles_of_samples() {
        let mut samples = Samples::default();
        (1..=101).for_each(|ms| samples.push(Duration::from_millis(ms)));
        assert!((samples.quantile(0.5) - 51.0).abs() < 1e-9);
        assert!((samples.quantile(1.0) - 101.0).abs() < 1e-9);
    }
}
