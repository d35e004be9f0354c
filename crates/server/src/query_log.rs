//! The query log: a line of JSON for each query, with the fields of Prometheus' `query_log_file`.
//!
//! Lines are handed to a thread that writes them; a query never waits for the disk. What the queue has no room for, and
//! what the disk refuses, is left out and counted. The file is opened anew when it was moved away or removed, at most
//! [`CHECK_INTERVAL`] later, and when [`QueryLog::reopen`] says so. A line that was begun and not finished, by this process or
//! by one before it, is ended before the next.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, Write as _},
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
    pub /// Whether the regular file `file`, found at `path`, ends within a line. A file that may be written only is said to: an
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

/// Appends `bytes`; on an error it is told in `begun` whether a part of them was written.
fn append(to: &mut impl io::Write, mut bytes: &[u8], begun: &mut bool) -> io::Result<()> {
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
                    if self.shared.reopen.swap(false, Ordering::AcqRel)
                        && let Err(error) = self.open()
                    {
                        self.tell(&error);
                    }
                }
            }
        }
    }

    /// Opens the file, made if missing, and looks at how it ends.
    fn open(&mut self) -> io::Result<&mut File> {
        self.file = None;
        let file = OpenOptions::new().append(true).create(true).open(&self.path)?;
        self.torn = ends_within_line(&file, &self.path);
        Ok(self.file.insert(file))
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let reopen = self.shared.reopen.swap(false, Ordering::AcqRel) || self.is_elsewhere();
        if reopen || self.file.is_none() {
            self.open()?;
        }
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::NotFound.into()) };
        // What was begun ends here, so that it costs no other line.
        if self.torn {
            file.write_all(b"\n")?;
        }
        append(file, line, &mut self.torn)
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
