//! Child programs: started with their output in a file, stopped on drop, read through `/proc`.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// A running child. Dropping it kills it and reaps it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

/// What `/proc/PID` says of a process.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcStats {
    /// User CPU seconds since the start.
    pub user_seconds: f64,
    /// System CPU seconds since the start.
    pub system_seconds: f64,
    /// Resident bytes now.
    pub rss_bytes: u64,
    /// Anonymous resident bytes now.
    pub rss_anon_bytes: u64,
    /// Highest resident bytes so far, or since [`Process::reset_hwm`].
    pub hwm_bytes: u64,
    /// Bytes handed to the block layer so far.
    pub write_bytes: u64,
}

impl ProcStats {
    /// User plus system CPU seconds.
    #[must_use]
    pub fn cpu_seconds(&self) -> f64 {
        self.user_seconds + self.system_seconds
    }
}

impl Process {
    /// Starts `command`; standard output and error go to `log` (created, or appended to).
    ///
    /// # Errors
    /// The program or the log file cannot be opened.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("open log {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let child = command.spawn().with_context(|| format!("start {name}: {command:?}"))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The name given at the start.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the program has written so far.
    #[must_use]
    pub fn log_text(&self) -> String {
        fs::read(&self.log).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
    }

    /// The last lines of [`Process::log_text`].
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        let text = self.log_text();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// The exit status, if the program has ended.
    ///
    /// # Errors
    /// The status cannot be read.
    pub fn exited(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Asks for a graceful stop (SIGTERM); does not wait.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends `signal`; a process that is gone already is no error.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.pid()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }

    /// Kills (SIGKILL) and reaps.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits until the program ends by itself.
    ///
    /// # Errors
    /// It is still running after `timeout`; it keeps running.
    pub fn wait_exit(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} still runs after {timeout:?}; its log ends:\n{}", self.name, self.log_tail(20));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGTERM, then the exit status.
    ///
    /// # Errors
    /// As [`Process::wait_exit`].
    pub fn stop(&mut self, timeout: Duration) -> Result<ExitStatus> {
        self.terminate();
        self.wait_exit(timeout)
    }

    /// SIGTERM, then the CPU seconds of the whole life, read between the end of the program and its reaping.
    ///
    /// # Errors
    /// It does not end within `timeout`.
    pub fn stop_reading_cpu(&mut self, timeout: Duration) -> Result<(ExitStatus, f64)> {
        self.terminate();
        let deadline = Instant::now() + timeout;
        loop {
            let (state, user, system) = read_stat(self.pid())?;
            if state == 'Z' {
                return Ok((self.child.wait()?, user + system));
            }
            if Instant::now() > deadline {
                bail!("{} still runs {timeout:?} after SIGTERM", self.name);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Makes [`ProcStats::hwm_bytes`] begin anew from what is resident now.
    ///
    /// # Errors
    /// The process is gone.
    pub fn reset_hwm(&self) -> Result<()> {
        let path = format!("/proc/{}/clear_refs", self.pid());
        fs::write(&path, "5").with_context(|| path)
    }

    /// CPU time of all threads that live, to the nanosecond; those that have ended do not count.
    ///
    /// # Errors
    /// The process is gone.
    pub fn cpu_of_threads(&self) -> Result<Duration> {
        let tasks = PathBuf::from(format!("/proc/{}/task", self.pid()));
        let mut nanoseconds = 0;
        for task in fs::read_dir(&tasks).with_context(|| tasks.display().to_string())? {
            // A thread may have ended in between.
            let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
            nanoseconds += text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// CPU and memory now.
    ///
    /// # Errors
    /// The process is gone.
    pub fn stats(&self) -> Result<ProcStats> {
        let pid = self.pid();
        let (_, user_seconds, system_seconds) = read_stat(pid)?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
        Ok(ProcStats {
            user_seconds,
            system_seconds,
            rss_bytes: field(&status, "VmRSS:") * 1024,
            rss_anon_bytes: field(&status, "RssAnon:") * 1024,
            hwm_bytes: field(&status, "VmHWM:") * 1024,
            write_bytes: field(&io, "write_bytes:"),
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn field(text: &str, key: &str) -> u64 {
    text.lines()
        .find_map(|l| l.strip_prefix(key))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|n| n.parse().ok())
        .unwrap_or(0)
}

/// State, user and system CPU seconds from `/proc/PID/stat`.
fn read_stat(pid: u32) -> Result<(char, f64, f64)> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    // The program name is in parentheses and may hold anything; the fixed fields follow the last one.
    let rest = text.rsplit_once(')').map(|(_, r)| r.trim()).with_context(|| format!("{path}: no name"))?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let number = |i: usize| -> f64 { fields.get(i).and_then(|f| f.parse().ok()).unwrap_or(0.0) };
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let state = fields.first().and_then(|s| s.chars().next()).unwrap_or('?');
    Ok((state, number(11) / ticks, number(12) / ticks))
}

/// A loopback port that is free now. `CHRONOLITH_E2E_PORTS=FROM-TO` confines the choice.
///
/// # Panics
/// No port is free.
#[must_use]
pub fn free_port() -> u16 {
    let range = std::env::var("CHRONOLITH_E2E_PORTS").ok().and_then(|v| {
        let (from, to) = v.split_once('-')?;
        Some(from.parse::<u16>().ok()?..=to.parse::<u16>().ok()?)
    });
    if let Some(range) = range {
        let start =
            std::process::id() as usize + NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed) as usize;
        let ports: Vec<u16> = range.collect();
        return (0..ports.len())
            .map(|i| ports[(start + i) % ports.len()])
            .find(|p| std::net::TcpListener::bind(("127.0.0.1", *p)).is_ok())
            .expect("a free port in CHRONOLITH_E2E_PORTS");
    }
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a loopback port to listen on");
    listener.local_addr().expect("a bound listener has an address").port()
}

static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
