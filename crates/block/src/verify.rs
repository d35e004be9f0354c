//! Reads everything a block has, and compares what must agree.

use std::sync::Arc;

use chronolith_chunk::dense::Statistics;
use chronolith_codec::crc32_continue;
use chronolith_index::CompiledMatcher;
use chronolith_model::{Matcher, Timestamp};
use hashbrown::HashMap;
use roaring::RoaringBitmap;

use crate::Block;
use crate::error::{Error, Result, Section};
use crate::layout::directory::{FrameEntry, FrameKind, IndexSpan, PartEntry, UnitRef};
use crate::layout::footer::FOOTER_BYTES;
use crate::layout::{HEADER_BYTES, header};
use crate::reader::cursor::Cursor;
use crate::series_order;
use crate::starts::ALWAYS;

/// The most problems a report lists.
pub const PROBLEMS_MAX: usize = 100;

/// How much of an index section is read at once.
const READ_BYTES: u64 = 1 << 20;

/// What a verification has seen.
#[derive(Debug, Default)]
pub struct VerifyReport {
    /// Readable units, index sections counted as one.
    pub units: u64,
    /// Bytes read, which is the length of the file if there is no problem.
    pub bytes: u64,
    /// Float samples decoded.
    pub samples: u64,
    /// Histograms decoded.
    pub histograms: u64,
    /// Label pairs compared.
    pub pairs: u64,
    /// What is wrong: at most [`PROBLEMS_MAX`].
    pub problems: Vec<Error>,
}

/// Verifies a block: every byte of its file belongs to something and has the right checksum, every page and frame
/// decodes, ids and timestamps ascend and lie where they should, statistics are those of the samples, the postings say
/// what the forward table says. Each unit is judged by itself: a damaged one does not hide the others. Tombstones were
/// verified when the block was opened.
///
/// # Errors
/// When the file system refuses or the verification is cancelled. Damage is reported, not returned.
pub fn verify(block: &Block, cancelled: &dyn Fn() -> bool) -> Result<VerifyReport> {
    let mut run =
        Run { block, report: VerifyReport::default(), filled: RoaringBitmap::new(), longest: 0, cancelled };
    let header = run.header();
    run.note(header)?;
    let coverage = run.coverage();
    run.note(coverage)?;
    let directory = block.directory();
    for (section, span) in [
        (Section::Dictionaries, directory.dictionaries),
        (Section::Postings, directory.postings),
        (Section::Forward, directory.forward),
    ] {
        let checked = run.index_span(section, span);
        run.note(checked)?;
    }
    for part in &directory.parts {
        run.part(part)?;
    }
    let index = run.index();
    run.note(index)?;
    for page in 0..directory.exemplars.len() {
        let read = block.exemplar_page(page).map(drop);
        run.note(read)?;
        run.report.units += 1;
    }
    let mut last = None;
    for page in 0..directory.starts.len() {
        let checked = run.start_page(page, &mut last);
        run.note(checked)?;
        run.report.units += 1;
    }
    let metadata = block.metadata().map(drop);
    run.note(metadata)?;
    run.report.units += directory.metadata.len() as u64;
    Ok(run.report)
}

struct Run<'a> {
    block: &'a Block,
    report: VerifyReport,
    /// Series with a sample.
    filled: RoaringBitmap,
    /// Samples of the longest slot of the part.
    longest: u32,
    cancelled: &'a dyn Fn() -> bool,
}

impl Run<'_> {
    /// Keeps damage, hands on the rest.
    fn note(&mut self, result: Result<()>) -> Result<()> {
        match result {
            Err(error) if error.is_damage() => {
                if self.report.problems.len() < PROBLEMS_MAX {
                    self.report.problems.push(error);
                }
                Ok(())
            }
            other => other,
        }
    }

    fn check_cancelled(&self) -> Result<()> {
        if (self.cancelled)() { Err(Error::Cancelled) } else { Ok(()) }
    }

    fn header(&self) -> Result<()> {
        let expected = header(self.block.directory().version);
        let header = self.block.source().read_raw(0, expected.len())?;
        let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        self.block.source().equal(Section::Header, 0, "header", (number(&expected), number(&header)))
    }

    /// Whether the units fill the file without gap or overlap.
    fn coverage(&mut self) -> Result<()> {
        let directory = self.block.directory();
        let mut spans: Vec<(u64, u64)> = Vec::new();
        for span in [directory.dictionaries, directory.postings, directory.forward] {
            spans.push((span.off, span.len));
        }
        for part in &directory.parts {
            spans.extend(part.pages.iter().map(|page| span_of(page.unit)));
            for frame in part.floats.iter().chain(&part.histograms) {
                let units = [Some(frame.unit), Some(frame.table), frame.statistics];
                spans.extend(units.into_iter().flatten().map(span_of));
            }
        }
        spans.extend(directory.exemplars.iter().map(|page| span_of(page.unit)));
        spans.extend(directory.starts.iter().map(|page| span_of(page.unit)));
        spans.extend(directory.metadata.iter().copied().map(span_of));
        spans.sort_unstable();
        let mut end = HEADER_BYTES;
        for (off, len) in spans {
            self.block.source().equal(Section::Hotcache, off, "end of the unit before", (off, end))?;
            end += len;
        }
        // What is left is hotcache and footer, which were verified when the block was opened.
        let tail = self.block.hotcache_off();
        self.block.source().equal(Section::Hotcache, tail, "end of the unit before", (tail, end))?;
        self.report.bytes = self.block.file_bytes();
        debug_assert!(tail + FOOTER_BYTES as u64 <= self.report.bytes);
        Ok(())
    }

    fn index_span(&mut self, section: Section, span: IndexSpan) -> Result<()> {
        let source = self.block.source();
        let (mut crc, mut done) = (0, 0);
        while done < span.len {
            self.check_cancelled()?;
            let len = READ_BYTES.min(span.len - done);
            crc = crc32_continue(crc, &source.read_raw(span.off + done, len as usize)?);
            done += len;
        }
        self.report.units += 1;
        source.verify(section, span.off, span.crc, crc)
    }

    fn part(&mut self, part: &PartEntry) -> Result<()> {
        for page in &part.pages {
            self.check_cancelled()?;
            let read = self.block.source().columns(page, None).and_then(|columns| {
                let ascending = |column: &Vec<i64>| column.is_sorted_by(|a, b| a < b) && !column.is_empty();
                let wrong = columns.iter().filter(|column| !ascending(column)).count() as u64;
                let off = page.unit.off;
                self.block.source().equal(Section::Timestamps, off, "columns out of order", (0, wrong))
            });
            self.note(read)?;
            self.report.units += 1;
        }
        let mut cursor = Cursor::new(self.block.source(), part);
        self.longest = 0;
        for (kind, frames) in [(FrameKind::Float, &part.floats), (FrameKind::Histogram, &part.histograms)] {
            for frame in frames {
                self.check_cancelled()?;
                let checked = self.frame(part, &mut cursor, kind, frame);
                self.note(checked)?;
                self.report.units += 2 + u64::from(frame.statistics.is_some());
            }
        }
        let (off, pair) = (self.block.hotcache_off(), (self.longest.into(), part.slot_samples_max.into()));
        let checked = self.block.source().equal(Section::Hotcache, off, "samples of the longest slot", pair);
        self.note(checked)
    }

    /// Decodes a frame whole; one problem of it is enough.
    fn frame(
        &mut self,
        part: &PartEntry,
        cursor: &mut Cursor<'_>,
        kind: FrameKind,
        entry: &FrameEntry,
    ) -> Result<()> {
        let source = self.block.source();
        let table = source.slot_table(part, entry, None)?;
        self.filled.extend(table.ids.iter());
        let longest = table.columns.iter().map(|column| column.len).max();
        self.longest = self.longest.max(longest.unwrap_or(0));
        let statistics = match kind {
            FrameKind::Float => source.statistics(entry)?,
            FrameKind::Histogram => Arc::default(),
        };
        let (mut values, mut histograms) = (Vec::new(), Vec::new());
        for (number, (id, column)) in table.iter().enumerate() {
            let slot = cursor.find(kind, id)?;
            let at = |what, pair| source.equal(Section::SlotTables, entry.table.off, what, pair);
            let Some(slot) = slot else { return at("slots of a series", (1, 0)) };
            let timestamps = cursor.timestamps(column)?.to_vec();
            let ends = timestamps.first().zip(timestamps.last());
            let inside =
                ends.is_some_and(|(first, last)| part.range.contains(*first) && part.range.contains(*last));
            at("slots inside the part's range", (1, u64::from(inside)))?;
            match kind {
                FrameKind::Float => {
                    values.clear();
                    cursor.floats(slot, &mut values)?;
                    self.report.samples += values.len() as u64;
                    let stored = statistics.get(number).map(Statistics::bits).unwrap_or_default();
                    let off = entry.statistics.map_or(0, |unit| unit.off);
                    let differing =
                        stored.iter().zip(Statistics::of(&values).bits()).filter(|(a, b)| **a != *b);
                    let pair = (0, differing.count() as u64);
                    source.equal(
                        Section::Statistics,
                        off,
                        "fields that are not those of the samples",
                        pair,
                    )?;
                }
                FrameKind::Histogram => {
                    histograms.clear();
                    cursor.histograms(slot, 0..timestamps.len(), &mut histograms)?;
                    self.report.histograms += histograms.len() as u64;
                    if let Some(floats) = cursor.find(FrameKind::Float, id)? {
                        let floats = cursor.timestamps(floats.column)?;
                        let both = timestamps.iter().filter(|t| floats.binary_search(t).is_ok()).count();
                        at("timestamps of a float and a histogram", (0, both as u64))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Checks a page of start timestamps; `last` is the last step of the page before.
    fn start_page(&self, number: usize, last: &mut Option<Timestamp>) -> Result<()> {
        let directory = self.block.directory();
        let off = directory.starts.get(number).map_or(0, |entry| entry.unit.off);
        let before = last.take();
        let page = self.block.start_page(number, None)?;
        let range = directory.meta.spec.range;
        let steps = || page.iter().flat_map(|(_, steps)| steps);
        let outside = steps().filter(|step| step.since != ALWAYS && !range.contains(step.since)).count();
        let at = |what, pair| self.block.source().equal(Section::Starts, off, what, pair);
        at("steps outside the block's range", (0, outside as u64))?;
        if let Some((before, first)) = before.zip(steps().next()).filter(|_| page.continues) {
            at("order of steps", (1, u64::from(before < first.since)))?;
        }
        *last = steps().last().map(|step| step.since);
        Ok(())
    }

    /// Compares the postings with the forward table, and both with the samples.
    fn index(&mut self) -> Result<()> {
        let (block, index) = (self.block, self.block.disk_index());
        let series = u64::from(block.meta().series);
        let off = block.hotcache_off();
        let at = |section, what, pair| block.source().equal(section, off, what, pair);
        at(Section::Hotcache, "series with samples", (series, self.filled.len()))?;
        // Per label pair how many series, and a sum over their ids.
        let mut pairs: HashMap<(String, String), (u64, u64)> = HashMap::new();
        let mut previous = None;
        for (id, labels) in (0_u32..).zip(index.series(0..block.meta().series)) {
            if id % 4096 == 0 {
                self.check_cancelled()?;
            }
            let labels = labels.map_err(|error| block.index_error(error))?;
            let ascends = previous.as_ref().is_none_or(|previous| series_order(previous, &labels).is_lt());
            at(Section::Forward, "order of series", (1, u64::from(ascends)))?;
            for (name, value) in &labels {
                let (count, sum) = pairs.entry((name.to_owned(), value.to_owned())).or_default();
                *count += 1;
                *sum = sum.wrapping_add(mix(id));
            }
            previous = Some(labels);
        }
        let mut counted = Vec::new();
        let mut visit = |count: chronolith_index::Count<'_>| {
            counted.push((count.name.to_owned(), count.value.to_owned(), count.count));
        };
        index.for_each_pair(&mut visit).map_err(|error| block.index_error(error))?;
        at(Section::Postings, "label pairs", (pairs.len() as u64, counted.len() as u64))?;
        for (number, (name, value, count)) in counted.into_iter().enumerate() {
            if number % 256 == 0 {
                self.check_cancelled()?;
            }
            let expected = pairs.get(&(name.clone(), value.clone())).copied().unwrap_or_default();
            at(Section::Postings, "series of a label pair", (expected.0, count))?;
            let matcher = CompiledMatcher::new(&Matcher::equal(name, value))?;
            let ids = block.select(&[matcher])?;
            let sum = ids.iter().fold(0_u64, |sum, id| sum.wrapping_add(mix(id)));
            at(Section::Postings, "series of a label pair", (expected.0, ids.len()))?;
            at(Section::Postings, "ids of a label pair, summed", (expected.1, sum))?;
            self.report.pairs += 1;
        }
        Ok(())
    }
}

const fn span_of(unit: UnitRef) -> (u64, u64) {
    (unit.off, unit.len as u64)
}

/// A number for an id such that the sums of different sets differ.
const fn mix(id: u32) -> u64 {
    let id = (id as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (id ^ (id >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93)
}
