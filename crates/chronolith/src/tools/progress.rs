//! Progress of long work, on a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar on standard error, if that is a terminal; gone when dropped.
#[derive(Debug)]
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// Of `what`, which is done after `bytes`.
    pub(super) fn of_bytes(what: &'static str, bytes: u64) -> Self {
        let bar = Self(ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr()));
        bar.begin_bytes(what, bytes);
        bar
    }

    /// Goes on to `what`, which is done after `bytes`.
    pub(super) fn begin_bytes(&self, what: &'static str, bytes: u64) {
        self.begin("{msg} [{bar:40}] {bytes} of {total_bytes}, {eta} left", what, bytes);
    }

    /// Goes on to `what`, of which so many pieces are done.
    pub(super) fn pieces(&self, what: &'static str, done: u64, all: u64) {
        self.begin("{msg} [{bar:40}] {pos} of {len}", what, all);
        self.0.set_position(done);
    }

    fn begin(&self, template: &str, what: &'static str, length: u64) {
        let style = ProgressStyle::with_template(template);
        self.0.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        self.0.set_message(what);
        self.0.set_length(length);
        self.0.reset();
    }

    /// None.
    pub(super) fn hidden() -> Self {
        Self(ProgressBar::hidden())
    }

    /// So many bytes are done with, in all.
    pub(super) fn reach(&self, bytes: u64) {
        self.0.set_position(bytes);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
