//! How each server is started, and how its readiness is known.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::http::{Client, Response};
use crate::process::{Process, free_port};

/// How long a server may take until it is ready.
pub const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a graceful stop may take.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(90);
/// Timeout of a single request.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The servers the harness knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The binary of this workspace.
    Chronolith,
    /// Prometheus with its remote-write receiver on.
    Prometheus,
    /// VictoriaMetrics, single node.
    VictoriaMetrics,
}

impl Kind {
    /// The name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Chronolith => "chronolith",
            Self::Prometheus => "prometheus",
            Self::VictoriaMetrics => "victoriametrics",
        }
    }
}

/// What to start.
#[derive(Debug, Clone)]
pub struct ServerSpec {
    /// Which server.
    pub kind: Kind,
    /// Its program.
    pub program: PathBuf,
    /// Its directory: data in `data/`, log and configuration beside it. Made if missing.
    pub dir: PathBuf,
    /// Arguments after the harness's own.
    pub extra_args: Vec<OsString>,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    spec: ServerSpec,
    addr: SocketAddr,
    process: Process,
}

impl ServerSpec {
    /// A server of `kind` in `dir` without further arguments.
    #[must_use]
    pub fn new(kind: Kind, program: &Path, dir: &Path) -> Self {
        Self { kind, program: program.to_owned(), dir: dir.to_owned(), extra_args: Vec::new() }
    }

    /// The directory the server keeps its data in.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// The configuration file of a Prometheus; written empty if it does not exist at the start.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.dir.join("prometheus.yml")
    }

    /// The command line for a server that listens on `addr`.
    #[must_use]
    pub fn command(&self, addr: SocketAddr) -> Command {
        let mut command = Command::new(&self.program);
        let data = self.data_dir();
        match self.kind {
            Kind::Chronolith => {
                command.args(["serve", "--no-self-scrape", "--listen", &addr.to_string(), "--data-dir"]);
                command.arg(data);
            }
            Kind::Prometheus => {
                command.arg(format!("--config.file={}", self.config_file().display()));
                command.arg(format!("--storage.tsdb.path={}", data.display()));
                command.arg(format!("--web.listen-address={addr}"));
                command.args(["--web.enable-remote-write-receiver", "--web.enable-lifecycle"]);
                command.args(["--storage.tsdb.retention.time=30d", "--log.level=warn"]);
            }
            Kind::VictoriaMetrics => {
                command.arg(format!("-storageDataPath={}", data.display()));
                command.arg(format!("-httpListenAddr={addr}"));
                command.args(["-retentionPeriod=1y", "-search.latencyOffset=0s", "-loggerLevel=WARN"]);
                command.args(["-search.maxUniqueTimeseries=3000000", "-search.maxSeries=3000000"]);
                command.args(["-search.maxPointsPerTimeseries=30000"]);
            }
        }
        command.args(&self.extra_args);
        command
    }

    /// Starts the server on a free port without waiting for it.
    ///
    /// # Errors
    /// Its directory cannot be made, or the program not be started.
    pub fn spawn(&self) -> Result<Server> {
        self.spawn_on(free_port())
    }

    /// As [`ServerSpec::spawn`], on a given port.
    ///
    /// # Errors
    /// As [`ServerSpec::spawn`].
    pub fn spawn_on(&self, port: u16) -> Result<Server> {
        fs::create_dir_all(&self.dir).with_context(|| format!("create {}", self.dir.display()))?;
        if self.kind == Kind::Prometheus && !self.config_file().exists() {
            fs::write(self.config_file(), "global: {}\n")?;
        }
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        let process = Process::spawn(self.kind.name(), self.command(addr), &self.dir.join("log"))?;
        Ok(Server { spec: self.clone(), addr, process })
    }

    /// Starts the server and waits until it is ready.
    ///
    /// # Errors
    /// It ends, or is not ready within [`READY_TIMEOUT`].
    pub fn start(&self) -> Result<Server> {
        let mut server = self.spawn()?;
        server.wait_ready(READY_TIMEOUT)?;
        Ok(server)
    }
}

impl Server {
    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What was started.
    #[must_use]
    pub fn spec(&self) -> &ServerSpec {
        &self.spec
    }

    /// The process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The process, to be stopped or waited for.
    pub fn process_mut(&mut self) -> &mut Process {
        &mut self.process
    }

    /// A client of this server.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.addr, REQUEST_TIMEOUT)
    }

    /// Waits until the server says it is ready.
    ///
    /// # Errors
    /// It ends, or the time is over.
    pub fn wait_ready(&mut self, timeout: Duration) -> Result<()> {
        let path = if self.spec.kind == Kind::VictoriaMetrics { "/health" } else { "/-/ready" };
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.process.exited()? {
                bail!("{} ended with {status}:\n{}", self.process.name(), self.process.log_tail(20));
            }
            let mut client = Client::new(self.addr, Duration::from_secs(5));
            if client.get(path).is_ok_and(|r| r.ok()) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(
                    "{} is not ready after {timeout:?}:\n{}",
                    self.process.name(),
                    self.process.log_tail(20)
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends one compressed remote-write body.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub fn write(&self, client: &mut Client, body: &[u8]) -> std::io::Result<Response> {
        client.send("POST", "/api/v1/write", crate::remote_write::HEADERS, body)
    }

    /// Stops gracefully.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn stop(mut self) -> Result<ExitStatus> {
        self.process.stop(STOP_TIMEOUT)
    }

    /// Kills with SIGKILL.
    pub fn kill(mut self) {
        self.process.kill();
    }
}
