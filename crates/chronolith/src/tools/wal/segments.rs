//! The segments of a log, and what of each counts.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use chronolith_env::Fs;
use chronolith_wal::inspect::{self, Segment, SegmentSummary};
use chronolith_wal::{DamageReason, Error, SEGMENT_HEADER_BYTES};

use super::report::Place;

/// A segment as its header and those of its neighbours tell.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    /// `None` if it cannot be opened.
    pub(super) summary: Option<SegmentSummary>,
    /// Where the part that counts ends: what is behind it was written again in a later segment.
    pub(super) end: u64,
    /// A failed attempt at writing: nothing in it counts.
    pub(super) void: bool,
    /// The last one: it may end with a write that was cut short, or is going on.
    pub(super) last: bool,
}

impl Found {
    pub(super) fn new(path: PathBuf, summary: Option<SegmentSummary>) -> Self {
        let end = summary.map_or(0, |summary| summary.bytes);
        Self { path, summary, end, void: false, last: false }
    }
}

/// The segments of a log.
#[derive(Debug, Default)]
pub(super) struct Segments {
    pub(super) found: Vec<Found>,
    /// Segments that are missing, or cannot be opened, or whose header is damaged.
    pub(super) damage: Vec<Place>,
}

/// Finds the segments in `dir`, and follows their links.
///
/// # Errors
/// When the directory cannot be listed, or when a segment has another format.
pub(super) fn find(fs: &dyn Fs, dir: &Path) -> anyhow::Result<Segments> {
    let mut segments = Segments::default();
    for path in inspect::segments(fs, dir)? {
        match Segment::open(fs, &path) {
            Ok(segment) => {
                let summary = segment.summary();
                segments.found.push(Found::new(path, Some(summary)));
            }
            // A running server has removed it since it was listed.
            Err(Error::Fs(error)) if error.is_not_found() => {}
            Err(Error::Fs(error)) => {
                segments.damage.push(Place::new(&path, 0, 0, DamageReason::Unreadable).with_error(&error));
                segments.found.push(Found::new(path, None));
            }
            Err(error) => return Err(error).context("the log cannot be read"),
        }
    }
    segments.link(dir);
    Ok(segments)
}

impl Segments {
    /// How many bytes there are to read.
    pub(super) fn bytes(&self) -> u64 {
        self.found.iter().map(|found| found.end).sum()
    }

    /// Which segments are void, where each ends and which are missing, as the rules of docs/format/wal.md say.
    pub(super) fn link(&mut self, dir: &Path) {
        // Indexes of those that are not void, so far.
        let mut linked: Vec<usize> = Vec::with_capacity(self.found.len());
        for index in 0..self.found.len() {
            let summary = self.found[index].summary.filter(|summary| summary.header_intact);
            if let Some(SegmentSummary { previous, previous_end, .. }) = summary.filter(|s| s.previous > 0) {
                while let Some(last) = linked.pop_if(|last| self.number(*last) > previous) {
                    self.found[last].void = true;
                }
                match linked.last() {
                    Some(&last) if self.number(last) == previous => {
                        self.found[last].end = self.found[last].end.min(previous_end);
                    }
                    // The oldest segments are dropped from the front.
                    None => {}
                    Some(_) => {
                        let missing = dir.join(format!("{previous:08}.wal"));
                        self.damage.push(Place::new(&missing, 0, 0, DamageReason::MissingSegment));
                    }
                }
            }
            linked.push(index);
        }
        // Of a segment that has just been begun not even the header may be whole. What is before it is then the last.
        let mut last = true;
        for index in linked.into_iter().rev() {
            let found = &mut self.found[index];
            found.last = last;
            let Some(summary) = found.summary else { continue };
            let begun = last && !summary.header_intact && summary.bytes <= SEGMENT_HEADER_BYTES as u64;
            last &= begun;
            if !summary.header_intact && !begun {
                let bytes = summary.bytes.min(SEGMENT_HEADER_BYTES as u64);
                self.damage.push(Place::new(&found.path, 0, bytes, DamageReason::SegmentHeader));
            }
        }
    }

    /// The number of a segment; that of one which cannot be opened stands in its name alone.
    fn number(&self, index: usize) -> u32 {
        let found = &self.found[index];
        let name = || found.path.file_stem()?.to_str()?.parse().ok();
        found.summary.map(|summary| summary.number).or_else(name).unwrap_or(0)
    }
}
