//! Random appends, queries and restarts against a map.

use std::collections::BTreeMap;

use chronolith_model::{Labels, MatchOp, Matcher, Sample, TenantId, TimeRange};
use chronolith_storage::{
    LabelQuery, Queryable, RejectReason, Samples, SelectHints, SelectRequest, conformance::block_on,
};
use chronolith_tsdb::DbOptions;
use proptest::prelude::*;

use crate::fixture::{Content, Machine, NOW, append, compiled, content, quick};

#[derive(Clone, Debug)]
enum Step {
    /// Samples of series `0..`, each at an offset to the time reached so far.
    Append {
        tenant: bool,
        samples: Vec<(u8, i32, u64)>,
    },
    Query {
        tenant: bool,
        from: u16,
        len: u16,
        metric: u8,
    },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let bits = prop_oneof![Just(0x7ff0_0000_0000_0002), Just(1.0_f64.to_bits()), any::<u64>()];
    let sample = (0..12_u8, prop_oneof![8 => 0..20_000_i32, 1 => -30_000..0_i32, 1 => Just(-15_000)], bits);
    prop_oneof![
        6 => (any::<bool>(), prop::collection::vec(sample, 0..40))
            .prop_map(|(tenant, samples)| Step::Append { tenant, samples }),
        3 => (any::<bool>(), any::<u16>(), any::<u16>(), 0..4_u8)
            .prop_map(|(tenant, from, len, metric)| Step::Query { tenant, from, len, metric }),
        1 => Just(Step::Restart),
    ]
}

fn labels(series: u8) -> Labels {
    let pairs = [("__name__", format!("m{}", series % 4)), ("i", series.to_string())];
    Labels::from_pairs(pairs.into_iter().chain(series.is_multiple_of(3).then(|| ("third", "yes".to_owned()))))
}

/// What the contract says becomes of a sample.
fn expect(model: &mut BTreeMap<i64, u64>, t: i64, bits: u64) -> &'static str {
    match model.last_key_value() {
        Some((last, known)) if t == *last => {
            if *known == bits {
                "duplicate"
            } else {
                "duplicate_timestamp"
            }
        }
        Some((last, _)) if t < *last => {
            // Never so late that it is outside the window.
            match model.get(&t) {
                Some(known) if *known == bits => "duplicate",
                Some(_) => "duplicate_timestamp",
                None => {
                    model.insert(t, bits);
                    "stored"
                }
            }
        }
        _ => {
            model.insert(t, bits);
            "stored"
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_database_is_a_map(steps in prop::collection::vec(step(), 1..60)) {
        let machine = Machine::new();
        let options = DbOptions { segment_bytes: 8 << 10, ..quick() };
        let mut db = machine.open(options).0;
        let tenants = [TenantId::default(), TenantId::new("b").expect("valid")];
        let mut models = [Content::new(), Content::new()];
        let mut now = NOW - 8 * 3_600_000;
        for step in steps {
            match step {
                Step::Append { tenant, samples } => {
                    now += 15_000;
                    let model = &mut models[usize::from(tenant)];
                    let mut counts = BTreeMap::new();
                    let mut batch = Vec::new();
                    for (series, offset, bits) in samples {
                        let t = now + i64::from(offset);
                        *counts.entry(expect(model.entry(labels(series)).or_default(), t, bits)).or_insert(0_u64) += 1;
                        batch.push((labels(series), vec![Sample::new(t, f64::from_bits(bits))]));
                    }
                    model.retain(|_, samples| !samples.is_empty());
                    let appended = append(&db, &tenants[usize::from(tenant)], &batch).expect("taken");
                    let outcome = appended.outcome;
                    let count = |what| counts.get(what).copied().unwrap_or(0);
                    prop_assert_eq!(outcome.stored, count("stored"));
                    prop_assert_eq!(outcome.duplicates, count("duplicate"));
                    prop_assert_eq!(outcome.rejected, count("duplicate_timestamp"));
                    for rejection in &outcome.rejections {
                        prop_assert_eq!(rejection.labels.as_ref(), Some(&batch[rejection.series].0));
                        prop_assert!(!matches!(rejection.reason, RejectReason::OutOfBounds));
                    }
                    appended.ticket.wait().expect("durable");
                }
                Step::Query { tenant, from, len, metric } => {
                    let model = &models[usize::from(tenant)];
                    let min = NOW - 8 * 3_600_000 + i64::from(from) * 20;
                    let range = TimeRange::new(min, min + i64::from(len) * 10);
                    let matchers = compiled(&[
                        Matcher::equal("__name__", format!("m{metric}")),
                        Matcher::new("third", MatchOp::NotEqual, "yes"),
                    ]);
                    let querier = db.querier(&tenants[usize::from(tenant)], range).expect("ready");
                    let request = SelectRequest { matchers: matchers.clone(), range, hints: SelectHints::default() };
                    let set = block_on(querier.select(&request)).expect("valid");
                    let batch = block_on(set.fetch(0..set.len())).expect("fetched");
                    let mut found = Content::new();
                    for index in 0..set.len() {
                        let mut samples = Samples::default();
                        batch.read(index, &mut samples).expect("whole");
                        let bits = samples.values.iter().map(|v| v.to_bits());
                        let newest = model.get(&set.labels(index)).and_then(|s| s.last_key_value());
                        prop_assert_eq!(
                            set.last_sample(index).map(|s| (s.timestamp, s.value.to_bits())),
                            newest.map(|(t, bits)| (*t, *bits))
                        );
                        found.insert(set.labels(index), samples.timestamps.into_iter().zip(bits).collect());
                    }
                    found.retain(|_, samples| !samples.is_empty());
                    let chosen = |labels: &Labels| {
                        labels.metric_name() == Some(&format!("m{metric}")) && labels.get("third").is_none()
                    };
                    let wanted: Content = model
                        .iter()
                        .filter(|(labels, _)| chosen(labels))
                        .map(|(labels, s)| (labels.clone(), s.range(range.min..=range.max).map(|(t, v)| (*t, *v)).collect()))
                        .filter(|(_, samples): &(_, BTreeMap<i64, u64>)| !samples.is_empty())
                        .collect();
                    prop_assert_eq!(found, wanted);
                    let query = LabelQuery { matcher_sets: vec![matchers], range: None, ..LabelQuery::default() };
                    let series = block_on(querier.series(&query)).expect("valid").items;
                    prop_assert_eq!(series, model.keys().filter(|l| chosen(l)).cloned().collect::<Vec<_>>());
                    let values = block_on(querier.label_values("i", &query)).expect("valid").items;
                    let mut wanted: Vec<_> = model.keys().filter(|l| chosen(l)).filter_map(|l| l.get("i")).collect();
                    wanted.sort_unstable();
                    prop_assert_eq!(values, wanted);
                }
                Step::Restart => {
                    db.close().expect("closes");
                    drop(db);
                    db = machine.open(options).0;
                }
            }
        }
        for (tenant, model) in tenants.iter().zip(&models) {
            prop_assert_eq!(&content(&db, tenant), model);
        }
        db.close().expect("closes");
        drop(db);
        let (db, report) = machine.open(options);
        prop_assert_eq!((report.damage_count, report.samples_orphaned), (0, 0));
        for (tenant, model) in tenants.iter().zip(&models) {
            prop_assert_eq!(&content(&db, tenant), model);
        }
    }
}
