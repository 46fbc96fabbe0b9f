//! OpenMetrics text turned into Prometheus text 0.0.4, for scrapers that ask for the older form.

use std::borrow::Cow;

/// Rewrites an OpenMetrics exposition as text 0.0.4.
///
/// The older form names a counter's family like its sample (`x_total`), an info's like `x_info`, knows
/// no `unknown`, no units, no exemplars, no end marker, and takes timestamps in milliseconds.
pub fn text_0_0_4(openmetrics: &str) -> String {
    let mut out = String::with_capacity(openmetrics.len());
    let mut help: Option<(&str, &str)> = None;
    for line in openmetrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').or(Some((rest, "")));
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.rsplit_once(' ').unwrap_or((rest, "unknown"));
            let (family, kind) = family(name, kind);
            if let Some((_, text)) = help.take().filter(|(helped, _)| *helped == name) {
                push(&mut out, &["# HELP ", &family, " ", text]);
            }
            push(&mut out, &["# TYPE ", &family, " ", kind]);
        } else if line.starts_with('#') || line.is_empty() {
            // Units and the end marker have no counterpart.
        } else {
            push(&mut out, &[without_exemplar(line)]);
        }
    }
    out
}

fn family<'a>(name: &'a str, kind: &'a str) -> (Cow<'a, str>, &'a str) {
    match kind {
        "counter" => (Cow::Owned(format!("{name}_total")), "counter"),
        "info" => (Cow::Owned(format!("{name}_info")), "gauge"),
        "unknown" => (Cow::Borrowed(name), "untyped"),
        "stateset" => (Cow::Borrowed(name), "gauge"),
        _ => (Cow::Borrowed(name), kind),
    }
}

/// Cuts ` # {...} value` after a sample. A `#` inside a quoted label value is not an exemplar.
fn without_exemplar(line: &str) -> &str {
    let mut quoted = false;
    let mut escaped = false;
    for (at, byte) in line.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'#' if !quoted => return line.get(..at).unwrap_or(line).trim_end(),
            _ => {}
        }
    }
    line
}

fn push(out: &mut String, parts: &[&str]) {
    for part in parts {
        out.push_str(part);
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::histogram::Histogram;
    use prometheus_client::registry::Unit;

    #[test]
    fn families_samples_and_help_are_renamed_together() {
        let open = "# HELP a Things.\n# TYPE a counter\na_total{x=\"1\"} 3\n# HELP b Build.\n# TYPE b info\n\
                    b_info{v=\"2\"} 1\n# HELP c C.\n# TYPE c unknown\nc 4\n# HELP d D.\n# TYPE d gauge\nd -5\n# EOF\n";
        let want = "# HELP a_total Things.\n# TYPE a_total counter\na_total{x=\"1\"} 3\n# HELP b_info Build.\n\
                    # TYPE b_info gauge\nb_info{v=\"2\"} 1\n# HELP c C.\n# TYPE c untyped\nc 4\n# HELP d D.\n\
                    # TYPE d gauge\nd -5\n";
        assert_eq!(text_0_0_4(open), want);
    }

    #[test]
    fn exemplars_go_but_a_hash_in_a_label_stays() {
        let open =
            "# TYPE h histogram\nh_bucket{le=\"1\",l=\"a # \\\" b\"} 2 # {trace_id=\"x\"} 0.4\n# EOF\n";
        assert_eq!(text_0_0_4(open), "# TYPE h histogram\nh_bucket{le=\"1\",l=\"a # \\\" b\"} 2\n");
    }

    /// What the library itself writes survives: units, histograms, counters without labels.
    #[test]
    fn the_librarys_own_output_is_covered() {
        let metrics = Metrics::new("test");
        metrics.register("jobs", "Jobs", Counter::<u64>::default()).inc();
        metrics.register("latency_seconds", "Latency", Histogram::new([0.1, 1.0])).observe(0.05);
        metrics.with_registry(|registry| {
            registry.register_with_unit("size", "Size", Unit::Bytes, Counter::<u64>::default());
        });
        let text = text_0_0_4(&metrics.openmetrics().unwrap());
        for line in [
            "# TYPE jobs_total counter",
            "jobs_total 1",
            "# TYPE latency_seconds histogram",
            "latency_seconds_bucket{le=\"+Inf\"} 1",
            "# TYPE size_bytes_total counter",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} missing in\n{text}");
        }
        assert!(!text.contains("# EOF") && !text.contains("# UNIT"));
    }
}
