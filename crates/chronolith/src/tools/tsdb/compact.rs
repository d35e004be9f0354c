//! Compacting a data directory that nobody serves.

use std::{path::Path, sync::Arc};

use chronolith_env::{Env, Fs};
use chronolith_tsdb::{BlockStats, DbOptions, MergeFailure, Offline, OfflineReport, Task};
use serde::Serialize;

use super::super::block_files::set_aside;
use super::super::format::{bytes, count, time};
use super::super::metered_fs::{Meter, MeteredFs};
use super::super::{Verdict, shown};

/// What was done.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    directory: String,
    before: Blocks,
    after: Blocks,
    /// Samples that were in the log and in the snapshot of the head.
    samples_in_head: u64,
    series_in_head: u64,
    /// Blocks written from the head.
    blocks_cut: u64,
    merges: u64,
    /// Frames of merged blocks that were taken over as they were.
    frames_copied: u64,
    frames_encoded: u64,
    /// Damaged blocks that were set aside, now.
    blocks_quarantined: u64,
    /// Damaged blocks that were set aside before.
    quarantined: Vec<String>,
    /// Damaged places in the log, and in the files of the head.
    log_damage_count: u64,
    /// The first damaged places, and merges that have failed for damage.
    problems: Vec<String>,
    failed_merges: u64,
    /// Merges left out because the new block would be beyond a limit, and why.
    limited_merges: u64,
    limits: Vec<String>,
    /// There is more to merge, and no room on the device.
    short_of_room: bool,
}

/// Blocks at a moment.
#[derive(Debug, Serialize)]
struct Blocks {
    blocks: u64,
    samples: u64,
    bytes: u64,
    /// First and last timestamp.
    times_ms: Option<(i64, i64)>,
}

/// Compacts `data_dir`.
///
/// # Errors
/// When the directory is in use, missing, or something else; when it cannot be read or written.
pub(super) fn compact(data_dir: &Path, options: DbOptions, env: &Env) -> anyhow::Result<Report> {
    let meter = Arc::new(Meter::new("reading the log", 0, true));
    let fs = Arc::new(MeteredFs::writable(Arc::clone(&env.fs), Arc::clone(&meter)));
    let env = Env { fs, ..env.clone() };
    let quarantined = quarantined(&*env.fs, data_dir);
    let offline = Offline::open(data_dir, options, &env)?;
    let report = offline.compact(&mut |task| match task {
        Task::Block { done, left } => meter.pieces("cutting the head into blocks", *done, done + left),
        Task::Merge { bytes, .. } => meter.begin("merging blocks", *bytes),
        _ => {}
    })?;
    Ok(Report { quarantined, ..Report::new(data_dir, report) })
}

/// The damaged blocks of all tenants that were set aside before.
fn quarantined(fs: &dyn Fs, data_dir: &Path) -> Vec<String> {
    let blocks = data_dir.join("blocks");
    let tenants = fs.list(&blocks).unwrap_or_default();
    tenants.iter().flat_map(|tenant| set_aside(fs, &blocks.join(tenant))).collect()
}

impl Blocks {
    const fn new(stats: &BlockStats) -> Self {
        Self { blocks: stats.blocks, samples: stats.samples, bytes: stats.bytes, times_ms: stats.times }
    }

    fn text(&self) -> String {
        let samples = count(self.samples, "sample");
        format!("{}, {samples}, {}", count(self.blocks, "block"), bytes(self.bytes))
    }
}

impl Report {
    fn new(data_dir: &Path, report: OfflineReport) -> Self {
        let OfflineReport { open, before, after, jobs, failures, short_of_room, .. } = report;
        let failed_merges = report.failures_for_damage;
        let limited_merges = report.failures_count.saturating_sub(failed_merges);
        let mut problems: Vec<String> = Vec::new();
        let place = |path: &Path, offset: u64, bytes: u64, reason: String| {
            format!("{}: offset {offset}: {bytes} bytes: {reason}", shown(path))
        };
        let in_log = open.damage.iter();
        problems.extend(in_log.map(|at| place(&at.path, at.offset, at.bytes, at.reason.to_string())));
        let in_head = open.snapshot_damage.iter();
        problems.extend(
            in_head.map(|at| place(&at.path, at.offset, at.bytes, format!("{}: {}", at.section, at.reason))),
        );
        let (damage, limits): (Vec<_>, Vec<_>) = failures.into_iter().partition(|failure| failure.damage);
        let reasons = |failures: Vec<MergeFailure>| failures.into_iter().map(|failure| failure.reason);
        problems.extend(reasons(damage));
        Self {
            directory: shown(data_dir),
            before: Blocks::new(&before),
            after: Blocks::new(&after),
            samples_in_head: open.samples,
            series_in_head: open.series,
            blocks_cut: jobs.blocks_cut,
            merges: jobs.compactions,
            frames_copied: jobs.frames_copied,
            frames_encoded: jobs.frames_encoded,
            blocks_quarantined: after.quarantined,
            quarantined: Vec::new(),
            log_damage_count: open.damage_count + open.snapshot_damage_count,
            problems,
            failed_merges,
            limited_merges,
            limits: reasons(limits).collect(),
            short_of_room,
        }
    }

    /// How the command ends.
    pub(super) fn verdict(&self) -> Verdict {
        if self.blocks_quarantined + self.log_damage_count + self.failed_merges > 0 {
            return Verdict::Damaged;
        }
        if self.short_of_room || self.limited_merges > 0 { Verdict::Unseen } else { Verdict::Clean }
    }

    /// Lines for people.
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        let mut line = |text: String| {
            out.push_str(&text);
            out.push('\n');
        };
        if self.blocks_cut + self.merges == 0 {
            line("nothing to do".to_owned());
        }
        if self.blocks_cut > 0 {
            let (samples, series) = (count(self.samples_in_head, "sample"), self.series_in_head);
            line(format!("cut: {samples} of {series} series into {}", count(self.blocks_cut, "block")));
        }
        if self.merges > 0 {
            let frames = self.frames_copied + self.frames_encoded;
            line(format!(
                "merged: {}; {} of {} copied as they were",
                count(self.merges, "new block"),
                self.frames_copied,
                count(frames, "frame")
            ));
        }
        line(format!("before: {}", self.before.text()));
        line(format!("after:  {}", self.after.text()));
        if let Some((min, max)) = self.after.times_ms {
            line(format!("samples from {} to {}", time(min), time(max)));
        }
        if self.blocks_quarantined > 0 {
            let blocks = count(self.blocks_quarantined, "damaged block");
            line(format!("{blocks} set aside, in the directory quarantine beside the others"));
        }
        for path in &self.quarantined {
            line(format!("set aside before, and not looked at: {path}"));
        }
        for problem in &self.problems {
            line(format!("damaged: {problem}"));
        }
        for reason in &self.limits {
            line(format!("not merged, these blocks stay as they are: {reason}"));
        }
        if self.short_of_room {
            line("not all is merged: there is too little room on the disk".to_owned());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_no_damage() {
        let blocks = || Blocks { blocks: 2, samples: 10, bytes: 100, times_ms: None };
        let mut report = Report {
            directory: "data".to_owned(),
            before: blocks(),
            after: blocks(),
            samples_in_head: 0,
            series_in_head: 0,
            blocks_cut: 0,
            merges: 0,
            frames_copied: 0,
            frames_encoded: 0,
            blocks_quarantined: 0,
            quarantined: Vec::new(),
            log_damage_count: 0,
            problems: Vec::new(),
            failed_merges: 0,
            limited_merges: 1,
            limits: vec!["too many label names".to_owned()],
            short_of_room: false,
        };
        assert_eq!(report.verdict(), Verdict::Unseen);
        let text = report.text();
        assert!(text.contains("not merged, these blocks stay as they are: too many label names\n"), "{text}");
        assert!(!text.contains("damaged"), "{text}");
        report.failed_merges = 1;
        report.problems.push("a checksum".to_owned());
        assert_eq!(report.verdict(), Verdict::Damaged);
        assert!(report.text().contains("damaged: a checksum\n"));
    }
}
