//! Adding blocks up.

use std::collections::HashMap;

use chronolith_block::{Block, Error, Summary};
use chronolith_model::TimeRange;

use super::super::block_files::{BlockFiles, Problems};
use super::super::block_stats::{Encoding, Encodings, Section, Sections};
use super::cardinality::Cardinality;
use super::churn::{Churn, Lives};
use super::report::{Metric, Report, Tenant};

/// Frames of so many metrics are told apart; the rest are not listed.
const METRICS_MAX: usize = 1 << 20;

/// What blocks add up to.
#[derive(Debug, Default)]
struct Analysis {
    tenants: Vec<Tenant>,
    cardinality: Cardinality,
    churn: Churn,
    /// Samples and bytes of frames, by metric.
    metrics: HashMap<String, (u64, f64)>,
    sections: Sections,
    encodings: Encodings,
    times: Option<(i64, i64)>,
    /// Something was too much to count.
    incomplete: bool,
}

/// Reads all blocks. Tables have at most `limit` rows.
///
/// # Errors
/// When the system refuses a file that was given by name.
pub(super) fn analyze(mut files: BlockFiles, limit: usize) -> anyhow::Result<Report> {
    let directory = files.directory.clone();
    let mut analysis = Analysis::default();
    let mut lives = Lives::default();
    for (file, meta, ()) in files.describe(|_| ())? {
        let tenant = meta.spec.tenant.as_str();
        if analysis.tenants.last().is_none_or(|last| last.tenant != tenant) {
            analysis.end_tenant(&std::mem::take(&mut lives));
            analysis.tenants.push(Tenant::new(tenant));
        }
        let Some(block) = files.open(&file)? else { continue };
        match chronolith_block::inspect(&block) {
            Ok(summary) => analysis.add(&summary),
            Err(error) => {
                files.problems.note(&file.path, &error);
                continue;
            }
        }
        if let Err(error) = analysis.series(&block, &mut lives) {
            files.problems.note(&file.path, &error);
        }
    }
    analysis.end_tenant(&lives);
    Ok(analysis.report(directory, files.problems, limit))
}

impl Analysis {
    fn add(&mut self, summary: &Summary) {
        Section::add_all(&mut self.sections, summary);
        Encoding::add_all(&mut self.encodings, summary);
        for metric in &summary.metrics {
            if !self.metrics.contains_key(&metric.metric) && self.metrics.len() >= METRICS_MAX {
                self.incomplete = true;
                continue;
            }
            let (samples, bytes) = self.metrics.entry(metric.metric.clone()).or_default();
            *samples += metric.samples;
            *bytes += metric.bytes;
        }
        if let Some(tenant) = self.tenants.last_mut() {
            tenant.blocks += 1;
            tenant.bytes += summary.bytes;
            tenant.samples += summary.meta.samples;
            tenant.histograms += summary.meta.histograms;
        }
    }

    /// Counts the series of a block that were in none before.
    fn series(&mut self, block: &Block, lives: &mut Lives) -> Result<(), Error> {
        let mut reader = block.reader();
        for (id, labels) in (0..).zip(block.index().series(0..block.meta().series)) {
            let labels = labels.map_err(|error| block.index_error(error))?;
            let fragments = reader.fragments(id, TimeRange::ALL)?;
            let first = fragments.iter().map(|fragment| fragment.range.min).min();
            let last = fragments.iter().map(|fragment| fragment.range.max).max();
            if lives.meet(labels.stable_hash(), first.zip(last)) {
                self.cardinality.add(&labels);
            }
        }
        Ok(())
    }

    fn end_tenant(&mut self, lives: &Lives) {
        self.churn.add(lives);
        self.incomplete |= lives.full;
        if let Some((min, max)) = lives.times() {
            self.times = Some(self.times.map_or((min, max), |(a, b)| (a.min(min), b.max(max))));
        }
        if let Some(tenant) = self.tenants.last_mut() {
            tenant.series = lives.len();
        }
    }

    fn report(self, directory: Option<String>, problems: Problems, limit: usize) -> Report {
        let Self { tenants, cardinality, churn, metrics, sections, encodings, times, incomplete } = self;
        let mut total = Tenant::new("");
        tenants.iter().for_each(|tenant| total.add(tenant));
        let metrics = metrics.into_iter().map(|(metric, (samples, bytes))| Metric {
            series: cardinality.of_metric(&metric),
            metric,
            samples,
            bytes,
            bytes_per_sample: (samples > 0).then(|| bytes / samples as f64),
        });
        let mut by_bytes: Vec<Metric> = metrics.collect();
        let metrics_count = by_bytes.len() as u64;
        by_bytes.sort_by(|a, b| b.series.cmp(&a.series).then_with(|| a.metric.cmp(&b.metric)));
        let by_series = by_bytes.iter().take(limit).cloned().collect();
        by_bytes.sort_by(|a, b| b.bytes.total_cmp(&a.bytes).then_with(|| a.metric.cmp(&b.metric)));
        by_bytes.truncate(limit);
        Report {
            directory,
            times_ms: times,
            bytes_per_sample: (total.all_samples() > 0)
                .then(|| total.bytes as f64 / total.all_samples() as f64),
            metrics_count,
            pairs_count: cardinality.pairs_count(),
            metrics_by_series: by_series,
            labels: cardinality.labels(limit),
            pairs: cardinality.pairs(limit),
            churn: churn.days(limit),
            metrics_by_bytes: by_bytes,
            sections: Section::list(sections, total.all_samples()),
            encodings: Encoding::list(encodings),
            incomplete: incomplete || cardinality.is_full(),
            tenants,
            total,
            problems,
        }
    }
}
