//! Blocks in memory, and the model they are compared with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chronolith_block::{
    Block, BlockCache, BlockRange, BlockSpec, BlockWriter, MergeSpec, Merged, SeriesSamples, Tombstone, Ulid,
    merge, series_order,
};
use chronolith_env::Fs;
use chronolith_model::histogram::HistogramParts;
use chronolith_model::{Histogram, Labels, Matcher, StartTimestamp, TenantId, TimeRange};
use chronolith_testkit::fault_fs::FaultFs;

pub(crate) const DIR: &str = "/blocks";

/// A sample's value: the bits of a float, or a histogram.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Float(u64),
    Histogram(Box<Histogram>),
}

/// Samples by labels and time.
pub(crate) type Model = BTreeMap<Labels, BTreeMap<i64, Value>>;

/// Start timestamps by labels, as they are written.
pub(crate) type Starts = BTreeMap<Labels, Vec<StartTimestamp>>;

/// The start of each sample that has one.
pub(crate) type SampleStarts = BTreeMap<(Labels, i64), i64>;

/// A disk with blocks on it.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    pub(crate) disk: FaultFs,
    pub(crate) fs: Arc<dyn Fs>,
}

impl Disk {
    pub(crate) fn new() -> Self {
        let disk = FaultFs::new();
        disk.create_dir_all(Path::new(DIR)).unwrap();
        Self { fs: Arc::new(disk.clone()), disk }
    }

    /// Writes a block of these parts: priority and content.
    pub(crate) fn write(&self, number: u64, range: BlockRange, parts: &[(u64, Model)]) -> PathBuf {
        self.write_with(number, range, parts, &Starts::new())
    }

    /// The same with start timestamps.
    pub(crate) fn write_with(
        &self,
        number: u64,
        range: BlockRange,
        parts: &[(u64, Model)],
        starts: &Starts,
    ) -> PathBuf {
        let mut writer = BlockWriter::create(&self.fs, Path::new(DIR), spec(number, range)).unwrap();
        let mut series: Vec<Labels> = parts.iter().flat_map(|(_, part)| part.keys().cloned()).collect();
        series.sort_by(series_order);
        series.dedup();
        for labels in &series {
            writer.add_series(labels).unwrap();
        }
        for (priority, part) in parts {
            writer.begin_part(*priority).unwrap();
            for (id, labels) in (0..).zip(&series) {
                let samples = columns(part.get(labels));
                writer.push_floats(id, &samples.timestamps, &samples.values).unwrap();
                writer.push_histograms(id, &samples.histogram_timestamps, &samples.histograms).unwrap();
            }
            writer.end_part().unwrap();
        }
        for (id, labels) in (0..).zip(&series) {
            let samples = parts.iter().filter_map(|(_, part)| part.get(labels));
            let first = samples.filter_map(|samples| samples.keys().next()).min();
            let steps = starts.get(labels).map(Vec::as_slice).unwrap_or_default();
            writer.push_starts(id, *first.unwrap(), steps).unwrap();
        }
        writer.finish().unwrap().path
    }

    /// Names of all files.
    pub(crate) fn files(&self) -> Vec<String> {
        self.fs.list(Path::new(DIR)).unwrap()
    }

    pub(crate) fn open(&self, path: &Path) -> Block {
        Block::open(&self.fs, path, &BlockCache::default()).unwrap()
    }

    pub(crate) fn merge(&self, number: u64, range: BlockRange, inputs: &[&Block]) -> Merged {
        let spec = MergeSpec { block: spec(number, range), drop_until: None };
        merge(&self.fs, Path::new(DIR), inputs, &spec, &|| false).unwrap()
    }
}

pub(crate) fn spec(number: u64, range: BlockRange) -> BlockSpec {
    BlockSpec {
        ulid: Ulid::from_parts(number, 7),
        tenant: TenantId::default(),
        range,
        level: 1,
        created: 1_700_000_000_000,
        sources: vec![Ulid::from_parts(number, 7)],
    }
}

pub(crate) fn columns(samples: Option<&BTreeMap<i64, Value>>) -> SeriesSamples {
    let mut columns = SeriesSamples::default();
    for (timestamp, value) in samples.into_iter().flatten() {
        match value {
            Value::Float(bits) => {
                columns.timestamps.push(*timestamp);
                columns.values.push(f64::from_bits(*bits));
            }
            Value::Histogram(histogram) => {
                columns.histogram_timestamps.push(*timestamp);
                columns.histograms.push((**histogram).clone());
            }
        }
    }
    columns
}

/// All that a block says inside `range`.
pub(crate) fn read(block: &Block, range: TimeRange) -> Model {
    let ids = block.select(&[]).unwrap();
    let labels = block.labels(&ids).unwrap();
    assert!(labels.is_sorted_by(|a, b| series_order(a, b).is_lt()));
    let mut reader = block.reader();
    let mut model = Model::new();
    let all: Vec<u32> = ids.iter().collect();
    let mut batch = vec![SeriesSamples::default(); all.len()];
    reader.read_batch(&all, range, &mut batch).unwrap();
    for ((id, labels), of_batch) in ids.iter().zip(labels).zip(batch) {
        let mut samples = SeriesSamples::default();
        reader.read(id, range, &mut samples).unwrap();
        let bits = |samples: &SeriesSamples| samples.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(
            (&samples.timestamps, bits(&samples)),
            (&of_batch.timestamps, bits(&of_batch)),
            "{labels}"
        );
        assert_eq!(samples.histograms, of_batch.histograms, "{labels}");
        assert_eq!(samples.starts, of_batch.starts, "{labels}");
        assert!(samples.timestamps.is_sorted_by(|a, b| a < b));
        assert!(samples.histogram_timestamps.is_sorted_by(|a, b| a < b));
        let floats = samples.timestamps.iter().zip(&samples.values);
        let mut all: BTreeMap<i64, Value> = floats.map(|(t, v)| (*t, Value::Float(v.to_bits()))).collect();
        for (t, histogram) in samples.histogram_timestamps.iter().zip(samples.histograms) {
            let twice = all.insert(*t, Value::Histogram(Box::new(histogram)));
            assert!(twice.is_none(), "float and histogram at {t}");
        }
        if !all.is_empty() {
            model.insert(labels, all);
        }
    }
    model
}

/// The starts that a block says its samples inside `range` have.
pub(crate) fn read_starts(block: &Block, range: TimeRange) -> SampleStarts {
    let ids = block.select(&[]).unwrap();
    let mut reader = block.reader();
    let mut starts = SampleStarts::new();
    for (id, labels) in ids.iter().zip(block.labels(&ids).unwrap()) {
        let mut samples = SeriesSamples::default();
        reader.read(id, range, &mut samples).unwrap();
        let times: Vec<i64> =
            samples.timestamps.iter().chain(&samples.histogram_timestamps).copied().collect();
        assert!(samples.starts.is_sorted_by(|a, b| a.since < b.since && a.start != b.start), "{samples:?}");
        assert!(samples.starts.iter().all(|step| times.contains(&step.since)), "{samples:?}");
        assert!(samples.starts.first().is_none_or(|first| first.start != 0), "{samples:?}");
        for t in times {
            let start = StartTimestamp::at(&samples.starts, t);
            if start != 0 {
                starts.insert((labels.clone(), t), start);
            }
        }
    }
    starts
}

/// The starts that the samples of `model` have by `steps`.
pub(crate) fn sample_starts(model: &Model, steps: &Starts) -> SampleStarts {
    let mut starts = SampleStarts::new();
    for (labels, samples) in model {
        let steps = steps.get(labels).map(Vec::as_slice).unwrap_or_default();
        for t in samples.keys() {
            let start = StartTimestamp::at(steps, *t);
            if start != 0 {
                starts.insert((labels.clone(), *t), start);
            }
        }
    }
    starts
}

/// What is left of `model` inside `range`, without empty series.
pub(crate) fn inside(model: &Model, range: TimeRange) -> Model {
    let mut model = model.clone();
    for samples in model.values_mut() {
        samples.retain(|t, _| range.contains(*t));
    }
    model.retain(|_, samples| !samples.is_empty());
    model
}

/// Deletes from a model what a tombstone of equality matchers means.
pub(crate) fn delete(model: &mut Model, tombstone: &Tombstone) {
    for (labels, samples) in model.iter_mut() {
        if tombstone.matchers.iter().all(|m| labels.get(&m.name).unwrap_or_default() == m.value) {
            samples.retain(|t, _| !tombstone.ranges.iter().any(|range| range.contains(*t)));
        }
    }
    model.retain(|_, samples| !samples.is_empty());
}

/// Adds what `model` does not have at a timestamp yet.
pub(crate) fn add(model: &mut Model, more: &Model) {
    for (labels, samples) in more {
        let all = model.entry(labels.clone()).or_default();
        for (t, value) in samples {
            all.entry(*t).or_insert_with(|| value.clone());
        }
    }
}

pub(crate) fn tombstone(name: &str, value: &str, min: i64, max: i64) -> Tombstone {
    Tombstone { matchers: vec![Matcher::equal(name, value)], ranges: vec![TimeRange::new(min, max)] }
}

/// A histogram of two buckets.
pub(crate) fn histogram(seed: u64) -> Value {
    let parts = HistogramParts::<u64> {
        schema: 3,
        zero_threshold: 0.001,
        sum: f64::from_bits(0x4010_0000_0000_0000 ^ seed),
        count: 10 + seed % 50,
        zero_count: 1,
        positive_spans: vec![chronolith_model::histogram::Span { offset: (seed % 3) as i32, length: 2 }],
        positive_buckets: vec![4, 5 + seed % 50],
        ..HistogramParts::default()
    };
    Value::Histogram(Box::new(Histogram::Integer(parts.build(None).unwrap())))
}
