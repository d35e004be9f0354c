//! Where the programs under test are: Chronolith itself, and the peers unpacked by `peers/fetch`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The programs of a peers directory.
#[derive(Debug, Clone)]
pub struct Peers {
    dir: PathBuf,
}

impl Peers {
    /// The directory named by `CHRONOLITH_PEERS`, or `None` after saying so on standard error.
    ///
    /// # Panics
    /// It is missing while `REQUIRE_PEERS=1`.
    #[must_use]
    pub fn find(test: &str) -> Option<Self> {
        let peers = std::env::var_os("CHRONOLITH_PEERS").map(|dir| Self { dir: dir.into() });
        match peers {
            Some(p) if p.prometheus().is_file() && p.node_exporter().is_file() => Some(p),
            found => {
                let why = match found {
                    Some(p) => format!("no Prometheus or node_exporter under {}", p.dir.display()),
                    None => "CHRONOLITH_PEERS is not set".to_owned(),
                };
                skip(test, &why);
                None
            }
        }
    }

    /// Peers in `dir`, unchecked.
    #[must_use]
    pub fn in_dir(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Prometheus 3.5.3.
    #[must_use]
    pub fn prometheus(&self) -> PathBuf {
        self.dir.join("prometheus/usr/bin/prometheus")
    }

    /// node_exporter.
    #[must_use]
    pub fn node_exporter(&self) -> PathBuf {
        self.dir.join("prometheus-node-exporter/usr/bin/prometheus-node-exporter")
    }

    /// VictoriaMetrics, single node.
    #[must_use]
    pub fn victoria_metrics(&self) -> PathBuf {
        self.dir.join("victoria-metrics/usr/bin/victoria-metrics")
    }
}

/// Says loudly that `test` does not run, and why.
///
/// # Panics
/// `REQUIRE_PEERS=1`: then a skip is a failure.
pub fn skip(test: &str, why: &str) {
    assert!(std::env::var("REQUIRE_PEERS").as_deref() != Ok("1"), "{test}: REQUIRE_PEERS=1, but {why}");
    eprintln!("SKIPPED: {test}: {why}");
}

/// The workspace's root directory.
#[must_use]
pub fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace").to_owned()
}

/// The Chronolith binary: `CHRONOLITH_BIN`, or built by cargo in the profile and target directory of the caller.
///
/// # Panics
/// The build fails.
#[must_use]
pub fn chronolith_bin() -> &'static Path {
    static BIN: OnceLock<PathBuf> = OnceLock::new();
    BIN.get_or_init(|| match std::env::var_os("CHRONOLITH_BIN") {
        Some(path) => path.into(),
        None => build_chronolith(),
    })
}

fn build_chronolith() -> PathBuf {
    // Test binaries lie in <target>/<profile>/deps, others in <target>/<profile>.
    let exe = std::env::current_exe().expect("the path of the running test");
    let mut profile_dir = exe.parent().expect("a file lies in a directory");
    if profile_dir.ends_with("deps") {
        profile_dir = profile_dir.parent().expect("deps lies in the profile's directory");
    }
    let profile = match profile_dir.file_name().and_then(|n| n.to_str()) {
        Some("debug") | None => "dev",
        Some(other) => other,
    };
    let target_dir = profile_dir.parent().expect("the profile lies in the target directory");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--package", "chronolith", "--bin", "chronolith", "--profile", profile])
        .current_dir(workspace_root())
        .env("CARGO_TARGET_DIR", target_dir)
        .status()
        .expect("cargo can be started");
    assert!(status.success(), "cargo build -p chronolith failed");
    profile_dir.join("chronolith")
}
