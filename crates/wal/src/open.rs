//! Opening: finding the segments, cutting off a torn tail, planning the repair of what may not be durable.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use chronolith_env::{Env, File, OpenMode};

use crate::commit::{Committer, LastSegment};
use crate::quarantine::{Unopened, quarantine};
use crate::repair::{Mended, Repair, Survey};
use crate::scan::read_header;
use crate::segment::{self, FORMAT_VERSION, HeaderStatus, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::wal::Shared;
use crate::{Damage, DamageReason, Error, LogSource, Result, SegmentInfo, Wal, WalOptions};

/// A log that has been opened: to be replayed and then started.
#[derive(Debug)]
pub struct Opened {
    pub(crate) shared: Arc<Shared>,
    pub(crate) report: OpenReport,
    pub(crate) found: Vec<Found>,
    /// What could not be made durable yet.
    repair: Option<Repair>,
    pub(crate) next_number: u32,
}

/// What opening has found.
#[derive(Clone, Debug, Default)]
pub struct OpenReport {
    /// How many segments there are.
    pub segments: usize,
    /// The unfinished end of the last segment, which has been cut off.
    pub torn_tail: Option<TornTail>,
    /// Damage seen so far: missing segments, damaged headers. Replay finds the rest.
    pub damage: Vec<Damage>,
    /// The first segment that could not be opened.
    pub unopened: Option<Unopened>,
}

/// Bytes behind the last record of the last segment: a write that was cut short, never acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The segment.
    pub path: PathBuf,
    /// Where it ends now; at 0 it had nothing valid and has been removed.
    pub offset: u64,
    /// How many bytes were cut off.
    pub bytes: u64,
}

/// A segment on disk.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) number: u32,
    pub(crate) path: PathBuf,
    pub(crate) header: Option<SegmentHeader>,
    /// Where its valid part ends, as far as later segments and its length tell.
    pub(crate) end: u64,
    /// It could not be opened, which has been reported.
    pub(crate) unopened: bool,
    /// What its records tell, if they were looked at.
    survey: Option<Survey>,
}

/// The end of a segment that cannot be opened now. It may be readable another time: it is neither void nor cut.
const UNKNOWN_END: u64 = u64::MAX;

impl Opened {
    /// What opening has found.
    #[must_use]
    pub const fn report(&self) -> &OpenReport {
        &self.report
    }

    /// Starts the committer and returns the log, ready to be written. What is written goes to a new segment.
    ///
    /// # Errors
    /// When the job cannot be started.
    pub fn start(self, source: Arc<dyn LogSource>) -> Result<Wal> {
        self.shared.found_sequence.store((u64::from(self.next_number) << 32) - 1, Ordering::Release);
        let last =
            self.found.last().map(|found| LastSegment { number: found.number, end: found.end, epoch: None });
        let committer = Committer::new(Arc::clone(&self.shared), source, self.next_number, last, self.repair);
        let job = self.shared.env.scheduler.spawn("wal-commit", Box::new(committer))?;
        // A second start is not possible: this consumes the only owner.
        let _ = self.shared.waker.set(job.waker());
        Ok(Wal { shared: self.shared, job })
    }
}

/// Opens the log in `dir`.
pub(crate) fn open(env: &Env, dir: &Path, options: WalOptions) -> Result<Opened> {
    check(&options)?;
    env.fs.create_dir_all(dir)?;
    // A process that was killed may have made it, and not got any further.
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    env.fs.sync_dir(parent.unwrap_or(Path::new(".")))?;
    let numbers = numbers(env, dir)?;
    let mut found = Vec::new();
    let mut report = OpenReport::default();
    for &number in &numbers {
        if let Some(segment) = look(env, dir, number, &mut report)? {
            found.push(segment);
        }
    }
    // Nothing has been changed up to here: a directory of another version stays as it was.
    probe(env, dir)?;
    cut_torn_tail(env, &mut found, &mut report);
    sync_all(env, &found);
    let mut found = link(env, dir, found, &mut report);
    // One for a repair, one for the first batch.
    let exhausted = || Error::NumbersExhausted { dir: dir.to_path_buf() };
    let free = numbers.last().map_or(Some(1), |last| last.checked_add(1)).ok_or_else(exhausted)?;
    let mut next_number = free;
    let shared = Shared::new(env.clone(), dir.to_path_buf(), options);
    let mut repair = None;
    if let Some(plan) = plan_repair(env, &mut found, free) {
        next_number = free.checked_add(1).ok_or_else(exhausted)?;
        match plan.run(env, dir) {
            Ok(mended) => place(dir, &mut found, &plan, &mended),
            Err(e) => {
                shared.hold_back(e);
                repair = Some(plan);
            }
        }
    }
    report.segments = found.len();
    shared.stats.corruptions.store(report.damage.len() as u64, Ordering::Relaxed);
    let found_sequence = (u64::from(free) << 32) - 1;
    *shared.segments.lock() = found.iter().map(|found| info(found, found_sequence)).collect();
    Ok(Opened { shared: Arc::new(shared), report, found, repair, next_number })
}

fn check(options: &WalOptions) -> Result<()> {
    let shards = options.shards;
    if shards == 0 || shards >= usize::from(u16::MAX) {
        return Err(Error::Option { option: "wal shards", got: shards as u64, expected: "1 to 65534" });
    }
    Ok(())
}

/// What is known of a segment before replay: it may have samples of any time. The clock does not bound it: it may have been
/// ahead when they were taken.
fn info(found: &Found, last_sequence: u64) -> SegmentInfo {
    SegmentInfo {
        number: found.number,
        bytes: if found.end == UNKNOWN_END { 0 } else { found.end },
        times: Some((i64::MIN, i64::MAX)),
        last_sequence,
        whole: false,
        // If that is not known, it may.
        continues: found.header.is_none_or(|header| header.continues),
    }
}

/// The numbers of the segments in `dir`, ascending.
fn numbers(env: &Env, dir: &Path) -> Result<Vec<u32>> {
    let mut numbers: Vec<u32> = env.fs.list(dir)?.iter().filter_map(|name| segment::number(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Reads the header of segment `number`. A damaged one is reported; its records may still be read.
fn look(env: &Env, dir: &Path, number: u32, report: &mut OpenReport) -> Result<Option<Found>> {
    let path = segment::path(dir, number);
    let opened = env.fs.open(&path, OpenMode::Read).and_then(|file| Ok((file.len()?, file)));
    let (len, file) = match opened {
        Ok(opened) => opened,
        // Removed since it was listed: it is not missed.
        Err(e) if e.is_not_found() => return Ok(None),
        Err(e) => {
            let unopened = Unopened::new(&path, e);
            report.damage.push(unopened.damage());
            report.unopened.get_or_insert(unopened);
            let (end, unopened) = (UNKNOWN_END, true);
            return Ok(Some(Found { number, path, header: None, end, unopened, survey: None }));
        }
    };
    let header = match read_header(file.as_ref()) {
        HeaderStatus::Valid(header) => Some(header),
        HeaderStatus::Foreign(got) => {
            return Err(Error::ForeignVersion { path, got, expected: FORMAT_VERSION });
        }
        HeaderStatus::Damaged => None,
    };
    Ok(Some(Found { number, path, header, end: len, unopened: false, survey: None }))
}

/// Fails early where nothing can be written for good. A full disk is no such place.
fn probe(env: &Env, dir: &Path) -> Result<()> {
    let path = dir.join("probe.tmp");
    match env.fs.open(&path, OpenMode::Truncate) {
        Ok(file) => drop(file),
        Err(e @ (chronolith_env::Error::ReadOnly { .. } | chronolith_env::Error::Denied { .. })) => {
            return Err(e.into());
        }
        Err(_) => return Ok(()),
    }
    // The name stays if it must; the next start uses it again.
    let _ = env.fs.remove_file(&path);
    Ok(())
}

/// Cuts off what follows the last record of the last segment. A last segment without anything valid is removed, and the
/// one before it is then the last. Where that fails, the header of the next segment says the same.
fn cut_torn_tail(env: &Env, found: &mut Vec<Found>, report: &mut OpenReport) {
    while let Some(last) = found.last_mut().filter(|last| last.end != UNKNOWN_END) {
        let Ok(file) = env.fs.open(&last.path, OpenMode::Read) else { return };
        let survey = Survey::of(file.as_ref(), last);
        let tail = tail(file.as_ref(), last, &survey);
        drop(file);
        last.survey = Some(survey);
        let Some(start) = tail else { return };
        let torn = TornTail { path: last.path.clone(), offset: start, bytes: last.end - start };
        if start > 0 {
            let file = env.fs.open(&last.path, OpenMode::Append);
            let _ = file.and_then(|mut file| file.set_len(start).and_then(|()| file.sync_data()));
            last.end = start;
            report.torn_tail = Some(torn);
            return;
        }
        let _ = env.fs.remove_file(&last.path);
        report.torn_tail = Some(torn);
        found.pop();
    }
}

/// Syncs the segments. All but the last have been synced before the next one was begun, except under an interval; what
/// may be missing of the last one is written again, for a sync proves nothing after one that failed.
fn sync_all(env: &Env, found: &[Found]) {
    for segment in found {
        if let Ok(mut file) = env.fs.open(&segment.path, OpenMode::Append) {
            let _ = file.sync_data();
        }
    }
}

/// What of the log may not be durable. Last segments with a header and nothing else are dropped on the way: nobody
/// knows whether they are on the device, so no other may refer to them.
fn plan_repair(env: &Env, found: &mut Vec<Found>, number: u32) -> Option<Repair> {
    let mut at = found.len();
    while let Some(segment) = at.checked_sub(1).and_then(|at| found.get(at)) {
        at -= 1;
        let survey = match (segment.survey, env.fs.open(&segment.path, OpenMode::Read)) {
            (Some(survey), _) => survey,
            (None, Ok(file)) if segment.end != UNKNOWN_END => Survey::of(file.as_ref(), segment),
            _ => continue,
        };
        if survey.is_unsure() {
            return Some(Repair::plan(segment, &survey, found.last()?, number));
        }
        if let Some(mark) = survey.mark {
            // Nobody knows whether the mark itself is durable.
            if let Some(segment) = found.get_mut(at).filter(|_| survey.clean) {
                segment.end = segment.end.min(mark);
            }
            return None;
        }
        if !survey.records && segment.header.is_some() && at + 1 == found.len() {
            // If it stays, the next segment's header says that it is void.
            let _ = env.fs.remove_file(&segment.path);
            found.pop();
        }
    }
    None
}

/// Puts a repaired segment in its place.
fn place(dir: &Path, found: &mut Vec<Found>, repair: &Repair, mended: &Mended) {
    if let Some(old) = found.iter_mut().find(|found| found.number == repair.old_number()) {
        old.end = old.end.min(repair.from_end);
    }
    if repair.replaces {
        found.retain(|found| found.number != repair.old_number());
    }
    let number = mended.header.number;
    let (path, header) = (segment::path(dir, number), Some(mended.header));
    found.push(Found { number, path, header, end: mended.bytes, unopened: false, survey: None });
}

/// Where the bytes behind the last record begin, if there are any; 0 when there is neither a header nor a record.
fn tail(file: &dyn File, found: &Found, survey: &Survey) -> Option<u64> {
    if survey.records || found.header.is_some() {
        return survey.torn;
    }
    let unfinished = found.end <= SEGMENT_HEADER_BYTES as u64 || is_our_start(file);
    unfinished.then_some(0)
}

/// Whether a file without a valid header or record looks like a segment whose first write was cut short, and not like
/// something else under a segment's name.
fn is_our_start(file: &dyn File) -> bool {
    let mut start = [0; SEGMENT_HEADER_BYTES];
    file.read_exact_at(0, &mut start).is_ok_and(|()| SegmentHeader::may_be_torn(&start))
}

/// Follows the links between segments: how far each is valid, which are void, which are missing.
fn link(env: &Env, dir: &Path, found: Vec<Found>, report: &mut OpenReport) -> Vec<Found> {
    let mut linked: Vec<Found> = Vec::with_capacity(found.len());
    for segment in found {
        if let Some(header) = segment.header.filter(|header| header.previous > 0) {
            // What lies between was an attempt that failed; all of it was written again.
            while linked.last().is_some_and(|last| last.number > header.previous) {
                if let Some(void) = linked.pop() {
                    let _ = env.fs.remove_file(&void.path);
                }
            }
            match linked.last_mut() {
                Some(last) if last.number == header.previous => last.end = last.end.min(header.previous_end),
                // The oldest segments are dropped from the front.
                None => {}
                Some(_) => {
                    let path = segment::path(dir, header.previous);
                    let reason = DamageReason::MissingSegment;
                    report.damage.push(Damage { path, offset: 0, bytes: 0, reason, quarantined: None });
                }
            }
        }
        linked.push(segment);
    }
    // Of one that could not be opened nothing is known; that has been said.
    let known = |report: &OpenReport, path: &Path| report.damage.iter().any(|damage| damage.path == *path);
    for segment in linked.iter().filter(|segment| segment.header.is_none()) {
        if known(report, &segment.path) {
            continue;
        }
        let bytes = segment.end.min(SEGMENT_HEADER_BYTES as u64);
        let (path, reason) = (segment.path.clone(), DamageReason::SegmentHeader);
        let mut damage = Damage { path, offset: 0, bytes, reason, quarantined: None };
        if let Ok(file) = env.fs.open(&segment.path, OpenMode::Read) {
            quarantine(env.fs.as_ref(), dir, segment.number, file.as_ref(), &mut damage);
        }
        report.damage.push(damage);
    }
    linked
}
