//! What is read of a file, and how often: no more than the answer needs, and nothing twice.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chronolith_block::{Block, BlockCache, BlockRange, BlockWriter, SeriesSamples};
use chronolith_env::{Fs, Rng as _};
use chronolith_index::CompiledMatcher;
use chronolith_model::{Labels, MatchOp, Matcher, TimeRange};
use chronolith_testkit::fake_env::SimRng;

use crate::counting::Counting;
use crate::fixture::{DIR, Disk, spec};
use crate::hotcache::{Frame, Hotcache, Unit};

const RANGE: BlockRange = BlockRange::new(0, 7_200_000);
const METRICS: [&str; 4] = ["a_seconds_total", "b_bytes", "c_ratio", "up"];
const INSTANCES: usize = 1500;
const JOBS: usize = 5;

/// A file, its hotcache, and a way to it that notes what is read.
struct Case {
    counting: Counting,
    fs: Arc<dyn Fs>,
    path: PathBuf,
    hotcache: Hotcache,
}

impl Case {
    fn new(disk: &Disk, path: PathBuf) -> Self {
        let (counting, fs) = Counting::on(Arc::clone(&disk.fs));
        let (hotcache, _) = Hotcache::of(disk, &path);
        Self { fs, counting, path, hotcache }
    }

    fn open(&self, cache: &BlockCache) -> Block {
        let block = Block::open(&self.fs, &self.path, cache).unwrap();
        self.counting.take();
        block
    }

    /// Offset and length of what was read since the last call, ascending.
    fn reads(&self) -> Vec<(u64, u64)> {
        let mut reads: Vec<_> = self.counting.take().into_iter().map(|(_, off, len)| (off, len)).collect();
        reads.sort_unstable();
        reads
    }

    /// How many reads there were in the sections of the index, and how many bytes: dictionaries, postings, forward table.
    fn index_reads(&self) -> [(usize, u64); 3] {
        let reads = self.reads();
        let within = |unit: Unit| {
            let of = reads.iter().filter(|(off, len)| unit.off <= *off && off + len <= unit.off + unit.len);
            (of.clone().count(), of.map(|(_, len)| len).sum::<u64>())
        };
        let all = self.hotcache.index.map(within);
        assert_eq!(all.iter().map(|(count, _)| count).sum::<usize>(), reads.len(), "nothing but the index");
        all
    }
}

fn place(unit: Unit) -> (u64, u64) {
    (unit.off, unit.len)
}

/// Names that fill several pages of a dictionary.
fn pods() -> Vec<String> {
    let rng = SimRng::new(9);
    let name = |n: usize| {
        let words = std::array::from_fn::<_, 3, _>(|_| format!("{:016x}", rng.next_u64()));
        format!("pod-{}-{}", n / 250, words.concat())
    };
    (0..INSTANCES).map(name).collect()
}

/// Frames of many series of several metrics, in two parts.
fn large(disk: &Disk) -> Case {
    let rng = SimRng::new(1);
    let mut writer = BlockWriter::create(&disk.fs, Path::new(DIR), spec(1, RANGE)).unwrap();
    let mut series = Vec::new();
    let pods = pods();
    for metric in METRICS {
        for (instance, pod) in pods.iter().enumerate() {
            series.push(Labels::from_pairs([
                ("__name__", metric.to_owned()),
                ("instance", pod.clone()),
                ("job", format!("job-{}", instance % JOBS)),
            ]));
        }
    }
    series.sort_by(chronolith_block::series_order);
    let ids: Vec<u32> = series.iter().map(|labels| writer.add_series(labels).unwrap()).collect();
    for part in 0..2 {
        writer.begin_part(part).unwrap();
        for id in &ids {
            // One series in a hundred has times of its own.
            let own = if id % 100 == 7 { i64::from(*id) } else { 0 };
            let times: Vec<i64> = (0..30).map(|n| 1 + part as i64 * 3_600_000 + own + n * 15_000).collect();
            let values: Vec<f64> = times.iter().map(|_| (rng.next_u64() >> 14) as f64 / 1000.3).collect();
            writer.push_floats(*id, &times, &values).unwrap();
        }
        writer.end_part().unwrap();
    }
    let path = writer.finish().unwrap().path;
    Case::new(disk, path)
}

fn matchers(of: &[(&str, MatchOp, &str)]) -> Vec<CompiledMatcher> {
    let of: Vec<_> = of.iter().map(|(name, op, value)| Matcher::new(*name, *op, *value)).collect();
    CompiledMatcher::compile_all(&of).unwrap()
}

/// Matchers, how many series they select, and reads of the three sections: for these, and for their labels.
type Question<'a> = (&'a [(&'a str, MatchOp, &'a str)], usize, [usize; 3], [usize; 3]);

/// The frame with series `id`.
fn frame(frames: &[Frame], id: u32) -> &Frame {
    frames.iter().find(|frame| (frame.first..=frame.last).contains(&id.into())).unwrap()
}

#[test]
fn a_block_is_opened_with_one_read() {
    let disk = Disk::new();
    let case = large(&disk);
    let Hotcache { off, file_len, .. } = case.hotcache;
    assert!(file_len > 1 << 20 && file_len - off < 256 << 10, "{file_len}, {off}");
    let cache = BlockCache::default();
    Block::open(&case.fs, &case.path, &cache).unwrap();
    assert_eq!(case.reads(), [(file_len - (256 << 10), 256 << 10)]);
    // With deletions one more, of another file; what they mean is looked up in the index.
    let block = case.open(&cache);
    block.delete(crate::fixture::tombstone("job", "job-1", 0, 1000)).unwrap();
    case.counting.take();
    Block::open(&case.fs, &case.path, &cache).unwrap();
    let reads = case.counting.take();
    let (of_block, others): (Vec<_>, Vec<_>) = reads.into_iter().partition(|(path, _, _)| *path == case.path);
    assert_eq!(
        others.iter().map(|(path, off, _)| (path.clone(), *off)).collect::<Vec<_>>(),
        [(case.path.with_extension("tombstones"), 0)]
    );
    let of_index: u64 = of_block[1..].iter().map(|(_, _, len)| len).sum();
    assert!(of_block.len() <= 6 && of_index < 1000, "{of_block:?}");
}

#[test]
fn a_long_hotcache_is_a_second_read() {
    let disk = Disk::new();
    let rng = SimRng::new(1);
    let mut writer = BlockWriter::create(&disk.fs, Path::new(DIR), spec(1, RANGE)).unwrap();
    let labels =
        Labels::from_pairs((0..40_000).map(|n| (format!("l{:016x}", rng.next_u64()), n.to_string())));
    let id = writer.add_series(&labels).unwrap();
    writer.begin_part(0).unwrap();
    writer.push_floats(id, &[5], &[1.0]).unwrap();
    writer.end_part().unwrap();
    let path = writer.finish().unwrap().path;
    let case = Case::new(&disk, path);
    let Hotcache { off, file_len, .. } = case.hotcache;
    assert!(file_len - off > 256 << 10, "{file_len}, {off}");
    Block::open(&case.fs, &case.path, &BlockCache::default()).unwrap();
    assert_eq!(case.reads(), [(off, file_len - off - 40), (file_len - (256 << 10), 256 << 10)]);
}

#[test]
fn matchers_read_the_units_they_are_about() {
    let disk = Disk::new();
    let case = large(&disk);
    let equal = MatchOp::Equal;
    let pod = pods().swap_remove(777);
    let [name, up, of_pod] =
        [("__name__", equal, "b_bytes"), ("__name__", equal, "up"), ("instance", equal, &*pod)];
    let job = |op| ("job", op, "job-3");
    let pods = ("instance", MatchOp::Regex, "pod-2-.*");
    // Matchers, how many series they select; reads of dictionaries, postings and forward table, and those for the labels.
    // A value is in one of the five pages of its label; a set of rows costs the page of sets and a unit of lists; labels cost
    // their columns, and the pages with their values.
    let cases: [Question<'_>; 7] = [
        (&[name], INSTANCES, [1, 0, 0], [7, 1, 2]),
        (&[up, of_pod], 1, [3, 1, 0], [1, 0, 2]),
        (&[up, job(equal)], INSTANCES / JOBS, [3, 2, 0], [5, 0, 2]),
        (&[up, pods], 250, [4, 1, 0], [1, 0, 2]),
        (&[up, job(MatchOp::NotEqual)], INSTANCES / JOBS * 4, [3, 2, 0], [5, 0, 2]),
        (&[of_pod], METRICS.len(), [3, 1, 0], [1, 0, 2]),
        (&[("__name__", equal, "nowhere")], 0, [1, 0, 0], [0, 0, 0]),
    ];
    for (of, series, wanted, for_labels) in cases {
        let block = case.open(&BlockCache::default());
        let ids = block.select(&matchers(of)).unwrap();
        assert_eq!(ids.len() as usize, series, "{of:?}");
        let reads = case.index_reads();
        assert_eq!(reads.map(|(count, _)| count), wanted, "{of:?}");
        if of.contains(&of_pod) {
            // Of the dictionaries about a page of values.
            assert!(reads[0].1 < case.hotcache.index[0].len / 4, "{of:?}: {reads:?}");
        }
        assert_eq!(block.select(&matchers(of)).unwrap(), ids);
        assert_eq!(case.reads(), [], "{of:?}: again");
        let labels = block.labels(&ids).unwrap();
        assert_eq!(case.index_reads().map(|(count, _)| count), for_labels, "{of:?}: labels");
        assert_eq!(block.labels(&ids).unwrap(), labels);
        assert_eq!(case.reads(), [], "{of:?}: labels again");
    }
}

#[test]
fn a_series_costs_its_frame_table_and_times_once() {
    let disk = Disk::new();
    let case = large(&disk);
    let cache = BlockCache::default();
    let block = case.open(&cache);
    let part = &case.hotcache.parts[0];
    assert!(part.floats.len() > 8 && part.pages.len() == 1, "{} {}", part.floats.len(), part.pages.len());
    let first_part = TimeRange::new(0, 1_800_000);
    let read = |block: &Block, id: u32, range: TimeRange| {
        let mut samples = SeriesSamples::default();
        block.reader().read(id, range, &mut samples).unwrap();
        samples.len()
    };
    let id = 2000;
    let of = frame(&part.floats, id);
    assert_eq!(read(&block, id, first_part), 30);
    let mut expected = vec![place(of.unit), place(of.table), place(part.pages[0].0)];
    expected.sort_unstable();
    assert_eq!(case.reads(), expected);
    // Its neighbour, and the series itself again: nothing.
    assert_eq!(read(&block, of.last as u32, first_part), 30);
    assert_eq!(read(&block, id, first_part), 30);
    assert_eq!(case.reads(), []);
    // One of another frame with the same times: frame and table.
    let other = frame(&part.floats, of.last as u32 + 1);
    assert_eq!(read(&block, other.first as u32, first_part), 30);
    let mut expected = vec![place(other.unit), place(other.table)];
    expected.sort_unstable();
    assert_eq!(case.reads(), expected);
    // What lies outside of the time that is asked for is not touched.
    assert_eq!(read(&block, id, TimeRange::new(1_800_000, 3_000_000)), 0);
    assert_eq!(case.reads(), []);
    // The second part.
    let second = &case.hotcache.parts[1];
    let of = frame(&second.floats, id);
    assert_eq!(read(&block, id, TimeRange::ALL), 60);
    let mut expected = vec![place(of.unit), place(of.table), place(second.pages[0].0)];
    expected.sort_unstable();
    assert_eq!(case.reads(), expected);
    // Without a cache: each reader anew, but nothing twice by one reader.
    let block = case.open(&BlockCache::new(0));
    let mut reader = block.reader();
    for id in [of.first, of.first + 1, of.last] {
        reader.read(id as u32, first_part, &mut SeriesSamples::default()).unwrap();
    }
    assert!(case.reads().len() <= 6, "of two frames at most");
}

#[test]
fn series_of_a_metric_cost_each_frame_once() {
    let disk = Disk::new();
    let case = large(&disk);
    let bytes_max = |frames: &[&Frame]| frames.iter().map(|f| f.unit.len + f.table.len).sum::<u64>();
    for cache in [BlockCache::default(), BlockCache::new(0)] {
        let block = case.open(&cache);
        let ids: Vec<u32> =
            block.select(&matchers(&[("__name__", MatchOp::Equal, "b_bytes")])).unwrap().iter().collect();
        case.reads();
        assert_eq!(ids.len(), INSTANCES);
        let mut samples = vec![SeriesSamples::default(); ids.len()];
        block.reader().read_batch(&ids, TimeRange::ALL, &mut samples).unwrap();
        assert!(samples.iter().all(|samples| samples.len() == 60));
        let mut expected = Vec::new();
        let mut bytes = 0;
        for part in &case.hotcache.parts {
            let needed = |f: &&Frame| f.first <= ids[INSTANCES - 1].into() && u64::from(ids[0]) <= f.last;
            let frames: Vec<_> = part.floats.iter().filter(needed).collect();
            assert!(frames.len() >= 4, "{}", frames.len());
            bytes += bytes_max(&frames) + part.pages[0].0.len;
            expected.extend(frames.iter().flat_map(|f| [place(f.unit), place(f.table)]));
            expected.push(place(part.pages[0].0));
        }
        expected.sort_unstable();
        let reads = case.reads();
        assert_eq!(reads, expected);
        assert_eq!(reads.iter().map(|(_, len)| len).sum::<u64>(), bytes);
        // Again: from the cache, if there is one.
        let mut samples = vec![SeriesSamples::default(); ids.len()];
        block.reader().read_batch(&ids, TimeRange::ALL, &mut samples).unwrap();
        assert_eq!(case.reads().is_empty(), cache.stats().bytes > 0);
    }
}
