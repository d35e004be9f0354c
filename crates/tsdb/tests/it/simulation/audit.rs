//! Comparing what a database says with what it should.

use std::collections::BTreeSet;

use chronolith_index::CompiledMatcher;
use chronolith_model::{MatchOp, Matcher, TenantId, TimeRange};
use chronolith_storage::{
    LabelQuery, Querier, Queryable as _, Samples, SelectHints, SelectRequest, StorageError,
    conformance::block_on,
};
use chronolith_tsdb::Db;

use super::{
    values::{self, Content},
    world::{self, World},
};
use crate::fixture::compiled;

/// A clock that is less ahead is taken for right.
const CLOCK_AHEAD_MS: i64 = 3_600_000;

/// What a view shows of some series. `whole`: nothing has been lost.
fn read_some(
    querier: &dyn Querier,
    matchers: Vec<CompiledMatcher>,
    range: TimeRange,
    whole: bool,
) -> Result<Content, StorageError> {
    let request = SelectRequest { matchers, range, hints: SelectHints::default() };
    let set = block_on(querier.select(&request))?;
    let batch = block_on(set.fetch(0..set.len()))?;
    let mut content = Content::new();
    for index in 0..set.len() {
        let mut samples = Samples::default();
        batch.read(index, &mut samples)?;
        for times in [&samples.timestamps, &samples.histogram_timestamps] {
            assert!(times.is_sorted_by(|a, b| a < b), "one sample per timestamp, in order");
        }
        let labels = set.labels(index);
        // Where something is missing, they speak of that.
        if querier.warnings().is_empty() && whole {
            values::check_hints(&labels, &samples, World::id_of(&labels));
        }
        let of_series = values::values(&samples, world::STARTS);
        let count = samples.timestamps.len() + samples.histogram_timestamps.len();
        assert_eq!(of_series.len(), count, "one sample per timestamp");
        if let (Some((first, _)), Some((last, _))) = (of_series.first_key_value(), of_series.last_key_value())
        {
            assert!(range.contains(*first) && range.contains(*last), "only what was asked for");
            content.insert(labels, of_series);
        }
    }
    Ok(content)
}

/// Everything a view shows.
pub(super) fn read(querier: &dyn Querier, whole: bool) -> Result<Content, StorageError> {
    read_some(querier, compiled(&[Matcher::new("__name__", MatchOp::Regex, ".+")]), TimeRange::ALL, whole)
}

/// Everything a tenant has now, and the number of warnings.
pub(super) fn read_all(db: &Db, tenant: &TenantId, whole: bool) -> Result<(Content, usize), StorageError> {
    let querier = db.querier(tenant, TimeRange::ALL)?;
    Ok((read(&*querier, whole)?, querier.warnings().len()))
}

impl World {
    /// The oldest that is shown now.
    pub(super) fn visible_from(&self) -> i64 {
        self.floor.max(self.db().stats().head.floor)
    }

    /// What is older is neither expected nor looked at any more. A clock that is wrong hides samples, but destroys none:
    /// they go by the newest of them, or by one that is hardly wrong.
    pub(super) fn raise_floor(&mut self) {
        let retention = i64::try_from(self.options.retention.as_millis()).expect("short");
        let by_samples = self.newest.saturating_sub(retention).saturating_add(CLOCK_AHEAD_MS);
        self.floor = self.floor.max(self.db().stats().head.floor.min(by_samples));
        for tenant in &mut self.tenants {
            tenant.forget(self.floor);
        }
    }

    /// What all tenants have, and whether that is whole: what cannot be read at the moment is left out, with a warning.
    fn contents(&mut self) -> Option<(Vec<Content>, bool)> {
        let read = |at: usize| read_all(self.db(), &self.tenants[at].id, true);
        let contents: Result<Vec<_>, _> = (0..self.tenants.len()).map(read).collect();
        match contents {
            Ok(contents) => {
                contents.iter().for_each(|(content, _)| self.saw(content));
                let whole = contents.iter().all(|(_, warnings)| *warnings == 0);
                assert!(whole || self.is_faulty(), "a warning on a disk that does what it should");
                Some((contents.into_iter().map(|(content, _)| content).collect(), whole))
            }
            Err(error) => {
                assert!(self.is_faulty(), "cannot be read: {error}");
                None
            }
        }
    }

    /// Compares everything.
    pub(super) fn audit(&mut self, when: &str) {
        self.note(format!("audit {when}"));
        self.raise_floor();
        let from = self.visible_from();
        let Some((contents, whole)) = self.contents() else { return };
        for (tenant, content) in self.tenants.iter().zip(&contents) {
            tenant.check_some(content, &[], TimeRange::new(from, i64::MAX), (whole, when));
        }
        let all = compiled(&[Matcher::new("__name__", MatchOp::Regex, ".+")]);
        for number in 0..self.tenants.len() {
            let querier = self.db().querier(&self.tenants[number].id, TimeRange::ALL).expect("ready");
            self.check_beside(number, &*querier, &all, TimeRange::ALL, when);
        }
    }

    /// Compares everything after a start.
    pub(super) fn audit_restart(&mut self) {
        self.raise_floor();
        let from = self.visible_from();
        let (contents, _) = self.contents().expect("a disk that does what it should");
        for (tenant, content) in self.tenants.iter_mut().zip(&contents) {
            tenant.settle(content, from, "after a restart");
        }
        for number in 0..self.tenants.len() {
            let querier = self.db().querier(&self.tenants[number].id, TimeRange::ALL).expect("ready");
            self.settle_beside(number, &*querier, "after a restart");
        }
        self.check_copy();
    }

    /// Asks something.
    pub(super) fn query(&mut self) {
        self.raise_floor();
        let number = self.below(3) as usize;
        let (matchers, asked) = (self.matchers(number), self.ranges());
        let querier = self.db().querier(&self.tenants[number].id, asked).expect("ready");
        let range = TimeRange::new(asked.min.max(self.visible_from()), asked.max);
        let Ok(content) = read_some(&*querier, matchers.clone(), asked, true) else {
            assert!(self.is_faulty(), "a question fails on a disk that does what it should");
            return;
        };
        self.note(format!("query {number}: {asked:?}: {} series", content.len()));
        self.saw(&content);
        self.check_beside(number, &*querier, &matchers, asked, "a query");
        let tenant = &self.tenants[number];
        let whole = querier.warnings().is_empty();
        assert!(whole || self.is_faulty(), "a warning on a disk that does what it should");
        tenant.check_some(&content, &matchers, range, (whole, "a query"));
        let question =
            LabelQuery { matcher_sets: vec![matchers.clone()], range: Some(asked), ..LabelQuery::default() };
        let answers = block_on(querier.series(&question))
            .and_then(|series| Ok((series.items, block_on(querier.label_values("id", &question))?.items)));
        let names = block_on(querier.label_names(&question));
        let (Ok((series, ids)), Ok(names)) = (answers, names) else {
            assert!(self.is_faulty(), "a question about labels fails on a disk that does what it should");
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
