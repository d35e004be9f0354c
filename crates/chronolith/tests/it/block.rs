//! `chronolith block` and `chronolith tsdb analyze`, on blocks that the test has written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use chronolith_block::{
    Block, BlockCache, BlockRange, BlockSpec, BlockWriter, Tombstone, Ulid, block_path, series_order,
};
use chronolith_env::{Fs, RealFs};
use chronolith_model::histogram::{HistogramParts, Span};
use chronolith_model::{Histogram, Labels, Matcher, TenantId, TimeRange};
use serde_json::Value;

use crate::cli::{Dir, Server, program, run, shown};

const DAY: i64 = 86_400_000;
const COMMANDS: [&[&str]; 4] =
    [&["block", "inspect"], &["block", "verify"], &["block", "dump"], &["tsdb", "analyze"]];

type Series<'a> = (&'a [(&'a str, &'a str)], &'a [(i64, f64)]);

fn fs() -> Arc<dyn Fs> {
    Arc::new(RealFs)
}

/// Writes a block of one part in `(range.0, range.1]`, with a histogram at its end where `histograms` says so.
pub(crate) fn write(
    data: &str,
    tenant: &str,
    number: u64,
    range: (i64, i64),
    series: &[Series<'_>],
    histograms: bool,
) -> String {
    let dir = Path::new(data).join("blocks").join(tenant);
    std::fs::create_dir_all(&dir).expect("a directory for blocks");
    let ulid = Ulid::from_parts(number, 7);
    let spec = BlockSpec {
        ulid,
        tenant: TenantId::new(tenant).expect("a tenant"),
        range: BlockRange::new(range.0, range.1),
        level: 1,
        created: 1_700_000_000_000,
        sources: vec![ulid],
    };
    let mut all: Vec<_> =
        series.iter().map(|(pairs, samples)| (Labels::from_pairs(pairs.iter().copied()), samples)).collect();
    all.sort_by(|(a, _), (b, _)| series_order(a, b));
    let mut writer = BlockWriter::create(&fs(), &dir, spec).expect("a writer");
    writer.begin_part(number).expect("a part");
    for (labels, samples) in all {
        let id = writer.add_series(&labels).expect("a series");
        let (timestamps, values): (Vec<_>, Vec<_>) = samples.iter().copied().unzip();
        writer.push_floats(id, &timestamps, &values).expect("samples");
    }
    if histograms {
        let id =
            writer.add_series(&Labels::from_pairs([("__name__", "zz_histogram")])).expect("the last one");
        writer.push_histograms(id, &[range.1], &[histogram()]).expect("a histogram");
    }
    writer.end_part().expect("a part");
    shown(&writer.finish().expect("a block").path)
}

fn histogram() -> Histogram {
    let parts = HistogramParts::<u64> {
        sum: 12.5,
        count: 9,
        positive_spans: vec![Span { offset: 1, length: 2 }],
        positive_buckets: vec![4, 5],
        ..HistogramParts::default()
    };
    Histogram::Integer(parts.build(None).expect("a histogram"))
}

const A1: &[(&str, &str)] = &[("__name__", "a"), ("x", "1")];
const A2: &[(&str, &str)] = &[("__name__", "a"), ("x", "2")];
const B: &[(&str, &str)] = &[("__name__", "b"), ("x", "2")];

/// Three blocks: two of one tenant on two days, with a series that goes and one that comes, one of another tenant.
fn three_blocks(data: &str) -> [String; 3] {
    [
        write(
            data,
            "anonymous",
            1,
            (0, DAY),
            &[(A1, &[(1000, 1.0), (DAY, 2.5)]), (A2, &[(1000, 3.0)])],
            true,
        ),
        write(
            data,
            "anonymous",
            2,
            (DAY, 2 * DAY),
            &[(A1, &[(DAY + 1, 3.0)]), (B, &[(DAY + 1_000_000, 4.0)])],
            false,
        ),
        write(data, "other", 3, (0, DAY), &[(A1, &[(5000, f64::INFINITY)])], false),
    ]
}

fn files(dir: &Path, into: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, into);
        } else {
            into.insert(path.clone(), std::fs::read(&path).expect("a file"));
        }
    }
}

fn json(args: &[&str]) -> (Option<i32>, Value) {
    let (code, out, error) = run(args);
    assert_eq!(error, "", "no progress bar where there is no terminal");
    (code, serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}")))
}

fn with<'a>(command: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [command, more].concat()
}

#[test]
fn where_there_are_no_blocks() {
    let dir = Dir::new("block-none");
    let data = dir.data();
    for command in COMMANDS {
        let (code, out, error) = run(&with(command, &["--data-dir", &data]));
        assert_eq!((code, out.as_str()), (Some(2), ""), "{command:?}");
        assert!(error.contains("has no blocks: there is no directory"), "{error}");
    }
    assert!(!Path::new(&data).exists(), "looking makes no directory");
    std::fs::create_dir_all(Path::new(&data).join("blocks")).expect("an empty directory");
    for (command, told) in COMMANDS.iter().zip(["total ", "clean: 0 blocks, ", "", "total "]) {
        let (code, out, error) = run(&with(command, &["--data-dir", &data]));
        assert_eq!((code, error.as_str()), (Some(0), ""), "{command:?}");
        assert!(out.contains(told), "{out}");
        let (code, _, error) = run(&with(command, &["--data-dir", &data, "--tenant", "nobody"]));
        assert_eq!(code, Some(2));
        assert!(error.contains("has no blocks of tenant nobody"), "{error}");
    }
    let (code, found) = json(&["tsdb", "analyze", "--json", "--data-dir", &data]);
    assert_eq!(
        (code, &found["total"]["series"], &found["churn"]),
        (Some(0), &Value::from(0), &Value::from(Vec::<u8>::new()))
    );
}

#[test]
fn wrong_arguments_of_block_tools() {
    for (args, told) in [
        (&["block"][..], "inspect"),
        (&["tsdb"], "analyze"),
        (&["block", "dump", "--series", "up{"], "--series"),
        (&["block", "dump", "--series", "up{a=~\"(\"}"], "--series"),
        (&["block", "dump", "--start", "yesterday"], "RFC 3339"),
        (&["block", "dump", "--start", "2", "--end", "1"], "--end lies before --start"),
        (&["block", "verify", "--series", "up"], "--series"),
        (&["block", "verify", "--tenant", "a/b"], "invalid tenant id"),
        (&["block", "verify", "x.block", "--data-dir", "data"], "cannot be used with"),
        (&["block", "verify", "no/such.block"], "no/such.block"),
        (&["block", "inspect", "."], ". is a directory; name block files"),
        (&["tsdb", "analyze", "--limit", "many"], "--limit"),
    ] {
        let (code, out, error) = run(args);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{args:?}: {error}");
        assert!(error.contains(told), "{args:?}: {error}");
    }
}

#[test]
fn blocks_are_described_and_verified() {
    let dir = Dir::new("block-good");
    let data = dir.data();
    let [first, second, other] = three_blocks(&data);
    // What is not ours.
    for name in ["x.txt", "00000000000000000000000000.block.tmp"] {
        std::fs::write(Path::new(&data).join("blocks/anonymous").join(name), "x").expect("writable");
    }
    std::fs::write(Path::new(&data).join("blocks/README"), "x").expect("writable");
    let mut before = BTreeMap::new();
    files(Path::new(&data), &mut before);

    let (code, found) = json(&["block", "inspect", "--json", "--data-dir", &data]);
    assert_eq!((code, &found["damage_count"]), (Some(0), &Value::from(0)));
    let column = |name: &str| -> Vec<Value> {
        found["blocks"].as_array().expect("blocks").iter().map(|block| block[name].clone()).collect()
    };
    assert_eq!(column("file"), [first.as_str(), &second, &other]);
    assert_eq!(column("tenant"), ["anonymous", "anonymous", "other"]);
    assert_eq!(column("series"), [3, 2, 1]);
    assert_eq!(column("range_ms")[1], Value::from(vec![DAY, 2 * DAY]));
    assert_eq!(column("times_ms")[1], Value::from(vec![DAY + 1, DAY + 1_000_000]));
    assert_eq!(found["total"]["samples"], 6);
    assert_eq!(found["total"]["histograms"], 1);
    assert!(found["blocks"][0]["content"].is_null(), "read only if named");
    let bytes: u64 =
        [&first, &second, &other].map(|path| std::fs::metadata(path).expect("a file").len()).iter().sum();
    assert_eq!(found["total"]["bytes"], bytes);

    let (code, found) = json(&["block", "inspect", "--json", &first]);
    assert_eq!(code, Some(0));
    let content = &found["blocks"][0]["content"];
    let sections = content["sections"].as_array().expect("sections");
    let sum: u64 = sections.iter().filter_map(|section| section["bytes"].as_u64()).sum();
    assert_eq!(found["blocks"][0]["bytes"], sum);
    assert!(sections.iter().any(|section| section["section"] == "value_frames" && section["units"] == 1));
    assert_eq!(content["parts"][0]["samples"], 3);
    assert_eq!(content["metrics"].as_array().map(Vec::len), Some(2));
    let (_, text, _) = run(&["block", "inspect", &first, &other]);
    for told in ["block  ", "\ntotal ", "value frames", "encoding", "metric ", &format!("\n{other}:\n")] {
        assert!(text.contains(told), "{told} in {text}");
    }

    let (code, text, error) = run(&["block", "verify", "--data-dir", &data]);
    assert_eq!((code, error.as_str()), (Some(0), ""));
    assert!(
        text.starts_with("clean: 3 blocks, ") && text.ends_with(" 6 series, 6 samples, 1 histogram\n"),
        "{text}"
    );
    let (_, found) = json(&["block", "verify", "--json", "--data-dir", &data, "--tenant", "other"]);
    assert_eq!(
        (&found["total"]["samples"], &found["blocks"][0]["intact"]),
        (&Value::from(1), &Value::from(true))
    );

    let mut after = BTreeMap::new();
    files(Path::new(&data), &mut after);
    assert_eq!(before, after, "nothing is changed");
}

#[test]
fn samples_are_dumped() {
    let dir = Dir::new("block-dump");
    let data = dir.data();
    let [first, _, _] = three_blocks(&data);
    let dump = |more: &[&str]| {
        let (code, out, error) = run(&with(&["block", "dump", "--data-dir", &data], more));
        assert_eq!((code, error.as_str()), (Some(0), ""));
        out
    };
    let [one, two, three] = [1, 2, 3].map(|number| Ulid::from_parts(number, 7));
    let histogram = "# histogram zz_histogram {\"counter_reset_hint\":\"unknown\",\"schema\":0,\"zero_threshold\":0.0,\
                     \"zero_count\":0,\"count\":9,\"sum\":12.5,\"positive_spans\":[[1,2]],\"positive_buckets\":[4,5]} \
                     86400000\n";
    let all = format!(
        "# block {one} of tenant anonymous\na{{x=\"1\"}} 1 1000\na{{x=\"1\"}} 2.5 86400000\na{{x=\"2\"}} 3 1000\n{histogram}\
         # block {two} of tenant anonymous\na{{x=\"1\"}} 3 86400001\nb{{x=\"2\"}} 4 87400000\n\
         # block {three} of tenant other\na{{x=\"1\"}} +Inf 5000\n"
    );
    assert_eq!(dump(&[]), all);
    assert_eq!(
        dump(&[
            "--series",
            "a{x!=\"2\"}",
            "--tenant",
            "anonymous",
            "--start",
            "86400",
            "--end",
            "1970-01-02T00:00:00.001Z"
        ]),
        format!(
            "# block {one} of tenant anonymous\na{{x=\"1\"}} 2.5 86400000\n\
             # block {two} of tenant anonymous\na{{x=\"1\"}} 3 86400001\n"
        )
    );
    assert_eq!(dump(&["--series", "nosuch"]), "");
    let lines = dump(&["--json", "--end", "6"]);
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[2]["metric"], serde_json::json!({"__name__": "a", "x": "1"}));
    assert_eq!(
        (&lines[2]["values"], &lines[2]["timestamps"]),
        (&serde_json::json!(["+Inf"]), &serde_json::json!([5000]))
    );
    assert_eq!(
        (lines[2]["tenant"].as_str(), lines[2]["block"].as_str()),
        (Some("other"), Some(three.to_string().as_str()))
    );

    // What is deleted is not there.
    let block = Block::open(&fs(), Path::new(&first), &BlockCache::default()).expect("a block");
    let tombstone =
        Tombstone { matchers: vec![Matcher::equal("x", "1")], ranges: vec![TimeRange::new(0, 1000)] };
    assert!(block.delete(tombstone).expect("deleted"));
    assert_eq!(
        run(&["block", "dump", "--series", "a", &first]).1,
        format!("# block {one} of tenant anonymous\na{{x=\"1\"}} 2.5 86400000\na{{x=\"2\"}} 3 1000\n")
    );
}

#[test]
fn cardinality_churn_and_bytes() {
    let dir = Dir::new("block-analyze");
    let data = dir.data();
    let blocks = three_blocks(&data);
    let (code, found) = json(&["tsdb", "analyze", "--json", "--data-dir", &data]);
    assert_eq!(
        (code, &found["incomplete"], &found["damage_count"]),
        (Some(0), &Value::from(false), &Value::from(0))
    );
    // A series of two blocks is one; of two tenants, two.
    let tenants: Vec<_> = found["tenants"]
        .as_array()
        .expect("tenants")
        .iter()
        .map(|t| (t["blocks"].as_u64(), t["series"].as_u64()))
        .collect();
    assert_eq!(tenants, [(Some(2), Some(4)), (Some(1), Some(1))]);
    let total = &found["total"];
    assert_eq!(
        (&total["series"], &total["samples"], &total["histograms"]),
        (&Value::from(5), &Value::from(6), &Value::from(1))
    );
    let bytes: u64 = blocks.iter().map(|path| std::fs::metadata(path).expect("a file").len()).sum();
    assert_eq!(total["bytes"], bytes);
    let sections = found["sections"].as_array().expect("sections");
    assert_eq!(sections.iter().filter_map(|section| section["bytes"].as_u64()).sum::<u64>(), bytes);
    let pairs: Vec<_> = found["pairs"]
        .as_array()
        .expect("pairs")
        .iter()
        .map(|pair| format!("{}={} {}", pair["label"], pair["value"], pair["series"]))
        .collect();
    assert_eq!(
        pairs,
        [
            "\"__name__\"=\"a\" 3",
            "\"x\"=\"1\" 2",
            "\"x\"=\"2\" 2",
            "\"__name__\"=\"b\" 1",
            "\"__name__\"=\"zz_histogram\" 1",
        ]
    );
    assert_eq!(
        found["labels"][0],
        serde_json::json!({"label": "__name__", "values": 3, "series": 5, "value_bytes": 14})
    );
    let metric = &found["metrics_by_series"][0];
    assert_eq!(
        (&metric["metric"], &metric["series"], &metric["samples"]),
        (&Value::from("a"), &Value::from(3), &Value::from(5))
    );
    assert_eq!(found["metrics_by_bytes"].as_array().map(Vec::len), Some(3));
    let frames: f64 = found["metrics_by_bytes"]
        .as_array()
        .expect("metrics")
        .iter()
        .filter_map(|metric| metric["bytes"].as_f64())
        .sum();
    let of_sections: f64 = sections
        .iter()
        .filter(|s| s["section"].as_str().is_some_and(|name| name.ends_with("frames")))
        .filter_map(|s| s["bytes"].as_f64())
        .sum();
    assert!((frames - of_sections).abs() < 1e-6, "{frames} {of_sections}");
    let slots: u64 = found["encodings"]
        .as_array()
        .expect("encodings")
        .iter()
        .filter_map(|encoding| encoding["slots"].as_u64())
        .sum();
    assert_eq!(slots, 5);
    // The histogram comes with the second day; that day two series end before the data, one begins.
    let churn = serde_json::json!([
        {"day": "1970-01-01", "active": 3, "appeared": 0, "vanished": 1},
        {"day": "1970-01-02", "active": 3, "appeared": 2, "vanished": 2},
    ]);
    assert_eq!(found["churn"], churn);
    let (_, found) = json(&["tsdb", "analyze", "--json", "--data-dir", &data, "--limit", "1"]);
    for table in ["metrics_by_series", "metrics_by_bytes", "labels", "pairs", "churn"] {
        assert_eq!(found[table].as_array().map(Vec::len), Some(1), "{table}");
    }
    assert_eq!(found["churn"][0], churn[1]);
    let (code, text, error) = run(&["tsdb", "analyze", "--limit", "0", &blocks[0]]);
    assert_eq!((code, error.as_str()), (Some(0), ""));
    for told in [
        "tenant ",
        "metric, by series",
        "label, by values",
        "x=\"2\" ",
        "day (UTC)",
        "value frames",
        "encoding",
    ] {
        assert!(text.contains(told), "{told} in {text}");
    }
}

/// CRC-32 as in zlib.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(crc & 1)))
    })
}

#[test]
fn damage_of_blocks_is_found_and_named() {
    let dir = Dir::new("block-damage");
    let data = dir.data();
    let [first, second, _] = three_blocks(&data);
    let good = std::fs::read(&first).expect("a file");
    let end = good.len();
    let verify = || json(&["block", "verify", "--json", "--data-dir", &data]);
    let damaged = |at: usize, section: &str, offset: Option<u64>, reason: &str| {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&first, bad).expect("writable");
        let (code, found) = verify();
        let place = &found["damage"][0];
        assert_eq!((code, place["file"].as_str()), (Some(1), Some(first.as_str())), "byte {at}: {found}");
        assert_eq!(
            (place["section"].as_str(), place["reason"].as_str()),
            (Some(section), Some(reason)),
            "{place}"
        );
        assert_eq!(place["offset"].as_u64(), offset, "{place}");
        let (code, text, error) = run(&["block", "verify", &first]);
        assert_eq!((code, error.as_str()), (Some(1), ""));
        let told = format!("{} at offset {}", section.replace('_', " "), offset.unwrap_or(0));
        assert!(text.starts_with(&format!("damaged: {first}: ")) && text.contains(&told), "{text}");
        assert!(text.contains("\ndamaged: ") && text.contains(" in 1 block; read: "), "{text}");
    };
    damaged(end - 1, "footer", Some(end as u64 - 40), "content");
    damaged(0, "header", Some(0), "mismatch");
    // The first unit is the frame of floats.
    damaged(12, "value_frames", Some(8), "checksum");

    // The others are whole, and read.
    let (_, found) = verify();
    assert_eq!((&found["total"]["samples"], &found["damaged_blocks"]), (&Value::from(3), &Value::from(1)));
    let (code, out, error) = run(&["block", "dump", "--data-dir", &data]);
    assert_eq!(code, Some(1));
    assert!(
        out.contains("a{x=\"1\"} 3 86400001\n") && out.contains("# histogram") && !out.contains(" 1000\n"),
        "{out}"
    );
    assert_eq!(
        error.matches(&format!("damaged: {first}: checksum mismatch in value frames at offset 8: ")).count(),
        1,
        "{error}"
    );
    let (code, out, _) = run(&["tsdb", "analyze", "--data-dir", &data]);
    assert!(
        code == Some(0) && out.contains("damaged: ") && out.contains("value frames at offset 8"),
        "{out}"
    );
    let (code, out, _) = run(&["block", "inspect", &first]);
    assert!(code == Some(0) && out.contains("value frames at offset 8"), "{out}");

    // Cut off, and empty.
    for len in [end / 2, 0] {
        std::fs::write(&first, &good[..len]).expect("writable");
        let (code, found) = verify();
        assert_eq!((code, &found["damage"][0]["section"]), (Some(1), &Value::from("footer")), "{found}");
        assert_eq!(found["blocks"].as_array().map(Vec::len), Some(2));
    }
    // Under the name of another.
    std::fs::write(&first, std::fs::read(&second).expect("a file")).expect("writable");
    let (code, found) = verify();
    assert_eq!((code, &found["damage"][0]["reason"]), (Some(1), &Value::from("name")), "{found}");
    // Its deletions.
    std::fs::write(&first, &good).expect("writable");
    assert_eq!(verify().0, Some(0));
    let tombstones = first.replace(".block", ".tombstones");
    std::fs::write(&tombstones, "CHRT").expect("writable");
    let (code, found) = verify();
    assert_eq!((code, &found["damage"][0]["section"]), (Some(1), &Value::from("tombstones")), "{found}");
    std::fs::remove_file(&tombstones).expect("removable");

    // Of a version to come: not damaged, not read.
    let mut foreign = good.clone();
    foreign[end - 16] = 9;
    let crc = crc32(&foreign[end - 40..end - 8]);
    foreign[end - 8..end - 4].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&first, foreign).expect("writable");
    let (code, found) = verify();
    assert_eq!(
        (code, &found["damage_count"], &found["foreign"][0]["reason"]),
        (Some(2), &Value::from(0), &Value::from("version")),
        "{found}"
    );
    for command in COMMANDS {
        let (code, out, error) = run(&with(command, &["--data-dir", &data]));
        assert_eq!(code, Some(2), "{command:?}");
        let told = format!("cannot be read: {first}: footer has format version 9");
        assert!(out.contains(&told) || error.contains(&told), "{out}{error}");
    }
}

#[test]
fn a_reader_that_hangs_up_is_no_error() {
    let dir = Dir::new("block-pipe");
    let data = dir.data();
    let samples: Vec<(i64, f64)> = (1..20_000).map(|i| (i * 1000, i as f64)).collect();
    write(&data, "anonymous", 1, (0, DAY), &[(A1, &samples)], false);
    for more in [&[][..], &["--json"]] {
        let mut dump = program();
        dump.args(["block", "dump", "--data-dir", &data]).args(more);
        let mut child = dump.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]), "{more:?}");
    }
}

#[test]
fn blocks_beside_a_server() {
    let dir = Dir::new("block-server");
    let data = dir.data();
    let server = Server::start(&data);
    three_blocks(&data);
    for command in COMMANDS {
        let (code, out, error) = run(&with(command, &["--data-dir", &data]));
        assert_eq!((code, error.as_str()), (Some(0), ""), "{command:?}: {out}");
        assert!(!out.is_empty());
    }
    drop(server);
    assert!(block_path(&Path::new(&data).join("blocks/other"), Ulid::from_parts(3, 7)).exists());
}
