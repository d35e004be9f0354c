use chronolith_codec::crc32;
use chronolith_model::{Exemplar, Labels};
use chronolith_storage::StartTimestamp;
use chronolith_testkit::{fake_env::FakeEnv, fault_fs::FaultFs};
use chronolith_wal::{LoggedSample, Replay as _};

use super::format::{self, FORMAT_VERSION, Header, NO_SHARD, Section};
use super::piece::{self, Copies, PieceWriter};
use super::side::{StartsWriter, encode_exemplars};
use super::*;
use crate::closed::{ChunkKind, ClosedChunk};
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
    add_behind(piece, slot, t, None);
}

/// The same with a closed chunk.
fn add_behind(piece: &mut PieceWriter, slot: u32, t: i64, chunk: Option<ClosedChunk>) {
    let mut state = ShardState::default();
    state.slab.insert(slot, 0);
    let bits = 1.5_f64.to_bits();
    let late: [RawSample; 1] = [(t + 7000, 0)];
    let ShardState { slab, late: store, accounts, .. } = &mut state;
    let (series, closed) = slab.get_mut(slot).unwrap();
    for t in [t, t + 15_000] {
        assert!(series.offer(closed, t, bits, i64::MIN, accounts));
    }
    closed.extend(chunk);
    store.restore(slot, &late, accounts);
    let mut copies = Copies::default();
    copies.copy(&state, slot);
    assert_eq!(copies.late(&copies.series[0]).unwrap(), (late.to_vec(), 0..0));
    let labels = [("__name__", "m"), ("id", "host-00007"), ("zone", "b")];
    piece.add(&copies, &copies.series[0], "anonymous", labels.into_iter()).unwrap();
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

/// A chunk of a double is in a file that is not there: that is reported, and the rest of it is taken.
#[test]
fn a_double_that_cannot_be_read_is_damage() {
    let fs = FaultFs::new();
    let fake = FakeEnv::new(Arc::new(fs.clone()), 1);
    let snapshots = Snapshots::open(&fake.env, Path::new("/head")).unwrap();
    let mut example = Example { out: Vec::new(), directory: Vec::new() };
    Header { version: FORMAT_VERSION, number: 1, created_ms: 0 }.encode(&mut example.out);
    let (mut piece, mut content, t) = (PieceWriter::default(), Vec::new(), 1_699_999_700_000);
    add(&mut piece, 0, t);
    let mut chunk = ClosedChunk::of_floats(&[(t - 9000, 1), (t - 8000, 2)]).unwrap();
    chunk.spill(snapshots.chunk_files().place(7, 24, 30));
    add_behind(&mut piece, 5, t + 60_000, Some(chunk));
    piece.finish(&mut content);
    example.section(format::SERIES, 3, 2, &content);
    content.clear();
    ShardSummary { sequence: 9, next_slot: 6 }.encode(&mut content);
    example.section(format::SHARD, 3, 0, &content);
    let mut directory = Vec::new();
    format::encode_directory(1, example.out.len() as u64, &example.directory, &mut directory);
    example.out.extend_from_slice(&directory);
    fs.put(&path(Path::new("/head"), 1), example.out);
    let head = Arc::new(Head::new(crate::HeadOptions::default(), fake.env.clone()));
    let loaded = snapshots.load(&head).unwrap();
    let damage = SnapshotDamage {
        path: Path::new("/head/chunks/00000007.chunks").to_path_buf(),
        section: "header of a chunk file",
        offset: 0,
        bytes: 0,
        reason: SnapshotDamageReason::ChunkFileMissing,
        series: 0,
        quarantined: None,
    };
    assert_eq!((&loaded.damage, loaded.damage_count), (&vec![damage], 1));
    assert_eq!((loaded.sequences[3], loaded.covered), (0, None), "all of the log is read");
    let stats = head.stats();
    assert_eq!((stats.series, stats.samples), (1, 6));
    let replay = crate::HeadReplay::new(&head).behind(&loaded);
    replay.samples(
        3,
        8,
        &[LoggedSample { series: 5 * 16 + 3, timestamp: t - 9000, value: f64::from_bits(1) }],
    );
    replay.samples(3, 10, &[LoggedSample { series: 5 * 16 + 3, timestamp: t - 8500, value: 2.0 }]);
    let losses = replay.losses(i64::MIN);
    let loss = losses.first().expect("one of two is not there");
    assert_eq!((losses.len(), loss.samples, loss.series, loss.offset), (1, Some(1), 1, 24));
    assert_eq!((loss.range.min, loss.range.max), (t - 9000, t - 8000));
    assert!(replay.losses(t - 8000).is_empty(), "a cut has passed it");
}

/// Starts of few series may be more than a section holds.
#[test]
fn sections_of_starts_have_an_end() {
    let fs = FaultFs::new();
    let fake = FakeEnv::new(Arc::new(fs.clone()), 1);
    let snapshots = Snapshots::open(&fake.env, Path::new("/head")).unwrap();
    let head = Head::new(crate::HeadOptions::default(), fake.env.clone());
    let tenant = head.tenants.get_or_create(&chronolith_model::TenantId::default(), || 1).unwrap();
    for series in 0..250 {
        let id = format!("host-{series}");
        let labels = Labels::from_pairs([("__name__", "m"), ("id", id.as_str())]);
        let wanted = Some(crate::shard::Ref::new(3, series));
        let (reference, _) = head.find_or_create(&tenant, &labels, wanted).unwrap();
        let mut state = head.shards[3].lock();
        let ShardState { slab, starts, accounts, .. } = &mut *state;
        let (series, closed) = slab.get_mut(reference.slot()).unwrap();
        assert!(series.offer(closed, 1_700_000_000_000, 1, i64::MIN, accounts));
        for at in 1..1000_i64 {
            let step = StartTimestamp { since: at << 40, start: (at & 1) << 50 | 1 };
            starts.set(reference.slot(), step, accounts);
        }
        series.set_started(true);
    }
    snapshots.write(&head, Vec::new()).unwrap();
    let file = fake.env.fs.open(&path(Path::new("/head"), 1), chronolith_env::OpenMode::Read).unwrap();
    let bound = format::Bound { version: FORMAT_VERSION, number: 1 };
    let sections = format::Sections::of(file.as_ref(), bound, file.len().unwrap());
    let starts: Vec<_> = sections.found.iter().filter(|of| of.section_type == format::STARTS).collect();
    assert!(starts.len() > 2 && starts.iter().all(|of| of.raw < 1_100_000), "{starts:?}");
    let again = Head::new(crate::HeadOptions::default(), fake.env.clone());
    assert_eq!(snapshots.load(&again).unwrap().damage_count, 0);
    let (before, after) = (head.shards[3].lock(), again.shards[3].lock());
    assert!((0..250).all(|slot| before.starts.steps(slot) == after.starts.steps(slot)));
    assert_eq!(after.starts.len(), 250);
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
    let documented = documented(1);
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
    let (late, more) = copies.late_histograms(&copies.series[0]).unwrap();
    assert_eq!((late.len(), more), (1, 0..0));
    let (mut piece, mut out) = (PieceWriter::default(), Vec::new());
    let labels = [("__name__", "m")];
    piece.add(&copies, &copies.series[0], "anonymous", labels.into_iter()).unwrap();
    assert_eq!(piece.samples(), 4);
    piece.finish(&mut out);
    let documented = documented(2);
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

#[test]
fn the_documented_section_of_more() {
    let bits = 1.5_f64.to_bits();
    let chunk = ClosedChunk::of_floats(&[(1000, bits), (2000, bits)]).unwrap();
    let mut out = Vec::new();
    let lot = more::Lot::Late(ChunkKind::Float);
    let count = more::encode((300, lot), &[chunk], 1000, &mut chunks::ChunkWriter::default(), &mut out);
    assert_eq!(count, 1);
    assert_eq!(documented(3), out, "the code writes {out:02x?}");
}

/// The bytes of an example of docs/format/snapshot.md.
fn documented(example: usize) -> Vec<u8> {
    let document = include_str!("../../../../docs/format/snapshot.md");
    let hex = document.split("```hex").nth(example).and_then(|rest| rest.split("```").next());
    let digits = hex
        .unwrap_or_default()
        .lines()
        .flat_map(|line| line.split('|').next().unwrap_or_default().split_whitespace());
    digits.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}
