//! What recorded series cost at rest, everything but the index.

use std::path::Path;

use chronolith_block::{
    Block, BlockRange, BlockWriter, Section, SeriesSamples, inspect, series_order, verify,
};
use chronolith_model::{TimeRange, Timestamp};
use chronolith_testkit::data::{RECORDING_FILE, RecordedSeries, Recording, Replay, data_dir};
use chronolith_testkit::paths::skip;

use crate::fixture::{DIR, Disk, spec};

const HOURS2: i64 = 7_200_000;

fn recorded(spread: u32, every: usize) -> Option<Vec<RecordedSeries>> {
    let Some(dir) = data_dir() else {
        skip("recorded series");
        return None;
    };
    let replay = Replay { spread, ..Replay::default() };
    let recording = Recording::open(&dir.join(RECORDING_FILE), replay).unwrap();
    let mut series: Vec<_> = recording.map(Result::unwrap).collect();
    for one in &mut series {
        one.samples = one.samples.iter().copied().step_by(every).collect();
    }
    series.sort_by(|a, b| series_order(&a.labels, &b.labels));
    Some(series)
}

fn write(disk: &Disk, number: u64, series: &[RecordedSeries], range: BlockRange) -> Option<Block> {
    let mut writer = BlockWriter::create(&disk.fs, Path::new(DIR), spec(number, range)).unwrap();
    writer.begin_part(number).unwrap();
    for one in series {
        let inside = one.samples.iter().filter(|sample| range.contains(sample.timestamp));
        let (timestamps, values): (Vec<_>, Vec<_>) = inside.map(|s| (s.timestamp, s.value)).unzip();
        if !timestamps.is_empty() {
            let id = writer.add_series(&one.labels).unwrap();
            writer.push_floats(id, &timestamps, &values).unwrap();
        }
    }
    writer.end_part().unwrap();
    (writer.series() > 0).then(|| disk.open(&writer.finish().unwrap().path))
}

/// Bytes per sample of everything that grows with samples: not the index and the hotcache, which mostly is its directory. All
/// sections go to standard error.
fn measure(what: &str, block: &Block) -> f64 {
    let summary = inspect(block).unwrap();
    let samples = summary.meta.samples as f64;
    let mut sum = 0.0;
    for section in &summary.sections {
        let counted = matches!(
            section.section,
            Section::Timestamps | Section::ValueFrames | Section::SlotTables | Section::Statistics
        );
        let bytes = section.bytes as f64;
        eprintln!(
            "{what}: {:>16} {:>9} bytes {:.4} per sample",
            section.section,
            section.bytes,
            bytes / samples
        );
        if counted {
            sum += bytes / samples;
        }
    }
    eprintln!("{what}: {samples} samples of {} series: {sum:.4} bytes per sample", summary.meta.series);
    sum
}

fn assert_same(series: &[RecordedSeries], block: &Block) {
    let ids = block.select(&[]).unwrap();
    let labels = block.labels(&ids).unwrap();
    let mut reader = block.reader();
    assert_eq!(labels.len(), series.len());
    for ((id, labels), one) in ids.iter().zip(&labels).zip(series) {
        assert_eq!(labels, &one.labels);
        let mut samples = SeriesSamples::default();
        reader.read(id, TimeRange::ALL, &mut samples).unwrap();
        assert_eq!(samples.timestamps.len(), one.samples.len());
        let read = samples.timestamps.iter().zip(&samples.values);
        assert!(
            read.zip(&one.samples).all(|((t, v), s)| *t == s.timestamp && v.to_bits() == s.value.to_bits())
        );
    }
}

fn range(series: &[RecordedSeries]) -> (Timestamp, Timestamp) {
    let all = || series.iter().flat_map(|one| [one.samples.first(), one.samples.last()]).flatten();
    let times = || all().map(|sample| sample.timestamp);
    ((times().min().unwrap() - 1).div_euclid(HOURS2) * HOURS2, times().max().unwrap())
}

#[test]
fn every_fifteenth_scrape() {
    let Some(series) = recorded(1, 15) else { return };
    let disk = Disk::new();
    let (start, end) = range(&series);
    let block = write(&disk, 1, &series, BlockRange::new(start, end)).unwrap();
    assert_same(&series, &block);
    let size = measure("every 15th", &block);
    assert!(size <= 0.25, "{size}");
}

#[test]
fn all_scrapes_stretched_to_fifteen_seconds() {
    let Some(series) = recorded(15, 1) else { return };
    let disk = Disk::new();
    let (start, end) = range(&series);
    let ranges = (0..).map(|n| start + n * HOURS2).take_while(|from| *from < end);
    let blocks: Vec<_> = ranges
        .zip(1..)
        .filter_map(|(from, number)| write(&disk, number, &series, BlockRange::new(from, from + HOURS2)))
        .collect();
    let inputs: Vec<&Block> = blocks.iter().collect();
    let merged = disk.merge(100, BlockRange::new(start, start + blocks.len() as i64 * HOURS2), &inputs);
    eprintln!("{} frames copied, {} encoded", merged.frames_copied, merged.frames_encoded);
    assert_eq!(merged.frames_encoded, 0);
    let block = disk.open(&merged.block.unwrap().path);
    assert_same(&series, &block);
    assert!(verify(&block, &|| false).unwrap().problems.is_empty());
    let size = measure("stretched", &block);
    assert!(size <= 0.14, "{size}");
}
