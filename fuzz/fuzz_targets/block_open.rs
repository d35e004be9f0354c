//! Blocks of any bytes: opening, reading, verifying and merging them end without a panic and without allocating more than
//! the file's size allows.
//!
//! The first byte chooses: the rest is a file as it stands, or a hotcache that gets the right footer and checksums, or
//! tombstones, or places and values to be damaged in a sound block: anywhere, whereupon the checksum of its hotcache is made
//! right, or in its units (frames of floats and of histograms, pages of all kinds), whose checksums are made right.
#![no_main]

mod block_units;
mod memory_fs;

use std::path::Path;
use std::sync::{Arc, OnceLock};

use chronolith_block::{
    Block, BlockCache, BlockRange, BlockSpec, BlockWriter, MergeSpec, SeriesSamples, Ulid, block_path,
    inspect, merge, tombstones_path, verify,
};
use chronolith_env::{Fs, OpenMode};
use chronolith_model::histogram::{CUSTOM_SCHEMA, CounterResetHint, HistogramParts, Span};
use chronolith_model::{
    Exemplar, Histogram, Labels, MetricMetadata, MetricType, StartTimestamp, TenantId, TimeRange,
};
use libfuzzer_sys::fuzz_target;
use memory_fs::MemoryFs;

const DIR: &str = "/b";
const FOOTER: usize = 40;

fuzz_target!(|data: &[u8]| {
    let Some((mode, rest)) = data.split_first() else { return };
    let (block, tombstones) = match mode % 5 {
        0 => (rest.to_vec(), None),
        1 => (with_footer(&[b"CHRB\x02\0\0\0", rest].concat(), 8), None),
        2 => {
            let mut tombstones = rest.to_vec();
            tombstones.extend_from_slice(&crc32fast::hash(rest).to_le_bytes());
            (sound().to_vec(), Some(tombstones))
        }
        3 => (damaged(rest), None),
        _ => (damaged_units(rest), None),
    };
    check(block, tombstones);
});

fn check(bytes: Vec<u8>, tombstones: Option<Vec<u8>>) {
    let memory = MemoryFs::default();
    let path = block_path(Path::new(DIR), ulid(1));
    memory.put(&path, bytes);
    if let Some(tombstones) = tombstones {
        memory.put(&tombstones_path(Path::new(DIR), ulid(1)), tombstones);
    }
    let fs: Arc<dyn Fs> = Arc::new(memory);
    let Ok(block) = Block::open(&fs, &path, &BlockCache::new(1 << 20)) else { return };
    let mut reader = block.reader();
    for id in 0..block.meta().series.min(100) {
        let mut samples = SeriesSamples::default();
        let _ = reader.read(id, TimeRange::ALL, &mut samples);
        let _ = reader.fragments(id, TimeRange::ALL);
    }
    let ids: Vec<u32> = (0..block.meta().series.min(100)).collect();
    let mut batch = vec![SeriesSamples::default(); ids.len()];
    let _ = block.reader().read_batch(&ids, TimeRange::new(3000, 12_000), &mut batch);
    let _ = block.select(&[]).and_then(|ids| block.exemplars(&ids, TimeRange::ALL));
    let _ = block.metadata();
    let _ = inspect(&block);
    let report = verify(&block, &|| false).expect("files in memory do not fail");
    let merged = merge(&fs, Path::new(DIR), &[&block], &merge_spec(&block), &|| false);
    if report.problems.is_empty() {
        let merged = merged.expect("a sound block is merged");
        if let Some(merged) = merged.block {
            let merged = Block::open(&fs, &merged.path, &BlockCache::new(0)).expect("what was written");
            assert!(verify(&merged, &|| false).expect("in memory").problems.is_empty());
        }
    }
}

fn merge_spec(block: &Block) -> MergeSpec {
    MergeSpec { block: BlockSpec { ulid: ulid(2), ..block.meta().spec.clone() }, drop_until: None }
}

fn ulid(number: u64) -> Ulid {
    Ulid::from_parts(number, 7)
}

/// Makes the footer of a file whose hotcache starts at `off`; the hotcache says of which version it is.
fn with_footer(file: &[u8], off: usize) -> Vec<u8> {
    let mut bytes = file.to_vec();
    let start = bytes.len();
    let hotcache = crc32fast::hash(&bytes[off..]);
    bytes.extend_from_slice(&(off as u64).to_le_bytes());
    bytes.extend_from_slice(&((start - off) as u32).to_le_bytes());
    bytes.extend_from_slice(&hotcache.to_le_bytes());
    bytes.extend_from_slice(&((start + FOOTER) as u64).to_le_bytes());
    bytes.extend_from_slice(&[file.get(off).copied().unwrap_or(2), 0, 0, 0, 0, 0, 0, 0]);
    let crc = crc32fast::hash(&bytes[start..]);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(b"CHRB");
    bytes
}

/// The sound block with bytes of its hotcache replaced: pairs of a place (two bytes) and a value.
fn damaged(places: &[u8]) -> Vec<u8> {
    let sound = sound();
    let footer = sound.len() - FOOTER;
    let off = u64::from_le_bytes(sound[footer..footer + 8].try_into().expect("eight")) as usize;
    let mut file = sound[..footer].to_vec();
    for place in places.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([place[0], place[1]])) % file.len();
        file[at] = place[2];
    }
    with_footer(&file, off)
}

/// The sound block with bytes of its units replaced: pairs of a place (two bytes) and a value.
fn damaged_units(places: &[u8]) -> Vec<u8> {
    static UNITS: OnceLock<Vec<block_units::Unit>> = OnceLock::new();
    let sound = sound();
    let footer = sound.len() - FOOTER;
    let off = u64::from_le_bytes(sound[footer..footer + 8].try_into().expect("eight")) as usize;
    let units = UNITS.get_or_init(|| block_units::units(&sound[off..footer]));
    let mut file = sound[..footer].to_vec();
    for place in places.chunks_exact(3) {
        let at = 8 + usize::from(u16::from_le_bytes([place[0], place[1]])) % (off - 8);
        file[at] = place[2];
    }
    for unit in units {
        let crc = crc32fast::hash(&file[unit.off..unit.off + unit.len]);
        file[off + unit.crc_at..][..4].copy_from_slice(&crc.to_le_bytes());
    }
    with_footer(&file, off)
}

/// A histogram: of integers, floats, custom buckets, a gauge.
fn histogram(kind: u32, n: u32) -> Histogram {
    let custom = kind == 2;
    let hint = if kind == 3 { CounterResetHint::Gauge } else { CounterResetHint::Unknown };
    let (schema, custom_values) =
        if custom { (CUSTOM_SCHEMA, vec![0.5, 1.0, 2.5]) } else { (kind as i32, Vec::new()) };
    let positive_spans = vec![Span { offset: (n / 8 % 2) as i32, length: 2 }];
    if n == 7 {
        return Histogram::stale();
    }
    if kind == 1 {
        let (count, bucket) = (f64::from(n) * 2.5, f64::from(n) * 1.25);
        let positive_buckets = vec![bucket, bucket];
        let parts = HistogramParts {
            schema,
            count,
            sum: 0.5,
            positive_spans,
            positive_buckets,
            ..HistogramParts::default()
        };
        return Histogram::Float(parts.build(None).expect("valid"));
    }
    let (count, positive_buckets) = (u64::from(n) * 2, vec![u64::from(n); 2]);
    let sum = f64::from(n);
    let parts = HistogramParts {
        hint,
        schema,
        count,
        sum,
        positive_spans,
        positive_buckets,
        custom_values,
        ..HistogramParts::default()
    };
    Histogram::Integer(parts.build(None).expect("valid"))
}

fn sound() -> &'static [u8] {
    static SOUND: OnceLock<Vec<u8>> = OnceLock::new();
    SOUND.get_or_init(|| {
        let fs: Arc<dyn Fs> = Arc::new(MemoryFs::default());
        let spec = BlockSpec {
            ulid: ulid(1),
            tenant: TenantId::default(),
            range: BlockRange::new(0, 1_000_000),
            level: 1,
            created: 0,
            sources: Vec::new(),
        };
        let mut writer = BlockWriter::create(&fs, Path::new(DIR), spec).expect("in memory");
        for part in 0..2 {
            writer.begin_part(part).expect("none is open");
            for n in 0..20_u32 {
                if part == 0 {
                    let labels = Labels::from_pairs([("__name__", "m"), ("n", &format!("{n:02}"))]);
                    writer.add_series(&labels).expect("in order");
                }
                let timestamps: Vec<i64> = (0..20).map(|i| 1 + i * 1000 + part as i64 * 9_500).collect();
                let values: Vec<f64> = (0..20).map(|i| f64::from(i * n)).collect();
                if n % 5 < 4 {
                    writer.push_floats(n, &timestamps, &values).expect("in memory");
                }
                if n % 5 >= 3 {
                    // Some series have both.
                    let timestamps: Vec<i64> = timestamps.iter().map(|t| t + 3).collect();
                    let histograms: Vec<_> = (0..20).map(|i| histogram(n / 5, i)).collect();
                    writer.push_histograms(n, &timestamps, &histograms).expect("in memory");
                }
            }
            writer.end_part().expect("one is open");
        }
        for n in (0..20_u32).step_by(3) {
            let step = |since, start| StartTimestamp { since, start };
            writer.push_starts(n, 1, &[step(0, -5), step(7000, 6500)]).expect("in memory");
        }
        for n in (0..20_u32).step_by(4) {
            let exemplar = |timestamp| {
                let labels = Labels::from_pairs([("trace_id", format!("t{n}"))]);
                Exemplar { labels, value: f64::from(n), timestamp }
            };
            writer.push_exemplars(n, &[exemplar(500), exemplar(900)]).expect("in memory");
        }
        for (metric, kind) in [("m", MetricType::Counter), ("other", MetricType::StateSet)] {
            let (metric, unit, help) = (metric.to_owned(), "seconds".to_owned(), "What it is.".to_owned());
            writer.push_metadata(&MetricMetadata { metric, kind, unit, help }).expect("in memory");
        }
        let path = writer.finish().expect("in memory").path;
        let file = fs.open(&path, OpenMode::Read).expect("it is there");
        let mut bytes = vec![0; file.len().expect("in memory") as usize];
        file.read_exact_at(0, &mut bytes).expect("in memory");
        bytes
    })
}
