//! Exact counts of series, from the directory and the pages; no list is read.

use std::ops::Range;

use super::{DiskIndex, SectionRead, directory::LabelEntry, error::DiskIndexError};
use crate::Count;

type Result<T, E = DiskIndexError> = std::result::Result<T, E>;

impl<S: SectionRead> DiskIndex<S> {
    /// How many series have label `name` with `value` (not empty).
    ///
    /// # Errors
    /// When a page cannot be read or is damaged.
    pub fn pair_count(&self, name: &str, value: &str) -> Result<u64> {
        let Some((label, _)) = self.directory.label(name) else { return Ok(0) };
        let Some(ordinal) = self.find(label, value)? else { return Ok(0) };
        let (page, at) = self.page_of(label, ordinal)?;
        Ok(u64::from(page.count(at)))
    }

    /// Calls `visit` with every label pair, sorted by name and value, and the number of its series.
    ///
    /// # Errors
    /// When a page cannot be read or is damaged.
    pub fn for_each_pair(&self, visit: &mut dyn FnMut(Count<'_>)) -> Result<()> {
        for (label, entry) in self.directory.labels.iter().enumerate() {
            for page in self.pages(label, 0) {
                let (_, page) = page?;
                for at in 0..page.len() {
                    let value = page.value(at).unwrap_or_default();
                    visit(Count { name: &entry.name, value, count: u64::from(page.count(at)) });
                }
            }
        }
        Ok(())
    }

    /// Calls `visit` with every metric name, sorted, and the ids of its series. Series without one have the empty name.
    ///
    /// # Errors
    /// When a page cannot be read or is damaged.
    pub fn for_each_metric(&self, visit: &mut dyn FnMut(&str, Range<u32>)) -> Result<()> {
        if self.directory.nameless > 0 {
            visit("", 0..self.directory.nameless);
        }
        self.for_each_metric_in(0..u32::MAX, &mut |name, metric| {
            visit(name, metric.first..metric.first + metric.count);
            Ok(())
        })
    }

    /// How many label pairs there are.
    #[must_use]
    pub fn pairs_count(&self) -> u64 {
        self.directory.labels.iter().map(|label| u64::from(label.values)).sum()
    }

    /// The number of values of each label name, sorted by name.
    pub fn value_counts(&self) -> impl Iterator<Item = Count<'_>> {
        self.counts(|label| u64::from(label.values))
    }

    /// The bytes of all values of each label name, sorted by name.
    pub fn value_bytes(&self) -> impl Iterator<Item = Count<'_>> {
        self.counts(|label| label.value_bytes)
    }

    /// The number of series that have each label name, sorted by name.
    pub fn series_counts(&self) -> impl Iterator<Item = Count<'_>> {
        self.counts(|label| u64::from(label.series))
    }

    fn counts(&self, count: impl Fn(&LabelEntry) -> u64) -> impl Iterator<Item = Count<'_>> {
        self.directory.labels.iter().map(move |label| Count {
            name: &label.name,
            value: "",
            count: count(label),
        })
    }
}
