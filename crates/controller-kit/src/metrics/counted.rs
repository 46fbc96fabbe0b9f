//! Gauges that are counted when they are asked for: of things that would be dear to keep count of.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use super::Metrics;

impl Metrics {
    /// Registers a gauge that is counted whenever it is asked for.
    pub fn register_count(
        &self,
        name: &'static str,
        help: &'static str,
        count: impl Fn() -> usize + Send + Sync + 'static,
    ) {
        self.register_counted(name, help, move |metric: MetricEncoder<'_>| gauge(count()).encode(metric));
    }

    /// As [`Metrics::register_count`], with one value per set of labels.
    pub fn register_counts<L, V>(
        &self,
        name: &'static str,
        help: &'static str,
        count: impl Fn() -> V + Send + Sync + 'static,
    ) where
        L: EncodeLabelSet,
        V: IntoIterator<Item = (L, usize)>,
    {
        self.register_counted(name, help, move |mut family: MetricEncoder<'_>| {
            count()
                .into_iter()
                .try_for_each(|(labels, count)| gauge(count).encode(family.encode_family(&labels)?))
        });
    }

    fn register_counted<F>(&self, name: &'static str, help: &'static str, encode: F)
    where
        F: Fn(MetricEncoder<'_>) -> fmt::Result + Send + Sync + 'static,
    {
        let counted = Counted { name, help, encode };
        self.with_registry(|registry| registry.register_collector(Box::new(counted)));
    }
}

fn gauge(count: usize) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX))
}

/// One such gauge.
struct Counted<F> {
    name: &'static str,
    help: &'static str,
    encode: F,
}

impl<F> fmt::Debug for Counted<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl<F: Fn(MetricEncoder<'_>) -> fmt::Result + Send + Sync + 'static> Collector for Counted<F> {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        (self.encode)(encoder.encode_descriptor(self.name, self.help, None, MetricType::Gauge)?)
    }
}

#[cfg(test)]
mod tests {
    use crate::metrics::Metrics;

    #[test]
    fn each_set_of_labels_has_its_value() {
        let metrics = Metrics::new("test");
        metrics.register_counts("cards", "Cards", || [([("mode", "a")], 2), ([("mode", "b")], 0)]);
        metrics.register_count("rooms", "Rooms", || 7);
        let text = metrics.openmetrics().unwrap();
        for line in ["cards{mode=\"a\"} 2", "cards{mode=\"b\"} 0", "rooms 7"] {
            assert!(text.lines().any(|have| have == line), "{line} missing in\n{text}");
        }
    }
}
