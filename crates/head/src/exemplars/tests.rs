//! The budget that all tenants share; which exemplars are taken.

use chronolith_model::Sample;
use chronolith_storage::{ExemplarEntry, LabelSource, RejectReason};
use proptest::prelude::*;

use super::*;
use crate::{
    HeadOptions,
    fixture::{Fixture, NOW},
};

fn series(id: u32) -> Labels {
    Labels::from_pairs([("__name__", "m".to_owned()), ("id", id.to_string())])
}

fn exemplar(timestamp: i64, trace: &str) -> Exemplar {
    Exemplar { labels: Labels::from_pairs([("trace_id", trace)]), value: 1.0, timestamp }
}

fn all() -> ExemplarQuery {
    ExemplarQuery { matcher_sets: vec![Vec::new()], range: TimeRange::ALL, payer: None }
}

struct One(Labels);

impl LabelSource for One {
    fn labels(&self, _: usize) -> Result<Labels, RejectReason> {
        Ok(self.0.clone())
    }
}

/// Gives exemplars of one series under a key that is known, or under another one.
fn give(
    fixture: &Fixture,
    tenant: &TenantId,
    labels: &Labels,
    given: &[Exemplar],
    known: bool,
) -> ExemplarOutcome {
    let text = if known { labels.to_string() } else { format!("another spelling of {labels}") };
    let key = fixture.head.key_hasher().key(text.as_bytes());
    let entries = [ExemplarEntry { key, exemplars: 0..given.len() as u32 }];
    let batch = ExemplarBatch { series: &entries, exemplars: given, labels: &One(labels.clone()) };
    fixture.head.append_exemplars(tenant, &batch)
}

fn outcome(stored: u64, duplicates: u64, out_of_order: u64, dropped: u64) -> ExemplarOutcome {
    ExemplarOutcome { stored, duplicates, out_of_order, dropped }
}

#[test]
fn who_has_most_gives_way() {
    let exemplars = Exemplars::new(640, usize::MAX, usize::MAX);
    for t in 0..40 {
        exemplars.add(1, &series(1), exemplar(t, "small")).unwrap();
    }
    for t in 0..2000 {
        exemplars.add(2, &series(1), exemplar(t, "large")).unwrap();
        assert!(exemplars.count() <= 640, "{t}");
    }
    assert_eq!(exemplars.select(1, &all())[0].exemplars.len(), 40, "a small tenant keeps what it has");
    let large = exemplars.select(2, &all()).remove(0).exemplars;
    assert!(large.len() > 560 && large.last().unwrap().timestamp == 1999, "the newest stay: {}", large.len());
    assert_eq!(exemplars.tenants(), [1, 2]);
    assert_eq!(exemplars.copy(1).len() + exemplars.copy(2).len(), exemplars.count());
    exemplars.truncate(1990);
    assert_eq!((exemplars.count(), exemplars.tenants()), (10, vec![2]));
    exemplars.truncate(i64::MAX);
    assert_eq!((exemplars.count(), exemplars.bytes()), (0, 0));
}

#[test]
fn bytes_are_bounded_by_the_heads_memory_too() {
    let exemplars = Exemplars::new(usize::MAX, usize::MAX, 100_000);
    for t in 0..1000 {
        let _ = exemplars.add(t as u32 % 3, &series(t as u32), exemplar(t, "x"));
        assert!(exemplars.bytes() <= 10_000);
    }
    assert!(exemplars.bytes() > 5000 && exemplars.count() > 10);
    for off in [Exemplars::new(0, 10, 10_000), Exemplars::new(10, 0, 10_000), Exemplars::new(10, 10, 99)] {
        assert!(off.off());
    }
}

#[test]
fn exemplars_are_of_known_series_and_their_times() {
    let fixture = Fixture::new(HeadOptions::default());
    let tenant = TenantId::default();
    let labels = series(1);
    assert_eq!(
        give(&fixture, &tenant, &labels, &[exemplar(NOW, "a")], true),
        outcome(0, 0, 0, 1),
        "no tenant"
    );
    fixture.append(&tenant, &[(labels.clone(), vec![Sample::new(NOW, 1.0)])]);
    let given = [
        exemplar(NOW - 10, "a"),
        exemplar(NOW - 10, "a"),
        exemplar(NOW - 11, "b"),
        exemplar(NOW + 3_600_000, "ahead"),
        exemplar(0, "old"),
        exemplar(NOW, "c"),
    ];
    assert_eq!(give(&fixture, &tenant, &labels, &given, true), outcome(2, 1, 1, 2));
    assert_eq!(give(&fixture, &tenant, &series(2), &given, true), outcome(0, 0, 0, 6), "no such series");
    assert_eq!(give(&fixture, &tenant, &labels, &[exemplar(NOW, "d")], false), outcome(1, 0, 0, 0));
    let other = TenantId::new("other").unwrap();
    assert_eq!(give(&fixture, &other, &labels, &given, true).stored, 0);
    let head = std::sync::Arc::clone(&fixture.head);
    let view = HeadView::open(head, &tenant, TimeRange::ALL);
    let found = view.exemplars(&all());
    let times: Vec<_> = found[0].exemplars.iter().map(|exemplar| exemplar.timestamp).collect();
    assert_eq!((found.len(), times, &found[0].labels), (1, vec![NOW - 10, NOW, NOW], &labels));
    let none = ExemplarQuery { range: TimeRange::new(NOW - 9, NOW - 1), ..all() };
    assert!(view.exemplars(&none).is_empty());
    fixture.head.close();
    assert_eq!(give(&fixture, &tenant, &labels, &given, true), outcome(0, 0, 0, 6));
}

#[test]
fn a_cut_gives_what_is_behind_the_last_one() {
    let fixture = Fixture::new(HeadOptions::default());
    let tenant = TenantId::default();
    for at in [-3000, -2000, -1000] {
        fixture.append(&tenant, &[(series(1), vec![Sample::new(NOW + at, 1.0)])]);
        assert_eq!(give(&fixture, &tenant, &series(1), &[exemplar(NOW + at, "a")], true).stored, 1);
    }
    let times = |found: Vec<SeriesExemplars>| {
        let all = found.into_iter().flat_map(|series| series.exemplars);
        all.map(|exemplar| exemplar.timestamp - NOW).collect::<Vec<_>>()
    };
    let cut = fixture.head.begin_cut(NOW - 2000);
    assert_eq!(times(fixture.head.cut_exemplars(&cut, &tenant)), [-3000, -2000]);
    fixture.head.finish_cut(cut);
    let cut = fixture.head.begin_cut(NOW - 500);
    assert_eq!(times(fixture.head.cut_exemplars(&cut, &tenant)), [-1000]);
    assert!(fixture.head.cut_exemplars(&cut, &TenantId::new("other").unwrap()).is_empty());
    fixture.head.finish_cut(cut);
    let view = HeadView::open(std::sync::Arc::clone(&fixture.head), &tenant, TimeRange::ALL);
    assert_eq!(times(view.exemplars(&all())), [-3000, -2000, -1000], "they stay");
    assert!(fixture.head.stats().series == 0, "the series has gone to blocks");
}

proptest! {
    #[test]
    fn what_is_logged_comes_back(t in any::<i64>(), bits in any::<u64>(), labels in proptest::collection::btree_map("[a-z]{1,9}", "[a-z\u{e9}]{1,30}", 0..9)) {
        let given = Exemplar { labels: Labels::from_pairs(labels), value: f64::from_bits(bits), timestamp: t };
        let mut bytes = Vec::new();
        encode(&given, &mut bytes);
        let back = decode(t, &bytes).unwrap();
        prop_assert!(back.same(&given), "{:?}", back);
        for len in 0..bytes.len() {
            prop_assert!(decode(t, &bytes[..len]).is_none());
        }
        bytes.push(0);
        prop_assert!(decode(t, &bytes).is_none());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let _ = decode(1, &bytes);
    }
}
