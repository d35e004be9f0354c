//! A server of one test: its directory, its clients, the shortest ways to write and to ask.

use std::collections::BTreeMap;
use std::process::{Command, ExitStatus};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use chronolith_e2e::api::{Answer, Data, Point};
use chronolith_e2e::http::{Client, Response};
use chronolith_e2e::peers::chronolith_bin;
use chronolith_e2e::remote_write::{HEADERS, LabelMap, WriteRequest, encode_labels};
use chronolith_e2e::servers::{Kind, Server, ServerSpec};

/// Samples of an answer: labels to time and value.
pub(crate) type Stored = BTreeMap<LabelMap, Vec<(i64, f64)>>;

/// Labels as written in a test.
pub(crate) type Pairs<'a> = &'a [(&'a str, &'a str)];

/// A directory for one server, removed at the end.
#[derive(Debug)]
pub(crate) struct Scratch {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) spec: ServerSpec,
}

impl Scratch {
    /// A fresh directory for Chronolith.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let spec = ServerSpec::new(Kind::Chronolith, chronolith_bin(), &dir.path().join("server"));
        Self { dir, spec }
    }

    /// The same with a configuration file.
    pub(crate) fn with_config(text: &str) -> Self {
        let mut scratch = Self::new();
        let path = scratch.dir.path().join("chronolith.yml");
        std::fs::write(&path, text).expect("a configuration file");
        scratch.spec.extra_args = vec!["--config".into(), path.into()];
        scratch
    }

    /// Starts the server.
    pub(crate) fn start(&self) -> Server {
        self.spec.start().unwrap_or_else(|e| panic!("{e:#}"))
    }
}

/// What `script` of [`with_own_mounts`] ends with when it may not mount.
const NO_MOUNT: i32 = 77;

/// Runs `script`, which `sh` gets with the arguments that are added, where its mounts are seen by nobody else. Whoever is
/// not root is root there.
pub(crate) fn with_own_mounts(script: &str) -> Command {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "--", "sh", "-c", script, "sh"]);
    command
}

/// Whether a command of [`with_own_mounts`] ended because the system allows no mounts.
pub(crate) fn may_not_mount(status: Option<ExitStatus>, log: &str) -> bool {
    status.and_then(|status| status.code()) == Some(NO_MOUNT) || log.starts_with("unshare:")
}

/// The time now in ms.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    i64::try_from(since.as_millis()).expect("a time in range")
}

/// A body with one sample per entry.
pub(crate) fn body(entries: &[(Pairs<'_>, i64, f64)]) -> Vec<u8> {
    let mut request = WriteRequest::new();
    for (pairs, t, v) in entries {
        request.push_sample(&encode_labels(pairs.iter().copied()), *t, *v);
    }
    request.take_body()
}

/// Sends a remote-write body.
pub(crate) fn write(client: &mut Client, body: &[u8]) -> Result<Response> {
    client.send("POST", "/api/v1/write", HEADERS, body).context("remote write")
}

/// All samples, floats, of a range selector at a time.
pub(crate) fn read(client: &mut Client, selector: &str, at_ms: i64) -> Result<Stored> {
    let time = format!("{}.{:03}", at_ms / 1000, at_ms % 1000);
    let response = client.post_form("/api/v1/query", &[("query", selector), ("time", &time)])?;
    match Answer::parse(&response)? {
        Answer::Success { data: Data::Matrix(m), .. } => {
            let float = |(t, v): Point| v.as_float().map(|v| (t, v)).context("a histogram among floats");
            m.into_iter()
                .map(|(labels, points)| Ok((labels, points.into_iter().map(float).collect::<Result<_>>()?)))
                .collect()
        }
        other => bail!("{selector}: {}", other.brief()),
    }
}
