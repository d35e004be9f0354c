//! Some of the series of a log.

use std::collections::HashMap;

use anyhow::bail;
use chronolith_model::Labels;
use chronolith_wal::{RecordType, SeriesDef};

use super::super::selector::Selector;
use super::scan::is_sample;

/// At most this many series may match: each is kept in memory.
const MATCHED_SERIES_MAX: usize = 1_000_000;

/// What to count, and what has been counted.
#[derive(Debug)]
pub(super) struct Filter {
    tenant: Option<String>,
    selector: Option<Selector>,
    matched: HashMap<u32, Matched>,
}

/// A series that matches.
#[derive(Debug)]
pub(super) struct Matched {
    pub(super) tenant: String,
    pub(super) labels: Labels,
    /// Of floats.
    pub(super) samples: u64,
    /// Native histograms.
    pub(super) histograms: u64,
    pub(super) exemplars: u64,
    /// The first and last timestamp of its samples and histograms, milliseconds.
    pub(super) times: Option<(i64, i64)>,
}

impl Filter {
    pub(super) fn new(tenant: Option<String>, selector: Option<Selector>) -> Self {
        Self { tenant, selector, matched: HashMap::new() }
    }

    /// Whether the matching series are to be listed.
    pub(super) const fn lists(&self) -> bool {
        self.selector.is_some()
    }

    /// Takes the series in, if it matches; whether it does.
    ///
    /// # Errors
    /// When too many match.
    pub(super) fn define(&mut self, definition: &SeriesDef<'_>) -> anyhow::Result<bool> {
        if self.matched.contains_key(&definition.series) {
            return Ok(true);
        }
        if !self.matches(definition) {
            return Ok(false);
        }
        if self.matched.len() >= MATCHED_SERIES_MAX {
            bail!("more than {MATCHED_SERIES_MAX} series match; narrow the selection");
        }
        let matched = Matched {
            tenant: definition.tenant.to_owned(),
            labels: Labels::from_pairs(definition.labels.clone()),
            samples: 0,
            histograms: 0,
            exemplars: 0,
            times: None,
        };
        self.matched.insert(definition.series, matched);
        Ok(true)
    }

    fn matches(&self, definition: &SeriesDef<'_>) -> bool {
        let value = |name: &str| {
            let mut pairs = definition.labels.clone();
            pairs.find(|(found, _)| *found == name).map_or("", |(_, value)| value)
        };
        self.tenant.as_ref().is_none_or(|tenant| tenant == definition.tenant)
            && self
                .selector
                .iter()
                .flat_map(|selector| selector.matchers())
                .all(|m| m.matches(value(m.name())))
    }

    /// Counts what a record of that type has of `series` at `t`, milliseconds, if the series matches; whether it does.
    pub(super) fn count(&mut self, series: u32, t: i64, record_type: RecordType) -> bool {
        let Some(matched) = self.matched.get_mut(&series) else { return false };
        match record_type {
            RecordType::Samples => matched.samples += 1,
            RecordType::Histograms => matched.histograms += 1,
            RecordType::Exemplars => matched.exemplars += 1,
            _ => {}
        }
        if is_sample(record_type) {
            matched.times = Some(matched.times.map_or((t, t), |(min, max)| (min.min(t), max.max(t))));
        }
        true
    }

    /// The matching series, by tenant and labels.
    pub(super) fn into_series(self) -> Vec<Matched> {
        let mut series: Vec<Matched> = self.matched.into_values().collect();
        series.sort_unstable_by(|a, b| (&a.tenant, &a.labels).cmp(&(&b.tenant, &b.labels)));
        series
    }
}
