//! Gauges that are counted when they are asked for: of things that would be dear to keep count of.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

/// One such gauge.
pub(super) struct Counted<F> {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) count: F,
}

impl<F> fmt::Debug for Counted<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl<F, L, V> Collector for Counted<F>
where
    F: Fn() -> V + Send + Sync + 'static,
    L: EncodeLabelSet,
    V: IntoIterator<Item = (L, usize)>,
{
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let mut family = encoder.encode_descriptor(self.name, self.help, None, MetricType::Gauge)?;
        for (labels, count) in (self.count)() {
            let gauge = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
            gauge.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::metrics::Metrics;

    #[test]
    fn each_set_of_labels_has_its_value() {
        let metrics = Metrics::new("test");
        metrics.register_count("cards", "Cards", || [([("mode", "a")], 2), ([("mode", "b")], 0)]);
        metrics.register_count("rooms", "Rooms", || [([("", ""); 0], 7)]);
        let text = metrics.openmetrics().unwrap();
        for line in ["cards{mode=\"a\"} 2", "cards{mode=\"b\"} 0", "rooms 7"] {
            assert!(text.lines().any(|have| have == line), "{line} missing in\n{text}");
        }
    }
}
