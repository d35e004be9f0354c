//! Writing the text exposition format.

use std::fmt::Write as _;

use chronolith_model::{MetricType, float};

/// Writes metric families into a string. The caller keeps the samples of one family together.
#[derive(Debug)]
pub struct ExpositionWriter<'a> {
    out: &'a mut String,
}

/// The state of a histogram with fixed buckets at one moment.
#[derive(Clone, Copy, Debug)]
pub struct HistogramSnapshot<'a> {
    /// Upper bounds of the buckets, ascending, without `+Inf`.
    pub bounds: &'a [f64],
    /// Observations per bucket, not cumulated; one more than `bounds`, the last for `+Inf`.
    pub counts: &'a [u64],
    /// Sum of all observations.
    pub sum: f64,
}

impl<'a> ExpositionWriter<'a> {
    /// A writer that appends to `out`.
    #[must_use]
    pub fn new(out: &'a mut String) -> Self {
        Self { out }
    }

    /// Starts a family: its `HELP` and `TYPE` lines.
    pub fn family(&mut self, name: &str, kind: MetricType, help: &str) {
        let kind = match kind {
            MetricType::Counter => "counter",
            MetricType::Gauge => "gauge",
            MetricType::Histogram => "histogram",
            MetricType::Summary => "summary",
            // The text format knows no other type.
            _ => "untyped",
        };
        self.out.push_str("# HELP ");
        self.out.push_str(name);
        self.out.push(' ');
        for c in help.chars() {
            match c {
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                c => self.out.push(c),
            }
        }
        self.out.push_str("\n# TYPE ");
        self.out.push_str(name);
        self.out.push(' ');
        self.out.push_str(kind);
        self.out.push('\n');
    }

    /// One sample line.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.out.push_str(name);
        self.labels(labels, None);
        self.value(value);
    }

    /// A counter without labels: its family and its only sample.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, MetricType::Counter, help);
        self.out.push_str(name);
        let _ = writeln!(self.out, " {value}");
    }

    /// A gauge without labels: its family and its only sample.
    pub fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.family(name, MetricType::Gauge, help);
        self.sample(name, &[], value);
    }

    /// The sample lines of one histogram: cumulated buckets, sum and count. The family is the caller's.
    pub fn histogram(&mut self, name: &str, labels: &[(&str, &str)], snapshot: &HistogramSnapshot<'_>) {
        let mut cumulated = 0_u64;
        for (index, count) in snapshot.counts.iter().enumerate() {
            cumulated = cumulated.saturating_add(*count);
            let bound = snapshot.bounds.get(index).copied().unwrap_or(f64::INFINITY);
            self.out.push_str(name);
            self.out.push_str("_bucket");
            self.labels(labels, Some(bound));
            let _ = writeln!(self.out, " {cumulated}");
        }
        self.out.push_str(name);
        self.out.push_str("_sum");
        self.labels(labels, None);
        self.value(snapshot.sum);
        self.out.push_str(name);
        self.out.push_str("_count");
        self.labels(labels, None);
        let _ = writeln!(self.out, " {cumulated}");
    }

    fn labels(&mut self, labels: &[(&str, &str)], le: Option<f64>) {
        if labels.is_empty() && le.is_none() {
            return;
        }
        self.out.push('{');
        for (index, (name, value)) in labels.iter().enumerate() {
            if index > 0 {
                self.out.push(',');
            }
            self.out.push_str(name);
            self.out.push_str("=\"");
            for c in value.chars() {
                match c {
                    '\\' => self.out.push_str("\\\\"),
                    '"' => self.out.push_str("\\\""),
                    '\n' => self.out.push_str("\\n"),
                    c => self.out.push(c),
                }
            }
            self.out.push('"');
        }
        if let Some(le) = le {
            if !labels.is_empty() {
                self.out.push(',');
            }
            self.out.push_str("le=\"");
            float::write_general(self.out, le);
            self.out.push('"');
        }
        self.out.push('}');
    }

    fn value(&mut self, value: f64) {
        self.out.push(' ');
        float::write_general(self.out, value);
        self.out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_as_a_scraper_reads_them() {
        let mut out = String::new();
        let mut writer = ExpositionWriter::new(&mut out);
        writer.counter("requests_total", "All requests,\nor \\ all.", 3);
        writer.gauge("temperature_celsius", "Now.", -1.5);
        writer.family("seconds", MetricType::Histogram, "How long.");
        let snapshot = HistogramSnapshot { bounds: &[0.1, 1.0], counts: &[2, 1, 4], sum: 12.25 };
        writer.histogram("seconds", &[("handler", "/a\"b\\\n")], &snapshot);
        assert_eq!(
            out,
            "# HELP requests_total All requests,\\nor \\\\ all.\n# TYPE requests_total counter\nrequests_total 3\n\
             # HELP temperature_celsius Now.\n# TYPE temperature_celsius gauge\ntemperature_celsius -1.5\n\
             # HELP seconds How long.\n# TYPE seconds histogram\n\
             seconds_bucket{handler=\"/a\\\"b\\\\\\n\",le=\"0.1\"} 2\n\
             seconds_bucket{handler=\"/a\\\"b\\\\\\n\",le=\"1\"} 3\n\
             seconds_bucket{handler=\"/a\\\"b\\\\\\n\",le=\"+Inf\"} 7\n\
             seconds_sum{handler=\"/a\\\"b\\\\\\n\"} 12.25\nseconds_count{handler=\"/a\\\"b\\\\\\n\"} 7\n"
        );
    }
}
