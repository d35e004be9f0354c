//! Replay: the log's content, handed to whom it concerns.
//!
//! Two passes over the segments: definitions and floors, then samples. A window's records are dealt out by shard, so that
//! one shard's entries stay in order while shards proceed in parallel.

use chronolith_env::{Env, OpenMode};

use crate::entries::{LoggedBlob, LoggedStart, decode_blobs, decode_starts};
use crate::open::{Found, Opened};
use crate::quarantine::{DAMAGE_MAX, Unopened, quarantine};
use crate::record::{Header, RecordType, Unpacker, content, decode_floor};
use crate::samples::LoggedSample;
use crate::scan::{Item, Scanner};
use crate::{
    Damage, DamageReason, Error, LoggedMetadata, Result, SeriesDef, WalStats, metadata, samples, series,
};

/// Receives the content of a log. Calls for one shard come one after the other; calls for different shards may come in
/// parallel. The shard is the one under which the entry was logged.
pub trait Replay: Sync {
    /// A series definition. All come before [`Replay::series_complete`]; the same one may come many times.
    fn series(&self, shard: usize, definition: &SeriesDef<'_>);

    /// A floor: samples older than `min_t` (ms) of `tenant`, or of all, have been dropped. The highest counts. Comes
    /// before [`Replay::series_complete`].
    fn floor(&self, tenant: Option<&str>, min_t: i64);

    /// All definitions and floors have been handed over; samples follow.
    fn series_complete(&self) {}

    /// Samples, in the order in which they were applied to the shard, under the number of their record. A series that has
    /// not been defined is one whose definitions were damaged: count its samples as lost.
    fn samples(&self, shard: usize, sequence: u64, samples: &[LoggedSample]);

    /// Native histograms, in the order in which they were applied to the shard; as [`Replay::samples`]. Of a batch, they
    /// come behind its samples.
    fn histograms(&self, shard: usize, sequence: u64, histograms: &[LoggedBlob<'_>]);

    /// Start timestamps, in the order in which they were applied to the shard; as [`Replay::samples`]. Of a batch, they
    /// come behind its histograms.
    fn starts(&self, shard: usize, sequence: u64, starts: &[LoggedStart]);

    /// Exemplars, in the order in which they were applied to the shard; as [`Replay::samples`]. Of a batch, they come
    /// last.
    fn exemplars(&self, shard: usize, sequence: u64, exemplars: &[LoggedBlob<'_>]);

    /// Metadata of a metric: of what comes twice, the later counts. Comes before [`Replay::series_complete`].
    fn metadata(&self, entry: &LoggedMetadata<'_>) {
        let _ = entry;
    }

    /// Records of `shard` with numbers up to this are known already, and passed over. The log then numbers what it writes
    /// from above that, even if its segments are gone. Must not change during a replay.
    fn covered(&self, shard: usize) -> u64 {
        let _ = shard;
        0
    }

    /// Asked now and then: `false` ends the replay with [`crate::Error::Cancelled`].
    fn keep_going(&self) -> bool {
        true
    }
}

/// What a replay has found.
#[derive(Clone, Debug, Default)]
pub struct ReplayReport {
    /// Segments read.
    pub segments: usize,
    /// Records handed over.
    pub records: u64,
    /// Records passed over because [`Replay::covered`] said so.
    pub covered: u64,
    /// Series definitions handed over, repetitions included.
    pub series: u64,
    /// Samples handed over.
    pub samples: u64,
    /// Native histograms handed over.
    pub histograms: u64,
    /// Start timestamps handed over.
    pub starts: u64,
    /// Exemplars handed over.
    pub exemplars: u64,
    /// Entries of metadata handed over.
    pub metadata: u64,
    /// Bytes of the segments.
    pub bytes: u64,
    /// Damaged places, those of [`crate::OpenReport::damage`] included; the first thousand.
    pub damage: Vec<Damage>,
    /// How many damaged places there were in all.
    pub damage_count: u64,
    /// The first segment that could not be opened, that of [`crate::OpenReport::unopened`] included.
    pub unopened: Option<Unopened>,
}

/// Which records a pass hands over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    /// Definitions, floors and metadata.
    Series,
    /// Samples, histograms, starts, exemplars.
    Samples,
}

/// What one worker made of its share of a window.
#[derive(Debug, Default)]
struct Share {
    records: Vec<(u64, Header)>,
    /// Buffers, kept from window to window.
    unpacker: Unpacker,
    samples: Vec<LoggedSample>,
    done: u64,
    series: u64,
    sample_count: u64,
    histogram_count: u64,
    start_count: u64,
    exemplar_count: u64,
    metadata_count: u64,
    times: Option<(i64, i64)>,
    /// Records whose content is not what their type promises.
    bad: Vec<(u64, u64)>,
}

impl Opened {
    /// Hands everything in the log to `visitor`: first all definitions and floors, then all samples and what else is of series. At most `threads`
    /// threads work at once.
    ///
    /// # Errors
    /// [`crate::Error::Cancelled`] when the visitor says so. Damage is no error: it is in the report, and its bytes are
    /// copied to the directory `quarantine` beside the segments.
    pub fn replay(&mut self, threads: usize, visitor: &dyn Replay) -> Result<ReplayReport> {
        let mut report = ReplayReport {
            damage: self.report.damage.clone(),
            damage_count: self.report.damage.len() as u64,
            unopened: self.report.unopened.clone(),
            ..ReplayReport::default()
        };
        let already = report.damage_count;
        let env = self.shared.env.clone();
        let dir = self.shared.dir.clone();
        self.number_above(visitor)?;
        let mut shares: Vec<Share> = Vec::new();
        shares.resize_with(threads.max(1), Share::default);
        let mut passed = vec![Passed::default(); self.found.len()];
        for pass in [Pass::Series, Pass::Samples] {
            let mut run =
                Run { env: &env, visitor, report: &mut report, last_seq: Vec::new(), pass, dir: &dir };
            for (found, passed) in self.found.iter().zip(&mut passed) {
                let Some(read) = run.segment(found, &mut shares, passed)? else { continue };
                if pass == Pass::Samples
                    && let Some(info) =
                        self.shared.segments.lock().iter_mut().find(|info| info.number == found.number)
                    && info.bytes > 0
                {
                    info.times = match info.times {
                        // What was passed over may be as well; whoever knows it says when it may go.
                        times if passed.records > 0 => times,
                        // What could not be read may be as new as anything.
                        Some((_, now)) if !read.whole => {
                            Some((i64::MIN, read.times.map_or(now, |(_, max)| max.max(now))))
                        }
                        _ => read.times,
                    };
                    info.last_sequence = passed.last_sequence.unwrap_or(info.last_sequence);
                    info.whole = passed.last_sequence.is_some() && read.whole;
                }
            }
            if pass == Pass::Series {
                visitor.series_complete();
            }
        }
        WalStats::add(&self.shared.stats.corruptions, report.damage_count - already);
        Ok(report)
    }

    /// Sees to it that no new record gets a number that the visitor takes for known.
    fn number_above(&mut self, visitor: &dyn Replay) -> Result<()> {
        let covered = (0..self.shared.options.shards).map(|shard| visitor.covered(shard)).max().unwrap_or(0);
        let number = u32::try_from(covered >> 32).ok().and_then(|number| number.checked_add(1));
        let exhausted = || Error::NumbersExhausted { dir: self.shared.dir.clone() };
        if covered > 0 {
            self.next_number = self.next_number.max(number.ok_or_else(exhausted)?);
        }
        Ok(())
    }
}

/// What the first pass has seen of a segment, for the second.
#[derive(Clone, Copy, Debug, Default)]
struct Passed {
    /// It could not be opened.
    unopened: bool,
    /// Where the first record of samples or their like begins that the visitor does not know.
    start: Option<u64>,
    /// Records of such before that.
    records: u64,
    /// The highest number of a record, if there was no damage.
    last_sequence: Option<u64>,
}

/// What a pass has seen of a segment.
#[derive(Clone, Copy, Debug)]
struct SegmentRead {
    /// The first and last timestamp of the samples handed over.
    times: Option<(i64, i64)>,
    /// There was no damage.
    whole: bool,
}

/// One pass.
struct Run<'a> {
    env: &'a Env,
    dir: &'a std::path::Path,
    visitor: &'a dyn Replay,
    report: &'a mut ReplayReport,
    pass: Pass,
    /// Per shard, the last record handed over: a record that is there twice is handed over once.
    last_seq: Vec<u64>,
}

impl Run<'_> {
    /// Hands over one segment; `None` if it cannot be opened.
    fn segment(
        &mut self,
        found: &Found,
        shares: &mut [Share],
        passed: &mut Passed,
    ) -> Result<Option<SegmentRead>> {
        let file = match self.env.fs.open(&found.path, OpenMode::Read) {
            Ok(file) => file,
            Err(error) => {
                let known = found.unopened || std::mem::replace(&mut passed.unopened, true);
                self.unopened(Unopened::new(&found.path, error), known);
                return Ok(None);
            }
        };
        let end = file.len().map_or(found.end, |len| len.min(found.end));
        let mut whole = true;
        let mut last_sequence = 0;
        let mut scanner = match (self.pass, *passed) {
            // Nothing new before that, or at all.
            (Pass::Samples, Passed { start, records, .. }) if records > 0 => {
                let (start, header) = (start.unwrap_or(end), found.header.as_ref());
                Scanner::starting_at(file.as_ref(), found.number, header, start, end)
            }
            _ => Scanner::new(file.as_ref(), found.number, found.header.as_ref(), end),
        };
        let mut items = Vec::new();
        let mut damage = Vec::new();
        for share in shares.iter_mut() {
            share.times = None;
        }
        while scanner.next_window(&mut items) {
            if !self.visitor.keep_going() {
                return Err(Error::Cancelled);
            }
            for item in &items {
                match *item {
                    Item::Record { offset, header } => {
                        if !header.is_mark() {
                            last_sequence = last_sequence.max(header.seq);
                        }
                        self.look_ahead(offset, &header, passed);
                        self.deal(offset, header, shares);
                    }
                    Item::Damage { offset, bytes, reason, .. } => damage.push((offset, bytes, reason)),
                }
            }
            self.hand_over(&scanner, shares);
            for share in shares.iter_mut() {
                damage.extend(
                    share.bad.drain(..).map(|(offset, bytes)| (offset, bytes, DamageReason::Content)),
                );
            }
            whole &= damage.is_empty();
            if self.pass == Pass::Samples {
                // The first pass has seen the damage; only records' content is read now.
                damage.retain(|(.., reason)| *reason == DamageReason::Content);
            }
            for (offset, bytes, reason) in damage.drain(..) {
                self.report.damage_count += 1;
                if self.report.damage.len() < DAMAGE_MAX {
                    let mut damage =
                        Damage { path: found.path.clone(), offset, bytes, reason, quarantined: None };
                    quarantine(self.env.fs.as_ref(), self.dir, found.number, file.as_ref(), &mut damage);
                    self.report.damage.push(damage);
                }
            }
        }
        self.collect(shares);
        if self.pass == Pass::Series {
            passed.last_sequence = whole.then_some(last_sequence);
            self.report.segments += 1;
            self.report.bytes += end;
        }
        let times = shares.iter().filter_map(|share| share.times);
        let times = times.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
        Ok(Some(SegmentRead { times, whole }))
    }

    /// Reports a segment that cannot be opened, as damage but once.
    fn unopened(&mut self, unopened: Unopened, known: bool) {
        if !known {
            self.report.damage_count += 1;
            if self.report.damage.len() < DAMAGE_MAX {
                self.report.damage.push(unopened.damage());
            }
        }
        self.report.unopened.get_or_insert(unopened);
    }

    /// Notes in the first pass where the second one has to begin.
    fn look_ahead(&mut self, offset: u64, header: &Header, passed: &mut Passed) {
        let samples = RecordType::from_code(header.type_code).is_some_and(RecordType::is_of_series);
        if self.pass == Pass::Samples || !samples || passed.start.is_some() {
            return;
        }
        if header.seq <= self.visitor.covered(usize::from(header.shard)) {
            passed.records += 1;
            self.report.covered += 1;
        } else {
            passed.start = Some(offset);
        }
    }

    /// Gives a record to the worker of its shard, if it belongs to this pass and is not there for the second time.
    fn deal(&mut self, offset: u64, header: Header, shares: &mut [Share]) {
        let pass = match RecordType::from_code(header.type_code) {
            Some(RecordType::Series | RecordType::Floor | RecordType::Metadata) => Pass::Series,
            Some(
                RecordType::Samples | RecordType::Histograms | RecordType::Starts | RecordType::Exemplars,
            ) => Pass::Samples,
            Some(RecordType::Mark) => return,
            // Intact, so from a program to come, and by the rule of versions not needed to read the rest.
            None => return,
        };
        if pass != self.pass {
            return;
        }
        let shard = usize::from(header.shard);
        if self.last_seq.len() <= shard {
            self.last_seq.resize(shard + 1, 0);
        }
        if let Some(last) = self.last_seq.get_mut(shard) {
            if header.seq <= *last {
                return;
            }
            *last = header.seq;
        }
        if header.seq <= self.visitor.covered(shard) {
            self.report.covered += 1;
            return;
        }
        let worker = shard % shares.len().max(1);
        if let Some(share) = shares.get_mut(worker) {
            share.records.push((offset, header));
        }
    }

    /// Lets all workers hand over their shares of the window.
    fn hand_over(&self, scanner: &Scanner<'_>, shares: &mut [Share]) {
        let visitor = self.visitor;
        let mut tasks: Vec<Box<dyn FnOnce() + Send + '_>> = Vec::new();
        for share in shares.iter_mut().filter(|share| !share.records.is_empty()) {
            tasks.push(Box::new(move || share.hand_over(scanner, visitor)));
        }
        if tasks.len() == 1 {
            tasks.into_iter().for_each(|task| task());
        } else if !tasks.is_empty() {
            self.env.scheduler.run_all(tasks);
        }
    }

    /// Adds up what the workers have counted.
    fn collect(&mut self, shares: &mut [Share]) {
        for share in shares {
            self.report.records += std::mem::take(&mut share.done);
            self.report.series += std::mem::take(&mut share.series);
            self.report.samples += std::mem::take(&mut share.sample_count);
            self.report.histograms += std::mem::take(&mut share.histogram_count);
            self.report.starts += std::mem::take(&mut share.start_count);
            self.report.exemplars += std::mem::take(&mut share.exemplar_count);
            self.report.metadata += std::mem::take(&mut share.metadata_count);
        }
    }
}

impl Share {
    fn hand_over(&mut self, scanner: &Scanner<'_>, visitor: &dyn Replay) {
        for (offset, header) in std::mem::take(&mut self.records) {
            if self.record(scanner.payload(offset, &header), &header, visitor).is_none() {
                self.bad.push((offset, header.record_bytes() as u64));
            }
            self.done += 1;
        }
    }

    /// `None` when the content is not what the type promises; what precedes that place has been handed over of
    /// definitions, and nothing of others.
    fn record(&mut self, payload: &[u8], header: &Header, visitor: &dyn Replay) -> Option<()> {
        let shard = usize::from(header.shard);
        let content = content(header.flags, payload, &mut self.unpacker).ok()?;
        match RecordType::from_code(header.type_code)? {
            RecordType::Series => {
                let count = &mut self.series;
                series::decode(content, |definition| {
                    *count += 1;
                    visitor.series(shard, definition);
                })
                .ok()?;
            }
            RecordType::Floor => {
                let (tenant, min_t) = decode_floor(content).ok()?;
                visitor.floor(tenant, min_t);
            }
            RecordType::Samples => {
                samples::decode(content, &mut self.samples).ok()?;
                let times = self.samples.iter().map(|sample| sample.timestamp);
                self.times = spanned(self.times, times);
                self.sample_count += self.samples.len() as u64;
                visitor.samples(shard, header.seq, &self.samples);
            }
            RecordType::Histograms => {
                let histograms = decode_blobs(content).ok()?;
                self.times = spanned(self.times, histograms.iter().map(|entry| entry.timestamp));
                self.histogram_count += histograms.len() as u64;
                visitor.histograms(shard, header.seq, &histograms);
            }
            RecordType::Starts => {
                let starts = decode_starts(content).ok()?;
                self.start_count += starts.len() as u64;
                visitor.starts(shard, header.seq, &starts);
            }
            RecordType::Exemplars => {
                let exemplars = decode_blobs(content).ok()?;
                self.times = spanned(self.times, exemplars.iter().map(|entry| entry.timestamp));
                self.exemplar_count += exemplars.len() as u64;
                visitor.exemplars(shard, header.seq, &exemplars);
            }
            RecordType::Metadata => {
                let entries = metadata::decode(content).ok()?;
                self.metadata_count += entries.len() as u64;
                entries.iter().for_each(|entry| visitor.metadata(entry));
            }
            RecordType::Mark => {}
        }
        Some(())
    }
}

/// The span of `known` and `times`.
fn spanned(known: Option<(i64, i64)>, times: impl Iterator<Item = i64>) -> Option<(i64, i64)> {
    times.map(|t| (t, t)).chain(known).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
}
