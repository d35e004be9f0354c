//! The query log: a line of JSON for each query, with the fields of Prometheus' `query_log_file`.
//!
//! Lines are handed to a thread that writes them; a query never waits for the disk. What the queue has no room for, and
//! what the disk refuses, is left out and counted. The file is opened anew when it was moved away or removed, at most
//! [`CHECK_INTERVAL`] later, and when [`QueryLog::reopen`] says so. A line that was begun and not finished, by this process or
//! by one before it, is ended before the next.

use std::{
    fs::{File, Metadata, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    time::{Duration, Instant},
};

use chronolith_model::Timestamp;
use chronolith_promql::{Query, QueryStats};
use tracing::warn;

use crate::{
    api::write_statistics,
    json::{Commas, JsonWriter},
    metrics::Counter,
    routes::Origin,
};

/// Lines that wait to be written; more are left out.
pub const LINES_MAX: usize = 4_096;
/// Bytes of lines that wait.
pub const LINE_BYTES_MAX: usize = 16 << 20;
/// How long a file that was moved away may still be written to.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// What the disk refuses is told no more often.
const TELL_INTERVAL: Duration = Duration::from_secs(60);

enum Message {
    Line(Vec<u8>),
    /// Answered when all lines before it are written.
    Flush(SyncSender<()>),
    /// Looks at `Shared::reopen` without a line.
    Reopen,
}

#[derive(Debug, Default)]
struct Shared {
    /// Bytes of lines that wait.
    waiting: AtomicUsize,
    reopen: AtomicBool,
    failures: Counter,
}

/// Where queries are logged.
#[derive(Debug)]
pub struct QueryLog {
    shared: Arc<Shared>,
    sender: SyncSender<Message>,
}

/// A query that has ended.
pub(crate) struct Ended<'a> {
    pub(crate) query: &'a Query,
    pub(crate) stats: &'a QueryStats,
    /// Statistics by step are part of it.
    pub(crate) steps: bool,
    pub(crate) error: Option<String>,
    pub(crate) origin: &'a Origin,
    /// When it ended.
    pub(crate) now: Timestamp,
}

impl QueryLog {
    /// Appends to the file `path`, made if missing.
    ///
    /// # Errors
    /// When the file cannot be opened, or the thread that writes it not be started.
    pub fn open(path: &Path) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(LINES_MAX);
        let shared = Arc::new(Shared::default());
        let mut writer = Writer {
            shared: Arc::clone(&shared),
            path: path.to_path_buf(),
            file: None,
            checked: Instant::now(),
            torn: false,
            told: None,
        };
        writer.file = Some(writer.open()?);
        std::thread::Builder::new().name("query-log".to_owned()).spawn(move || writer.run(&receiver))?;
        Ok(Self { shared, sender })
    }

    /// Opens the file anew, before the next line and without waiting for one.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
        // Where there is no room, there are lines.
        let _ = self.sender.try_send(Message::Reopen);
    }

    /// Waits, at most for `patience`, until all lines of now are written; whether they are.
    #[must_use]
    pub fn flush(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let (done, answer) = sync_channel(1);
        let mut message = Message::Flush(done);
        while let Err(refused) = self.sender.try_send(message) {
            let TrySendError::Full(back) = refused else { return false };
            if Instant::now() >= deadline {
                return false;
            }
            message = back;
            std::thread::sleep(Duration::from_millis(5));
        }
        answer.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok()
    }

    /// Lines that were not written.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.shared.failures.get()
    }

    /// Hands over the line of a query.
    pub(crate) fn log(&self, ended: &Ended<'_>) {
        let line = line(ended);
        let length = line.len();
        let waiting = self.shared.waiting.fetch_add(length, Ordering::Relaxed);
        let room = waiting.saturating_add(length) <= LINE_BYTES_MAX;
        if !room || self.sender.try_send(Message::Line(line)).is_err() {
            self.shared.waiting.fetch_sub(length, Ordering::Relaxed);
            self.shared.failures.increment();
        }
    }
}

/// `2026-11-21T21:13:15.635Z`; seconds since 1970 for a time that the calendar here does not have: `9223372036854775.807`.
pub(crate) fn moment(ms: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(
        |_| {
            let (sign, ms) = (if ms < 0 { "-" } else { "" }, ms.unsigned_abs());
            format!("{sign}{}.{:03}", ms / 1000, ms % 1000)
        },
        |time| format!("{time:.3}"),
    )
}

fn line(ended: &Ended<'_>) -> Vec<u8> {
    let Ended { query, stats, steps, error, origin, now } = ended;
    let mut json = JsonWriter::with_capacity(query.text.len() + 768);
    let mut commas = Commas::default();
    json.raw("{");
    for (name, text) in [("time", moment(*now).as_str()), ("level", "INFO"), ("msg", "promql query logged")] {
        commas.next(&mut json);
        json.key(name);
        json.string(text);
    }
    json.raw(",\"params\":{\"end\":");
    json.string(&moment(query.end));
    json.raw(",\"query\":");
    json.string(&query.text);
    json.raw(",\"start\":");
    json.string(&moment(query.start));
    json.raw(",\"step\":");
    json.integer(query.step.unwrap_or(0) / 1000);
    json.raw("}");
    if let Some(error) = error {
        json.raw(",\"error\":");
        json.string(error);
    }
    json.raw(",\"stats\":");
    write_statistics(&mut json, stats, *steps);
    json.raw(",\"httpRequest\":{\"clientIP\":");
    json.string(&origin.client_ip());
    json.raw(",\"method\":");
    json.string(origin.method.as_str());
    json.raw(",\"path\":");
    json.string(origin.path);
    json.raw("}}\n");
    json.finish()
}

/// Whether the regular file `file`, found at `path`, ends within a line. A file that may be written only is said to: an
/// empty line costs less than two that are one.
fn ends_within_line(file: &File, path: &Path) -> bool {
    let Ok(metadata) = file.metadata() else { return false };
    if !metadata.is_file() || metadata.len() == 0 {
        return false;
    }
    let last = || {
        let file = File::open(path).ok()?;
        if identity(&file.metadata().ok()?) != identity(&metadata) {
            return None;
        }
        let mut last = [0];
        file.read_exact_at(&mut last, metadata.len() - 1).ok()?;
        Some(last[0])
    };
    last() != Some(b'\n')
}

/// The same for the same file only.
fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Appends `bytes`. `begun` tells whether there is a line without an end before, and on an error, behind.
fn append(to: &mut impl io::Write, mut bytes: &[u8], begun: &mut bool) -> io::Result<()> {
    // What was begun ends here, so that it costs no other line.
    if *begun {
        to.write_all(b"\n")?;
        *begun = false;
    }
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                *begun = true;
                bytes = bytes.get(written..).unwrap_or_default();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    *begun = false;
    Ok(())
}

/// The end that writes.
struct Writer {
    shared: Arc<Shared>,
    path: PathBuf,
    file: Option<File>,
    /// When the file was last seen in its place.
    checked: Instant,
    /// The last line was written in part.
    torn: bool,
    /// When a failure was last told.
    told: Option<Instant>,
}

impl Writer {
    fn run(mut self, receiver: &Receiver<Message>) {
        // Ends when the other end is dropped.
        while let Ok(message) = receiver.recv() {
            match message {
                Message::Line(line) => {
                    if let Err(error) = self.write(&line) {
                        self.shared.failures.increment();
                        self.tell(&error);
                    }
                    self.shared.waiting.fetch_sub(line.len(), Ordering::Relaxed);
                }
                Message::Flush(done) => {
                    let _ = done.try_send(());
                }
                Message::Reopen => {
                    if self.shared.reopen.swap(false, Ordering::AcqRel) {
                        let opened = self.open();
                        self.file = opened.inspect_err(|error| self.tell(error)).ok();
                    }
                }
            }
        }
    }

    /// The file, made if missing; looks at how it ends.
    fn open(&mut self) -> io::Result<File> {
        let file = OpenOptions::new().append(true).create(true).open(&self.path)?;
        self.torn = ends_within_line(&file, &self.path);
        Ok(file)
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let reopen = self.shared.reopen.swap(false, Ordering::AcqRel) || self.is_elsewhere();
        let mut file = match self.file.take() {
            Some(file) if !reopen => file,
            _ => self.open()?,
        };
        // Emptied in its place, it has nothing that was begun.
        self.torn =
            self.torn && !file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() == 0);
        let written = append(&mut file, line, &mut self.torn);
        self.file = Some(file);
        written
    }

    /// Whether the file is not the one at the path any more.
    fn is_elsewhere(&mut self) -> bool {
        if self.checked.elapsed() < CHECK_INTERVAL {
            return false;
        }
        self.checked = Instant::now();
        let here = self.file.as_ref().and_then(|file| file.metadata().ok());
        here.as_ref().map(identity) != std::fs::metadata(&self.path).ok().as_ref().map(identity)
    }

    fn tell(&mut self, error: &io::Error) {
        if self.told.is_none_or(|told| told.elapsed() >= TELL_INTERVAL) {
            self.told = Some(Instant::now());
            let failures = self.shared.failures.get();
            warn!(path = %self.path.display(), %error, failures, "queries are missing in the query log");
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Method;

    use super::*;

    fn dir(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("chronolith-query-log-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).expect("a directory for the test");
        dir
    }

    fn log(log: &QueryLog, text: &str, error: Option<&str>) {
        let query = Query::range(text, 1_500, 61_500, 15_750);
        let stats = QueryStats {
            total_queryable_samples: 3,
            peak_samples: 2,
            eval_time: Duration::from_millis(2),
            samples_per_step: vec![(1_500, 3)],
            ..QueryStats::default()
        };
        let origin =
            Origin { peer: "[::1]:5".parse().ok(), method: Method::POST, path: "/api/v1/query_range" };
        let error = error.map(str::to_owned);
        log.log(&Ended { query: &query, stats: &stats, steps: false, error, origin: &origin, now: 70_000 });
    }

    fn settled(log: &QueryLog) {
        assert!(log.flush(Duration::from_secs(30)), "the thread writes");
    }

    #[test]
    fn lines_have_prometheus_fields() {
        let path = dir("fields").join("q.log");
        let queries = QueryLog::open(&path).expect("opened");
        log(&queries, "sum(\"a<\")\n", Some("query timed out in \"x\""));
        settled(&queries);
        assert_eq!(
            std::fs::read_to_string(&path).expect("written"),
            concat!(
                r#"{"time":"1970-01-01T00:01:10.000Z","level":"INFO","msg":"promql query logged","#,
                r#""params":{"end":"1970-01-01T00:01:01.500Z","query":"sum(\"a<\")\n","start":"1970-01-01T00:00:01.500Z","step":15},"#,
                r#""error":"query timed out in \"x\"","#,
                r#""stats":{"timings":{"evalTotalTime":0.002,"resultSortTime":0,"queryPreparationTime":0,"innerEvalTime":0.002,"#,
                r#""execQueueTime":0,"execTotalTime":0.002},"samples":{"totalQueryableSamples":3,"peakSamples":2}},"#,
                r#""httpRequest":{"clientIP":"::1","method":"POST","path":"/api/v1/query_range"}}"#,
                "\n"
            )
        );
    }

    #[test]
    fn a_file_that_was_moved_is_written_no_more() {
        let dir = dir("moved");
        let path = dir.join("q.log");
        let queries = QueryLog::open(&path).expect("opened");
        let names = |file: &str| -> Vec<String> {
            let text = std::fs::read_to_string(dir.join(file)).unwrap_or_default();
            text.lines().map(|line| line.split('"').nth(21).unwrap_or_default().to_owned()).collect()
        };
        log(&queries, "a", None);
        settled(&queries);
        std::fs::rename(&path, dir.join("old")).expect("moved");
        queries.reopen();
        log(&queries, "b", None);
        settled(&queries);
        assert_eq!((names("old"), names("q.log")), (vec!["a".to_owned()], vec!["b".to_owned()]));
        // Nobody tells: it is seen a little later.
        std::fs::remove_file(&path).expect("removed");
        std::thread::sleep(CHECK_INTERVAL);
        log(&queries, "c", None);
        settled(&queries);
        assert_eq!(names("q.log"), ["c"]);
        assert_eq!(queries.failures(), 0);
    }

    #[test]
    fn what_the_disk_refuses_is_counted_and_costs_nobody_time() {
        let queries = QueryLog::open(Path::new("/dev/full")).expect("opened");
        let since = Instant::now();
        (0..100).for_each(|_| log(&queries, "a", None));
        assert!(since.elapsed() < Duration::from_secs(5));
        settled(&queries);
        assert_eq!(queries.failures(), 100);
        assert!(QueryLog::open(Path::new("/no/such/place")).is_err());
    }

    #[test]
    fn a_line_begun_before_a_crash_is_ended() {
        let path = dir("torn").join("q.log");
        let begun = "{\"time\":\"2026-11-";
        std::fs::write(&path, begun).expect("written");
        for lines in [2, 3] {
            let queries = QueryLog::open(&path).expect("opened");
            log(&queries, "a", None);
            settled(&queries);
            let text = std::fs::read_to_string(&path).expect("written");
            let rest = text.strip_prefix(begun).and_then(|text| text.strip_prefix('\n')).expect("an end");
            assert_eq!((text.lines().count(), text.contains("\n\n")), (lines, false), "{text}");
            assert!(rest.lines().all(|line| line.starts_with('{') && line.ends_with("}}")), "{text}");
        }
    }

    #[test]
    fn what_was_refused_leaves_nothing_behind_it() {
        let path = dir("refused").join("q.log");
        std::os::unix::fs::symlink("/dev/full", &path).expect("linked");
        let queries = QueryLog::open(&path).expect("opened");
        log(&queries, "a", None);
        settled(&queries);
        assert_eq!(queries.failures(), 1);
        std::fs::remove_file(&path).expect("removed");
        queries.reopen();
        log(&queries, "b", None);
        settled(&queries);
        let text = std::fs::read_to_string(&path).expect("written");
        assert!(text.starts_with('{') && text.lines().count() == 1, "{text:?}");
    }

    #[test]
    fn what_was_written_in_part_is_ended_before_the_next() {
        /// Takes so many bytes, two at a time.
        struct Disk(usize, Vec<u8>);
        impl io::Write for Disk {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let taken = bytes.len().min(2).min(self.0);
                self.0 -= taken;
                self.1.extend(bytes.iter().take(taken));
                if taken == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(taken) }
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut disk = Disk(0, Vec::new());
        let mut begun = false;
        for (room, fits, behind) in
            [(0, false, false), (3, false, true), (0, false, true), (1, false, false), (9, true, false)]
        {
            disk.0 = room;
            assert_eq!(append(&mut disk, b"abcd\n", &mut begun).is_ok(), fits);
            assert_eq!(begun, behind, "{room}");
        }
        assert_eq!(disk.1, b"abc\nabcd\n");
    }

    #[test]
    fn a_file_is_opened_anew_without_a_line() {
        let path = dir("anew").join("q.log");
        let queries = QueryLog::open(&path).expect("opened");
        std::fs::remove_file(&path).expect("removed");
        settled(&queries);
        assert!(!path.exists());
        queries.reopen();
        settled(&queries);
        assert!(path.exists());
        assert_eq!(queries.failures(), 0);
    }

    #[test]
    fn times_beyond_the_calendar_are_seconds() {
        assert_eq!(moment(-1), "1969-12-31T23:59:59.999Z");
        assert_eq!(moment(253_402_300_799_000), "253402300799.000");
        assert_eq!(moment(i64::MAX), "9223372036854775.807");
        assert_eq!(moment(i64::MIN), "-9223372036854775.808");
    }

    #[test]
    fn no_more_waits_than_there_is_room_for() {
        let (sender, receiver) = sync_channel(LINES_MAX);
        let queries = QueryLog { shared: Arc::default(), sender };
        let large = "x".repeat(1 << 20);
        (0..20).for_each(|_| log(&queries, &large, None));
        assert_eq!(queries.failures(), 5, "a line is a little more than its query");
        (0..LINES_MAX).for_each(|_| log(&queries, "a", None));
        assert!(!queries.flush(Duration::ZERO), "nobody writes");
        let waiting: usize = receiver
            .try_iter()
            .map(|message| if let Message::Line(line) = message { line.len() } else { 0 })
            .sum();
        assert!(waiting <= LINE_BYTES_MAX && waiting == queries.shared.waiting.load(Ordering::Relaxed));
    }
}
