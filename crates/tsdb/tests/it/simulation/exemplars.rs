//! Exemplars and metadata: what goes beside samples, and for which nobody waits.

use chronolith_env::Rng as _;
use chronolith_index::CompiledMatcher;
use chronolith_model::{
    Exemplar, Labels, MatchOp, Matcher, MetricMetadata, MetricType, TimeRange, Timestamp,
};
use chronolith_storage::{
    Appender as _, ExemplarBatch, ExemplarEntry, ExemplarQuery, Querier, SeriesExemplars, StorageError,
    conformance::block_on,
};

use super::{
    model::{SampleOf, Tenant, matches},
    operations::One,
    world::World,
};
use crate::fixture::compiled;

/// What is known of an exemplar.
#[derive(Clone, Debug)]
pub(crate) struct KnownExemplar {
    pub(crate) t: Timestamp,
    pub(crate) bits: u64,
    /// It is to be shown.
    pub(crate) expected: bool,
    /// After a start as well.
    pub(crate) durable: bool,
}

/// The label whose value is the number of an exemplar.
const NUMBER: &str = "trace_id";
/// An exemplar is expected if no cut has reached its time yet; cuts stay so far behind the newest sample.
const BEHIND_MS: i64 = 3_600_000;

fn found(
    querier: &dyn Querier,
    matchers: Vec<CompiledMatcher>,
    range: TimeRange,
) -> Result<Vec<SeriesExemplars>, StorageError> {
    block_on(querier.exemplars(&ExemplarQuery { matcher_sets: vec![matchers], range, payer: None }))
}

impl Tenant {
    /// Compares what a view shows of exemplars with what it should.
    fn check_exemplars(
        &self,
        got: &[SeriesExemplars],
        matchers: &[CompiledMatcher],
        range: TimeRange,
        what: &str,
    ) {
        for SeriesExemplars { labels, exemplars } in got {
            assert!(matches(matchers, labels), "{what}: {labels} was not asked for");
            assert!(
                exemplars.is_sorted_by_key(|exemplar| exemplar.timestamp),
                "{what}: exemplars of {labels}"
            );
            for exemplar in exemplars.iter().filter(|exemplar| range.contains(exemplar.timestamp)) {
                let known = number(exemplar)
                    .and_then(|number| self.series.get(labels)?.exemplars.get(&number))
                    .is_some_and(|known| {
                        (known.t, known.bits) == (exemplar.timestamp, exemplar.value.to_bits())
                    });
                assert!(known, "{what}: {labels}: never sent, or deleted: {exemplar:?} ({})", self.id);
            }
        }
        for (labels, series) in self.series.iter().filter(|(labels, _)| matches(matchers, labels)) {
            let mut expected = series.exemplars.iter().filter(|(_, of)| of.expected && range.contains(of.t));
            let missing = expected.find(|(number, _)| !shows(got, labels, **number));
            assert!(missing.is_none(), "{what}: {labels}: an exemplar is missing: {missing:?} ({})", self.id);
        }
    }

    /// The same after a start: from now on what is shown is what there is.
    fn settle_exemplars(&mut self, got: &[SeriesExemplars], floor: Timestamp, what: &str) {
        for (labels, series) in &mut self.series {
            for (number, known) in
                series.exemplars.iter_mut().filter(|(_, known)| known.expected && known.t >= floor)
            {
                let there = shows(got, labels, *number);
                assert!(
                    there || !known.durable,
                    "{what}: {labels}: an exemplar is lost: {number} {known:?} ({})",
                    self.id
                );
                // One whose sample was lost, which nobody had acknowledged, goes with the next cut.
                let stays = there && series.cells.contains_key(&known.t);
                (known.expected, known.durable) = (stays, stays);
            }
        }
        self.check_exemplars(got, &[], TimeRange::new(floor, i64::MAX), what);
    }
}

fn number(exemplar: &Exemplar) -> Option<u64> {
    exemplar.labels.get(NUMBER)?.parse().ok()
}

fn shows(got: &[SeriesExemplars], labels: &Labels, wanted: u64) -> bool {
    let of = got.iter().filter(|of| of.labels == *labels);
    of.flat_map(|of| &of.exemplars).any(|exemplar| number(exemplar) == Some(wanted))
}

impl World {
    /// Sends an exemplar for one of these samples, which were all stored.
    pub(super) fn exemplify(&mut self, tenant: usize, (labels, t, _): &SampleOf) {
        self.exemplars += 1;
        let bits = if self.below(4) == 0 { self.rng.next_u64() } else { (self.below(100) as f64).to_bits() };
        let exemplar = Exemplar {
            labels: Labels::from_pairs([
                (NUMBER, self.exemplars.to_string()),
                ("span", self.below(9).to_string()),
            ]),
            value: f64::from_bits(bits),
            timestamp: *t,
        };
        let key = self.db().key_hasher().key(labels.to_string().as_bytes());
        let outcome = self.db().append_exemplars(
            &self.tenants[tenant].id,
            &ExemplarBatch {
                series: &[ExemplarEntry { key, exemplars: 0..1 }],
                exemplars: std::slice::from_ref(&exemplar),
                labels: &One(labels.clone()),
            },
        );
        self.note(format!("exemplar {} of {tenant} {labels} {t}: {outcome:?}", self.exemplars));
        if outcome.stored == 0 {
            return;
        }
        let behind_cuts = *t > self.newest - BEHIND_MS && *t > self.cut_asked;
        let of = &mut self.tenants[tenant];
        let shadowed = of.is_shadowed(labels, *t);
        let Some(series) = of.series.get_mut(labels) else { return };
        let in_order =
            series.newest == Some(*t) && series.cells.get(t).is_some_and(super::model::Cell::is_sure);
        let expected = behind_cuts && in_order && !shadowed;
        let known = KnownExemplar { t: *t, bits, expected, durable: false };
        series.exemplars.insert(self.exemplars, known);
    }

    /// Says something of a metric.
    pub(super) fn describe(&mut self) {
        let tenant = self.below(3) as usize;
        let said = MetricMetadata {
            metric: format!("m{}", self.below(4)),
            kind: [MetricType::Counter, MetricType::Gauge, MetricType::Histogram][self.below(3) as usize],
            unit: ["", "seconds"][self.below(2) as usize].to_owned(),
            help: format!("help {}", self.below(1000)),
        };
        self.db().append_metadata(&self.tenants[tenant].id, vec![said.clone()]);
        self.note(format!("metadata of {tenant}: {said:?}"));
        let of = &mut self.tenants[tenant];
        of.metadata_sent.insert(format!("{said:?}"));
        of.metadata.insert(said.metric.clone(), said);
    }

    /// Compares what a view says of metrics with what was said.
    fn check_metadata(&self, number: usize, querier: &dyn Querier, what: &str) {
        let tenant = &self.tenants[number];
        let Ok(got) = block_on(querier.metadata(None)) else {
            assert!(self.is_faulty(), "{what}: metadata cannot be read");
            return;
        };
        assert!(got.is_sorted_by(|a, b| a.metric < b.metric), "{what}: {got:?}");
        for of in &got {
            assert!(tenant.metadata_sent.contains(&format!("{of:?}")), "{what}: never said: {of:?}");
        }
        for (metric, said) in &tenant.metadata {
            assert!(got.contains(said), "{what}: {metric}: {said:?} is missing in {got:?}");
        }
    }

    /// Asks for exemplars and metadata.
    pub(super) fn check_beside(
        &mut self,
        number: usize,
        querier: &dyn Querier,
        matchers: &[CompiledMatcher],
        asked: TimeRange,
        what: &str,
    ) {
        self.check_metadata(number, querier, what);
        let Ok(got) = found(querier, matchers.to_vec(), asked) else {
            assert!(self.is_faulty(), "{what}: exemplars cannot be read");
            return;
        };
        self.note(format!("{what}: {} series with exemplars", got.len()));
        let range = TimeRange::new(asked.min.max(self.visible_from()), asked.max);
        self.tenants[number].check_exemplars(&got, matchers, range, what);
    }

    /// The same after a start.
    pub(super) fn settle_beside(&mut self, number: usize, querier: &dyn Querier, what: &str) {
        self.check_metadata(number, querier, what);
        let all = compiled(&[Matcher::new("__name__", MatchOp::Regex, ".+")]);
        let got = found(querier, all, TimeRange::ALL).expect("a disk that does what it should");
        let floor = self.visible_from();
        self.tenants[number].settle_exemplars(&got, floor, what);
    }
}
