//! Opening: finding the segments, repairing a torn tail.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use chronolith_env::{Env, File, OpenMode};

use crate::commit::{Committer, LastSegment};
use crate::quarantine::quarantine;
use crate::scan::{Item, Scanner, read_header};
use crate::segment::{self, FORMAT_VERSION, HeaderStatus, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::wal::Shared;
use crate::{Damage, DamageReason, Error, LogSource, Result, SegmentInfo, Wal, WalOptions};

/// A log that has been opened: to be replayed and then started.
#[derive(Debug)]
pub struct Opened {
    pub(crate) shared: Arc<Shared>,
    pub(crate) report: OpenReport,
    pub(crate) found: Vec<Found>,
    next_number: u32,
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
        let last =
            self.found.last().map(|found| LastSegment { number: found.number, end: found.end, epoch: None });
        let committer = Committer::new(Arc::clone(&self.shared), source, self.next_number, last);
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
    cut_torn_tail(env, &mut found, &mut report)?;
    secure(env, &found)?;
    let found = link(env, dir, found, &mut report);
    report.segments = found.len();
    let next_number = numbers
        .last()
        .map_or(Some(1), |last| last.checked_add(1))
        .ok_or_else(|| Error::NumbersExhausted { dir: dir.to_path_buf() })?;
    let shared = Shared::new(env.clone(), dir.to_path_buf(), options);
    shared.stats.corruptions.store(report.damage.len() as u64, Ordering::Relaxed);
    let now = env.clock.now_ms();
    *shared.segments.lock() = found.iter().map(|found| info(found, now)).collect();
    Ok(Opened { shared: Arc::new(shared), report, found, next_number })
}

fn check(options: &WalOptions) -> Result<()> {
    let shards = options.shards;
    if shards == 0 || shards >= usize::from(u16::MAX) {
        return Err(Error::Option { option: "wal shards", got: shards as u64, expected: "1 to 65534" });
    }
    Ok(())
}

/// What is known of a segment before replay: it may have samples of any time until now.
fn info(found: &Found, now: i64) -> SegmentInfo {
    SegmentInfo {
        number: found.number,
        bytes: if found.end == UNKNOWN_END { 0 } else { found.end },
        times: Some((i64::MIN, now)),
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
        Err(_) => {
            let reason = DamageReason::Unreadable;
            let damaged = path.clone();
            report.damage.push(Damage { path: damaged, offset: 0, bytes: 0, reason, quarantined: None });
            return Ok(Some(Found { number, path, header: None, end: UNKNOWN_END }));
        }
    };
    let header = match read_header(file.as_ref()) {
        HeaderStatus::Valid(header) => Some(header),
        HeaderStatus::Foreign(got) => {
            return Err(Error::ForeignVersion { path, got, expected: FORMAT_VERSION });
        }
        HeaderStatus::Damaged => None,
    };
    Ok(Some(Found { number, path, header, end: len }))
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
/// one before it is then the last.
fn cut_torn_tail(env: &Env, found: &mut Vec<Found>, report: &mut OpenReport) -> Result<()> {
    while let Some(last) = found.last_mut().filter(|last| last.end != UNKNOWN_END) {
        let Ok(file) = env.fs.open(&last.path, OpenMode::Read) else { return Ok(()) };
        let tail = tail(file.as_ref(), last);
        drop(file);
        let Some(start) = tail else { return Ok(()) };
        let torn = TornTail { path: last.path.clone(), offset: start, bytes: last.end - start };
        if start > 0 {
            let mut file = env.fs.open(&last.path, OpenMode::Append)?;
            file.set_len(start)?;
            // Before anything new is written: else the next start would take the tail for damage in the middle.
            file.sync_data()?;
            last.end = start;
            report.torn_tail = Some(torn);
            return Ok(());
        }
        env.fs.remove_file(&last.path)?;
        if let Some(dir) = last.path.parent() {
            env.fs.sync_dir(dir)?;
        }
        report.torn_tail = Some(torn);
        found.pop();
    }
    Ok(())
}

/// Makes what a replay will show durable: a killed process may have left it in the system's memory only, and what is
/// shown is acknowledged to whoever sends it again.
fn secure(env: &Env, found: &[Found]) -> Result<()> {
    for (back, segment) in found.iter().rev().enumerate() {
        let synced = match env.fs.open(&segment.path, OpenMode::Append) {
            Ok(mut file) => file.sync_data(),
            // It shows nothing either.
            Err(_) if segment.end == UNKNOWN_END => Ok(()),
            Err(e) => Err(e),
        };
        // All but the last have been synced before the next one was begun, except under an interval.
        if back == 0 {
            synced?;
        }
    }
    Ok(())
}

/// Where the bytes behind the last record begin, if there are any; 0 when there is neither a header nor a record.
fn tail(file: &dyn File, found: &Found) -> Option<u64> {
    let mut scanner = Scanner::new(file, found.number, found.header.as_ref(), found.end);
    let mut items = Vec::new();
    let (mut records, mut torn) = (false, None);
    while scanner.next_window(&mut items) {
        for item in &items {
            match *item {
                Item::Record { .. } => records = true,
                // What the device cannot read now, it may read another time.
                Item::Damage { reason: DamageReason::Unreadable, .. } => records = true,
                Item::Damage { offset, tail: true, .. } => torn = Some(offset),
                Item::Damage { .. } => {}
            }
        }
    }
    if records || found.header.is_some() {
        return torn;
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
    for segment in linked.iter().filter(|segment| segment.header.is_none() && segment.end != UNKNOWN_END) {
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
