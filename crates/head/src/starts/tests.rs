//! Steps against a map that has the start of each sample.

use std::collections::BTreeMap;

use chronolith_model::{Labels, Sample, TenantId};
use chronolith_storage::{LabelSource, RejectReason, Samples, SeriesEntry, WriteBatch};
use proptest::prelude::*;

use super::*;
use crate::{
    HeadOptions, HeadView,
    fixture::{Fixture, NOW},
};

fn step(since: i64, start: i64) -> StartTimestamp {
    StartTimestamp { since, start }
}

fn stored(timestamp: i64, newest: bool) -> Stored {
    Stored { reference: Ref::new(3, 7), timestamp, newest }
}

#[test]
fn steps_are_changes_and_late_samples_leave_their_neighbours_alone() {
    let (mut store, mut accounts, mut log) = (StartStore::default(), Accounts::default(), ShardLog::new());
    for (t, start) in [(10, 0), (20, 5), (30, 5), (40, 35), (50, 0)] {
        store.note(stored(t, true), start, &mut accounts, &mut log);
    }
    assert_eq!(store.steps(7), [step(20, 5), step(40, 35), step(50, 0)]);
    store.note(stored(25, false), 24, &mut accounts, &mut log);
    store.note(stored(26, false), 24, &mut accounts, &mut log);
    assert_eq!(
        store.steps(7),
        [step(20, 5), step(25, 24), step(27, 5), step(40, 35), step(50, 0)],
        "two late ones beside each other are one step"
    );
    store.note(stored(45, false), 35, &mut accounts, &mut log);
    assert_eq!(store.steps(7).len(), 5, "it has the start of its neighbours");
    let mut part = Vec::new();
    store.copy(7, TimeRange::new(26, 44), &mut part);
    assert_eq!(part, [step(26, 24), step(27, 5), step(40, 35)]);
    part.clear();
    store.copy(7, TimeRange::new(60, 90), &mut part);
    store.copy(8, TimeRange::ALL, &mut part);
    assert_eq!(part, [], "no start is no step");
}

#[test]
fn old_steps_go_and_the_one_in_force_stays() {
    let (mut store, mut accounts) = (StartStore::default(), Accounts::default());
    for slot in [70, 200] {
        for (since, start) in [(10, 1), (20, 0), (30, 3), (40, 4)] {
            store.set(slot, step(since, start), &mut accounts);
        }
    }
    store.truncate(0..100, 25, &mut accounts, |_| true);
    assert_eq!(store.steps(70), [step(30, 3), step(40, 4)], "what is left does not begin with nothing");
    assert_eq!(store.steps(200).len(), 4, "another page");
    store.truncate(0..300, 90, &mut accounts, |slot| slot != 200);
    assert_eq!((store.steps(70), store.steps(200).len()), (&[step(40, 4)][..], 4));
    assert!(store.contains(70) && !store.contains(71) && accounts.bytes > 0);
    store.forget(70, &mut accounts);
    store.forget(70, &mut accounts);
    store.forget(200, &mut accounts);
    assert_eq!((store.len(), accounts.bytes), (0, 0));
    assert!(!store.contains(70));
}

#[test]
fn a_series_has_bounded_steps() {
    let (mut store, mut accounts) = (StartStore::default(), Accounts::default());
    for at in 1..=STEPS_MAX as i64 + 10 {
        store.set(1, step(at, at), &mut accounts);
        assert!(store.steps(1).len() <= STEPS_MAX);
    }
    assert_eq!((store.steps(1).len(), store.steps(1)[0]), (STEPS_MAX, step(11, 11)));
    assert!(accounts.bytes <= ENTRY_BYTES + STEPS_MAX * 5 / 4 * 16, "{}", accounts.bytes);
}

#[test]
fn a_late_sample_leaves_late_neighbours_alone() {
    let fixture = Fixture::new(HeadOptions::default());
    append(&fixture, -9000, 5);
    let cut = fixture.head.begin_cut(NOW - 1000);
    // Behind the cut, the second newer than the first, and the third between the two.
    append(&fixture, -8000, 5);
    append(&fixture, -6000, 5);
    append(&fixture, -7000, 9);
    let all = [(-9000, 5), (-8000, 5), (-7000, 9), (-6000, 5)];
    assert_eq!(seen(&fixture, crate::CutPoint::NONE), all);
    fixture.head.finish_cut(cut);
}

struct One(Labels);

impl LabelSource for One {
    fn labels(&self, _: usize) -> Result<Labels, RejectReason> {
        Ok(self.0.clone())
    }
}

fn append(fixture: &Fixture, t: i64, start_timestamp: i64) {
    let labels = One(Labels::from_pairs([("__name__", "m")]));
    let key = fixture.head.key_hasher().key(b"m");
    let entries = [SeriesEntry { start_timestamp, ..SeriesEntry::of_samples(key, 0..1) }];
    let samples = [Sample::new(NOW + t, 1.0)];
    let batch = WriteBatch::of_samples(&entries, &samples, &labels);
    assert_eq!(fixture.head.append(&TenantId::default(), &batch).unwrap().outcome.stored, 1, "{t}");
}

/// Samples with their starts, seen from behind `from`.
fn seen(fixture: &Fixture, from: crate::CutPoint) -> Vec<(i64, i64)> {
    let head = std::sync::Arc::clone(&fixture.head);
    let view = HeadView::open_from(head, &TenantId::default(), TimeRange::ALL, from);
    let mut samples = Samples::default();
    let series = view.select(&[]).series;
    view.fetch(&series, TimeRange::ALL).read(0, &mut samples).unwrap();
    samples.timestamps.iter().map(|t| (t - NOW, samples.start_at(*t))).collect()
}

#[test]
fn a_cut_has_the_starts_of_its_samples_and_then_they_go() {
    let fixture = Fixture::new(HeadOptions::default());
    for (t, start) in [(-9000, 0), (-8000, 5), (-7000, 5), (-6000, 6), (-5000, 6), (-4000, 7)] {
        append(&fixture, t, start);
    }
    // Late ones of other starts than their neighbours.
    append(&fixture, -7500, 9);
    append(&fixture, -5500, 0);
    let all =
        [(-9000, 0), (-8000, 5), (-7500, 9), (-7000, 5), (-6000, 6), (-5500, 0), (-5000, 6), (-4000, 7)];
    let none = crate::CutPoint::NONE;
    assert_eq!(seen(&fixture, none), all);
    let cut = fixture.head.begin_cut(NOW - 5200);
    assert_eq!(seen(&fixture, none), all);
    let mut samples = Samples::default();
    for (tenant, windows) in fixture.head.cut_windows(&cut) {
        for window in windows {
            for entry in fixture.head.cut_series(&cut, &tenant, window).flatten() {
                fixture.head.read_cut(&cut, entry.reference, window, &mut samples).unwrap();
            }
        }
    }
    let of_cut: Vec<_> = samples.timestamps.iter().map(|t| (t - NOW, samples.start_at(*t))).collect();
    assert_eq!(of_cut, all[..6]);
    assert_eq!(seen(&fixture, cut.point()), all[6..]);
    // One that comes while the cut is written is the next one's.
    append(&fixture, -6500, 3);
    let from = cut.point();
    fixture.head.finish_cut(cut);
    assert_eq!(seen(&fixture, from), [(-6500, 3), (-5000, 6), (-4000, 7)]);
    let shard_bytes =
        || -> usize { fixture.head.shards.iter().map(|shard| shard.lock().accounts.bytes).sum() };
    let cut = fixture.head.begin_cut(NOW - 4500);
    let from = cut.point();
    fixture.head.finish_cut(cut);
    assert_eq!(seen(&fixture, from), [(-4000, 7)]);
    let of_shards =
        || fixture.head.shards.iter().flat_map(|shard| shard.lock().starts.series.clone().into_values());
    let left: Vec<_> = of_shards().flatten().collect();
    assert_eq!(left, [step(NOW - 5499, 6), step(NOW - 4000, 7)], "the one in force at the cut stays");
    assert!(shard_bytes() > 0);
    let cut = fixture.head.begin_cut(NOW);
    fixture.head.finish_cut(cut);
    assert_eq!((fixture.head.series(), fixture.head.stats().start_series, shard_bytes()), (0, 0, 0));
}

#[test]
fn a_series_that_comes_again_without_a_start_has_none_behind_a_restart() {
    let fixture = Fixture::new(HeadOptions::default());
    append(&fixture, -9000, 5);
    let cut = fixture.head.begin_cut(NOW - 5000);
    fixture.head.finish_cut(cut);
    assert_eq!(fixture.head.series(), 0, "its samples are in blocks");
    append(&fixture, -1000, 0);
    let fixture = fixture.restart(Some(NOW - 5000));
    let behind = fixture.head.restore_cut(NOW - 5000);
    // The log still has the one before: here nobody passes over what blocks have.
    assert_eq!(seen(&fixture, behind), [(-9000, 5), (-1000, 0)]);
}

proptest! {
    #[test]
    fn every_sample_has_the_start_it_came_with(
        samples in proptest::collection::vec((0_i64..60, 0_i64..4), 1..60), seen in 0_usize..55) {
        let mut store = StartStore::default();
        let (mut accounts, mut log) = (Accounts::default(), ShardLog::new());
        let mut want: BTreeMap<i64, i64> = BTreeMap::new();
        for (t, start) in samples {
            if want.contains_key(&t) {
                continue;
            }
            let newest = want.last_key_value().is_none_or(|(last, _)| *last < t);
            want.insert(t, start);
            store.note(stored(t, newest), start, &mut accounts, &mut log);
            let steps = store.steps(7);
            prop_assert!(steps.is_sorted_by(|a, b| a.since < b.since) && steps.len() <= 2 * want.len());
            prop_assert!(steps.first().is_none_or(|first| first.start != 0));
            prop_assert_eq!(store.contains(7), !steps.is_empty());
            for (t, start) in &want {
                prop_assert_eq!(StartTimestamp::at(steps, *t), *start, "at {}", t);
            }
        }
        let mut part = Vec::new();
        store.copy(7, TimeRange::new(seen as i64, 55), &mut part);
        prop_assert!(part.windows(2).all(|two| two[0].since < two[1].since && two[0].start != two[1].start));
        prop_assert!(part.first().is_none_or(|first| first.start != 0 && first.since >= seen as i64));
        for (t, start) in want.range(seen as i64..=55) {
            prop_assert_eq!(StartTimestamp::at(&part, *t), *start);
        }
        let kept = StartTimestamp::at(store.steps(7), seen as i64);
        store.truncate(0..10, seen as i64, &mut accounts, |_| true);
        prop_assert_eq!(StartTimestamp::at(store.steps(7), seen as i64), kept);
        for (t, start) in want.range(seen as i64..) {
            prop_assert_eq!(StartTimestamp::at(store.steps(7), *t), *start);
        }
        store.forget(7, &mut accounts);
        prop_assert_eq!(accounts.bytes, 0);
    }
}
