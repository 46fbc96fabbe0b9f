//! CPU time, memory and file descriptors of this process, read from `/proc` at each scrape.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Ticks per second of the times in `/proc`: fixed to 100 for user space on every Linux platform.
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Debug)]
pub(super) struct ProcessCollector {
    started: f64,
}

/// What one look at `/proc` says. A figure that cannot be read is left out of the exposition.
#[derive(Debug, Default, PartialEq)]
struct Figures {
    cpu_seconds: Option<f64>,
    virtual_bytes: Option<u64>,
    resident_bytes: Option<u64>,
    open_fds: Option<u64>,
    max_fds: Option<u64>,
}

impl ProcessCollector {
    pub(super) fn new() -> Self {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        Self { started }
    }
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let figures = read();
        if let Some(value) = figures.cpu_seconds {
            metric(&mut encoder, "process_cpu_seconds", "CPU time used", &ConstCounter::new(value))?;
        }
        gauge(&mut encoder, "process_resident_memory_bytes", "Memory in use", figures.resident_bytes)?;
        gauge(&mut encoder, "process_virtual_memory_bytes", "Address space", figures.virtual_bytes)?;
        gauge(&mut encoder, "process_open_fds", "Open file descriptors", figures.open_fds)?;
        gauge(&mut encoder, "process_max_fds", "Limit of open file descriptors", figures.max_fds)?;
        metric(
            &mut encoder,
            "process_start_time_seconds",
            "Start of the process since the epoch",
            &ConstGauge::new(self.started),
        )
    }
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: Option<u64>,
) -> Result<(), std::fmt::Error> {
    match value {
        Some(value) => metric(encoder, name, help, &ConstGauge::new(value)),
        None => Ok(()),
    }
}

fn metric(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    metric: &(impl EncodeMetric + Sized),
) -> Result<(), std::fmt::Error> {
    let encoder = encoder.encode_descriptor(name, help, None, metric.metric_type())?;
    metric.encode(encoder)
}

fn read() -> Figures {
    let text = |path| fs::read_to_string(path).unwrap_or_default();
    Figures {
        open_fds: fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as u64),
        ..parse(&text("/proc/self/stat"), &text("/proc/self/status"), &text("/proc/self/limits"))
    }
}

fn parse(stat: &str, status: &str, limits: &str) -> Figures {
    // The second field is the command in parentheses and may hold blanks.
    let fields: Vec<&str> =
        stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
    let kilobytes = |key: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .and_then(|rest| rest.split_whitespace().next())
            .and_then(|value| value.parse::<u64>().ok())
            .map(|value| value * 1024)
    };
    Figures {
        cpu_seconds: number(11)
            .zip(number(12))
            .map(|(user, system)| (user + system) as f64 / TICKS_PER_SECOND),
        virtual_bytes: kilobytes("VmSize:"),
        resident_bytes: kilobytes("VmRSS:"),
        open_fds: None,
        max_fds: limits
            .lines()
            .find_map(|line| line.strip_prefix("Max open files"))
            .and_then(|rest| rest.split_whitespace().next())
            .and_then(|value| value.parse().ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_blanks_and_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 300 0 0 0 250 50 0 0 20 0 4 0 100 1000 200";
        let figures = parse(
            stat,
            "VmSize:\t  2048 kB\nVmRSS:\t    1024 kB\n",
            "Max open files            1024                 4096                 files\n",
        );
        assert_eq!(
            figures,
            Figures {
                cpu_seconds: Some(3.0),
                virtual_bytes: Some(2_097_152),
                resident_bytes: Some(1_048_576),
                open_fds: None,
                max_fds: Some(1024),
            }
        );
    }

    #[test]
    fn nothing_readable_gives_no_figures() {
        assert_eq!(parse("", "", ""), Figures::default());
    }

    #[test]
    fn this_process_has_figures() {
        let figures = read();
        assert!(figures.resident_bytes.is_some_and(|bytes| bytes > 0));
        assert!(figures.open_fds.is_some_and(|fds| fds > 0));
    }
}
