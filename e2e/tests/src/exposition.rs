//! Figures from a page of metrics in the Prometheus text format.

/// The sum of the samples of this name (`_total`, `_count`, `_bucket` included in the name) that carry all of
/// these labels; 0 when there is none.
pub fn sum(page: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    let samples = page.lines().filter_map(|line| sample(line, name));
    let matching = samples.filter(|(found, _)| labels.iter().all(|label| found.contains(label)));
    // Adding to -0.0, the neutral element, would print as such.
    matching.map(|(_, value)| value).fold(0.0, |sum, value| sum + value)
}

/// Labels and value of a line, when it is a sample of this name.
fn sample<'a>(line: &'a str, name: &str) -> Option<(Vec<(&'a str, &'a str)>, f64)> {
    let rest = line.strip_prefix(name)?;
    let (labels, value) = match rest.strip_prefix('{') {
        Some(rest) => rest.rsplit_once('}')?,
        None if rest.starts_with(' ') => ("", rest),
        None => return None,
    };
    let pairs = labels.split("\",").filter_map(|pair| pair.trim_end_matches('"').split_once("=\""));
    Some((pairs.collect(), value.split_whitespace().next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_added_up_by_label() {
        let page = "# TYPE a counter\na_total{x=\"1\",y=\"b,c\"} 2\na_total{x=\"2\",y=\"b,c\"} 3\na_totals 9\nb 4.5\n";
        assert!((sum(page, "a_total", &[]) - 5.0).abs() < f64::EPSILON);
        assert!((sum(page, "a_total", &[("x", "2"), ("y", "b,c")]) - 3.0).abs() < f64::EPSILON);
        assert!((sum(page, "b", &[]) - 4.5).abs() < f64::EPSILON);
        assert!(sum(page, "c", &[]).abs() < f64::EPSILON);
    }
}
