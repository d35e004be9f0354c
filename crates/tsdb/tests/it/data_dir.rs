//! docs/format/data-dir.md: the file `format`, and the names below the data directory.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use chronolith_env::{Fs, Op};
use chronolith_model::{Matcher, TenantId, TimeRange};
use chronolith_storage::{Admin as _, Samples};
use chronolith_testkit::{
    fake_env::SimRng,
    fault_fs::{Call, CrashMode, FaultFs},
};
use chronolith_tsdb::{Db, DbOptions};

use crate::fixture::{
    Content, DIR, Machine, NOW, append, compiled, content, count, eventually, metric, quick, scrape,
};
use crate::sim::Sim;

const DOCUMENT: &str = include_str!("../../../../docs/format/data-dir.md");
const HOUR: i64 = 3_600_000;

/// The lines that the document has indented behind `heading`, up to the bar.
fn indented(heading: &str) -> Vec<&'static str> {
    let (_, rest) = DOCUMENT.split_once(heading).expect("the document has it");
    let rest = rest.split("\n## ").next().expect("a section");
    let lines = rest.lines().filter_map(|line| line.strip_prefix("    "));
    lines.map(|line| line.split('|').next().expect("one").trim()).collect()
}

fn format_file() -> PathBuf {
    Path::new(DIR).join("format")
}

#[test]
fn the_format_file_is_that_of_the_document() {
    let machine = Machine::new();
    machine.open(quick()).0.close().expect("closes");
    let bytes = indented("## The file `format`").join(" ");
    let bytes = bytes.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).expect("a byte"));
    let expected: Vec<u8> = bytes.collect();
    assert_eq!(expected.len(), 36);
    assert_eq!(machine.fs.read(&format_file()).as_ref(), Some(&expected));
    // White space behind it, and what no reader looks at.
    let mut longer = expected.clone();
    longer.resize(100, b' ');
    longer.extend_from_slice(b"x");
    machine.fs.put(&format_file(), longer);
    machine.open(quick()).0.close().expect("closes");
    // The version before becomes this one; others stay what they are.
    let with =
        |version: u8| expected.iter().map(|byte| if *byte == b'2' { version } else { *byte }).collect();
    machine.fs.put(&format_file(), with(b'1'));
    machine.open(quick()).0.close().expect("closes");
    assert_eq!(machine.fs.read(&format_file()).as_ref(), Some(&expected));
    machine.fs.put(&format_file(), with(b'3'));
    Db::open(Path::new(DIR), quick(), machine.env.clone()).expect_err("of a version to come");
    assert_eq!(machine.fs.read(&format_file()), Some(with(b'3')));
}

#[test]
fn harmless_names_are_those_of_the_document() {
    for name in ["lock", "format.new", "lost+found"] {
        assert!(DOCUMENT.contains(&format!("`{name}`")));
        let machine = Machine::new();
        machine.fs.create_dir_all(Path::new(DIR)).expect("made");
        machine.fs.put(&Path::new(DIR).join(name), Vec::new());
        machine.open(quick()).0.close().expect("closes");
    }
    let machine = Machine::new();
    machine.fs.create_dir_all(&Path::new(DIR).join("wal")).expect("made");
    Db::open(Path::new(DIR), quick(), machine.env.clone()).expect_err("of something else, for all we know");
}

/// Whether `name` is what the document calls `pattern`.
fn is_name(name: &str, pattern: &str) -> bool {
    let Some((before, rest)) = pattern.split_once('<') else { return name == pattern };
    let Some((what, after)) = rest.split_once('>') else { return false };
    let Some(rest) = name.strip_prefix(before) else { return false };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let len = match what {
        "number" if digits >= 8 => digits,
        "offset" if digits >= 1 => digits,
        "ulid" if rest.len() >= 26 && rest.is_char_boundary(26) => 26,
        "tenant" => rest.len(),
        _ => return false,
    };
    let crockford = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_uppercase() && !b"ILOU".contains(&byte);
    (what != "ulid" || rest[..len].bytes().all(crockford)) && is_name(&rest[len..], after)
}

fn is_path(path: &str, pattern: &str) -> bool {
    let (names, patterns): (Vec<_>, Vec<_>) = (path.split('/').collect(), pattern.split('/').collect());
    names.len() == patterns.len() && names.iter().zip(patterns).all(|(name, pattern)| is_name(name, pattern))
}

#[test]
fn patterns_tell_names_apart() {
    let ulid = "01HF7YAT00000000000000000A";
    assert!(is_path(&format!("blocks/anonymous/{ulid}.block"), "blocks/<tenant>/<ulid>.block"));
    assert!(!is_path(&format!("blocks/anonymous/{ulid}.blocks"), "blocks/<tenant>/<ulid>.block"));
    assert!(!is_path(&format!("blocks/{ulid}.block"), "blocks/<tenant>/<ulid>.block"));
    assert!(is_path("wal/quarantine/00000001-24.bad", "wal/quarantine/<number>-<offset>.bad"));
    assert!(!is_path("wal/0000001.wal", "wal/<number>.wal"));
}

/// Files that were made, as far as they are not there at the end.
static MADE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn note(call: &Call<'_>) -> Option<&'static str> {
    if call.op == Op::Create {
        MADE.lock().expect("nobody panics").insert(call.path.to_path_buf());
    }
    None
}

/// All files below a directory.
fn files(fs: &FaultFs, dir: &Path, into: &mut BTreeSet<PathBuf>) {
    for name in fs.list(dir).expect("a directory") {
        let path = dir.join(name);
        if fs.read(&path).is_some() {
            into.insert(path);
        } else {
            files(fs, &path, into);
        }
    }
}

fn of_name(fs: &FaultFs, dir: &str, end: &str) -> Vec<PathBuf> {
    let dir = Path::new(DIR).join(dir);
    let names = fs.list(&dir).unwrap_or_default();
    names.into_iter().filter(|name| name.ends_with(end)).map(|name| dir.join(name)).collect()
}

fn write(db: &Db, t: i64, value: f64) {
    let appended = append(db, &TenantId::default(), &scrape("m", 20, t, value)).expect("taken");
    appended.ticket.wait().expect("durable");
}

/// Everything that makes files, and what leaves them behind: returns all that were there at some time.
fn life(machine: &Machine) -> BTreeSet<PathBuf> {
    let (fs, mut seen) = (&machine.fs, BTreeSet::new());
    fs.watch(note);
    let options = DbOptions { memory_bytes_max: 16 << 20, segment_bytes: 16 << 10, ..quick() };
    let tenant = TenantId::default();
    let all = || [compiled(&[Matcher::equal("id", "3")])];
    let (db, _) = machine.open(options);
    (0..300).for_each(|n| write(&db, NOW - 3 * HOUR + n * 30_000, n as f64));
    // What is deleted in the head; a cut, and what is deleted in its blocks.
    db.delete_series(&tenant, &all(), TimeRange::new(NOW - HOUR, NOW)).expect("deleted");
    db.request_cut(NOW - HOUR);
    eventually("a cut", || db.stats().jobs.cuts > 0);
    db.delete_series(&tenant, &all(), TimeRange::new(NOW - 3 * HOUR, NOW - 2 * HOUR)).expect("deleted");
    // A copy, and an import in several runs.
    db.snapshot(false).expect("copied");
    let mut importer = db.import(&tenant).expect("begun");
    for id in 0..60 {
        let mut samples = Samples::default();
        (0..3000).for_each(|n| samples.push(NOW - 9 * 24 * HOUR + n * 60_000, id as f64 + n as f64 / 7.0));
        importer.append(&metric("i", id), &samples).expect("taken");
    }
    files(fs, Path::new(DIR), &mut seen);
    importer.finish().expect("imported");
    files(fs, Path::new(DIR), &mut seen);
    db.close().expect("closes");
    files(fs, Path::new(DIR), &mut seen);
    drop(db);
    // Damage: of the mark, a block, segments.
    let flip = |path: &Path, at: usize| {
        let mut bytes = fs.read(path).expect("there");
        bytes[at] ^= 4;
        fs.put(path, bytes);
    };
    flip(&Path::new(DIR).join("cut"), 9);
    let blocks = of_name(fs, "blocks/anonymous", ".tombstones");
    flip(
        &blocks[0].with_extension("block"),
        fs.read(&blocks[0].with_extension("block")).expect("there").len() - 10,
    );
    let (db, _) = machine.open(options);
    (0..100).for_each(|n| write(&db, NOW + n * 1000, n as f64));
    files(fs, Path::new(DIR), &mut seen);
    // A kill leaves records that are not known to be durable.
    machine.crash(db, CrashMode::KeepAll, 1);
    let segments = of_name(fs, "wal", ".wal");
    for path in &segments {
        flip(path, fs.read(path).expect("there").len() / 2);
    }
    let (db, report) = machine.open(options);
    assert!(report.damage_count > 0);
    files(fs, Path::new(DIR), &mut seen);
    (0..100).for_each(|n| write(&db, NOW + 200_000 + n * 1000, n as f64));
    db.close().expect("closes");
    drop(db);
    files(fs, Path::new(DIR), &mut seen);
    // A snapshot of which nothing can be read.
    for path in of_name(fs, "head", ".snapshot") {
        fs.put(&path, b"nothing".to_vec());
    }
    let (db, _) = machine.open(options);
    db.close().expect("closes");
    files(fs, Path::new(DIR), &mut seen);
    seen.append(&mut MADE.lock().expect("nobody panics"));
    seen
}

/// A chunk file, or a snapshot, of the head that is damaged.
fn damaged_head(chunks: bool, seen: &mut BTreeSet<PathBuf>) {
    let mut sim = Sim::new(1);
    sim.options.segment_bytes = 64 << 20;
    sim.options.ooo_window = Duration::from_secs(300);
    sim.restart();
    sim.scrape(&mut Content::new(), 10, 150);
    sim.db().close().expect("closes");
    let (dir, end) = if chunks { ("head/chunks", ".chunks") } else { ("head", ".snapshot") };
    let path = of_name(&sim.fs, dir, end).remove(0);
    let mut bytes = sim.fs.read(&path).expect("there");
    // The first chunk; the first section of series.
    let mut at = if chunks { 24 } else { 32 };
    while !chunks && bytes[at] != 1 {
        at += 24 + u32::from_le_bytes(bytes[at + 4..at + 8].try_into().expect("four")) as usize;
    }
    bytes[at + 30] ^= 4;
    sim.fs.put(&path, bytes);
    sim.restart_stepped();
    files(&sim.fs, Path::new(DIR), seen);
}

/// What is there for so short a time that only a crash shows it.
const OF_AN_IMPORT: [&str; 2] = ["import/<ulid>/blocks/<tenant>/<ulid>.block", "import/<ulid>/ready"];
/// What is not the database's: the server puts it there.
const OF_THE_SERVER: [&str; 1] = ["queries.active"];

#[test]
fn the_tree_is_that_of_the_document() {
    let machine = Machine::new();
    let mut seen = life(&machine);
    [true, false].into_iter().for_each(|chunks| damaged_head(chunks, &mut seen));
    let mut patterns = indented("## Tree");
    patterns.retain(|pattern| !pattern.is_empty());
    let mut unseen: BTreeSet<&str> = patterns.iter().copied().collect();
    for pattern in OF_AN_IMPORT.into_iter().chain(OF_THE_SERVER) {
        assert!(patterns.contains(&pattern), "the document does not have {pattern}");
        unseen.remove(pattern);
    }
    for path in &seen {
        let path = path.strip_prefix(DIR).expect("below it").to_str().expect("text");
        let found = patterns.iter().find(|pattern| is_path(path, pattern));
        let found = found.unwrap_or_else(|| panic!("the document does not have {path}"));
        unseen.remove(found);
    }
    assert_eq!(unseen, BTreeSet::new(), "of {} files", seen.len());
}

#[test]
fn an_import_that_is_ready_is_finished_by_the_next_start_and_another_is_not() {
    // The machine dies at each change of the end of an import in turn.
    let (mut finished, mut undone, mut moved_in_part, mut told_of) = (0, 0, 0, 0);
    let mut unseen: BTreeSet<&str> = OF_AN_IMPORT.into();
    for changes in 0.. {
        let machine = Machine::new();
        let options = DbOptions { memory_bytes_max: 16 << 20, ..quick() };
        let (db, _) = machine.open(options);
        let tenant = TenantId::default();
        let mut importer = db.import(&tenant).expect("begun");
        for day in 2..5 {
            let mut samples = Samples::default();
            (0..10).for_each(|n| samples.push(NOW - day * 24 * HOUR + n * 60_000, n as f64));
            importer.append(&metric("i", 1), &samples).expect("taken");
        }
        machine.fs.halt_after_changes(changes);
        let told = importer.finish();
        machine.fs.crash(CrashMode::KeepAll, &SimRng::new(changes));
        drop(db);
        machine.fs.heal();
        let dir = Path::new(DIR).join("import");
        let mut import = BTreeSet::new();
        if machine.fs.exists(&dir).expect("looked") {
            files(&machine.fs, &dir, &mut import);
        }
        let of = |pattern: &str| {
            let below = |path: &&PathBuf| {
                path.strip_prefix(DIR).expect("below it").to_str().expect("text").to_owned()
            };
            import.iter().filter(|path| is_path(&below(path), pattern)).count()
        };
        let [waiting, ready] = OF_AN_IMPORT.map(of);
        unseen.retain(|pattern| of(pattern) == 0);
        let ready = ready > 0;
        let there = of_name(&machine.fs, "blocks/anonymous", ".block").len();
        let (db, _) = machine.open(options);
        let seen = count(&content(&db, &tenant));
        // As the document says: with the mark all of it, without it nothing, but for what is in its place already.
        let whole = ready || (there == 3 && waiting == 0);
        assert_eq!(seen, if whole { 30 } else { 0 }, "{changes}: {import:?}");
        assert!(told.is_err() || seen == 30, "{changes}: whoever was told has it");
        assert!(machine.fs.list(&dir).unwrap_or_default().is_empty(), "{changes}: the directory goes");
        (finished, undone) = (finished + usize::from(whole), undone + usize::from(!whole));
        moved_in_part += usize::from(ready && there > 0 && waiting > 0);
        db.close().expect("closes");
        told_of += usize::from(told.is_ok());
        if told_of > 10 {
            break;
        }
        assert!(changes < 300, "it comes to an end");
    }
    assert_eq!(unseen, BTreeSet::new());
    assert!(finished > 3 && undone > 3 && moved_in_part > 0, "{finished} {undone} {moved_in_part}");
}
