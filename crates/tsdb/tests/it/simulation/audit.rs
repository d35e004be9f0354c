//! Comparing what a database says with what it should.

use std::collections::BTreeSet;

use chronolith_index::CompiledMatcher;
use chronolith_model::{MatchOp, Matcher, TenantId, TimeRange};
use chronolith_storage::{
    LabelQuery, Querier, Queryable as _, Samples, SelectHints, SelectRequest, StorageError,
    conformance::block_on,
};
use chronolith_tsdb::Db;

use super::world::World;
use crate::fixture::{Content, compiled};

/// What a view shows of some series.
fn read_some(
    querier: &dyn Querier,
    matchers: Vec<CompiledMatcher>,
    range: TimeRange,
) -> Result<Content, StorageError> {
    let request = SelectRequest { matchers, range, hints: SelectHints::default() };
    let set = block_on(querier.select(&request))?;
    let batch = block_on(set.fetch(0..set.len()))?;
    let mut content = Content::new();
    for index in 0..set.len() {
        let mut samples = Samples::default();
        batch.read(index, &mut samples)?;
        assert!(samples.timestamps.is_sorted_by(|a, b| a < b), "one sample per timestamp, in order");
        if let (Some(first), Some(last)) = (samples.timestamps.first(), samples.timestamps.last()) {
            assert!(range.contains(*first) && range.contains(*last), "only what was asked for");
            let bits = samples.values.iter().map(|value| value.to_bits());
            content.insert(set.labels(index), samples.timestamps.iter().copied().zip(bits).collect());
        }
    }
    Ok(content)
}

/// Everything a view shows.
pub(super) fn read(querier: &dyn Querier) -> Result<Content, StorageError> {
    read_some(querier, compiled(&[Matcher::new("__name__", MatchOp::Regex, ".+")]), TimeRange::ALL)
}

/// Everything a tenant has now, and the number of warnings.
pub(super) fn read_all(db: &Db, tenant: &TenantId) -> Result<(Content, usize), StorageError> {
    let querier = db.querier(tenant, TimeRange::ALL)?;
    Ok((read(&*querier)?, querier.warnings().len()))
}

impl World {
    /// What is older is neither expected nor looked at.
    fn raise_floor(&mut self) {
        self.floor = self.floor.max(self.db().stats().head.floor);
        for tenant in &mut self.tenants {
            tenant.forget(self.floor);
        }
    }

    fn contents(&mut self) -> Option<Vec<Content>> {
        let read = |at: usize| read_all(self.db(), &self.tenants[at].id);
        let contents: Result<Vec<_>, _> = (0..self.tenants.len()).map(read).collect();
        match contents {
            Ok(contents) => {
                contents.iter().for_each(|(content, _)| self.saw(content));
                // While the device refuses, the rest is the answer.
                let part = contents.iter().any(|(_, warnings)| *warnings > 0);
                assert!(!part || !self.clean, "a warning on a disk that does what it should");
                (!part).then(|| contents.into_iter().map(|(content, _)| content).collect())
            }
            Err(error) => {
                assert!(!self.clean, "cannot be read: {error}");
                None
            }
        }
    }

    /// Compares everything.
    pub(super) fn audit(&mut self, when: &str) {
        self.note(format!("audit {when}"));
        self.raise_floor();
        let Some(contents) = self.contents() else { return };
        for (tenant, content) in self.tenants.iter().zip(&contents) {
            tenant.check(content, self.floor, when);
        }
    }

    /// Compares everything after a start.
    pub(super) fn audit_restart(&mut self) {
        self.raise_floor();
        let contents = self.contents().expect("a disk that does what it should");
        let floor = self.floor;
        for (tenant, content) in self.tenants.iter_mut().zip(&contents) {
            tenant.settle(content, floor, "after a restart");
        }
        self.check_copy();
    }

    /// Asks something.
    pub(super) fn query(&mut self) {
        self.raise_floor();
        let number = self.below(3) as usize;
        let (matchers, asked) = (self.matchers(number), self.ranges());
        let querier = self.db().querier(&self.tenants[number].id, asked).expect("ready");
        let range = TimeRange::new(asked.min.max(self.floor), asked.max);
        let Ok(content) = read_some(&*querier, matchers.clone(), asked) else {
            assert!(!self.clean, "a question fails on a disk that does what it should");
            return;
        };
        self.note(format!("query {number}: {asked:?}: {} series", content.len()));
        self.saw(&content);
        if !self.clean && !querier.warnings().is_empty() {
            return;
        }
        let tenant = &self.tenants[number];
        tenant.check_some(&content, &matchers, range, "a query");
        let question =
            LabelQuery { matcher_sets: vec![matchers.clone()], range: Some(asked), ..LabelQuery::default() };
        let answers = block_on(querier.series(&question))
            .and_then(|series| Ok((series.items, block_on(querier.label_values("id", &question))?.items)));
        let names = block_on(querier.label_names(&question));
        let (Ok((series, ids)), Ok(names)) = (answers, names) else {
            assert!(!self.clean, "a question about labels fails on a disk that does what it should");
            return;
        };
        let (must, may) = tenant.label_sets(&matchers, range);
        let got: BTreeSet<_> = series.iter().collect();
        assert!(got.is_superset(&must) && got.is_subset(&may), "series: {got:?}, not {must:?} to {may:?}");
        assert!(series.is_sorted_by(|a, b| a < b) && ids.is_sorted_by(|a, b| a < b));
        let got: BTreeSet<_> = ids.iter().map(String::as_str).collect();
        let id = |set: &BTreeSet<&chronolith_model::Labels>| -> BTreeSet<String> {
            set.iter().filter_map(|labels| labels.get("id")).map(str::to_owned).collect()
        };
        let (must_ids, may_ids) = (id(&must), id(&may));
        assert!(must_ids.iter().all(|id| got.contains(id.as_str())), "values: {got:?}, not {must_ids:?}");
        assert!(got.iter().all(|id| may_ids.contains(*id)), "values: {got:?}, not within {may_ids:?}");
        let zone = must.iter().any(|labels| labels.get("zone").is_some());
        assert!(!zone || names.items.iter().any(|name| name == "zone"), "names: {:?}", names.items);
        assert_eq!(names.items.is_empty(), series.is_empty(), "names: {:?}", names.items);
    }
}
