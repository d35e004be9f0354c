//! What is written is read.

use std::collections::BTreeMap;
use std::path::Path;

use chronolith_block::{
    Block, BlockCache, BlockRange, BlockWriter, Error, SeriesSamples, Tombstone, tombstones_path,
};
use chronolith_index::CompiledMatcher;
use chronolith_model::{
    Exemplar, Labels, MatchOp, Matcher, MetricMetadata, MetricType, TimeRange, stale_nan,
};

use crate::fixture::{
    DIR, Disk, Model, Value, add, columns, delete, histogram, inside, read, spec, tombstone,
};

const RANGE: BlockRange = BlockRange::new(0, 7_200_000);

pub(crate) fn series(name: &str, instance: u64) -> Labels {
    Labels::from_pairs([("__name__", name), ("instance", &format!("i{instance}")), ("job", "node")])
}

/// Series of several targets with special values, gaps, and histograms.
pub(crate) fn content(series_per_metric: u64, samples: i64) -> Model {
    let mut model = Model::new();
    for instance in 0..series_per_metric {
        let at = |i: i64| 1 + i * 15_000 + (instance as i64 % 5) * 37 + i * i % 3;
        let float = |f: &dyn Fn(i64) -> f64| -> BTreeMap<i64, Value> {
            (0..samples).map(|i| (at(i), Value::Float(f(i).to_bits()))).collect()
        };
        model.insert(series("a_constant", instance), float(&|_| 1.0));
        model.insert(series("b_counter", instance), float(&|i| (i * (3 + instance as i64)) as f64));
        model.insert(series("c_noise", instance), float(&|i| (i as f64 * 1.7 + instance as f64).sin() * 1e3));
        let specials =
            [f64::NAN, -0.0, f64::INFINITY, stale_nan(), f64::from_bits(0xfff8_0000_dead_beef), 0.1];
        model.insert(series("d_special", instance), float(&|i| specials[i as usize % specials.len()]));
        let mut mixed = float(&|i| i as f64);
        for (i, value) in mixed.values_mut().enumerate().filter(|(i, _)| i % 7 == 3) {
            *value = histogram(i as u64 * 31 + instance);
        }
        model.insert(series("e_mixed", instance), mixed);
        // A series that starts late, one that ends early, one with a gap.
        let mut part = float(&|i| i as f64 / 4.0);
        match instance % 3 {
            0 => part.retain(|t, _| *t > at(samples / 2)),
            1 => part.retain(|t, _| *t < at(samples / 2)),
            _ => part.retain(|t, _| (*t / 15_000) % 11 != 5),
        }
        model.insert(series("f_partial", instance), part);
    }
    model.insert(Labels::from_pairs([("no", "name")]), BTreeMap::from([(5, Value::Float(0))]));
    model.retain(|_, samples| !samples.is_empty());
    model
}

#[test]
fn a_block_says_what_was_written() {
    let disk = Disk::new();
    let model = content(40, 120);
    let block = disk.open(&disk.write(1, RANGE, &[(3, model.clone())]));
    assert_eq!(read(&block, TimeRange::ALL), model);
    let floats: usize = model.values().map(|samples| columns(Some(samples)).timestamps.len()).sum();
    let all: usize = model.values().map(BTreeMap::len).sum();
    let meta = block.meta();
    assert_eq!((meta.series as usize, meta.samples as usize), (model.len(), floats));
    assert_eq!(meta.histograms as usize, all - floats);
    assert_eq!(meta.spec, spec(1, RANGE));
    for range in
        [TimeRange::new(600_000, 900_000), TimeRange::new(0, 1), TimeRange::new(8_000_000, 9_000_000)]
    {
        assert_eq!(read(&block, range), inside(&model, range), "{range:?}");
    }
}

#[test]
fn series_are_selected_and_read_in_any_order() {
    let disk = Disk::new();
    let model = content(10, 50);
    let block = disk.open(&disk.write(1, RANGE, &[(0, model.clone())]));
    let matchers = [Matcher::new("__name__", MatchOp::Regex, "a_.*|d_.*"), Matcher::equal("instance", "i3")];
    let ids = block.select(&CompiledMatcher::compile_all(&matchers).unwrap()).unwrap();
    let labels = block.labels(&ids).unwrap();
    assert_eq!(labels, [series("a_constant", 3), series("d_special", 3)]);
    let mut reader = block.reader();
    let ids: Vec<u32> = ids.iter().collect();
    for &at in &[1, 0, 1, 1, 0] {
        let mut samples = SeriesSamples::default();
        reader.read(ids[at], TimeRange::ALL, &mut samples).unwrap();
        let expected = columns(model.get(&labels[at]));
        assert_eq!(samples.timestamps, expected.timestamps);
        let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&samples.values), bits(&expected.values));
    }
    let mut nothing = SeriesSamples::default();
    reader.read(block.meta().series, TimeRange::ALL, &mut nothing).unwrap();
    assert!(nothing.is_empty(), "no such series");
}

#[test]
fn parts_are_joined_by_priority() {
    let disk = Disk::new();
    let whole = content(6, 100);
    let early = inside(&whole, TimeRange::new(0, 600_000));
    let mut late = inside(&whole, TimeRange::new(500_000, 7_200_000));
    for samples in late.values_mut() {
        samples.values_mut().for_each(|value| *value = Value::Float(42));
    }
    for (first, second) in [(1, 2), (2, 1)] {
        let parts = [(first, early.clone()), (second, late.clone())];
        let block = disk.open(&disk.write(first, RANGE, &parts));
        let (winner, loser) = if first < second { (&early, &late) } else { (&late, &early) };
        let mut expected = winner.clone();
        add(&mut expected, loser);
        assert_eq!(read(&block, TimeRange::ALL), expected);
    }
}

#[test]
fn timestamps_of_a_target_are_stored_once() {
    let disk = Disk::new();
    let bytes = |model: &Model, number| {
        let path = disk.write(number, RANGE, &[(0, model.clone())]);
        disk.disk.read(&path).unwrap().len()
    };
    let of = |name: &str, jitter: &dyn Fn(u64, i64) -> i64| {
        let mut model = Model::new();
        for n in 0..100 {
            let samples = (0..400).map(|i| (1000 + i * 15_000 + jitter(n, i), Value::Float(0)));
            model.insert(series(name, n), samples.collect());
        }
        model
    };
    let shared = bytes(&of("a", &|_, i| i * i * 7919 % 983), 1);
    let own = bytes(&of("a", &|n, i| (i * i + n as i64 * 31) * 7919 % 983), 2);
    assert!(shared * 5 < own, "{shared} {own}");
}

#[test]
fn deletions_are_seen_at_once_and_kept() {
    let disk = Disk::new();
    let mut model = content(5, 60);
    let path = disk.write(1, RANGE, &[(0, model.clone())]);
    let block = disk.open(&path);
    let before = block.tombstones_generation();
    let tombstones = [
        tombstone("instance", "i2", 100_000, 300_000),
        tombstone("__name__", "e_mixed", 0, 60_000),
        tombstone("__name__", "a_constant", i64::MIN, i64::MAX),
    ];
    for tombstone in &tombstones {
        assert!(block.delete(tombstone.clone()).unwrap());
        delete(&mut model, tombstone);
        assert_eq!(read(&block, TimeRange::ALL), model);
    }
    assert_eq!(block.tombstones_generation(), before + 3);
    let again = disk.open(&path);
    assert_eq!(again.tombstones(), tombstones);
    assert_eq!(again.tombstones_generation(), before + 3);
    assert_eq!(read(&again, TimeRange::ALL), model);
    // What means nothing here leaves no trace.
    assert!(!block.delete(tombstone("instance", "none", 0, 10)).unwrap());
    assert!(!block.delete(tombstone("instance", "i1", 9_000_000, 9_000_001)).unwrap());
    assert_eq!(block.tombstones_generation(), before + 3);
    let nothing = Tombstone { matchers: Vec::new(), ranges: vec![TimeRange::ALL] };
    assert!(matches!(block.delete(nothing), Err(Error::Input { .. })));
    assert!(disk.fs.exists(&tombstones_path(Path::new(DIR), block.meta().spec.ulid)).unwrap());
}

#[test]
fn statistics_hold_where_nothing_competes() {
    let disk = Disk::new();
    let model: Model =
        [(series("x", 1), (1..=10).map(|i| (i * 100, Value::Float((i as f64).to_bits()))).collect())].into();
    let late: Model = [(series("x", 1), BTreeMap::from([(2050, Value::Float(0))]))].into();
    let block = disk.open(&disk.write(1, RANGE, &[(0, model.clone()), (1, late)]));
    let fragments = block.reader().fragments(0, TimeRange::ALL).unwrap();
    assert_eq!(fragments.len(), 2);
    let statistics = fragments[0].statistics.expect("whole, alone, of floats");
    assert_eq!((statistics.count, statistics.min, statistics.max, statistics.sum), (10, 1.0, 10.0, 55.0));
    assert_eq!(fragments[0].range, TimeRange::new(100, 1000));
    let cut = block.reader().fragments(0, TimeRange::new(150, 9999)).unwrap();
    assert_eq!((cut[0].samples, cut[0].statistics), (9, None), "not whole");
    assert!(cut[1].statistics.is_some());
    block.delete(tombstone("__name__", "x", 500, 500)).unwrap();
    assert_eq!(block.reader().fragments(0, TimeRange::ALL).unwrap()[0].statistics, None, "one is deleted");
    let competing: Model = [(series("x", 1), BTreeMap::from([(550, Value::Float(0))]))].into();
    let block = disk.open(&disk.write(2, RANGE, &[(0, model), (1, competing)]));
    let fragments = block.reader().fragments(0, TimeRange::ALL).unwrap();
    assert!(fragments.iter().all(|fragment| fragment.statistics.is_none()), "{fragments:?}");
}

#[test]
fn exemplars_and_metadata_come_back() {
    let disk = Disk::new();
    let mut writer = BlockWriter::create(&disk.fs, Path::new(DIR), spec(1, RANGE)).unwrap();
    let exemplar = |t: i64, trace: usize| Exemplar {
        labels: Labels::from_pairs([("trace_id", format!("{trace:0100}"))]),
        value: t as f64,
        timestamp: t,
    };
    writer.begin_part(0).unwrap();
    for n in 0..50 {
        let id = writer.add_series(&series("x", n + 10)).unwrap();
        writer.push_floats(id, &[5], &[1.0]).unwrap();
        if n % 3 == 0 {
            let many: Vec<_> = (0..100).map(|t| exemplar(t * 100, t as usize)).collect();
            writer.push_exemplars(id, &many).unwrap();
        }
    }
    writer.end_part().unwrap();
    let metadata = |metric: &str| MetricMetadata {
        metric: metric.to_owned(),
        kind: MetricType::Counter,
        unit: "s".to_owned(),
        help: "h".repeat(3000),
    };
    let all: Vec<_> = (100..200).map(|n| metadata(&format!("m{n}"))).collect();
    all.iter().for_each(|metadata| writer.push_metadata(metadata).unwrap());
    assert!(writer.push_metadata(&all[0]).is_err(), "out of order");
    let block = disk.open(&writer.finish().unwrap().path);
    assert_eq!(block.metadata().unwrap(), all);
    assert_eq!(block.meta().exemplars, 17 * 100);
    let ids = [3, 4, 48].into_iter().collect();
    let found = block.exemplars(&ids, TimeRange::new(500, 9800)).unwrap();
    assert_eq!(found.iter().map(|(id, all)| (*id, all.len())).collect::<Vec<_>>(), [(3, 94), (48, 94)]);
    assert!(found[1].1[0].same(&exemplar(500, 5)));
    block.delete(tombstone("instance", "i13", 0, 1000)).unwrap();
    let found = block.exemplars(&ids, TimeRange::new(500, 9800)).unwrap();
    assert_eq!(found[0].1.len(), 88, "those of deleted samples go with them");
}

#[test]
fn the_writer_refuses_what_is_no_block() {
    let disk = Disk::new();
    let create = || BlockWriter::create(&disk.fs, Path::new(DIR), spec(1, RANGE)).unwrap();
    let mut writer = create();
    let (a, b) = (series("a", 1), series("b", 1));
    writer.add_series(&b).unwrap();
    assert!(matches!(writer.add_series(&a), Err(Error::IndexWrite(_))));
    assert!(matches!(writer.push_floats(0, &[1], &[1.0]), Err(Error::Input { .. })), "no part");
    writer.begin_part(0).unwrap();
    assert!(writer.begin_part(1).is_err());
    assert!(matches!(writer.push_floats(7, &[1], &[1.0]), Err(Error::Input { .. })), "no such series");
    assert!(matches!(writer.push_floats(0, &[1, 1], &[1.0, 2.0]), Err(Error::Input { .. })));
    assert!(matches!(writer.push_floats(0, &[1, 2], &[1.0]), Err(Error::Input { .. })));
    assert!(matches!(writer.push_floats(0, &[0], &[1.0]), Err(Error::OutOfRange { .. })), "the lower end");
    assert!(matches!(writer.push_floats(0, &[7_200_001], &[1.0]), Err(Error::OutOfRange { .. })));
    let many: Vec<i64> = (1..=65_537).collect();
    assert!(matches!(writer.push_floats(0, &many, &vec![0.0; 65_537]), Err(Error::Limit { .. })));
    writer.push_floats(0, &[7_200_000], &[1.0]).unwrap();
    assert!(matches!(writer.push_floats(0, &[5], &[1.0]), Err(Error::Input { .. })), "twice");
    let c = writer.add_series(&series("c", 1)).unwrap();
    writer.end_part().unwrap();
    assert!(matches!(writer.finish(), Err(Error::Input { .. })), "series {c} has no sample");
    assert!(disk.files().is_empty(), "a refused block leaves nothing");
}

#[test]
fn a_cache_too_small_for_anything_changes_no_answer() {
    let disk = Disk::new();
    let model = content(8, 40);
    let path = disk.write(1, RANGE, &[(0, model.clone())]);
    let cache = BlockCache::new(0);
    let block = Block::open(&disk.fs, &path, &cache).unwrap();
    assert_eq!(read(&block, TimeRange::ALL), model);
    assert_eq!(cache.stats().entries, 0);
    let cache = BlockCache::default();
    let block = Block::open(&disk.fs, &path, &cache).unwrap();
    assert_eq!(read(&block, TimeRange::ALL), model);
    let first = cache.stats();
    assert_eq!(read(&block, TimeRange::ALL), model);
    let second = cache.stats();
    assert_eq!(first.misses, second.misses, "everything is in the cache");
    assert!(second.hits > first.hits && second.bytes > 0);
    drop(block);
    assert_eq!(cache.stats().entries, 0, "a closed block leaves the cache");
}

#[test]
fn deleted_samples_are_counted_without_reading() {
    let disk = Disk::new();
    // All series alike, samples evenly spread, in two parts.
    let model: Model = (0..200)
        .map(|n| (series("m", n), (1..=200).map(|i| (i * 30_000, Value::Float(n * i as u64))).collect()))
        .collect();
    let parts = [TimeRange::new(0, 3_000_000), TimeRange::new(3_000_001, 7_200_000)];
    let parts = [(0, inside(&model, parts[0])), (1, inside(&model, parts[1]))];
    let block = disk.open(&disk.write(1, RANGE, &parts));
    let mut left = model.clone();
    assert_eq!(block.deleted_samples(), 0);
    let mut check = |deleted: Tombstone, exactly: bool| {
        block.delete(deleted.clone()).unwrap();
        delete(&mut left, &deleted);
        let there: usize = left.values().map(BTreeMap::len).sum();
        let (expected, got) = (40_000 - there as u64, block.deleted_samples());
        assert!(got.abs_diff(expected) <= if exactly { 0 } else { expected / 20 + 2 }, "{got} of {expected}");
    };
    check(tombstone("instance", "i3", 0, 3_000_000), true);
    // What is deleted twice counts once, also where only some of the series are the same.
    check(tombstone("instance", "i3", 0, 3_000_000), true);
    check(tombstone("instance", "i3", 1_500_000, 7_200_000), false);
    check(tombstone("instance", "i4", 1_500_000, 2_000_000), false);
    check(tombstone("__name__", "m", 6_000_001, i64::MAX), false);
    check(tombstone("job", "node", 1_000_000, 4_000_000), false);
    check(tombstone("job", "node", i64::MIN, i64::MAX), true);
    assert_eq!(disk.open(block.path()).deleted_samples(), 40_000, "after a restart too");
}

#[test]
fn blocks_share_the_pages_of_their_indexes() {
    let disk = Disk::new();
    let cache = BlockCache::new(1 << 20);
    let open = |number| {
        let path = disk.write(number, RANGE, &[(0, content(20, 5))]);
        Block::open(&disk.fs, &path, &cache).unwrap()
    };
    let select = |block: &Block| {
        let matcher = Matcher::new("instance", MatchOp::Regex, ".*[37]");
        block.select(&[CompiledMatcher::new(&matcher).unwrap()]).unwrap()
    };
    let blocks: Vec<Block> = (1..4).map(open).collect();
    let mut bytes = 0;
    for block in &blocks {
        assert_eq!(select(block).len(), 24);
        let now = cache.stats().index_bytes;
        assert!(now > bytes && now as usize == cache.index_pages().bytes(), "{now}");
        bytes = now;
    }
    drop(blocks);
    assert_eq!((cache.stats().bytes, cache.stats().index_bytes), (0, 0), "what is closed is forgotten");
    let other = BlockCache::with_index_pages(0, std::sync::Arc::clone(cache.index_pages()));
    let path = disk.write(9, RANGE, &[(0, content(20, 5))]);
    let block = Block::open(&disk.fs, &path, &other).unwrap();
    select(&block);
    assert!(cache.stats().index_bytes > 0, "caches of pieces may share that of the indexes");
}
