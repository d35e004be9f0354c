//! What blocks add up to, as JSON and as text.

use serde::Serialize;

use super::super::block_files::Problems;
use super::super::block_stats::{Encoding, Section, encodings_text, sections_text};
use super::super::format::{Table, bytes, count, per_sample, time};
use super::cardinality::{Label, Pair};
use super::churn::Day;

/// What blocks add up to.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) directory: Option<String>,
    pub(super) tenants: Vec<Tenant>,
    pub(super) total: Tenant,
    /// First and last timestamp of samples.
    pub(super) times_ms: Option<(i64, i64)>,
    /// All bytes of the files.
    pub(super) bytes_per_sample: Option<f64>,
    pub(super) metrics_count: u64,
    pub(super) pairs_count: u64,
    pub(super) metrics_by_series: Vec<Metric>,
    pub(super) labels: Vec<Label>,
    pub(super) pairs: Vec<Pair>,
    pub(super) churn: Vec<Day>,
    pub(super) metrics_by_bytes: Vec<Metric>,
    pub(super) sections: Vec<Section>,
    pub(super) encodings: Vec<Encoding>,
    /// There was more than could be counted: the numbers of series, pairs and metrics are too low.
    pub(super) incomplete: bool,
    #[serde(flatten)]
    pub(super) problems: Problems,
}

/// The blocks of a tenant. What two blocks have counts twice, but for series; what is deleted counts like the rest.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Tenant {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) tenant: String,
    pub(super) blocks: u64,
    /// Distinct ones.
    pub(super) series: u64,
    pub(super) samples: u64,
    pub(super) histograms: u64,
    pub(super) bytes: u64,
}

/// A metric.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Metric {
    pub(super) metric: String,
    /// Distinct ones.
    pub(super) series: u64,
    pub(super) samples: u64,
    /// Of frames, which series share: each as much as its slots take of it.
    pub(super) bytes: f64,
    pub(super) bytes_per_sample: Option<f64>,
}

impl Tenant {
    pub(super) fn new(tenant: &str) -> Self {
        Self { tenant: tenant.to_owned(), ..Self::default() }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.blocks += other.blocks;
        self.series += other.series;
        self.samples += other.samples;
        self.histograms += other.histograms;
        self.bytes += other.bytes;
    }

    pub(super) const fn all_samples(&self) -> u64 {
        self.samples + self.histograms
    }

    fn cells(&self, name: &str) -> [String; 7] {
        [
            name.to_owned(),
            self.blocks.to_string(),
            self.series.to_string(),
            self.samples.to_string(),
            self.histograms.to_string(),
            bytes(self.bytes),
            per_sample(self.bytes as f64, self.all_samples()),
        ]
    }
}

impl Report {
    pub(super) fn text(&self) -> String {
        let mut out = self.totals();
        let mut add = |table: &str| {
            out.push('\n');
            out.push_str(table);
        };
        add(&self.metrics("metric, by series", &self.metrics_by_series));
        add(&self.labels());
        add(&self.pairs());
        add(&self.churn());
        add(&self.metrics("metric, by bytes of frames", &self.metrics_by_bytes));
        add(&sections_text(&self.sections, self.total.all_samples()));
        add(&encodings_text(&self.encodings));
        if self.incomplete {
            out.push_str(
                "incomplete: there was more than could be counted; look at fewer blocks, or one tenant\n",
            );
        }
        out.push_str(&self.problems.text());
        out
    }

    fn totals(&self) -> String {
        let mut table =
            Table::new(&["tenant", "blocks", "series", "samples", "histograms", "bytes", "bytes/sample"]);
        for tenant in &self.tenants {
            table.row(tenant.cells(&tenant.tenant));
        }
        table.row(self.total.cells("total"));
        let mut out = table.text();
        if let Some((min, max)) = self.times_ms {
            out.push_str(&format!("samples from {} to {}\n", time(min), time(max)));
        }
        out.push_str(&format!(
            "{}, {}\n",
            count(self.metrics_count, "metric"),
            count(self.pairs_count, "label pair")
        ));
        out
    }

    fn metrics(&self, heading: &str, metrics: &[Metric]) -> String {
        let mut table = Table::new(&[heading, "series", "samples", "bytes", "bytes/sample"]);
        for metric in metrics {
            table.row([
                metric.metric.clone(),
                metric.series.to_string(),
                metric.samples.to_string(),
                bytes(metric.bytes as u64),
                per_sample(metric.bytes, metric.samples),
            ]);
        }
        table.text()
    }

    fn labels(&self) -> String {
        let mut table = Table::new(&["label, by values", "values", "bytes of values", "series"]);
        for label in &self.labels {
            let Label { label, values, series, value_bytes } = label;
            table.row([label.clone(), values.to_string(), bytes(*value_bytes), series.to_string()]);
        }
        table.text()
    }

    fn pairs(&self) -> String {
        let mut table = Table::new(&["label and value, by series", "series"]);
        for Pair { label, value, series } in &self.pairs {
            table.row([format!("{label}={value:?}"), series.to_string()]);
        }
        table.text()
    }

    fn churn(&self) -> String {
        let mut table = Table::new(&["day (UTC), the last ones", "active series", "appeared", "vanished"]);
        for Day { day, active, appeared, vanished } in &self.churn {
            table.row([day.clone(), active.to_string(), appeared.to_string(), vanished.to_string()]);
        }
        table.text()
    }
}
