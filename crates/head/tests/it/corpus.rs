//! The committed inputs of the fuzz target `snapshot_load`: they are of the version that is written, and get as far as they
//! are meant to. With `CHRONOLITH_WRITE_CORPUS=1` they are made anew.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chronolith_codec::crc32;
use chronolith_head::{Head, HeadOptions, HeadView, Loaded, SNAPSHOT_VERSION, Snapshots};
use chronolith_model::TimeRange;
use chronolith_storage::Samples;
use chronolith_testkit::fake_env::FakeEnv;
use chronolith_testkit::fault_fs::FaultFs;

use crate::support::{HEAD_DIR, NOW, Store, names, steps, tenant};

const CHUNKS: &str = "/data/head/chunks/00000001.chunks";
/// Types of sections.
const SERIES: u8 = 1;
const MORE: u8 = 8;

/// A section of a snapshot: its type and content.
type Section = (u8, Vec<u8>);

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/snapshot_load")
}

/// What the target makes of sections: a snapshot without a directory, all of shard 0.
fn snapshot(sections: &[(u8, &[u8])]) -> Vec<u8> {
    let mut out = b"CHRNSNAP".to_vec();
    out.extend(SNAPSHOT_VERSION.to_le_bytes());
    out.extend(16_u16.to_le_bytes());
    out.extend(1_u32.to_le_bytes());
    out.extend([0; 12]);
    out.extend(crc32(&out).to_le_bytes());
    for (section_type, content) in sections {
        let len = (content.len() as u32).to_le_bytes();
        let mut header = vec![*section_type, 0, 0, 0];
        header.extend(len);
        header.extend(len);
        header.extend([1, 0, 0, 0]);
        header.extend(crc32(content).to_le_bytes());
        let mut bound = SNAPSHOT_VERSION.to_le_bytes().to_vec();
        bound.extend(1_u32.to_le_bytes());
        bound.extend((out.len() as u64).to_le_bytes());
        bound.extend(&header);
        out.extend(&header);
        out.extend(crc32(&bound).to_le_bytes());
        out.extend(*content);
    }
    out
}

/// The sections of a whole snapshot.
fn sections(file: &[u8]) -> Vec<Section> {
    let number = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap()) as usize;
    let (mut at, mut all) = (32, Vec::new());
    while file[at] != 4 {
        let (stored, raw) = (number(at + 4), number(at + 8));
        let payload = &file[at + 24..at + 24 + stored];
        let content = match file[at + 1] {
            0 => payload.to_vec(),
            _ => zstd::bulk::decompress(payload, raw).unwrap(),
        };
        all.push((file[at], content));
        at += 24 + stored;
    }
    all
}

/// What came of an input.
#[derive(Debug)]
struct Reached {
    loaded: Loaded,
    /// Samples read back: floats and histograms.
    samples: (usize, usize),
    /// Samples in chunk files.
    in_files: bool,
}

fn load(input: &[u8]) -> Reached {
    let (mode, rest) = input.split_first().unwrap();
    let fs = FaultFs::new();
    let fake = FakeEnv::new(Arc::new(fs.clone()), 1);
    let snapshots = Snapshots::open(&fake.env, Path::new(HEAD_DIR)).unwrap();
    let (file, chunks) = match mode % 3 {
        0 => (rest.to_vec(), None),
        1 => (snapshot(&[(rest[0] % 9, &rest[1..])]), None),
        _ => {
            let (content, chunks) = rest[1..].split_at(usize::from(rest[0]));
            (snapshot(&[(SERIES, content)]), Some(chunks))
        }
    };
    fs.put(&Path::new(HEAD_DIR).join("00000001.snapshot"), file);
    if let Some(chunks) = chunks {
        fs.put(Path::new(CHUNKS), chunks.to_vec());
    }
    let head = Arc::new(Head::new(HeadOptions::default(), fake.env.clone()));
    let loaded = snapshots.load(&head).unwrap();
    let view = HeadView::open(Arc::clone(&head), &tenant(0), TimeRange::ALL);
    let selection = view.select(&[]);
    let fetched = view.fetch(&selection.series, TimeRange::ALL);
    let mut samples = Samples::default();
    (0..selection.series.len()).for_each(|at| fetched.read(at, &mut samples).unwrap());
    let samples = (samples.len(), samples.histograms.len());
    Reached { loaded, samples, in_files: chunks.is_some() }
}

/// A snapshot of a few series, and the chunk file that goes with it.
fn spilled(series: u32, count: i64) -> (Vec<u8>, Vec<u8>) {
    let fs = FaultFs::new();
    let store = Store::open(&fs, 1);
    for batch in steps(series, count) {
        assert!(store.commit(0, &batch));
    }
    while !store.head.spill_step(store.snapshots.chunk_files(), NOW + 1).unwrap().round_done {}
    store.snapshot().unwrap();
    let name = names(&fs, HEAD_DIR, ".snapshot").remove(0);
    let snapshot = fs.read(&Path::new(HEAD_DIR).join(name)).unwrap();
    (snapshot, fs.read(Path::new(CHUNKS)).unwrap_or_default())
}

/// The histograms of docs/format/snapshot.md, and its further chunks of a series.
fn documented(nth: usize) -> Vec<u8> {
    let document = include_str!("../../../../docs/format/snapshot.md");
    let hex = document.split("```hex").nth(nth).and_then(|rest| rest.split("```").next()).unwrap();
    let bytes = hex.lines().flat_map(|line| line.split('|').next().unwrap().split_whitespace());
    bytes.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

fn inputs() -> Vec<(&'static str, Vec<u8>)> {
    let of_section = |section_type: u8, content: &[u8]| [&[1, section_type], content].concat();
    let (_, chunks) = spilled(1, 130);
    let (whole, _) = spilled(3, 20);
    let named = sections(&spilled(1, 130).0).into_iter().find(|(of, _)| *of == SERIES).unwrap().1;
    let short = [&[2, u8::try_from(named.len()).expect("a few chunks")], &*named, &*chunks].concat();
    let mut damaged = short.clone();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    let mut inputs = vec![
        ("whole", [&[0], &*whole].concat()),
        ("documented", [&[0], &*documented(1)].concat()),
        ("section_histograms", of_section(SERIES, &documented(2))),
        ("section_more", of_section(MORE, &documented(3))),
        ("chunk_file", short),
        ("chunk_file_damaged", damaged),
    ];
    let names = [
        (1, "section"),
        (2, "section_shard"),
        (3, "section_head"),
        (6, "section_starts"),
        (7, "section_exemplars"),
    ];
    for (section_type, content) in sections(&documented(1)) {
        let (_, name) = names.iter().find(|(of, _)| *of == section_type).expect("all are named");
        inputs.push((name, of_section(section_type, &content)));
    }
    inputs
}

#[test]
fn the_committed_inputs_get_as_far_as_they_are_meant_to() {
    if std::env::var_os("CHRONOLITH_WRITE_CORPUS").is_some() {
        for (name, bytes) in inputs() {
            std::fs::write(corpus().join(name), bytes).unwrap();
        }
    }
    let (mut floats, mut histograms, mut in_files, mut whole, mut damaged) = (0, 0, 0, 0, 0);
    let mut types = std::collections::BTreeSet::new();
    for entry in std::fs::read_dir(corpus()).unwrap() {
        let path = entry.unwrap().path();
        let input = std::fs::read(&path).unwrap();
        let Reached { loaded, samples, in_files: of_files } = load(&input);
        let shown = path.display();
        if input[0] % 3 == 0 {
            assert_eq!(input[9..11], SNAPSHOT_VERSION.to_le_bytes(), "{shown} is of another version");
            types.extend(sections(&input[1..]).into_iter().map(|(of, _)| of));
        }
        assert!(loaded.number.is_some(), "{shown}");
        // One without a directory is damaged in that alone.
        let other = loaded.damage.iter().any(|damage| damage.section != "directory");
        let meant = path.to_string_lossy().contains("damaged");
        assert!(!other || meant, "{shown}: {:?}", loaded.damage);
        damaged += usize::from(meant && loaded.damage.iter().any(|damage| damage.path == Path::new(CHUNKS)));
        floats += usize::from(samples.0 > 0);
        // They are too old to be shown, by the clock.
        histograms += usize::from(shown.to_string().ends_with("section_histograms") && loaded.samples == 4);
        assert_eq!(samples.1, 0, "{shown}");
        in_files += usize::from(of_files && samples.0 > 100 && !meant);
        whole += usize::from(input[0] % 3 == 0 && samples.0 > 0);
    }
    assert!(floats >= 4 && histograms >= 1 && whole >= 2, "{floats} {histograms} {whole}");
    assert!(in_files >= 1 && damaged >= 1, "chunks in files are read: {in_files} {damaged}");
    for section_type in [1, 2, 3, 6, 7] {
        assert!(types.contains(&section_type), "{types:?}");
    }
}
