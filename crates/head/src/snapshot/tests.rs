use chronolith_codec::crc32;
use chronolith_model::{Exemplar, Labels};
use chronolith_storage::StartTimestamp;
use chronolith_testkit::{fake_env::FakeEnv, fault_fs::FaultFs};
use chronolith_wal::{LoggedSample, Replay as _};

use super::format::{self, FORMAT_VERSION, Header, NO_SHARD, Section};
use super::piece::{self, Copies, PieceWriter};
use super::side::{StartsWriter, encode_exemplars};
use super::*;
use crate::late::RawSample;
use crate::shard::ShardState;

/// Snapshot 1 with what one shard has.
struct Example {
    out: Vec<u8>,
    directory: Vec<Section>,
}

impl Example {
    fn section(&mut self, section_type: u8, shard: u16, items: u32, content: &[u8]) {
        let section = Section {
            offset: self.out.len() as u64,
            section_type,
            flags: 0,
            shard,
            stored: content.len() as u32,
            raw: content.len() as u32,
            items,
            crc: crc32(content),
        };
        section.encode(1, &mut self.out);
        self.out.extend_from_slice(content);
        self.directory.push(section);
    }
}

/// A section with the series in slot 0, and the same labels again in slot 5, some time later, if `twice`.
fn series(twice: bool) -> Vec<u8> {
    let t = 1_699_999_700_000;
    let (mut piece, mut out) = (PieceWriter::default(), Vec::new());
    add(&mut piece, 0, t);
    if twice {
        add(&mut piece, 5, t + 60_000);
    }
    piece.finish(&mut out);
    out
}

fn add(piece: &mut PieceWriter, slot: u32, t: i64) {
    let mut state = ShardState::default();
    state.slab.insert(slot, 0);
    let bits = 1.5_f64.to_bits();
    let late: [RawSample; 1] = [(t + 7000, 0)];
    let ShardState { slab, late: store, accounts, .. } = &mut state;
    let (series, closed) = slab.get_mut(slot).unwrap();
    for t in [t, t + 15_000] {
        assert!(series.offer(closed, t, bits, i64::MIN, accounts));
    }
    store.restore(slot, &late, accounts);
    let mut copies = Copies::default();
    copies.copy(&state, slot);
    assert_eq!(copies.late(&copies.series[0]).unwrap(), late);
    let labels = [("__name__", "m"), ("id", "host-00007"), ("zone", "b")];
    piece.add(&copies, &copies.series[0], "anonymous", labels.into_iter(), (&late, &[]));
}

/// A series was removed and came back under another number while the snapshot was written.
#[test]
fn a_series_that_is_there_twice_is_one() {
    let fs = FaultFs::new();
    let fake = FakeEnv::new(Arc::new(fs.clone()), 1);
    let snapshots = Snapshots::open(&fake.env, Path::new("/head")).unwrap();
    let mut example = Example { out: Vec::new(), directory: Vec::new() };
    Header { version: FORMAT_VERSION, number: 1, created_ms: 0 }.encode(&mut example.out);
    example.section(format::SERIES, 3, 2, &series(true));
    let mut content = Vec::new();
    ShardSummary { sequence: 9, next_slot: 6 }.encode(&mut content);
    example.section(format::SHARD, 3, 0, &content);
    let mut directory = Vec::new();
    format::encode_directory(1, example.out.len() as u64, &example.directory, &mut directory);
    example.out.extend_from_slice(&directory);
    fs.put(&path(Path::new("/head"), 1), example.out);
    let head = Arc::new(Head::new(crate::HeadOptions::default(), fake.env.clone()));
    let loaded = snapshots.load(&head).unwrap();
    assert_eq!((loaded.damage_count, loaded.series, loaded.samples, head.series()), (0, 1, 6, 1));
    assert_eq!(loaded.renumbered.get(&(5 * 16 + 3)), Some(&3));
    let replay = crate::HeadReplay::new(&head).behind(&loaded);
    let later = LoggedSample { series: 5 * 16 + 3, timestamp: 1_700_000_000_000, value: 3.0 };
    replay.samples(3, 10, &[later]);
    assert_eq!(replay.finish().stored, 1);
    let tenant = chronolith_model::TenantId::new("anonymous").unwrap();
    let view = crate::HeadView::open(Arc::clone(&head), &tenant, chronolith_model::TimeRange::ALL);
    let selection = view.select(&[]);
    let mut samples = chronolith_storage::Samples::default();
    view.fetch(&selection.series, chronolith_model::TimeRange::ALL).read(0, &mut samples).unwrap();
    assert_eq!((selection.series, samples.timestamps.len()), (vec![3], 7));
    assert!(samples.timestamps.is_sorted());
    assert_eq!(head.shards[3].lock().slab.next(), 6, "no number is given away twice");
}

#[test]
fn the_documented_bytes() {
    let mut example = Example { out: Vec::new(), directory: Vec::new() };
    Header { version: FORMAT_VERSION, number: 1, created_ms: 1_700_000_000_000 }.encode(&mut example.out);
    example.section(format::SERIES, 3, 1, &series(false));
    let mut content = Vec::new();
    let (mut starts, t) = (StartsWriter::default(), 1_699_999_700_000);
    starts.add(0, &[StartTimestamp { since: t, start: t - 10_000 }]);
    starts.finish(&mut content);
    example.section(format::STARTS, 3, 0, &content);
    content.clear();
    ShardSummary { sequence: (1 << 32) + 7, next_slot: 1 }.encode(&mut content);
    example.section(format::SHARD, 3, 0, &content);
    content.clear();
    let exemplar =
        Exemplar { labels: Labels::from_pairs([("trace_id", "abc")]), value: 2.0, timestamp: t + 15_000 };
    let labels = Labels::from_pairs([("__name__", "m"), ("id", "host-00007"), ("zone", "b")]);
    assert_eq!(encode_exemplars("anonymous", &[(labels, exemplar)], 1000, &mut content), 1);
    example.section(format::EXEMPLARS, NO_SHARD, 0, &content);
    content.clear();
    HeadState { memory_floor: i64::MIN, cut: i64::MIN }.encode(&mut content);
    example.section(format::HEAD, NO_SHARD, 0, &content);
    let mut directory = Vec::new();
    format::encode_directory(1, example.out.len() as u64, &example.directory, &mut directory);
    example.out.extend_from_slice(&directory);
    let document = include_str!("../../../../docs/format/snapshot.md");
    let hex = document.split("```hex").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let documented: Vec<u8> = hex
        .lines()
        .flat_map(|line| line.split('|').next().unwrap_or_default().split_whitespace())
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    let text: Vec<String> = example.out.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(documented, example.out, "the code writes {}", text.join(" "));
}

#[test]
fn names() {
    for (name, expected) in [
        ("00000001.snapshot", Some(1)),
        ("4294967295.snapshot", Some(u32::MAX)),
        ("4294967296.snapshot", None),
        ("00000000.snapshot", None),
        ("0000001.snapshot", None),
        ("000000010.snapshot", None),
        ("+0000001.snapshot", None),
        ("snapshot.tmp", None),
    ] {
        assert_eq!(number(name), expected, "{name}");
    }
}

/// A series with a closed chunk, an open one and a late histogram: the second example of docs/format/snapshot.md.
#[test]
fn the_documented_bytes_of_histograms() {
    let mut state = ShardState::default();
    state.slab.insert(0, 0);
    let histogram = |buckets: usize, n: u64| -> chronolith_model::Histogram {
        let parts = chronolith_model::histogram::HistogramParts {
            count: n * buckets as u64,
            sum: n as f64,
            positive_spans: vec![chronolith_model::histogram::Span { offset: 0, length: buckets as u32 }],
            positive_buckets: vec![n; buckets],
            ..Default::default()
        };
        parts.build(None).unwrap().into()
    };
    for (t, buckets, n) in [(1000, 1, 1), (2000, 2, 2), (3000, 2, 3), (1500, 1, 1)] {
        let mut series = state.series_mut(0).unwrap();
        let rule = crate::offer::LateRule::Window { ms: 10_000 };
        let verdict = series.histogram(t, &histogram(buckets, n), rule, &mut Vec::new());
        assert_eq!(verdict, crate::offer::Verdict::Stored);
    }
    let mut copies = Copies::default();
    copies.copy(&state, 0);
    let late = copies.late_histograms(&copies.series[0]).unwrap();
    let (mut piece, mut out) = (PieceWriter::default(), Vec::new());
    let labels = [("__name__", "m")];
    piece.add(&copies, &copies.series[0], "anonymous", labels.into_iter(), (&[], &late));
    assert_eq!(piece.samples, 4);
    piece.finish(&mut out);
    let document = include_str!("../../../../docs/format/snapshot.md");
    let hex = document.split("```hex").nth(2).and_then(|rest| rest.split("```").next()).unwrap_or_default();
    let documented: Vec<u8> = hex
        .lines()
        .flat_map(|line| line.split('|').next().unwrap_or_default().split_whitespace())
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect();
    let text: Vec<String> = out.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(documented, out, "the code writes {}", text.join(" "));
    let fs = FaultFs::new();
    let fake = FakeEnv::new(Arc::new(fs.clone()), 1);
    let snapshots = Snapshots::open(&fake.env, Path::new("/head")).unwrap();
    let loaded = piece::decode(&out, snapshots.chunk_files(), FORMAT_VERSION).unwrap();
    let histograms = loaded[0].histograms.as_ref().unwrap();
    assert_eq!((histograms.chunks.len(), histograms.late.len()), (1, 1));
    for end in 0..out.len() {
        assert!(piece::decode(&out[..end], snapshots.chunk_files(), FORMAT_VERSION).is_err(), "{end}");
    }
}
