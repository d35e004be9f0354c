//! Asking the process to end.

use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Terminals, `timeout` and supervisors send one wish to end both to a group and to its leader: within this time it is
/// the same wish.
const SAME_WISH: Duration = Duration::from_secs(1);

/// SIGHUP.
pub(crate) struct Hangups(Signal);

impl Hangups {
    /// Takes over the signal.
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self(signal(SignalKind::hangup()).context("cannot listen for signals")?))
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            // No more will come.
            std::future::pending::<()>().await;
        }
    }
}

/// SIGTERM and SIGINT.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes over both signals.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let on = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self { terminate: on(SignalKind::terminate())?, interrupt: on(SignalKind::interrupt())? })
    }

    /// Waits for the next one and names it.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Waits for the next one that is not the last one sent twice.
    pub(crate) async fn again(&mut self) -> &'static str {
        let end = tokio::time::Instant::now() + SAME_WISH;
        while tokio::time::timeout_at(end, self.next()).await.is_ok() {}
        self.next().await
    }
}
