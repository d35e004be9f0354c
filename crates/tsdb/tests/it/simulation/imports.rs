//! Imports: begun, given pieces, finished, with everything else going on in between; and failing at each of their calls.

use std::collections::{BTreeMap, HashSet};

use chronolith_env::Rng as _;
use chronolith_model::{Labels, Timestamp, is_stale};
use chronolith_storage::Samples;
use chronolith_testkit::fault_fs::Fault;
use chronolith_tsdb::{ImportError, Importer};

use super::{
    model::{Imported, SampleOf},
    values::{Value, What},
    world::{STARTS, World},
};

/// What was there before counts even where an import is not shown before the next start: not yet, in rare cases.
pub(super) const YIELD: bool = false;
/// Its points.
const SITES: [&str; 6] =
    ["import.data", "import.dir", "import.ready", "import.move", "import.names", "import.done"];
/// Series that an import may be about.
const SERIES: u64 = 18;

/// An import on its way.
pub(super) struct Importing {
    tenant: usize,
    importer: Importer,
    /// What it will have stored, the first of each.
    samples: Vec<SampleOf>,
    known: HashSet<(Labels, Timestamp)>,
    /// How many samples it was given.
    given: u64,
}

impl World {
    /// Begins an import, gives it something, or ends it.
    pub(super) fn import(&mut self) {
        if self.importing.is_none() {
            self.begin_import();
        } else if self.below(2) == 0 {
            self.trouble();
            self.end_import();
            return;
        }
        if self.importing.is_some() {
            self.add_to_import();
        }
    }

    /// Something may go wrong with what comes next.
    fn trouble(&mut self) {
        let bits = self.below(8);
        match self.below(8) {
            0 => {
                let changes = self.below(1 << bits);
                self.note(format!("to end after {changes} changes"));
                self.fs.halt_after_changes(changes);
            }
            1 => {
                let site = SITES[self.below(SITES.len() as u64) as usize];
                let changes = self.below(4);
                self.note(format!("to end {changes} changes behind {site}"));
                self.fs.halt_behind(site, 1, changes);
            }
            2 => {
                let fault = if self.below(2) == 0 { Fault::Io } else { Fault::Full };
                let (nth, count) = (1 + self.below(1 << bits), 1 + self.below(3));
                self.note(format!("{fault:?} from call {nth}, {count} times"));
                self.fs.fail_any(nth, count, fault);
                self.faults_until(1 + self.below(4));
            }
            3 => {
                let site = SITES[self.below(SITES.len() as u64) as usize];
                self.note(format!("{site} fails"));
                self.fs.fail_site(site, 1, 1 + self.below(2), Fault::Io);
                self.faults_until(1 + self.below(4));
            }
            _ => {}
        }
    }

    fn begin_import(&mut self) {
        let tenant = self.below(3) as usize;
        match self.db().import(&self.tenants[tenant].id) {
            Ok(importer) => {
                self.note(format!("import into {tenant}"));
                let (samples, known) = (Vec::new(), HashSet::new());
                self.importing = Some(Importing { tenant, importer, samples, known, given: 0 });
            }
            Err(error) => {
                self.note(format!("no import: {error}"));
                assert!(self.is_faulty(), "no import on a disk that does what it should: {error}");
            }
        }
    }

    /// Samples of a series, some of them known already.
    fn piece(&mut self, tenant: usize) -> (Labels, BTreeMap<Timestamp, Value>) {
        let id = self.first[tenant] + self.below(SERIES);
        let (labels, now) = (Self::series(id), self.true_now());
        let (mut t, step) = match self.below(4) {
            0 => (now - self.below(3 * 3_600_000) as i64, 1 + self.below(300_000) as i64),
            1 => (now - self.below(60 * 3_600_000) as i64, 1 + self.below(3_600_000) as i64),
            _ => (now - self.below(12 * 3_600_000) as i64, 1 + self.below(60_000) as i64),
        };
        let mut samples = BTreeMap::new();
        for _ in 0..1 + self.below(30) {
            let value = self.value(id, t);
            samples.insert(t, value);
            t += step;
        }
        for _ in 0..self.below(3) {
            let Some((known, t, _)) = self.tenants[tenant].any(self.rng.next_u64() as usize) else { break };
            if known == labels {
                let value = self.value(id, t);
                samples.insert(t, value);
            }
        }
        (labels, samples)
    }

    fn add_to_import(&mut self) {
        let Some(mut importing) = self.importing.take() else { return };
        for _ in 0..1 + self.below(6) {
            let (labels, samples) = self.piece(importing.tenant);
            let mut columns = Samples::default();
            for (t, value) in &samples {
                match value.what {
                    What::Float(bits) => columns.push(*t, f64::from_bits(bits)),
                    What::Histogram(print) => columns.push_histogram(*t, self.book.get(print).clone()),
                }
                columns.push_start(*t, value.start);
            }
            let stale = columns.values.iter().filter(|value| is_stale(**value)).count();
            let bounds = self.bounds();
            if let Err(error) = importing.importer.append(&labels, &columns) {
                // Memory was full: nothing of it is to come.
                self.note(format!("import given up: {error}"));
                assert!(self.is_faulty(), "nothing imported on a disk that does what it should: {error}");
                return;
            }
            self.note(format!("import of {} samples of {labels}, {stale} stale", samples.len()));
            importing.given += samples.len() as u64;
            for (t, mut value) in samples {
                if !STARTS {
                    value.start = 0;
                }
                let taken = t >= bounds.floor && t <= bounds.now + bounds.future;
                if taken && importing.known.insert((labels.clone(), t)) {
                    let sample = (labels.clone(), t, value);
                    self.tenants[importing.tenant].importing(&sample);
                    importing.samples.push(sample);
                }
            }
        }
        self.importing = Some(importing);
    }

    fn end_import(&mut self) {
        let Some(Importing { tenant, importer, samples, given, .. }) = self.importing.take() else { return };
        let finished = importer.finish();
        self.note(format!("import into {tenant} ends: {finished:?}"));
        let op = self.ops;
        match finished {
            Ok(report) => {
                let all = report.samples + report.duplicates + report.too_old + report.too_new;
                // By a clock that was set back, samples are too old and too new at once.
                let both = report.too_old.min(report.too_new);
                assert!((given..=given + both).contains(&all), "{given} samples: {report:?}");
                let newest = samples.iter().map(|(_, t, _)| *t).max();
                self.newest = self.newest.max(newest.unwrap_or(i64::MIN));
                let visible = self.visible_from();
                self.tenants[tenant].imported(&samples, op, visible);
            }
            Err(error) => {
                assert!(self.is_faulty(), "not imported on a disk that does what it should: {error}");
                let complete = matches!(error, ImportError::NotShown(_));
                let newest = samples.iter().map(|(_, t, _)| *t).max();
                self.newest = self.newest.max(newest.unwrap_or(i64::MIN));
                let uncertain = matches!(error, ImportError::Uncertain(_));
                if complete || uncertain || self.fs.halted() {
                    self.tenants[tenant].perhaps_imported(Imported { samples, complete: Some(complete) });
                }
            }
        }
    }
}
