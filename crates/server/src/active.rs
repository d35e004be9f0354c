//! Queries that run now: for the API, and in a file that outlives a crash.
//!
//! The file has one entry of fixed size per place among the running queries: JSON, filled up with spaces, or nothing but
//! spaces. A thread writes what has run for [`TICK`]; queries neither write nor wait, and short ones never come there. It
//! sleeps while nothing runs.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread::{JoinHandle, Thread},
    time::{Duration, Instant},
};

use chronolith_model::Timestamp;
use chronolith_promql::Query;
use parking_lot::Mutex;
use tracing::warn;

use crate::{json::JsonWriter, query_log::moment, routes::Origin};

/// What has run for so long is written to the file, at most so long after that unless the disk refuses.
const TICK: Duration = Duration::from_millis(25);
/// Longest pause before what the disk refused is tried again.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Pause between two looks at whether the thread has ended.
const END_POLL: Duration = Duration::from_millis(2);
/// Longest wait for the thread where nobody has asked it to end.
const DROP_PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of an entry of the file, a line feed at the end.
const ENTRY_BYTES: usize = 1024;
/// Bytes of a query that are kept to be shown.
const TEXT_BYTES_MAX: usize = 4096;
/// Bytes of a file of an earlier run that are looked at.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Entries of an earlier run that are told.
const UNFINISHED_MAX: usize = 100;

/// A running query.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    number: u64,
    /// Its text, no more than [`TEXT_BYTES_MAX`] of it.
    text: String,
    start: Timestamp,
    end: Timestamp,
    step: Option<i64>,
    since: Instant,
    since_ms: Timestamp,
    origin: Origin,
}

#[derive(Debug, Default)]
struct Places {
    /// No more than queries may run at once.
    running: Vec<Option<Running>>,
    entered: u64,
}

#[derive(Debug, Default)]
struct Shared {
    places: Mutex<Places>,
    /// The thread waits to be woken.
    asleep: AtomicBool,
    ending: AtomicBool,
    /// The thread that writes, if there is a file; known before it is `asleep`.
    writer: OnceLock<Thread>,
}

/// The queries that run now.
#[derive(Debug, Default)]
pub(crate) struct ActiveQueries {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// A place among the running queries, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    shared: Arc<Shared>,
    place: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(running) = self.shared.places.lock().running.get_mut(self.place) {
            *running = None;
        }
    }
}

impl ActiveQueries {
    /// `query`, asked by `origin` at `now`, runs from now on.
    pub(crate) fn enter(&self, query: &Query, origin: &Origin, now: Timestamp) -> Place {
        let end =
            (0..=query.text.len().min(TEXT_BYTES_MAX)).rev().find(|end| query.text.is_char_boundary(*end));
        let mut running = Running {
            number: 0,
            text: query.text[..end.unwrap_or(0)].to_owned(),
            start: query.start,
            end: query.end,
            step: query.step,
            since: Instant::now(),
            since_ms: now,
            origin: origin.clone(),
        };
        let mut places = self.shared.places.lock();
        places.entered += 1;
        running.number = places.entered;
        let place = places.running.iter().position(Option::is_none).unwrap_or(places.running.len());
        match places.running.get_mut(place) {
            Some(free) => *free = Some(running),
            None => places.running.push(Some(running)),
        }
        drop(places);
        if self.shared.asleep.swap(false, Ordering::AcqRel)
            && let Some(writer) = self.shared.writer.get()
        {
            writer.unpark();
        }
        Place { shared: Arc::clone(&self.shared), place }
    }

    /// Keeps what runs in the file `path` too. Once that has succeeded, and after the end, a call does nothing and returns
    /// nothing. Returns entries of a process that has not come to its end, a bounded number of them, and how many there are.
    ///
    /// # Errors
    /// When the file cannot be opened, or the thread that writes it not be started.
    pub(crate) fn keep_in(&self, path: &Path) -> io::Result<(Vec<String>, usize)> {
        let mut thread = self.thread.lock();
        if thread.is_some() || self.shared.ending.load(Ordering::Acquire) {
            return Ok((Vec::new(), 0));
        }
        let unfinished = unfinished(path)?;
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
        let writer = Writer::new(Arc::clone(&self.shared), file);
        let spawned = std::thread::Builder::new().name("active-queries".to_owned());
        *thread = Some(spawned.spawn(move || writer.run())?);
        Ok(unfinished)
    }

    /// Empties the file and leaves it alone from now on; waits for that, at most for `patience`. Whether it is done: a disk
    /// that does not answer keeps the thread.
    pub(crate) fn end(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        self.shared.ending.store(true, Ordering::Release);
        let Some(thread) = self.thread.lock().take() else { return true };
        thread.thread().unpark();
        while !thread.is_finished() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(END_POLL);
        }
        thread.join().is_ok()
    }

    /// Writes `[...]`, what has run for longest first.
    pub(crate) fn write(&self, json: &mut JsonWriter) {
        let mut running: Vec<Running> = self.shared.places.lock().running.iter().flatten().cloned().collect();
        running.sort_by_key(|running| (running.since, running.number));
        json.raw("[");
        for (index, running) in running.iter().enumerate() {
            json.raw(if index == 0 { "" } else { "," });
            running.write(json, &running.text);
        }
        json.raw("]");
    }
}

impl Drop for ActiveQueries {
    fn drop(&mut self) {
        self.end(DROP_PATIENCE);
    }
}

impl Running {
    /// Writes what is known of it, with `text` instead of its own.
    fn write(&self, json: &mut JsonWriter, text: &str) {
        json.raw("{\"query\":");
        json.string(text);
        for (name, time) in [("start", self.start), ("end", self.end)] {
            json.raw(",");
            json.key(name);
            json.timestamp(time);
        }
        json.raw(",\"step\":");
        json.timestamp(self.step.unwrap_or(0));
        json.raw(",\"since\":");
        json.string(&moment(self.since_ms));
        json.raw(",\"seconds\":");
        json.float((self.since.elapsed().as_secs_f64() * 1e3).round() / 1e3);
        json.raw(",\"clientIP\":");
        json.string(&self.origin.client_ip());
        json.raw(",\"method\":");
        json.string(self.origin.method.as_str());
        json.raw(",\"path\":");
        json.string(self.origin.path);
        json.raw("}");
    }

    /// Its entry in the file.
    fn entry(&self) -> [u8; ENTRY_BYTES] {
        let mut bytes = self.text.len();
        loop {
            let end = (0..=bytes).rev().find(|end| self.text.is_char_boundary(*end)).unwrap_or(0);
            let mut json = JsonWriter::with_capacity(ENTRY_BYTES);
            self.write(&mut json, &self.text[..end]);
            let json = json.finish();
            // Without any of its text it always fits.
            if json.len() < ENTRY_BYTES || end == 0 {
                let mut entry = blank();
                entry.iter_mut().zip(json).take(ENTRY_BYTES - 1).for_each(|(to, byte)| *to = byte);
                return entry;
            }
            bytes = end.min(ENTRY_BYTES) * 3 / 4;
        }
    }
}

/// An entry for nothing.
const fn blank() -> [u8; ENTRY_BYTES] {
    let mut entry = [b' '; ENTRY_BYTES];
    entry[ENTRY_BYTES - 1] = b'\n';
    entry
}

/// The entries of the file of an earlier process.
fn unfinished(path: &Path) -> io::Result<(Vec<String>, usize)> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
        Err(error) => return Err(error),
    };
    let entries = bytes.chunks(ENTRY_BYTES).map(String::from_utf8_lossy);
    let entries = entries.map(|entry| entry.trim().to_owned());
    let mut entries: Vec<String> = entries.filter(|entry| entry.starts_with('{')).collect();
    let count = entries.len();
    entries.truncate(UNFINISHED_MAX);
    Ok((entries, count))
}

/// The end that writes the file.
struct Writer {
    shared: Arc<Shared>,
    file: File,
    /// By entry, the number of the query in it; 0 for none.
    written: Vec<u64>,
    /// Until what is busy is looked at again; longer and longer while the disk refuses.
    pause: Duration,
    /// That the disk refuses was told.
    told: bool,
}

impl Writer {
    fn new(shared: Arc<Shared>, file: File) -> Self {
        Self { shared, file, written: Vec::new(), pause: TICK, told: false }
    }

    fn run(mut self) {
        // Whoever takes `asleep` away has to find whom to wake.
        let _ = self.shared.writer.set(std::thread::current());
        while !self.shared.ending.load(Ordering::Acquire) {
            if let Some(pause) = self.tick() {
                std::thread::park_timeout(pause);
                continue;
            }
            self.shared.asleep.store(true, Ordering::Release);
            // Who entered before could not know.
            let entered = self.shared.places.lock().running.iter().any(Option::is_some);
            if !entered && !self.shared.ending.load(Ordering::Acquire) {
                std::thread::park();
            }
            self.shared.asleep.store(false, Ordering::Release);
            if !self.shared.ending.load(Ordering::Acquire) {
                std::thread::sleep(TICK);
            }
        }
        let _ = self.file.set_len(0);
    }

    /// Writes what has changed. Returns the pause until the next time; none where nothing runs and the file says so.
    fn tick(&mut self) -> Option<Duration> {
        let mut changed: Vec<(usize, u64, [u8; ENTRY_BYTES])> = Vec::new();
        let (mut busy, mut refused) = (false, false);
        {
            let places = self.shared.places.lock();
            self.written.resize(places.running.len().max(self.written.len()), 0);
            for (place, (running, written)) in places.running.iter().zip(&self.written).enumerate() {
                busy |= running.is_some();
                let long = running.as_ref().filter(|running| running.since.elapsed() >= TICK);
                let number = long.map_or(0, |running| running.number);
                if number != *written {
                    changed.push((place, number, long.map_or_else(blank, Running::entry)));
                }
            }
        }
        for (place, number, entry) in changed {
            let Err(error) = self.file.write_all_at(&entry, (place * ENTRY_BYTES) as u64) else {
                self.written[place] = number;
                continue;
            };
            refused = true;
            if !self.told {
                self.told = true;
                warn!(%error, "the file of running queries cannot be written");
            }
        }
        // The entry of a query that has ended would be blamed for a crash: it is tried again although nothing runs.
        self.pause = if refused { (self.pause * 2).min(PAUSE_MAX) } else { TICK };
        (busy || refused).then_some(self.pause)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use axum::http::Method;

    use super::*;

    fn file(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("chronolith-active-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).expect("a directory for the test");
        dir.join("queries.active")
    }

    fn enter(active: &ActiveQueries, text: &str) -> Place {
        let origin = Origin { peer: "10.1.2.3:5".parse().ok(), method: Method::GET, path: "/api/v1/query" };
        active.enter(&Query::instant(text, 1_500), &origin, 70_000)
    }

    /// What the file has, once it is what is expected.
    fn wait_for(path: &Path, queries: &[&str]) {
        let found = || {
            let entries = unfinished(path).expect("a file").0;
            entries
                .iter()
                .map(|entry| entry.split('"').nth(3).unwrap_or_default().to_owned())
                .collect::<Vec<_>>()
        };
        let since = Instant::now();
        while found() != queries {
            assert!(since.elapsed() < Duration::from_secs(30), "{:?} is not {queries:?}", found());
            std::thread::sleep(TICK);
        }
    }

    fn shown(active: &ActiveQueries) -> String {
        let mut json = JsonWriter::default();
        active.write(&mut json);
        String::from_utf8(json.finish()).expect("text")
    }

    #[test]
    fn what_runs_is_shown() {
        let active = ActiveQueries::default();
        assert_eq!(shown(&active), "[]");
        let first = enter(&active, "up\n\"a\"");
        let text = shown(&active);
        let (before, after) = text.split_once("\"seconds\":").expect("seconds");
        assert_eq!(
            before,
            r#"[{"query":"up\n\"a\"","start":1.500,"end":1.500,"step":0,"since":"1970-01-01T00:01:10.000Z","#
        );
        assert!(
            after.ends_with(r#","clientIP":"10.1.2.3","method":"GET","path":"/api/v1/query"}]"#),
            "{after}"
        );
        let second = enter(&active, &"\u{20ac}".repeat(2000));
        drop(first);
        let text = shown(&active);
        assert!(
            text.len() > TEXT_BYTES_MAX && text.len() < TEXT_BYTES_MAX + 300 && !text.contains("up"),
            "{text}"
        );
        drop(second);
        assert_eq!(shown(&active), "[]");
        let many: Vec<_> = (0..5).map(|n| enter(&active, &n.to_string())).collect();
        drop(many);
        assert_eq!(active.shared.places.lock().running.len(), 5, "places are used again");
    }

    #[test]
    fn a_crash_leaves_what_ran() {
        let path = file("crash");
        let active = ActiveQueries::default();
        assert_eq!(active.keep_in(&path).expect("opened"), (Vec::new(), 0));
        let a = enter(&active, "a");
        let long = "\u{20ac}\n".repeat(1000);
        let b = enter(&active, &long);
        let c = enter(&active, "c");
        drop(a);
        // A query of control characters takes six bytes each.
        let escaped = enter(&active, &"\u{1}".repeat(3000));
        let since = Instant::now();
        while unfinished(&path).expect("a file").1 != 3 {
            assert!(since.elapsed() < Duration::from_secs(30));
            std::thread::sleep(TICK);
        }
        let (entries, _) = unfinished(&path).expect("a file");
        assert!(entries.iter().all(|entry| entry.len() < ENTRY_BYTES && entry.ends_with('}')), "{entries:?}");
        assert!(entries.iter().any(|entry| entry.len() > ENTRY_BYTES / 2));
        drop((b, escaped));
        wait_for(&path, &["c"]);
        // The next process, after this one was killed.
        let copy = path.with_extension("copy");
        std::fs::copy(&path, &copy).expect("copied");
        let next = ActiveQueries::default();
        let (entries, count) = next.keep_in(&copy).expect("opened");
        assert_eq!(count, 1);
        assert!(entries[0].starts_with(r#"{"query":"c","#), "{entries:?}");
        assert_eq!(unfinished(&copy).expect("a file").1, 0, "told once");
        drop(c);
        wait_for(&path, &[]);
        let d = enter(&active, "d");
        wait_for(&path, &["d"]);
        assert!(active.end(Duration::from_secs(30)));
        assert_eq!(std::fs::metadata(&path).expect("a file").len(), 0, "a process that ends leaves nothing");
        drop(d);
    }

    #[test]
    fn a_query_at_the_very_start_wakes_the_thread() {
        let path = file("start");
        let shared = Arc::<Shared>::default();
        let writer = Writer::new(Arc::clone(&shared), File::create(&path).expect("made"));
        // It sleeps before whoever has started it does anything else.
        let thread = std::thread::spawn(move || writer.run());
        let since = Instant::now();
        while !shared.asleep.load(Ordering::Acquire) {
            assert!(since.elapsed() < Duration::from_secs(30));
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(TICK);
        let active = ActiveQueries { shared, thread: Mutex::new(Some(thread)) };
        let running = enter(&active, "a");
        wait_for(&path, &["a"]);
        drop(running);
        wait_for(&path, &[]);
    }

    #[test]
    fn what_the_disk_refused_is_tried_again_although_nothing_runs() {
        let path = file("refused");
        let active = ActiveQueries::default();
        let good = File::create(&path).expect("made");
        let mut writer = Writer::new(Arc::clone(&active.shared), good.try_clone().expect("cloned"));
        assert_eq!(writer.tick(), None, "nothing runs");
        let running = enter(&active, "a");
        std::thread::sleep(TICK);
        assert_eq!(writer.tick(), Some(TICK));
        wait_for(&path, &["a"]);
        drop(running);
        writer.file = File::open(&path).expect("for reading only");
        let pauses: Vec<_> = (0..8).map_while(|_| writer.tick()).collect();
        assert_eq!((pauses.first(), pauses.get(7)), (Some(&(2 * TICK)), Some(&PAUSE_MAX)), "{pauses:?}");
        wait_for(&path, &["a"]);
        writer.file = good;
        assert_eq!(writer.tick(), None);
        wait_for(&path, &[]);
    }

    #[test]
    fn the_end_waits_for_no_disk() {
        let path = file("patience");
        let active = ActiveQueries::default();
        active.keep_in(&path).expect("opened");
        let running = enter(&active, "a");
        wait_for(&path, &["a"]);
        // As long as this is held the thread cannot go on.
        let places = active.shared.places.lock();
        // It has not seen that it is to end, and waits for the lock.
        std::thread::sleep(4 * TICK);
        let since = Instant::now();
        assert!(!active.end(Duration::from_millis(50)));
        assert!(since.elapsed() < Duration::from_secs(5));
        drop(places);
        assert!(active.end(Duration::ZERO), "nobody is left to wait for");
        drop(running);
    }

    #[test]
    fn only_the_first_file_counts() {
        let path = file("first");
        let active = ActiveQueries::default();
        assert!(active.keep_in(Path::new("/no/such/place")).is_err(), "that does not count");
        active.keep_in(&path).expect("opened");
        let other = path.with_extension("other");
        let entry = [r#"{"query":"max(up)"}"#, "\n"].concat();
        std::fs::write(&other, &entry).expect("written");
        assert_eq!(active.keep_in(&other).expect("nothing to do"), (Vec::new(), 0));
        active.end(Duration::from_secs(30));
        assert_eq!(active.keep_in(&other).expect("nothing to do"), (Vec::new(), 0));
        assert_eq!(std::fs::read_to_string(&other).expect("a file"), entry, "it is left alone");
    }

    #[test]
    fn damage_is_no_reason_not_to_start() {
        let path = file("damage");
        std::fs::write(&path, [0xff; 5000]).expect("written");
        let active = ActiveQueries::default();
        assert_eq!(active.keep_in(&path).expect("opened"), (Vec::new(), 0));
        active.end(Duration::from_secs(30));
        std::fs::write(&path, blank().repeat(3)).expect("written");
        assert_eq!(unfinished(&path).expect("a file"), (Vec::new(), 0));
        assert!(ActiveQueries::default().keep_in(Path::new("/no/such/place")).is_err());
    }
}
