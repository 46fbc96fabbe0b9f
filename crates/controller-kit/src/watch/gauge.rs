//! How many objects a store holds.

use prometheus_client::metrics::gauge::Gauge;

use crate::metrics::{KindLabel, Metrics};

/// One store's share of `kagenti_store_objects{kind}`; several stores of a kind add up.
pub struct StoreGauge {
    gauge: Gauge,
    last: i64,
}

impl StoreGauge {
    /// The share of one more store of `kind`.
    pub fn new(metrics: &Metrics, kind: &str) -> Self {
        let gauge = metrics.store_objects.get_or_create_owned(&KindLabel { kind: kind.to_owned() });
        Self { gauge, last: 0 }
    }

    /// The store now holds this many objects.
    pub fn set(&mut self, len: usize) {
        let len = i64::try_from(len).unwrap_or(i64::MAX);
        self.gauge.inc_by(len - self.last);
        self.last = len;
    }
}

impl Drop for StoreGauge {
    fn drop(&mut self) {
        self.gauge.dec_by(self.last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_of_a_kind_add_up_and_leave_with_their_objects() {
        let metrics = Metrics::new("test");
        let gauge = metrics.store_objects.get_or_create_owned(&KindLabel { kind: "pods".to_owned() });
        let (mut one, mut other) = (StoreGauge::new(&metrics, "pods"), StoreGauge::new(&metrics, "pods"));
        one.set(3);
        other.set(2);
        one.set(1);
        assert_eq!(gauge.get(), 3);
        drop(other);
        assert_eq!(gauge.get(), 1);
    }
}
