//! What the dense encodings make of the recorded series: bytes per sample, and the time to write and to read them.
//!
//! `cargo bench -p chronolith-bench --bench encodings`, with the recording where `CHRONOLITH_DATA` says; options stand
//! behind another `--`.
//! Two readings of it: every 15th scrape, and all scrapes stretched to 15 s, in columns of 480. Every value is compared,
//! bit for bit, before anything is timed.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use chronolith_chunk::dense::{
    Frame, FrameBuilder, Statistics, Transform, decode_statistics, decode_timestamps, encode_statistics,
    encode_timestamps,
};
use chronolith_model::{Labels, Sample};
use chronolith_testkit::{
    data::{RECORDING_FILE, Recording, Replay, data_dir},
    paths::skip,
};
use clap::Parser;

/// Measures the dense encodings on the recorded series.
#[derive(Debug, Parser)]
struct Args {
    /// Times are the least of so many runs.
    #[arg(long, default_value_t = 5)]
    runs: u32,
    /// A frame may end from so many bytes on, before zstd.
    #[arg(long, default_value_t = 48 << 10)]
    frame_bytes_min: usize,
    /// A frame ends at so many bytes, before zstd.
    #[arg(long, default_value_t = 64 << 10)]
    frame_bytes_max: usize,
    /// Only the series of this metric.
    #[arg(long)]
    metric: Option<String>,
    /// Prints the metrics that take the most, so many of them, with their encodings.
    #[arg(long, default_value_t = 0)]
    largest: usize,
    /// Prints what each combination of mode and transform takes.
    #[arg(long)]
    encodings: bool,
    /// What cargo says to benches.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A column of one series.
struct Column {
    metric: String,
    timestamps: Vec<i64>,
    values: Vec<f64>,
    timeline: u64,
    family: u64,
    /// Whether a frame may end behind it.
    boundary: bool,
}

/// The columns of one window of time, in the order of blocks.
type Window = Vec<Column>;

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn without_le(labels: &Labels) -> Vec<(String, String)> {
    let all = labels.iter().filter(|(name, _)| *name != "le");
    all.map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

fn column(labels: &Labels, samples: &[Sample]) -> Column {
    let timestamps: Vec<i64> = samples.iter().map(|sample| sample.timestamp).collect();
    let timeline = hash(&timestamps);
    Column {
        metric: labels.get("__name__").unwrap_or_default().to_owned(),
        values: samples.iter().map(|sample| sample.value).collect(),
        timeline,
        timestamps,
        family: hash(&without_le(labels)),
        boundary: hash(&labels.to_string()).is_multiple_of(16),
    }
}

/// All series, cut every `window_ms`.
fn windows(series: &[(Labels, Vec<Sample>)], window_ms: i64) -> Vec<Window> {
    let mut windows: HashMap<i64, Window> = HashMap::new();
    for (labels, samples) in series {
        for part in
            samples.chunk_by(|a, b| a.timestamp.div_euclid(window_ms) == b.timestamp.div_euclid(window_ms))
        {
            let window = part[0].timestamp.div_euclid(window_ms);
            windows.entry(window).or_default().push(column(labels, part));
        }
    }
    let mut windows: Vec<_> = windows.into_iter().collect();
    windows.sort_unstable_by_key(|(at, _)| *at);
    windows.into_iter().map(|(_, window)| window).collect()
}

#[derive(Default)]
struct Encoded {
    /// Frames, and the columns in them.
    frames: Vec<(Vec<u8>, std::ops::Range<usize>)>,
    values: usize,
    values_before_zstd: usize,
    timestamps: Vec<Vec<u8>>,
    statistics: Vec<Vec<u8>>,
}

fn encode_frames(window: &Window, args: &Args, builder: &mut FrameBuilder) -> Result<Encoded> {
    let mut encoded = Encoded::default();
    let mut start = 0;
    let mut end_frame = |builder: &mut FrameBuilder, end: usize| {
        let mut bytes = Vec::new();
        encoded.values_before_zstd += builder.encoded_len();
        builder.finish(&mut bytes);
        encoded.values += bytes.len();
        encoded.frames.push((bytes, start..end));
        start = end;
    };
    for (i, column) in window.iter().enumerate() {
        builder.push(&column.values, column.timeline, column.family)?;
        let len = builder.encoded_len();
        let full = len >= args.frame_bytes_max || builder.slots() == chronolith_chunk::dense::FRAME_SLOTS_MAX;
        if full || len >= args.frame_bytes_min && column.boundary {
            end_frame(builder, i + 1);
        }
    }
    if builder.slots() > 0 {
        end_frame(builder, window.len());
    }
    Ok(encoded)
}

/// The distinct timestamp columns of a window that are no part of another.
fn timestamp_columns(window: &Window) -> Vec<&[i64]> {
    let mut distinct: HashMap<u64, &[i64]> = HashMap::new();
    for column in window {
        distinct.entry(column.timeline).or_insert(&column.timestamps);
    }
    let mut distinct: Vec<_> = distinct.into_values().collect();
    distinct.sort_unstable_by_key(|timestamps| (std::cmp::Reverse(timestamps.len()), timestamps[0]));
    let mut kept: Vec<&[i64]> = Vec::new();
    for timestamps in distinct {
        let within = kept.iter().any(|other| {
            let at = other.partition_point(|t| *t < timestamps[0]);
            other[at..].starts_with(timestamps)
        });
        if !within {
            kept.push(timestamps);
        }
    }
    kept
}

fn check(window: &Window, encoded: &Encoded) -> Result<()> {
    let mut values = Vec::new();
    for (bytes, columns) in &encoded.frames {
        let frame = Frame::open(bytes)?;
        for (slot, column) in window[columns.clone()].iter().enumerate() {
            values.clear();
            frame.decode(slot, &mut values)?;
            let same = values.iter().map(|v| v.to_bits()).eq(column.values.iter().map(|v| v.to_bits()));
            ensure!(same, "slot {slot} differs");
        }
    }
    let mut statistics = Vec::new();
    for page in &encoded.statistics {
        decode_statistics(page, &mut statistics)?;
    }
    let expected = window.iter().map(|column| Statistics::of(&column.values).bits());
    ensure!(statistics.iter().map(Statistics::bits).eq(expected), "statistics differ");
    Ok(())
}

fn least(runs: u32, mut run: impl FnMut() -> Result<()>) -> Result<Duration> {
    let mut least = Duration::MAX;
    for _ in 0..runs {
        let start = Instant::now();
        run()?;
        least = least.min(start.elapsed());
    }
    Ok(least)
}

/// The sum of the least times of each item: other load on the machine rarely hits all runs of one.
fn least_of_each<T>(runs: u32, items: &[T], mut run: impl FnMut(&T) -> Result<()>) -> Result<Duration> {
    items.iter().map(|item| least(runs, || run(item))).sum()
}

fn is_constant(frame: &Frame, slot: usize) -> bool {
    frame.encoding(slot).is_some_and(|e| e.transform == Transform::Constant && e.reference.is_none())
}

/// Frames, timestamp columns and statistics of a window, checked.
fn encode(window: &Window, args: &Args, builder: &mut FrameBuilder) -> Result<Encoded> {
    let mut encoded = encode_frames(window, args, builder)?;
    for timestamps in timestamp_columns(window) {
        let (mut bytes, mut back) = (Vec::new(), Vec::new());
        encode_timestamps(timestamps, &mut bytes)?;
        decode_timestamps(&bytes, &mut back)?;
        ensure!(back == timestamps, "timestamps differ");
        encoded.timestamps.push(bytes);
    }
    for (_, columns) in &encoded.frames {
        let statistics: Vec<_> = window[columns.clone()].iter().map(|c| Statistics::of(&c.values)).collect();
        let mut bytes = Vec::new();
        encode_statistics(&statistics, &mut bytes)?;
        encoded.statistics.push(bytes);
    }
    check(window, &encoded)?;
    Ok(encoded)
}

fn measure(name: &str, windows: &[Window], args: &Args) -> Result<()> {
    let samples: usize = windows.iter().flatten().map(|column| column.values.len()).sum();
    let columns: usize = windows.iter().map(Vec::len).sum();
    let mut builder = FrameBuilder::new();
    let all: Vec<_> =
        windows.iter().map(|window| encode(window, args, &mut builder)).collect::<Result<_>>()?;
    let per_sample = |bytes: usize| bytes as f64 / samples as f64;
    let values: usize = all.iter().map(|encoded| encoded.values).sum();
    let before: usize = all.iter().map(|encoded| encoded.values_before_zstd).sum();
    let timestamps: usize = all.iter().flat_map(|encoded| &encoded.timestamps).map(Vec::len).sum();
    let statistics: usize = all.iter().flat_map(|encoded| &encoded.statistics).map(Vec::len).sum();
    println!("{name}: {samples} samples in {columns} columns");
    println!(
        "  bytes per sample: values {:.4} (before zstd {:.4}), timestamps {:.4}, statistics {:.4}, sum {:.4}",
        per_sample(values),
        per_sample(before),
        per_sample(timestamps),
        per_sample(statistics),
        per_sample(values + timestamps + statistics)
    );
    println!("  statistics: {:.2} bytes per column", statistics as f64 / columns as f64);
    if args.largest > 0 {
        print_largest(windows, &all, args.largest)?;
    }
    let encode = least_of_each(args.runs.min(3), windows, |window| {
        encode_frames(window, args, &mut builder).map(drop)
    })?;
    println!("  encode {:.1} ns per sample, zstd included, statistics not", nanos(encode, samples));
    measure_reading(&all, samples, args)
}

fn nanos(time: Duration, times: usize) -> f64 {
    time.as_secs_f64() * 1e9 / times as f64
}

fn measure_reading(all: &[Encoded], samples: usize, args: &Args) -> Result<()> {
    let frames: Vec<&Vec<u8>> =
        all.iter().flat_map(|encoded| &encoded.frames).map(|(bytes, _)| bytes).collect();
    let opened = frames.iter().map(|bytes| Frame::open(bytes)).collect::<Result<Vec<_>, _>>()?;
    if args.encodings {
        print_encodings(&opened, samples);
    }
    let largest =
        opened.iter().zip(&frames).max_by_key(|(frame, _)| frame.heap_bytes()).context("no frame")?;
    let open = least_of_each(args.runs, &frames, |bytes| open_and_drop(bytes))?;
    let open_largest = least(args.runs * 20, || open_and_drop(largest.1))?;
    let mut times = Vec::new();
    let timestamps = least(args.runs, || {
        times.clear();
        let mut columns = all.iter().flat_map(|encoded| &encoded.timestamps);
        Ok(columns.try_for_each(|bytes| decode_timestamps(bytes, &mut times))?)
    })?;
    let mut page = Vec::new();
    let statistics = least(args.runs, || {
        page.clear();
        let mut pages = all.iter().flat_map(|encoded| &encoded.statistics);
        Ok(pages.try_for_each(|bytes| decode_statistics(bytes, &mut page))?)
    })?;
    println!(
        "  {} frames: open {:.1} us each, {:.1} us the largest ({} slots, {} KiB on the heap); statistics {:.1} ns a column",
        frames.len(),
        nanos(open, frames.len()) / 1e3,
        nanos(open_largest, 1) / 1e3,
        largest.0.slots(),
        largest.0.heap_bytes() >> 10,
        nanos(statistics, page.len())
    );
    let everything: Vec<Vec<usize>> = opened.iter().map(|frame| (0..frame.slots()).collect()).collect();
    let changing: Vec<Vec<usize>> = opened
        .iter()
        .map(|frame| (0..frame.slots()).filter(|slot| !is_constant(frame, *slot)).collect())
        .collect();
    for (what, slots) in [("all", everything), ("not constant", changing)] {
        let pairs = opened.iter().zip(&slots);
        let samples: usize =
            pairs.flat_map(|(f, slots)| slots.iter().filter_map(|slot| f.samples(*slot))).sum();
        let pairs: Vec<_> = opened.iter().zip(&slots).collect();
        let together = least_of_each(args.runs, &pairs, |(frame, slots)| decode(frame, slots, true))?;
        let alone = least_of_each(args.runs, &pairs, |(frame, slots)| decode(frame, slots, false))?;
        println!(
            "  {what}, {samples} samples, ns each: open {:.3}, timestamps {:.3}, values {:.3}, sum {:.3}; \
             values slot by slot {:.3}",
            nanos(open, samples),
            nanos(timestamps, samples),
            nanos(together, samples),
            nanos(open + timestamps + together, samples),
            nanos(alone, samples)
        );
    }
    Ok(())
}

fn open_and_drop(bytes: &[u8]) -> Result<()> {
    Frame::open(bytes)?;
    Ok(())
}

/// Decodes some slots of a frame, with one decoder or each for itself.
fn decode(frame: &Frame, slots: &[usize], together: bool) -> Result<()> {
    let (mut decoder, mut values) = (frame.decoder(), Vec::new());
    for slot in slots {
        values.clear();
        if together { decoder.decode(*slot, &mut values)? } else { frame.decode(*slot, &mut values)? }
    }
    Ok(())
}

fn print_encodings(frames: &[Frame], samples: usize) {
    let mut sums: HashMap<String, (usize, usize, usize)> = HashMap::new();
    for frame in frames {
        for slot in 0..frame.slots() {
            let Some((encoding, count)) = frame.encoding(slot).zip(frame.samples(slot)) else { continue };
            let referring = if encoding.reference.is_some() { " + reference" } else { "" };
            let name = format!("{:?} {:?}{referring}", encoding.mode, encoding.transform);
            let sum = sums.entry(name).or_default();
            *sum = (sum.0 + 1, sum.1 + count, sum.2 + encoding.bytes);
        }
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_unstable_by_key(|(_, (_, _, bytes))| std::cmp::Reverse(*bytes));
    println!("  before zstd:  columns, share of samples, bytes, bytes per sample of all, of its own");
    for (name, (columns, count, bytes)) in sums {
        println!(
            "  {name:40} {columns:6} {:6.2} % {bytes:8} {:.4} {:.3}",
            100.0 * count as f64 / samples as f64,
            bytes as f64 / samples as f64,
            bytes as f64 / count as f64
        );
    }
}

fn print_largest(windows: &[Window], all: &[Encoded], largest: usize) -> Result<()> {
    let mut sums: HashMap<String, (usize, usize, usize)> = HashMap::new();
    for (window, encoded) in windows.iter().zip(all) {
        for (bytes, columns) in &encoded.frames {
            let frame = Frame::open(bytes)?;
            for (slot, column) in window[columns.clone()].iter().enumerate() {
                let encoding = frame.encoding(slot).context("no slot")?;
                let name = format!("{} {:?} {:?}", column.metric, encoding.mode, encoding.transform);
                let sum = sums.entry(name).or_default();
                *sum = (sum.0 + 1, sum.1 + column.values.len(), sum.2 + encoding.bytes);
            }
        }
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_unstable_by_key(|(_, (_, _, bytes))| std::cmp::Reverse(*bytes));
    println!("  before zstd:  columns, bytes, bytes per sample");
    for (name, (columns, samples, bytes)) in sums.into_iter().take(largest) {
        println!("  {name:70} {columns:5} {bytes:8} {:.3}", bytes as f64 / samples as f64);
    }
    Ok(())
}

fn read(path: &std::path::Path, spread: u32, args: &Args) -> Result<Vec<(Labels, Vec<Sample>)>> {
    let mut all = Vec::new();
    for series in Recording::open(path, Replay { spread, ..Replay::default() })? {
        let series = series?;
        if args.metric.as_deref().is_none_or(|metric| series.labels.get("__name__") == Some(metric)) {
            all.push((series.labels, series.samples));
        }
    }
    all.sort_by_cached_key(|(labels, _)| (labels.get("__name__").map(str::to_owned), labels.clone()));
    Ok(all)
}

fn main() -> Result<()> {
    let args = Args::parse();
    let Some(dir) = data_dir() else {
        skip("the recording");
        return Ok(());
    };
    let path = dir.join(RECORDING_FILE);
    let mut series = read(&path, 1, &args)?;
    for (_, samples) in &mut series {
        // Every 15th scrape of the host, not of the series: whole seconds divisible by 15.
        samples.retain(|sample| (sample.timestamp + 500).div_euclid(1000) % 15 == 0);
        samples.shrink_to_fit();
    }
    series.retain(|(_, samples)| !samples.is_empty());
    measure("every 15th scrape, one column", &windows(&series, i64::MAX / 2), &args)?;
    measure("every 15th scrape, cut at two hours", &windows(&series, 7_200_000), &args)?;
    drop(series);
    measure("all scrapes, stretched to 15 s", &windows(&read(&path, 15, &args)?, 7_200_000), &args)
}
