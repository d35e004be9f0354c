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
use chronolith_model::{Histogram, Labels, Matcher, TenantId, TimeRange};
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
