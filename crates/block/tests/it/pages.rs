//! The pages of a block, and where pages and frames end, are those of docs/format/block.md.

use std::path::{Path, PathBuf};

use chronolith_block::{BlockRange, BlockWriter};
use chronolith_chunk::dense::FrameBuilder;
use chronolith_env::Rng as _;
use chronolith_model::{Exemplar, Labels, MetricMetadata, MetricType, StartTimestamp, TimeRange};
use chronolith_testkit::fake_env::SimRng;

use crate::fixture::{DIR, Disk, spec};
use crate::hotcache::{Bytes, Hotcache, Unit};

const DOCUMENT: &str = include_str!("../../../../docs/format/block.md");
const RANGE: BlockRange = BlockRange::new(0, 7_200_000);

/// What the document has behind `heading`: the bytes of the dump that is next there.
fn dump(heading: &str) -> Vec<u8> {
    let (_, rest) = DOCUMENT.split_once(heading).expect("the document has it");
    let lines = rest.lines().skip_while(|line| !line.starts_with("    "));
    let lines = lines.take_while(|line| line.starts_with("    "));
    let bytes = lines.flat_map(|line| line.split('|').next().unwrap().split_whitespace());
    bytes.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

fn number(n: u32) -> Labels {
    Labels::from_pairs([("__name__", "m"), ("n", &n.to_string())])
}

/// Series as the block sorts them.
fn numbers(count: u32) -> Vec<Labels> {
    let mut series: Vec<_> = (0..count).map(number).collect();
    series.sort_by(chronolith_block::series_order);
    series
}

/// A block of series that have one sample each, and what `more` adds.
fn block(disk: &Disk, series: u32, more: impl FnOnce(&mut BlockWriter)) -> PathBuf {
    let mut writer = BlockWriter::create(&disk.fs, Path::new(DIR), spec(1, RANGE)).unwrap();
    writer.begin_part(0).unwrap();
    for labels in numbers(series) {
        let id = writer.add_series(&labels).unwrap();
        writer.push_floats(id, &[1000], &[1.0]).unwrap();
    }
    writer.end_part().unwrap();
    more(&mut writer);
    writer.finish().unwrap().path
}

fn exemplar(timestamp: i64, value: f64, trace: Option<&str>) -> Exemplar {
    let labels = Labels::from_pairs(trace.map(|trace| ("trace_id", trace)));
    Exemplar { labels, value, timestamp }
}

/// That of a metric.
fn metadata(metric: &str, kind: MetricType, unit: &str, help: &str) -> MetricMetadata {
    MetricMetadata { metric: metric.to_owned(), kind, unit: unit.to_owned(), help: help.to_owned() }
}

#[test]
fn pages_of_exemplars_starts_and_metadata_are_those_of_the_document() {
    let disk = Disk::new();
    let step = |since, start| StartTimestamp { since, start };
    let exemplars = [
        (2, vec![exemplar(1000, 0.5, Some("ab"))]),
        (5, vec![exemplar(1000, -1.0, None), exemplar(900, 2.0, None)]),
    ];
    let all =
        [metadata("m", MetricType::Counter, "seconds", "Time."), metadata("n", MetricType::StateSet, "", "")];
    let path = block(&disk, 8, |writer| {
        for (id, exemplars) in &exemplars {
            writer.push_exemplars(*id, exemplars).unwrap();
        }
        writer.push_starts(2, 1, &[step(0, 100)]).unwrap();
        writer.push_starts(5, 1, &[step(0, 101), step(7, 0)]).unwrap();
        for metadata in &all {
            writer.push_metadata(metadata).unwrap();
        }
    });
    let (hotcache, file) = Hotcache::of(&disk, &path);
    assert_eq!((hotcache.exemplars.len(), hotcache.starts.len(), hotcache.metadata.len()), (1, 1, 1));
    for page in [hotcache.exemplars[0], hotcache.starts[0]] {
        assert_eq!((page.first, page.last, page.items), (2, 5, 3));
    }
    assert_eq!(hotcache.counts, [8, 8, 0, 3]);
    let pages = [
        ("**Exemplars**", hotcache.exemplars[0].unit),
        ("**Start timestamps**", hotcache.starts[0].unit),
        ("**Metadata**", hotcache.metadata[0]),
    ];
    for (heading, unit) in pages {
        let expected = dump(heading);
        assert!(expected.len() >= 10, "{heading}: {expected:02x?}");
        // Not packed: that would save nothing.
        assert_eq!(unit.bytes(&file), [&[0], &expected[..]].concat(), "{heading}");
    }
    // And back.
    let block = disk.open(&path);
    assert_eq!(block.exemplars(&(0..8).collect(), TimeRange::ALL).unwrap(), exemplars);
    assert_eq!(block.metadata().unwrap(), all);
}

/// Numbers behind each other in the document, behind `heading`, up to a full stop.
fn listed(heading: &str) -> Vec<u32> {
    let (_, rest) = DOCUMENT.split_once(heading).expect("the document has it");
    let (list, _) = rest.split_once('.').unwrap();
    list.split([',', ' ', '\n']).filter_map(|word| word.parse().ok()).collect()
}

#[test]
fn the_series_behind_which_frames_may_end_are_those_of_the_document() {
    let chosen: Vec<u32> = (0..200).filter(|n| number(*n).stable_hash().is_multiple_of(32)).collect();
    assert_eq!(listed("to `{__name__=\"m\",n=\"199\"}` these are those with `n`"), chosen);
}

/// Where frames end by the rule of the document: how many slots each has.
fn frames_by_the_rule(series: &[(Labels, Vec<f64>)]) -> Vec<u64> {
    let mut builder = FrameBuilder::new();
    let mut frames = Vec::new();
    for (labels, values) in series {
        builder.push(values, 0, labels.stable_hash()).unwrap();
        let bytes = builder.encoded_len();
        let chosen = bytes >= 48 << 10 && labels.stable_hash().is_multiple_of(32);
        if bytes >= 64 << 10 || builder.slots() == 2048 || chosen {
            frames.push(builder.slots() as u64);
            builder.finish(&mut Vec::new());
        }
    }
    frames.extend((builder.slots() > 0).then_some(builder.slots() as u64));
    frames
}

fn frames_of(disk: &Disk, series: &[(Labels, Vec<f64>)]) -> Vec<u64> {
    let mut writer = BlockWriter::create(&disk.fs, Path::new(DIR), spec(1, RANGE)).unwrap();
    writer.begin_part(0).unwrap();
    for (labels, values) in series {
        let id = writer.add_series(labels).unwrap();
        let timestamps: Vec<i64> = (0..values.len() as i64).map(|n| 1 + n * 15_000).collect();
        writer.push_floats(id, &timestamps, values).unwrap();
    }
    writer.end_part().unwrap();
    let (hotcache, _) = Hotcache::of(disk, &writer.finish().unwrap().path);
    let frames = &hotcache.parts[0].floats;
    let mut next = 0;
    for frame in frames {
        assert_eq!((frame.first, frame.last), (next, next + frame.slots - 1), "every series has a slot");
        assert_eq!(frame.samples, frame.slots * series[0].1.len() as u64);
        next = frame.last + 1;
    }
    frames.iter().map(|frame| frame.slots).collect()
}

#[test]
fn frames_end_where_the_document_says() {
    let disk = Disk::new();
    let rng = SimRng::new(7);
    let noise = |_: &Labels| (0..240).map(|_| (rng.next_u64() >> 12) as f64 / 4096.7).collect::<Vec<_>>();
    let noisy: Vec<_> = numbers(600).into_iter().map(|labels| (labels.clone(), noise(&labels))).collect();
    let frames = frames_of(&disk, &noisy);
    assert_eq!(frames, frames_by_the_rule(&noisy));
    // Both rules for bytes were at work: some frames end behind a chosen series, some are full.
    let mut ends = Vec::new();
    let mut next = 0;
    for slots in &frames[..frames.len() - 1] {
        next += *slots as usize;
        ends.push(noisy[next - 1].0.stable_hash().is_multiple_of(32));
    }
    assert!(ends.len() > 10 && ends.contains(&true) && ends.contains(&false), "{ends:?}");
    // Of constant series frames have as many slots as they may.
    let constant: Vec<_> = numbers(5000).into_iter().map(|labels| (labels, vec![1.0; 3])).collect();
    assert_eq!(frames_of(&disk, &constant), [2048, 2048, 904]);
    // Frames of a block whose first series are others find back to the same boundaries.
    let shifted: Vec<_> = noisy[37..].to_vec();
    let (behind, ends) = (frames_of(&disk, &shifted), |frames: &[u64], first: u64| {
        let ends = frames.iter().scan(first, |end, slots| {
            *end += slots;
            Some(*end)
        });
        ends.collect::<Vec<_>>()
    });
    let (all, behind) = (ends(&frames, 0), ends(&behind, 37));
    let same = behind.iter().filter(|end| all.contains(end)).count();
    assert!(same * 4 > behind.len() * 3, "{same} of {} boundaries are the same", behind.len());
}

/// That each page but the last one has reached 64 KiB with the item that has `behind` items behind it, all of `item` bytes.
fn check_pages(units: &[Unit], file: &[u8], item: usize, behind: usize, what: &str) {
    assert!(units.len() > 2, "{what}: {}", units.len());
    for unit in &units[..units.len() - 1] {
        let reached = unit.content(file).len() - behind * item;
        assert!(reached >= 64 << 10 && reached - item < 64 << 10, "{what}: {reached}");
    }
}

#[test]
fn pages_end_where_the_document_says() {
    let disk = Disk::new();
    let rng = SimRng::new(3);
    let text =
        |len: usize| (0..len).map(|_| char::from(b'a' + (rng.next_u64() % 26) as u8)).collect::<String>();
    let help: Vec<String> = (0..300).map(|_| text(700)).collect();
    // Lengths of the name and the text, their lengths' own, the kind and the empty unit.
    let length = 1 + 4 + 1 + 1 + 2 + 700;
    let path = block(&disk, 600, |writer| {
        // 130 of one series, then one each of 400 bytes.
        let many: Vec<_> = (0..130).map(|t| exemplar(t, 1.0, None)).collect();
        writer.push_exemplars(0, &many).unwrap();
        for id in 1..600 {
            writer.push_exemplars(id, &[exemplar(5, 1.0, Some(&text(400)))]).unwrap();
        }
        for (n, help) in help.iter().enumerate() {
            writer.push_metadata(&metadata(&format!("m{n:03}"), MetricType::Gauge, "", help)).unwrap();
        }
    });
    let (hotcache, file) = Hotcache::of(&disk, &path);
    check_pages(&hotcache.metadata, &file, length, 0, "metadata");
    let pages: Vec<_> = hotcache.exemplars.iter().map(|page| (page.first, page.items)).collect();
    assert_eq!(pages[..2], [(0, 64), (0, 64)]);
    assert_eq!(pages[2].0, 0, "what is left of the series is in the page of the next ones");
    // Gap, number, time, value, labels, name and text.
    let one = 1 + 1 + 1 + 8 + 1 + (1 + 8) + (2 + 400);
    let units: Vec<_> = hotcache.exemplars[2..].iter().map(|page| page.unit).collect();
    check_pages(&units, &file, one, 1, "exemplars");
    let items: u64 = hotcache.exemplars.iter().map(|page| page.items).sum();
    assert_eq!((items, hotcache.counts[3]), (130 + 599, 130 + 599));
}

#[test]
fn pages_of_timestamps_end_where_the_document_says() {
    let disk = Disk::new();
    let rng = SimRng::new(5);
    let mut writer = BlockWriter::create(&disk.fs, Path::new(DIR), spec(1, RANGE)).unwrap();
    writer.begin_part(0).unwrap();
    let mut columns = 0;
    for (n, labels) in numbers(300).iter().enumerate() {
        let id = writer.add_series(labels).unwrap();
        // Times of its own for each series; the last ones are long and regular.
        let timestamps: Vec<i64> = if n < 290 {
            (0..240).map(|i| 1 + i * 20_000 + (rng.next_u64() % 9000) as i64).collect()
        } else {
            (0..30_000).map(|i| 1 + n as i64 + i * 200).collect()
        };
        columns += 1;
        writer.push_floats(id, &timestamps, &vec![1.0; timestamps.len()]).unwrap();
    }
    writer.end_part().unwrap();
    let (hotcache, file) = Hotcache::of(&disk, &writer.finish().unwrap().path);
    let pages = &hotcache.parts[0].pages;
    assert_eq!(pages.iter().map(|(_, columns)| columns).sum::<u64>(), columns);
    let mut by_samples = 0;
    for (at, (unit, columns)) in pages.iter().enumerate() {
        let content = unit.bytes(&file);
        let (mut bytes, mut samples, mut before) = (Bytes(content), 0, (0, 0));
        for _ in 0..*columns {
            before = (content.len() - bytes.0.len(), samples);
            let len = bytes.uvarint();
            let mut column = Vec::new();
            chronolith_chunk::dense::decode_timestamps(bytes.take(len), &mut column).unwrap();
            samples += column.len();
        }
        assert!(bytes.0.is_empty());
        assert!(before.0 < 16 << 10 && before.1 < 65_536, "{at}: it would have ended before: {before:?}");
        let full = (content.len() >= 16 << 10, samples >= 65_536);
        assert!(full.0 || full.1 || at + 1 == pages.len(), "{at}: {} bytes, {samples}", content.len());
        by_samples += usize::from(full.1 && !full.0);
    }
    assert!(by_samples >= 2 && pages.len() > by_samples + 3, "{by_samples} of {}", pages.len());
}
