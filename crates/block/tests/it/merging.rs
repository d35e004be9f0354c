//! Reading the merged block gives what reading the inputs gives.

use std::collections::BTreeMap;
use std::path::Path;

use chronolith_block::{
    Block, BlockRange, BlockWriter, Error, MergeSpec, Merged, PARTS_MAX, Section, inspect, merge, verify,
};
use chronolith_env::Rng as _;
use chronolith_model::histogram::CounterResetHint;
use chronolith_model::{Histogram, Labels, StartTimestamp, TimeRange};
use chronolith_testkit::fake_env::SimRng;
use proptest::{prelude::*, test_runner::TestRunner};

use crate::fixture::{
    DIR, Disk, Model, SampleStarts, Starts, Value, add, delete, histogram, inside, read, read_starts,
    sample_starts, spec, tombstone,
};
use crate::kinds::{KINDS, of_kind};
use crate::roundtrip::{content, series};

const HOURS2: i64 = 7_200_000;

fn shifted(model: &Model, by: i64) -> Model {
    let shift = |samples: &BTreeMap<i64, Value>| samples.iter().map(|(t, v)| (t + by, v.clone())).collect();
    model.iter().map(|(labels, samples)| (labels.clone(), shift(samples))).collect()
}

/// Blocks of neighbouring time with the same series.
fn neighbours(disk: &Disk, n: u64, series: u64, samples: i64) -> (Vec<Block>, Model) {
    let mut all = Model::new();
    let mut blocks = Vec::new();
    for number in 0..n {
        let start = number as i64 * HOURS2;
        let model = shifted(&content(series, samples), start);
        add(&mut all, &model);
        let range = BlockRange::new(start, start + HOURS2);
        blocks.push(disk.open(&disk.write(number, range, &[(number, model)])));
    }
    (blocks, all)
}

fn merged_model(disk: &Disk, merged: &Merged) -> Model {
    merged.block.as_ref().map_or_else(Model::new, |block| read(&disk.open(&block.path), TimeRange::ALL))
}

#[test]
fn frames_of_neighbours_are_copied() {
    let disk = Disk::new();
    let (blocks, all) = neighbours(&disk, 4, 30, 100);
    let inputs: Vec<_> = blocks.iter().collect();
    let merged = disk.merge(100, BlockRange::new(0, 4 * HOURS2), &inputs);
    assert_eq!(merged.frames_encoded, 0);
    assert!(merged.frames_copied >= 8, "floats and histograms of four parts: {merged:?}");
    assert_eq!(merged_model(&disk, &merged), all);
    // Merging what was merged copies again.
    let first = disk.open(&merged.block.unwrap().path);
    let merged = disk.merge(101, BlockRange::new(0, 4 * HOURS2), &[&first]);
    assert_eq!(merged.frames_encoded, 0);
    assert_eq!(merged_model(&disk, &merged), all);
}

/// Cuts a day of twelve windows, and merges four at a time, then the three that come of that. Of 300 noisy series one in `renamed`
/// has another name in each window. `late`: now and then two targets send samples late. Returns how many frames were copied, and
/// how many written anew, by all merges.
fn a_day_of_merges(renamed: Option<u64>, late: bool) -> (u64, u64) {
    let (disk, mut all, mut frames) = (Disk::new(), Model::new(), (0, 0));
    let rng = SimRng::new(5);
    let mut merge = |disk: &Disk, number: u64, range: BlockRange, inputs: &[Block]| {
        let merged = disk.merge(number, range, &inputs.iter().collect::<Vec<_>>());
        frames = (frames.0 + merged.frames_copied, frames.1 + merged.frames_encoded);
        disk.open(&merged.block.unwrap().path)
    };
    let mut thirds = Vec::new();
    for third in 0..3_u64 {
        let mut blocks = Vec::new();
        for window in third * 4..third * 4 + 4 {
            let start = window as i64 * HOURS2;
            let range = BlockRange::new(start, start + HOURS2);
            let samples = |phase: i64| -> BTreeMap<i64, Value> {
                let value = || Value::Float(((rng.next_u64() >> 12) as f64 / 4096.7).to_bits());
                (0..120).map(|i| (start + 1 + i * 60_000 - phase, value())).collect()
            };
            let name = |n: u64| match renamed {
                Some(every) if n.is_multiple_of(every) => series("m", n + 1000 * (window + 1)),
                _ => series("m", n),
            };
            let model: Model = (0..300).map(|n| (name(n), samples(0))).collect();
            add(&mut all, &model);
            blocks.push(disk.open(&disk.write(window * 2, range, &[(window * 2, model)])));
            if late && window % 4 == 1 {
                let of_late = |n| {
                    let samples = samples(7).split_off(&(start + HOURS2 - 600_000));
                    (name(n), samples)
                };
                let model: Model = [101, 102].map(of_late).into();
                add(&mut all, &model);
                blocks.push(disk.open(&disk.write(window * 2 + 1, range, &[(window * 2 + 1, model)])));
            }
        }
        let start = third as i64 * 4 * HOURS2;
        thirds.push(merge(&disk, 100 + third, BlockRange::new(start, start + 4 * HOURS2), &blocks));
    }
    let day = merge(&disk, 200, BlockRange::new(0, 12 * HOURS2), &thirds);
    assert_eq!(read(&day, TimeRange::ALL), all);
    frames
}

#[test]
fn churning_series_leave_frames_alone() {
    // Only ids change: whatever is renamed, all frames are taken over, in both merges of their life.
    for renamed in [None, Some(10)] {
        let (copied, encoded) = a_day_of_merges(renamed, false);
        assert!(copied > 2 * 12 * 4, "some frames in each window: {copied}");
        assert_eq!(encoded, 0, "{renamed:?}");
    }
    // What comes late touches its own frame.
    for (renamed, percent) in [(None, 90), (Some(10), 90)] {
        let (copied, encoded) = a_day_of_merges(renamed, true);
        assert!(
            encoded > 0 && copied * 100 >= percent * (copied + encoded),
            "{renamed:?}: {copied}, {encoded}"
        );
    }
}

#[test]
fn many_parts_are_joined() {
    let disk = Disk::new();
    let n = PARTS_MAX as u64 + 4;
    let (blocks, all) = neighbours(&disk, n, 3, 30);
    let range = BlockRange::new(0, n as i64 * HOURS2);
    let merged = disk.merge(100, range, &blocks.iter().collect::<Vec<_>>());
    assert_eq!(merged.frames_copied, 0);
    assert_eq!(merged_model(&disk, &merged), all);
}

#[test]
fn deletions_touch_their_frames_only() {
    let disk = Disk::new();
    let (blocks, mut all) = neighbours(&disk, 2, 200, 150);
    let range = BlockRange::new(0, 2 * HOURS2);
    for tombstone in [tombstone("instance", "i7", 100_000, 400_000), tombstone("__name__", "no such", 0, 1)] {
        blocks[0].delete(tombstone.clone()).unwrap();
        delete(&mut all, &tombstone);
    }
    // Whole series of both blocks.
    let gone = tombstone("__name__", "a_constant", i64::MIN, i64::MAX);
    for block in &blocks {
        block.delete(gone.clone()).unwrap();
    }
    delete(&mut all, &gone);
    let merged = disk.merge(100, range, &[&blocks[0], &blocks[1]]);
    assert!(merged.frames_copied > 0 && merged.frames_encoded > 0, "{merged:?}");
    assert_eq!(merged.inputs.iter().map(|(_, generation)| *generation).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(merged_model(&disk, &merged), all);
    let block = disk.open(&merged.block.unwrap().path);
    assert_eq!(block.meta().series as usize, all.len(), "series without samples are gone");
    assert_eq!(block.tombstones_generation(), 0);
}

#[test]
fn late_samples_touch_their_frames_only() {
    let disk = Disk::new();
    let (blocks, mut all) = neighbours(&disk, 1, 200, 150);
    let mut late = Model::new();
    late.insert(series("b_counter", 9), BTreeMap::from([(77, Value::Float(1)), (1_500_000, histogram(3))]));
    late.insert(series("b_new", 1), BTreeMap::from([(99, Value::Float(2))]));
    let second = disk.open(&disk.write(9, BlockRange::new(0, HOURS2), &[(9, late.clone())]));
    add(&mut all, &late);
    let merged = disk.merge(100, BlockRange::new(0, HOURS2), &[&blocks[0], &second]);
    assert!(merged.frames_copied > 0 && merged.frames_encoded > 0, "{merged:?}");
    assert_eq!(merged_model(&disk, &merged), all);
}

#[test]
fn the_range_and_retention_cut() {
    let disk = Disk::new();
    let (blocks, all) = neighbours(&disk, 3, 5, 100);
    let inputs: Vec<_> = blocks.iter().collect();
    let merge_with = |number, range, drop_until| {
        let spec = MergeSpec { block: spec(number, range), drop_until };
        merge(&disk.fs, Path::new(DIR), &inputs, &spec, &|| false).unwrap()
    };
    let whole = BlockRange::new(0, 3 * HOURS2);
    let merged = merge_with(100, whole, Some(HOURS2 + 300_000));
    assert_eq!(merged_model(&disk, &merged), inside(&all, TimeRange::new(HOURS2 + 300_001, i64::MAX)));
    assert!(merged.frames_copied > 0, "the last block is untouched");
    let merged = merge_with(101, BlockRange::new(100_000, HOURS2 + 5), None);
    assert_eq!(merged_model(&disk, &merged), inside(&all, TimeRange::new(100_001, HOURS2 + 5)));
    let merged = merge_with(102, whole, Some(i64::MAX));
    assert_eq!(merged.block, None);
    assert!(disk.files().iter().all(|name| !name.ends_with(".tmp")));
}

#[test]
fn columns_that_would_be_too_long_are_cut_in_time() {
    let disk = Disk::new();
    let range = BlockRange::new(0, 1_000_000);
    let labels = series("long", 1);
    let part = |offset: i64| -> Model {
        let samples = (0..40_000).map(|i| (1 + offset + i * 2, Value::Float((i % 100) as u64)));
        [(labels.clone(), samples.collect())].into()
    };
    let (a, b) = (part(0), part(1));
    let blocks = [
        disk.open(&disk.write(1, range, &[(1, a.clone())])),
        disk.open(&disk.write(2, range, &[(2, b.clone())])),
    ];
    let merged = disk.merge(100, range, &[&blocks[0], &blocks[1]]);
    let mut all = a;
    add(&mut all, &b);
    assert_eq!(merged_model(&disk, &merged), all);
}

#[test]
fn exemplars_and_metadata_are_merged() {
    use chronolith_model::{Exemplar, MetricMetadata, MetricType};
    let disk = Disk::new();
    let exemplar = |t: i64, trace: &str| Exemplar {
        labels: Labels::from_pairs([("trace_id", trace)]),
        value: 0.5,
        timestamp: t,
    };
    let write = |number: u64, series_numbers: &[u64], at: i64, exemplars: &[Exemplar], help: &str| {
        let range = BlockRange::new(0, 1000);
        let mut writer = BlockWriter::create(&disk.fs, Path::new(DIR), spec(number, range)).unwrap();
        writer.begin_part(number).unwrap();
        for &n in series_numbers {
            let id = writer.add_series(&series("x", n)).unwrap();
            writer.push_floats(id, &[at], &[1.0]).unwrap();
            writer.push_exemplars(id, exemplars).unwrap();
        }
        writer.end_part().unwrap();
        let (metric, help) = ("x".to_owned(), help.to_owned());
        writer
            .push_metadata(&MetricMetadata { metric, kind: MetricType::Gauge, unit: String::new(), help })
            .unwrap();
        disk.open(&writer.finish().unwrap().path)
    };
    let newer = write(1, &[1, 3], 900, &[exemplar(5, "a"), exemplar(9, "b")], "new");
    let older = write(2, &[1, 2, 3], 100, &[exemplar(7, "c"), exemplar(9, "b"), exemplar(9, "d")], "old");
    older.delete(tombstone("instance", "i3", 0, 8)).unwrap();
    let merged = disk.merge(100, BlockRange::new(0, 1000), &[&newer, &older]);
    let block = disk.open(&merged.block.unwrap().path);
    assert_eq!(block.metadata().unwrap()[0].help, "new");
    let found = block.exemplars(&(0..3).collect(), TimeRange::ALL).unwrap();
    let traces = |n: usize| -> Vec<String> {
        found[n].1.iter().map(|e| e.labels.get("trace_id").unwrap().to_owned()).collect()
    };
    assert_eq!(traces(0), ["a", "c", "b", "d"]);
    assert_eq!(traces(1), ["c", "b", "d"]);
    assert_eq!(traces(2), ["a", "b", "d"], "c is deleted in its block");
}

#[test]
fn starts_leave_frames_alone() {
    let disk = Disk::new();
    let (mut blocks, mut all, mut expected) = (Vec::new(), Model::new(), SampleStarts::new());
    let mut steps = 0;
    for number in 0..4_u64 {
        let start = number as i64 * HOURS2;
        let model = shifted(&content(60, 100), start);
        // One target is started anew in the third block; one is not known in the second.
        let starts: Starts = (0..60)
            .map(|n| match (n, number) {
                (7, 2..) => (n, vec![step(0, -5), step(2 * HOURS2 + 700_000, 2 * HOURS2 + 690_000)]),
                (8, 1) => (n, Vec::new()),
                _ => (n, vec![step(0, -5 - n as i64)]),
            })
            .map(|(n, steps)| (series("b_counter", n), steps))
            .collect();
        add(&mut all, &model);
        expected.extend(sample_starts(&model, &starts));
        let range = BlockRange::new(start, start + HOURS2);
        blocks.push(disk.open(&disk.write_with(number, range, &[(number, model)], &starts)));
        steps += inspect(&blocks[number as usize]).unwrap().starts;
    }
    let merged = disk.merge(100, BlockRange::new(0, 4 * HOURS2), &blocks.iter().collect::<Vec<_>>());
    assert_eq!(merged.frames_encoded, 0);
    let block = disk.open(&merged.block.unwrap().path);
    assert_eq!(read(&block, TimeRange::ALL), all);
    assert_eq!(read_starts(&block, TimeRange::ALL), expected);
    let summary = inspect(&block).unwrap();
    assert_eq!((summary.starts, steps), (60 + 2 + 2, 4 * 60 - 1 + 1), "one per series, and the changes");
    assert!(summary.sections.iter().any(|section| section.section == Section::Starts && section.units == 1));
    assert!(verify(&block, &|| false).unwrap().problems.is_empty());
}

#[test]
fn starts_of_joined_parts_are_those_of_their_samples() {
    let disk = Disk::new();
    let (mut blocks, mut expected) = (Vec::new(), SampleStarts::new());
    for number in 0..PARTS_MAX as u64 + 4 {
        let begin = number as i64 * HOURS2;
        let model = shifted(&content(3, 30), begin);
        // Started anew in every third block, in the middle of it; now and then nothing is known.
        let last = begin - number as i64 % 3 * HOURS2 + 200_000;
        let steps = [step(last - 3 * HOURS2, last - 3 * HOURS2 - 10), step(last, last - 10)];
        let known = if number % 7 == 5 { &steps[..0] } else { &steps[..] };
        let starts: Starts = (0..2).map(|n| (series("b_counter", n), known.to_vec())).collect();
        expected.extend(sample_starts(&model, &starts));
        let range = BlockRange::new(begin, begin + HOURS2);
        blocks.push(disk.open(&disk.write_with(number, range, &[(number, model)], &starts)));
    }
    let range = BlockRange::new(0, blocks.len() as i64 * HOURS2);
    let merged = disk.merge(100, range, &blocks.iter().collect::<Vec<_>>());
    assert_eq!(merged.frames_copied, 0);
    let block = disk.open(&merged.block.unwrap().path);
    assert_eq!(read_starts(&block, TimeRange::ALL), expected);
    assert!(verify(&block, &|| false).unwrap().problems.is_empty());
}

#[test]
fn many_starts_of_one_series_go_on_in_further_pages() {
    let disk = Disk::new();
    let range = BlockRange::new(0, 100_000);
    let labels = [series("a", 1), series("b", 1), series("c", 1)];
    let samples = |labels: &Labels, from: i64| -> Model {
        [(labels.clone(), (0..10_000).map(|i| (from + i * 2, Value::Float(1))).collect())].into()
    };
    let (mut first, mut second) = (samples(&labels[1], 1), samples(&labels[1], 2));
    first.extend([(labels[0].clone(), BTreeMap::from([(7, Value::Float(0))]))]);
    second.extend([(labels[2].clone(), BTreeMap::from([(8, Value::Float(0))]))]);
    let starts =
        |start: i64| -> Starts { labels.iter().map(|l| (l.clone(), vec![step(0, start)])).collect() };
    // Two copies that take turns: each sample has another start than its neighbours.
    let blocks = [(first.clone(), 5), (second.clone(), 6)].map(|(model, start)| {
        disk.open(&disk.write_with(start as u64, range, &[(start as u64, model)], &starts(start)))
    });
    let merged = disk.merge(100, range, &[&blocks[0], &blocks[1]]);
    let block = disk.open(&merged.block.unwrap().path);
    let mut expected = sample_starts(&first, &starts(5));
    expected.extend(sample_starts(&second, &starts(6)));
    assert_eq!(read_starts(&block, TimeRange::ALL), expected);
    let summary = inspect(&block).unwrap();
    assert_eq!(summary.starts, 20_000 + 2);
    let pages = summary.sections.iter().find(|section| section.section == Section::Starts).unwrap().units;
    assert!(pages >= 5, "{pages}");
    assert!(verify(&block, &|| false).unwrap().problems.is_empty());
    let merged = disk.merge(101, range, &[&block]);
    assert_eq!(merged.frames_encoded, 0);
    let again = disk.open(&merged.block.unwrap().path);
    assert_eq!(read_starts(&again, TimeRange::ALL), expected);
}

#[test]
fn starts_that_cannot_be_are_refused() {
    let disk = Disk::new();
    let range = BlockRange::new(0, 1000);
    let mut writer = BlockWriter::create(&disk.fs, Path::new(DIR), spec(1, range)).unwrap();
    let ids = [1, 2].map(|n| writer.add_series(&series("x", n)).unwrap());
    let refused = |error: Result<(), Error>| error.unwrap_err().to_string();
    assert!(refused(writer.push_starts(7, 5, &[])).contains("series id"));
    assert!(refused(writer.push_starts(ids[0], 5, &[step(9, 1), step(9, 2)])).contains("order"));
    writer.push_starts(ids[1], 5, &[step(-9, 3), step(0, 1), step(1000, 2), step(1001, 3)]).unwrap();
    assert!(refused(writer.push_starts(ids[0], 5, &[step(0, 1)])).contains("start timestamps"));
    writer.begin_part(0).unwrap();
    ids.into_iter().for_each(|id| writer.push_floats(id, &[5, 1000], &[1.0, 2.0]).unwrap());
    writer.end_part().unwrap();
    let block = disk.open(&writer.finish().unwrap().path);
    assert_eq!(inspect(&block).unwrap().starts, 2, "what is behind the block is left out");
    let starts: Vec<i64> = read_starts(&block, TimeRange::ALL).into_values().collect();
    assert_eq!(starts, [1, 2]);
}

#[test]
fn a_cancelled_merge_leaves_nothing() {
    let disk = Disk::new();
    let (blocks, _) = neighbours(&disk, 2, 5, 50);
    let before = disk.files();
    let calls = std::cell::Cell::new(0);
    for stop_at in 1..8 {
        calls.set(0);
        let spec = MergeSpec { block: spec(100, BlockRange::new(0, 2 * HOURS2)), drop_until: None };
        let cancelled = || {
            calls.set(calls.get() + 1);
            calls.get() >= stop_at
        };
        let result = merge(&disk.fs, Path::new(DIR), &[&blocks[0], &blocks[1]], &spec, &cancelled);
        assert!(matches!(result, Err(Error::Cancelled)), "{stop_at}: {result:?}");
        assert_eq!(disk.files(), before);
    }
}

/// A value, sometimes a histogram or a special float.
fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        5 => any::<u64>().prop_map(Value::Float),
        5 => (0_u64..5).prop_map(|n| Value::Float((n as f64).to_bits())),
        1 => Just(Value::Float(0x7ff0_0000_0000_0002)),
        1 => Just(Value::Float(0x7ff8_0000_0000_1234)),
        3 => (0_u64..100).prop_map(histogram),
        3 => (0_u64..4, 0..KINDS, 0_u64..30, 0_u64..40).prop_map(|(stale, kind, n, form)| {
            let stale = stale == 3 && n % 5 == 0;
            Value::Histogram(Box::new(if stale { Histogram::stale() } else { of_kind(kind, n, form) }))
        }),
    ]
}

fn model(series_max: u64, time: std::ops::Range<i64>) -> impl Strategy<Value = Model> {
    let samples = prop::collection::btree_map(time, value(), 1..12);
    prop::collection::btree_map((0..series_max).prop_map(|n| series("s", n)), samples, 1..6)
}

fn starts() -> impl Strategy<Value = Starts> {
    let steps = prop::collection::btree_map(1_i64..120, 0_i64..4, 0..6);
    let steps = steps.prop_map(|steps| steps.iter().map(|(t, s)| step(*t, *s)).collect());
    prop::collection::btree_map((0_u64..8).prop_map(|n| series("s", n)), steps, 0..8)
}

fn step(since: i64, start: i64) -> StartTimestamp {
    StartTimestamp { since, start }
}

#[derive(Clone, Debug)]
struct Plan {
    /// Per block: its parts.
    blocks: Vec<Vec<Model>>,
    /// Per block.
    starts: Vec<Starts>,
    /// Block, label value, range.
    deletions: Vec<(usize, u64, i64, i64)>,
    /// Where the neighbours are merged first.
    first: usize,
    drop_until: Option<i64>,
}

fn plans() -> impl Strategy<Value = Plan> {
    // Some blocks overlap, some follow each other.
    let block = (0_i64..4, 1_usize..3).prop_flat_map(|(at, parts)| {
        prop::collection::vec(model(8, at * 20 + 1..at * 20 + 45), parts..=parts)
    });
    let deletion = (0_usize..4, 0_u64..8, 0_i64..110, 0_i64..60);
    (
        prop::collection::vec(block, 1..5),
        prop::collection::vec(deletion, 0..4),
        0_usize..4,
        prop::option::weighted(0.2, 0_i64..60),
        // Some blocks know nothing.
        prop::collection::vec(prop_oneof![1 => Just(Starts::new()), 2 => starts()], 4),
    )
        .prop_map(|(blocks, deletions, first, drop_until, starts)| Plan {
            blocks,
            starts,
            deletions,
            first,
            drop_until,
        })
}

const SMALL: BlockRange = BlockRange::new(0, 200);

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn merged_blocks_equal_the_model(plan in plans()) {
        let disk = Disk::new();
        let mut expected = Model::new();
        let mut blocks = Vec::new();
        let mut priority = 0;
        let mut expected_starts = SampleStarts::new();
        for ((number, parts), starts) in (0_u64..).zip(&plan.blocks).zip(&plan.starts) {
            let parts: Vec<_> = parts.iter().map(|part| { priority += 1; (priority, part.clone()) }).collect();
            let block = disk.open(&disk.write_with(number, SMALL, &parts, starts));
            let mut all = Model::new();
            parts.iter().for_each(|(_, part)| add(&mut all, part));
            for &(_, n, min, length) in plan.deletions.iter().filter(|deletion| deletion.0 as u64 == number) {
                let tombstone = tombstone("instance", &format!("i{n}"), min, min + length);
                block.delete(tombstone.clone()).unwrap();
                delete(&mut all, &tombstone);
            }
            prop_assert_eq!(read(&block, TimeRange::ALL), all.clone());
            prop_assert_eq!(read_starts(&block, TimeRange::ALL), sample_starts(&all, starts));
            let some = TimeRange::new(20, 50);
            prop_assert_eq!(read_starts(&block, some), sample_starts(&inside(&all, some), starts));
            // Of a sample that an earlier block has, that block's start counts.
            let has = |labels: &Labels, t: &i64| expected.get(labels).is_some_and(|all| all.contains_key(t));
            let new = sample_starts(&all, starts).into_iter().filter(|((labels, t), _)| !has(labels, t));
            expected_starts.extend(new.collect::<Vec<_>>());
            add(&mut expected, &all);
            blocks.push(block);
        }
        if let Some(until) = plan.drop_until {
            expected = inside(&expected, TimeRange::new(until + 1, i64::MAX));
            expected_starts.retain(|(_, t), _| *t > until);
        }
        // At once, and two neighbours first.
        let mut orders: Vec<Vec<Block>> = vec![blocks.clone()];
        if plan.first + 1 < blocks.len() {
            let merged = disk.merge(50, SMALL, &[&blocks[plan.first], &blocks[plan.first + 1]]);
            let mut order = blocks.clone();
            let merged = merged.block.map(|block| disk.open(&block.path));
            order.splice(plan.first..plan.first + 2, merged);
            orders.push(order);
        }
        for (number, order) in (60_u64..).zip(orders) {
            let spec = MergeSpec { block: spec(number, SMALL), drop_until: plan.drop_until };
            let inputs: Vec<&Block> = order.iter().collect();
            let merged = merge(&disk.fs, Path::new(DIR), &inputs, &spec, &|| false).unwrap();
            prop_assert_eq!(merged_model(&disk, &merged), expected.clone());
            if let Some(block) = &merged.block {
                prop_assert_eq!(read_starts(&disk.open(&block.path), TimeRange::ALL), expected_starts.clone());
                let report = verify(&disk.open(&block.path), &|| false).unwrap();
                prop_assert!(report.problems.is_empty(), "{:?}", report.problems);
            }
        }
    }
}

/// A part with the hints that its histograms have when they are stored one behind the other.
fn hinted(part: &Model) -> Model {
    let mut part = part.clone();
    for samples in part.values_mut() {
        let mut before: Option<Histogram> = None;
        for value in samples.values_mut() {
            let Value::Histogram(histogram) = value else { continue };
            histogram.set_hint(histogram.hint_after(before.as_ref()));
            before = Some((**histogram).clone());
        }
    }
    part
}

/// Fails if a hint says something else than the two histograms do; counts those that say that a counter goes on.
fn check_hints(model: &Model, what: &str) -> usize {
    let mut known = 0;
    for (labels, samples) in model {
        let mut before: Option<&Histogram> = None;
        for (t, value) in samples {
            let Value::Histogram(histogram) = value else { continue };
            let hint = histogram.hint();
            if hint == CounterResetHint::Gauge {
                before = Some(histogram);
                continue;
            }
            let mut plain = (**histogram).clone();
            plain.set_hint(CounterResetHint::Unknown);
            if before.is_some() && hint != CounterResetHint::Unknown {
                assert_eq!(hint, plain.hint_after(before), "{what}: {labels} at {t}");
                known += usize::from(hint == CounterResetHint::NotReset);
            }
            before = Some(histogram);
        }
    }
    known
}

#[test]
fn hints_are_about_the_histogram_before() {
    let known = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(ProptestConfig { cases: 300, ..ProptestConfig::default() });
    let checked = runner.run(&plans(), |plan| {
        let disk = Disk::new();
        let mut blocks = Vec::new();
        let mut priority = 0;
        for (number, parts) in (0_u64..).zip(&plan.blocks) {
            let parts: Vec<_> = parts
                .iter()
                .map(|part| {
                    priority += 1;
                    (priority, hinted(part))
                })
                .collect();
            let block = disk.open(&disk.write(number, SMALL, &parts));
            check_hints(&read(&block, TimeRange::ALL), "as written");
            for &(_, n, min, length) in plan.deletions.iter().filter(|deletion| deletion.0 as u64 == number) {
                block.delete(tombstone("instance", &format!("i{n}"), min, min + length)).unwrap();
            }
            check_hints(&read(&block, TimeRange::ALL), "deleted");
            blocks.push(block);
        }
        let inputs: Vec<&Block> = blocks.iter().collect();
        let spec = MergeSpec { block: spec(60, SMALL), drop_until: plan.drop_until };
        let merged = merge(&disk.fs, Path::new(DIR), &inputs, &spec, &|| false).unwrap();
        if let Some(written) = &merged.block {
            let block = disk.open(&written.path);
            known.set(known.get() + check_hints(&read(&block, TimeRange::ALL), "merged"));
            let again = disk.merge(61, SMALL, &[&block]);
            let again = again.block.map(|block| disk.open(&block.path)).unwrap();
            check_hints(&read(&again, TimeRange::ALL), "merged again");
        }
        Ok(())
    });
    checked.unwrap();
    assert!(known.get() > 50, "what is still true is still said: {}", known.get());
}
