//! What was asked of a disk.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hasher as _};
use std::path::{Path, PathBuf};

use chronolith_env::Op;

use super::disk::changes;

/// So many calls are remembered for people.
const RECENT_MAX: usize = 48;

/// A call that may get a name.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// What is done.
    pub op: Op,
    /// To what.
    pub path: &'a Path,
    recent: &'a VecDeque<(Op, PathBuf, bool)>,
}

impl<'a> Call<'a> {
    /// The last call before it that changed something (0), or the one before that (1) ...; some are remembered.
    #[must_use]
    pub fn before(&self, back: usize) -> Option<(Op, &'a Path)> {
        let at = self.recent.len().checked_sub(back + 1)?;
        self.recent.get(at).map(|(op, path, _)| (*op, path.as_path()))
    }
}

/// What became of the calls of one name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SiteCounts {
    /// Calls that had an effect.
    pub done: u64,
    /// Calls that failed as planned.
    pub failed: u64,
    /// Times that the machine came to its end right before it.
    pub halted: u64,
}

#[derive(Debug, Default)]
pub(super) struct Trace {
    hasher: DefaultHasher,
    recent: VecDeque<(Op, PathBuf, bool)>,
    site: Option<fn(&Call<'_>) -> Option<&'static str>>,
    counts: BTreeMap<&'static str, SiteCounts>,
}

impl Trace {
    pub(super) fn digest(&self) -> u64 {
        self.hasher.finish()
    }

    pub(super) fn recent(&self) -> Vec<String> {
        let line = |(op, path, done): &(Op, PathBuf, bool)| {
            format!("{op} {}{}", path.display(), if *done { "" } else { ": fails" })
        };
        self.recent.iter().map(line).collect()
    }

    pub(super) fn watch(&mut self, site: fn(&Call<'_>) -> Option<&'static str>) {
        self.site = Some(site);
    }

    pub(super) const fn sites(&self) -> &BTreeMap<&'static str, SiteCounts> {
        &self.counts
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.hasher.write(bytes);
    }

    /// The name of a call that is about to be made, if it has one.
    pub(super) fn name(&self, op: Op, path: &Path) -> Option<&'static str> {
        self.site.and_then(|site| site(&Call { op, path, recent: &self.recent }))
    }

    /// How many calls of a name there were.
    pub(super) fn met(&self, site: &'static str) -> u64 {
        self.counts.get(site).map_or(0, |counts| counts.done + counts.failed)
    }

    pub(super) fn note(&mut self, (op, path): (Op, &Path), site: Option<&'static str>, done: bool) {
        self.hasher.write_u8(op as u8);
        self.hasher.write(path.as_os_str().as_encoded_bytes());
        self.hasher.write_u8(u8::from(done));
        if let Some(site) = site {
            let counts = self.counts.entry(site).or_default();
            *(if done { &mut counts.done } else { &mut counts.failed }) += 1;
        }
        if !changes(op) {
            return;
        }
        if self.recent.len() >= RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((op, path.to_path_buf(), done));
    }

    /// The last call, noted as done, was done in part only.
    pub(super) fn fell_short(&mut self, op: Op, path: &Path) {
        let site = self.recent.pop_back().and_then(|call| {
            let site = self.name(op, path);
            self.recent.push_back((call.0, call.1, false));
            site
        });
        if let Some(site) = site {
            let counts = self.counts.entry(site).or_default();
            counts.done = counts.done.saturating_sub(1);
            counts.failed += 1;
        }
    }

    pub(super) fn halted(&mut self, op: Op, path: &Path) {
        self.hasher.write_u8(u8::MAX);
        if let Some(name) = self.name(op, path) {
            self.counts.entry(name).or_default().halted += 1;
        }
    }
}
