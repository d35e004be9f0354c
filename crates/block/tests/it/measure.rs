//! What a sample costs from the cut of the head to the highest level, and how many frames merges copy. Not run by itself:
//!
//! `cargo test --release -p chronolith-block --test it -- --ignored --nocapture measure`
//!
//! The recorded series, stretched to 15 s and repeated over 24 h, are cut into 12 blocks of 2 h out of chunks as the
//! head has them, merged to 8 h and to 24 h. CPU time is that of the thread, which the kernel counts; of several runs
//! the least. `MEASURE_RUNS`, `MEASURE_INSTANCES` change how many runs, and how often each series is there.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chronolith_block::{Block, BlockCache, BlockRange, BlockWriter, MergeSpec, merge, series_order};
use chronolith_chunk::{XorAppender, decode_into};
use chronolith_env::{Fs, RealFs};
use chronolith_model::{Labels, Sample, StartTimestamp};
use chronolith_testkit::data::{RECORDING_FILE, RecordedSeries, Recording, Replay, data_dir};
use chronolith_testkit::paths::skip;

use crate::fixture::spec;

const HOURS2: i64 = 7_200_000;
const SPREAD: i64 = 15;
/// Samples of a chunk of the head.
const CHUNK_SAMPLES: usize = 120;

/// What happens to the series meanwhile.
#[derive(Clone, Copy, Debug)]
struct Load {
    name: &'static str,
    /// One series in so many gets another name in each block, somewhere in it; 0: none.
    renamed: u64,
    /// Whether starts of counters are known.
    starts: bool,
    /// Frames that are to be copied, in percent.
    copied_min: f64,
}

const LOADS: [Load; 3] = [
    Load { name: "stable", renamed: 0, starts: false, copied_min: 90.0 },
    Load { name: "stable, with starts", renamed: 0, starts: true, copied_min: 90.0 },
    Load { name: "10 % renamed every 2 h", renamed: 10, starts: false, copied_min: 50.0 },
];

/// A series in one block, as the head has it.
struct Cut {
    labels: Labels,
    chunks: Vec<Vec<u8>>,
    first: i64,
    start: i64,
}

/// CPU time of this thread so far.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("a Linux kernel");
    let nanos = text.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.expect("a number"))
}

/// The least CPU time of `runs` runs, and what the last one gave.
fn least<T>(runs: usize, mut run: impl FnMut() -> T) -> (Duration, T) {
    let mut timed = || {
        let before = cpu();
        let result = run();
        (cpu() - before, result)
    };
    let (mut time, mut result) = timed();
    for _ in 1..runs {
        let (again, other) = timed();
        time = time.min(again);
        result = other;
    }
    (time, result)
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

/// The samples of a series in `range`: the recording over and over.
fn samples<'a>(series: &'a RecordedSeries, range: BlockRange, begin: i64, cycle: i64) -> Vec<Sample> {
    let since = range.min - begin;
    let rounds = since.div_euclid(cycle)..=(range.max - begin).div_euclid(cycle);
    let shift = |round: i64| move |s: &'a Sample| Sample::new(s.timestamp + round * cycle, s.value);
    rounds
        .flat_map(|round| series.samples.iter().map(shift(round)))
        .filter(|sample| range.contains(sample.timestamp))
        .collect()
}

fn chunks(samples: &[Sample]) -> Vec<Vec<u8>> {
    let of_chunk = |samples: &[Sample]| {
        let (mut appender, mut bytes) = (XorAppender::new(), Vec::new());
        for sample in samples {
            appender.append(&mut bytes, sample.timestamp, sample.value).expect("room");
        }
        bytes
    };
    samples.chunks(CHUNK_SAMPLES).map(of_chunk).collect()
}

/// What the head has of each series in `range`, in the order of blocks.
fn cut(series: &[RecordedSeries], load: Load, number: u64, range: BlockRange, span: (i64, i64)) -> Vec<Cut> {
    let mut all = Vec::new();
    for one in series {
        let hash = one.labels.stable_hash();
        let samples = samples(one, range, span.0, span.1);
        // The name of each changes in some blocks; in each block, those of others.
        let (renames, is_renamed) = match load.renamed {
            0 => (0, false),
            every => ((hash % every + number) / every, (hash % every + number).is_multiple_of(every)),
        };
        let is_renamed = is_renamed && renames > 0;
        let at = if is_renamed { samples.len() * (hash >> 32 & 0xff) as usize / 256 } else { 0 };
        let (before, behind) = samples.split_at(at);
        for (rename, samples) in [(renames.saturating_sub(1), before), (renames, behind)] {
            let Some(first) = samples.first() else { continue };
            let mut labels = one.labels.clone();
            if load.renamed > 0 {
                labels = labels.to_builder().set("pod", format!("p-{:x}-{rename}", hash & 0xffff)).build();
            }
            let start = if load.starts { span.0 - 1000 - (hash % 60_000) as i64 } else { 0 };
            all.push(Cut { labels, chunks: chunks(samples), first: first.timestamp, start });
        }
    }
    all.sort_by(|a, b| series_order(&a.labels, &b.labels));
    all.dedup_by(|a, b| a.labels == b.labels);
    all
}

fn write(fs: &Arc<dyn Fs>, dir: &Path, cuts: &[Cut], number: u64, range: BlockRange) -> Block {
    let mut writer = BlockWriter::create(fs, dir, spec(number, range)).unwrap();
    writer.begin_part(number).unwrap();
    let (mut timestamps, mut values) = (Vec::new(), Vec::new());
    for cut in cuts {
        timestamps.clear();
        values.clear();
        for chunk in &cut.chunks {
            decode_into(chunk, &mut timestamps, &mut values).unwrap();
        }
        let id = writer.add_series(&cut.labels).unwrap();
        writer.push_floats(id, &timestamps, &values).unwrap();
        if cut.start != 0 {
            let step = StartTimestamp { since: cut.first, start: cut.start };
            writer.push_starts(id, cut.first, &[step]).unwrap();
        }
    }
    writer.end_part().unwrap();
    let path = writer.finish().unwrap().path;
    Block::open(fs, &path, &BlockCache::new(8 << 20)).unwrap()
}

#[derive(Default)]
struct Level {
    name: &'static str,
    samples: u64,
    time: Duration,
    copied: u64,
    encoded: u64,
    bytes: u64,
}

impl Level {
    fn nanos(&self) -> f64 {
        self.time.as_secs_f64() * 1e9 / self.samples as f64
    }
}

#[test]
#[ignore = "measures: minutes, and only a release build says anything"]
fn measure_the_life_of_samples() {
    let Some(dir) = data_dir() else {
        skip("recorded series");
        return;
    };
    let instances = number("MEASURE_INSTANCES", 2) as u32;
    let replay = Replay { spread: SPREAD as u32, instances, shift: 240_000 };
    let recording = Recording::open(&dir.join(RECORDING_FILE), replay).unwrap();
    let series: Vec<RecordedSeries> = recording.map(Result::unwrap).collect();
    let times = || series.iter().flat_map(|one| &one.samples).map(|sample| sample.timestamp);
    let begin = times().min().unwrap();
    let cycle = (times().max().unwrap() - begin) / 15_000 * 15_000 + 15_000;
    let mut table = String::new();
    for load in LOADS {
        measure(&series, load, (begin, cycle), &mut table);
    }
    eprintln!("{table}");
}

fn measure(series: &[RecordedSeries], load: Load, span: (i64, i64), table: &mut String) {
    let runs = number("MEASURE_RUNS", 3);
    let temporary = tempfile::tempdir().unwrap();
    let (fs, dir): (Arc<dyn Fs>, _) = (Arc::new(RealFs), temporary.path());
    // Windows of 24 h from midnight, within the repeated recording.
    let day = span.0.div_euclid(12 * HOURS2) * 12 * HOURS2 + 12 * HOURS2;
    let range = |from: i64, to: i64| BlockRange::new(day + from * HOURS2, day + to * HOURS2);
    let mut levels =
        [("cut", 0), ("8 h", 0), ("24 h", 0)].map(|(name, _)| Level { name, ..Level::default() });
    let mut blocks = Vec::new();
    for number in 0..12 {
        let range = range(number, number + 1);
        let cuts = cut(series, load, number as u64, range, span);
        let (time, block) = least(runs, || write(&fs, dir, &cuts, number as u64, range));
        levels[0].samples += block.meta().samples;
        levels[0].time += time;
        levels[0].bytes += block.file_bytes();
        blocks.push(block);
    }
    for (level, width) in [(1, 4), (2, 12)] {
        let mut merged_blocks = Vec::new();
        let each = width / if level == 1 { 1 } else { 4 };
        for (number, inputs) in (0_i64..).zip(blocks.chunks(each)) {
            let (from, to) = (number * width as i64, (number + 1) * width as i64);
            let block = spec((level * 100) as u64 + number as u64, range(from, to));
            let spec = MergeSpec { block, drop_until: None };
            let paths: Vec<_> = inputs.iter().map(|block| block.path().to_path_buf()).collect();
            let (time, merged) = least(runs, || {
                let cache = BlockCache::new(8 << 20);
                let inputs: Vec<_> =
                    paths.iter().map(|path| Block::open(&fs, path, &cache).unwrap()).collect();
                merge(&fs, dir, &inputs.iter().collect::<Vec<_>>(), &spec, &|| false).unwrap()
            });
            let into = &mut levels[level];
            into.time += time;
            into.copied += merged.frames_copied;
            into.encoded += merged.frames_encoded;
            let written = merged.block.unwrap();
            into.samples += written.meta.samples;
            into.bytes += written.bytes;
            merged_blocks.push(Block::open(&fs, &written.path, &BlockCache::new(8 << 20)).unwrap());
        }
        blocks = merged_blocks;
    }
    let (series, samples) = (blocks[0].meta().series, blocks[0].meta().samples);
    let all = || levels.iter();
    writeln!(table, "{}: {series} series, {samples} samples in 24 h", load.name).unwrap();
    for level in all() {
        let Level { name, copied, encoded, bytes, .. } = level;
        let nanos = level.nanos();
        writeln!(
            table,
            "  {name:>4}: {nanos:5.1} ns CPU per sample; {copied} frames copied, {encoded} encoded; {bytes} bytes"
        )
        .unwrap();
    }
    let (copied, encoded) = all().fold((0, 0), |sum, level| (sum.0 + level.copied, sum.1 + level.encoded));
    let share = copied as f64 * 100.0 / (copied + encoded) as f64;
    let nanos: f64 = all().map(Level::nanos).sum();
    writeln!(table, "  life: {nanos:5.1} ns CPU per sample; {share:.1} % of frames copied").unwrap();
    assert!(share >= load.copied_min, "{table}");
    if !cfg!(debug_assertions) {
        assert!(nanos <= 60.0, "{table}");
    }
}
