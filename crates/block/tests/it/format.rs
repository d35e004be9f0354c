//! The bytes of a block are those of docs/format/block.md, now and later.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chronolith_block::{Block, BlockCache, BlockRange, BlockWriter, Tombstone, Ulid, verify};
use chronolith_env::{Fs, RealFs};
use chronolith_model::{Exemplar, Labels, MetricMetadata, MetricType, StartTimestamp, TimeRange};

use crate::fixture::{DIR, Disk, Model, add, columns, read, read_starts, spec, tombstone};
use crate::roundtrip::content;

/// A block with everything in it, always the same.
pub(crate) fn sample_block(disk: &Disk, number: u64) -> (PathBuf, Model) {
    let first = content(3, 40);
    let second: Model = content(2, 20)
        .into_iter()
        .map(|(labels, samples)| (labels, samples.into_iter().map(|(t, v)| (t + 300_007, v)).collect()))
        .collect();
    let range = BlockRange::new(0, 7_200_000);
    let mut writer = BlockWriter::create(&disk.fs, Path::new(DIR), spec(number, range)).unwrap();
    let mut series: Vec<Labels> = first.keys().cloned().collect();
    series.sort_by(chronolith_block::series_order);
    for labels in &series {
        let id = writer.add_series(labels).unwrap();
        let labels = Labels::from_pairs([("trace_id", format!("t{id}"))]);
        writer.push_exemplars(id, &[Exemplar { labels, value: 0.5, timestamp: 77 }]).unwrap();
    }
    for (priority, part) in [(1, &first), (2, &second)] {
        writer.begin_part(priority).unwrap();
        for (id, labels) in (0..).zip(&series) {
            let samples = columns(part.get(labels));
            writer.push_floats(id, &samples.timestamps, &samples.values).unwrap();
            writer.push_histograms(id, &samples.histogram_timestamps, &samples.histograms).unwrap();
        }
        writer.end_part().unwrap();
    }
    for (id, labels) in (0_u32..).zip(&series) {
        if labels.get("__name__").is_some_and(|name| name == "b_counter" || name == "e_mixed") {
            let steps = golden_starts(id.into());
            writer.push_starts(id, *first[labels].keys().next().unwrap(), &steps).unwrap();
        }
    }
    let (metric, help) = ("b_counter".to_owned(), "Counts.".to_owned());
    writer
        .push_metadata(&MetricMetadata { metric, kind: MetricType::Counter, unit: String::new(), help })
        .unwrap();
    let mut model = first;
    add(&mut model, &second);
    (writer.finish().unwrap().path, model)
}

/// Counted since before the first sample, and anew later on.
fn golden_starts(seed: i64) -> Vec<StartTimestamp> {
    let step = |since, start| StartTimestamp { since, start };
    vec![step(0, -1000 - seed), step(200_000 + seed, 199_000), step(800_000, 0)]
}

fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/block")
}

/// Blocks of all versions that were ever released are opened for ever. Made by `UPDATE_GOLDEN=1`, which only a new
/// version may do.
#[test]
fn golden_blocks_are_opened() {
    let disk = Disk::new();
    let (path, model) = sample_block(&disk, 1);
    let block = disk.open(&path);
    let deleted = tombstone("instance", "i1", 100_000, 200_000);
    block.delete(deleted.clone()).unwrap();
    let ulid = block.meta().spec.ulid;
    for extension in ["block", "tombstones"] {
        let fresh = disk.disk.read(&path.with_extension(extension)).unwrap();
        let golden = golden_dir().join(format!("v2/{ulid}.{extension}"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(golden.parent().unwrap()).unwrap();
            std::fs::write(&golden, &fresh).unwrap();
        }
        let same = std::fs::read(&golden).unwrap() == fresh;
        assert!(same, "the format of {extension} changed: a new version?");
    }
    let fs: Arc<dyn Fs> = Arc::new(RealFs);
    let mut expected = model;
    crate::fixture::delete(&mut expected, &deleted);
    for version in ["v1", "v2"] {
        let golden = golden_dir().join(format!("{version}/{ulid}.block"));
        let block = Block::open(&fs, &golden, &BlockCache::default()).unwrap();
        let problems = verify(&block, &|| false).unwrap().problems;
        assert!(problems.is_empty(), "{version}: {problems:?}");
        assert_eq!(read(&block, TimeRange::ALL), expected, "{version}");
        assert_eq!(block.tombstones(), std::slice::from_ref(&deleted), "{version}");
        // What an old block does not have, its merge has neither.
        let merged = disk.merge(9, block.meta().spec.range, &[&block]).block.unwrap();
        for block in [block, disk.open(&merged.path)] {
            let starts = read_starts(&block, TimeRange::ALL);
            assert_eq!(starts.is_empty(), version == "v1");
            for ((labels, t), start) in &starts {
                assert!(if *t < 200_000 { *start <= -1000 } else { *start == 199_000 }, "{labels} {t}");
            }
        }
    }
}

/// The example of docs/format/block.md.
#[test]
fn the_smallest_block_is_that_of_the_document() {
    let disk = Disk::new();
    let mut specification = spec(1, BlockRange::new(0, 1000));
    specification.ulid = Ulid::from_parts(1, 2);
    specification.sources.clear();
    let mut writer = BlockWriter::create(&disk.fs, Path::new(DIR), specification).unwrap();
    let id = writer.add_series(&Labels::from_pairs([("__name__", "up")])).unwrap();
    writer.begin_part(7).unwrap();
    writer.push_floats(id, &[100, 200], &[1.0, 1.0]).unwrap();
    writer.end_part().unwrap();
    let path = writer.finish().unwrap().path;
    let bytes = disk.disk.read(&path).unwrap();
    let document = include_str!("../../../../docs/format/block.md");
    let (_, example) = document.split_once("## Example").unwrap();
    let dump: Vec<u8> = example
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .flat_map(|line| line.split('|').next().unwrap_or_default().split_whitespace())
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    assert_eq!(hex(&bytes), hex(&dump), "the example of the document");
}

/// The same bytes in the form of the document.
fn hex(bytes: &[u8]) -> String {
    let lines =
        bytes.chunks(16).map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>());
    lines.map(|line| line.join(" ")).collect::<Vec<_>>().join("\n")
}

#[test]
fn tombstones_are_those_of_the_document() {
    let disk = Disk::new();
    let (path, _) = sample_block(&disk, 1);
    let tombstones: Tombstone = tombstone("job", "node", 1, 1000);
    disk.open(&path).delete(tombstones).unwrap();
    let bytes = disk.disk.read(&path.with_extension("tombstones")).unwrap();
    let ulid = Ulid::from_parts(1, 7).to_bytes();
    let expected = [
        &b"CHRT\x01\0\0\0"[..],
        &ulid,
        &[1, 0, 0, 0, 0, 0, 0, 0],
        &[1, 1, 0, 3],
        b"job",
        &[4],
        b"node",
        &[1, 2, 0xd0, 0x0f],
    ]
    .concat();
    assert_eq!(&bytes[..bytes.len() - 4], expected);
    assert_eq!(bytes[bytes.len() - 4..], chronolith_codec::crc32(&expected).to_le_bytes());
}
