//! What is done to a database.

use std::{collections::BTreeMap, path::Path, time::Duration};

use chronolith_env::Rng as _;
use chronolith_index::CompiledMatcher;
use chronolith_model::{HistogramSample, Labels, MatchOp, Matcher, Sample, TimeRange};
use chronolith_storage::{
    Admin as _, AppendedBatch, Appender as _, LabelSource, Queryable as _, RejectReason, SeriesEntry,
    StorageError, WriteBatch,
};
use chronolith_tsdb::Db;

use super::{
    audit,
    model::{Deleted, SampleOf},
    values::{Content, Kind, Value, What},
    world::{Copied, Held, STARTS, Sent, World},
};
use crate::fixture::{DIR, compiled};

/// Series that are written at a time.
const ACTIVE: u64 = 14;

/// The labels of the one series of a batch.
pub(super) struct One(pub(super) Labels);

impl LabelSource for One {
    fn labels(&self, _: usize) -> Result<Labels, RejectReason> {
        Ok(self.0.clone())
    }
}

struct Given<'a>(&'a [SampleOf]);

impl LabelSource for Given<'_> {
    fn labels(&self, series: usize) -> Result<Labels, RejectReason> {
        Ok(self.0[series].0.clone())
    }
}

impl World {
    /// One operation, the one that comes up.
    pub(super) fn operation(&mut self) {
        match self.below(1000) {
            0..480 => self.append(),
            480..696 => {
                let seconds = self.below(110);
                self.pass(Duration::from_secs(seconds));
            }
            696..711 => {
                let minutes = 5 + self.below(50);
                self.note(format!("{minutes} minutes pass"));
                self.pass(Duration::from_secs(60 * minutes));
            }
            711..800 => {
                for _ in 0..self.below(12) {
                    self.fake.scheduler.step_one(&self.rng);
                }
            }
            800..865 => self.query(),
            865..870 => self.audit("in passing"),
            870..884 => {
                let boundary = self.true_now() - self.below(3 * 3_600_000) as i64;
                self.note(format!("cut at {boundary}"));
                self.cut_asked = self.cut_asked.max(boundary);
                self.db().request_cut(boundary);
            }
            884..903 => self.delete(),
            903..908 => self.clean(),
            908..911 => self.copy(),
            911..926 => self.inject(),
            926..936 => self.doom(),
            936..945 => self.hold(),
            945..952 => self.look_again(),
            952..959 => self.describe(),
            959..965 => self.turn_clock(),
            965..991 => self.import(),
            _ => {
                let tenant = self.below(3) as usize;
                self.first[tenant] += self.below(4);
            }
        }
    }

    /// What the series with this number may say at a time.
    pub(super) fn value(&mut self, id: u64, t: i64) -> Value {
        let kind = match Kind::of(id) {
            Kind::Mixed => {
                [Kind::Floats, Kind::Integers, Kind::FloatCounts, Kind::Custom][self.below(4) as usize]
            }
            // Whoever changes to histograms has sent floats before.
            kind if self.below(40) > 0 => kind,
            _ => Kind::Floats,
        };
        let what = match (kind, self.below(8)) {
            (_, 0) => What::STALE,
            (Kind::Floats, 1) => What::Float(0x7ff0_0000_0000_0000 | self.rng.next_u64()),
            (Kind::Floats, 2) => What::Float(self.rng.next_u64()),
            (Kind::Floats, 3) => What::Float(1.5_f64.to_bits()),
            (Kind::Floats, _) => What::Float((self.below(1000) as f64).to_bits()),
            (kind, n) => {
                // It grows with the time, and begins anew every few hours, but for some.
                let counted = t.div_euclid(20_000).cast_unsigned() % 700 + 1;
                let counted = if n == 1 { 1 + self.below(2000) } else { counted };
                self.book.make(kind, id, counted)
            }
        };
        // Counters and histograms say when they began.
        let start = match (id % 2, self.below(20)) {
            (0, 0) => t - 1 - self.below(5_000_000) as i64,
            (0, 1) | (1, _) => 0,
            _ => t.div_euclid(2_500_000) * 2_500_000 + 1,
        };
        Value { what, start }
    }

    /// A sample that may be sent.
    fn sample(&mut self, tenant: usize) -> SampleOf {
        let id = self.first[tenant] + self.below(ACTIVE);
        let now = self.true_now();
        let known = |world: &Self| world.tenants[tenant].any(world.rng.next_u64() as usize);
        let t = match self.below(100) {
            0..76 => now - self.below(2000) as i64,
            76..88 => now - self.below(80 * 60_000) as i64,
            88..92 => return known(self).unwrap_or((Self::series(id), now, Value::float(0))),
            92..97 => {
                let Some((labels, t, _)) = known(self) else {
                    return (Self::series(id), now, Value::float(0));
                };
                let value = self.value(Self::id_of(&labels), t);
                return (labels, t, value);
            }
            97 => now + self.below(20 * 60_000) as i64,
            98 => now - self.below(50 * 3_600_000) as i64,
            _ => (now / 7_200_000) * 7_200_000 + self.below(2) as i64,
        };
        let value = self.value(id, t);
        (Self::series(id), t, value)
    }

    /// Sends samples, an entry each.
    fn send(&self, tenant: usize, given: &[SampleOf]) -> Result<AppendedBatch, StorageError> {
        let hasher = self.db().key_hasher();
        let (mut samples, mut histograms, mut series) = (Vec::new(), Vec::new(), Vec::new());
        for (labels, t, value) in given {
            let before = (samples.len() as u32, histograms.len() as u32);
            match value.what {
                What::Float(bits) => samples.push(Sample::new(*t, f64::from_bits(bits))),
                What::Histogram(print) => {
                    histograms
                        .push(HistogramSample { timestamp: *t, histogram: self.book.get(print).clone() });
                }
            }
            series.push(SeriesEntry {
                key: hasher.key(labels.to_string().as_bytes()),
                samples: before.0..samples.len() as u32,
                histograms: before.1..histograms.len() as u32,
                start_timestamp: value.start,
            });
        }
        let batch =
            WriteBatch { series: &series, samples: &samples, histograms: &histograms, labels: &Given(given) };
        self.db().append(&self.tenants[tenant].id, &batch)
    }

    fn append(&mut self) {
        let tenant = self.below(8).saturating_sub(5) as usize;
        // No more refusals are told word for word.
        let samples: Vec<_> = (0..1 + self.below(10)).map(|_| self.sample(tenant)).collect();
        let appended = match self.send(tenant, &samples) {
            Ok(appended) => appended,
            Err(error) => {
                self.note(format!("append refused: {error}"));
                assert!(self.is_faulty(), "refused on a disk that does what it should: {error}");
                return;
            }
        };
        let mut samples = samples;
        if !STARTS {
            samples.iter_mut().for_each(|(_, _, value)| value.start = 0);
        }
        let outcome = appended.outcome;
        assert_eq!(outcome.stored + outcome.duplicates + outcome.rejected, samples.len() as u64);
        let mut refused = vec![false; samples.len()];
        for rejection in &outcome.rejections {
            refused[rejection.series] = true;
        }
        let mut refused = refused.into_iter();
        let mut taken = samples.clone();
        taken.retain(|_| refused.next() != Some(true));
        assert_eq!(taken.len() as u64, outcome.stored + outcome.duplicates);
        let op = self.ops;
        for sample in &taken {
            self.newest = self.newest.max(sample.1);
            self.tenants[tenant].taken(sample, op);
        }
        let bounds = self.bounds();
        for rejection in &outcome.rejections {
            self.tenants[tenant].check_refusal(&samples[rejection.series], &rejection.reason, bounds);
        }
        let text =
            taken.iter().map(|(labels, t, _)| format!(" {}@{t}", labels.get("id").unwrap_or_default()));
        let text: String = text.collect();
        self.note(format!("append {tenant}:{text}, {} stored", outcome.stored));
        if outcome.stored > 0 && outcome.stored == taken.len() as u64 && self.below(5) == 0 {
            let chosen = taken[self.below(taken.len() as u64) as usize].clone();
            self.exemplify(tenant, &chosen);
        }
        self.sent.push(Sent { tenant, op, samples: taken, ticket: appended.ticket });
    }

    /// That writes are taken again, and become durable.
    pub(super) fn check_recovered(&mut self) {
        self.pass(self.options.maintenance_interval + Duration::from_secs(120));
        let (labels, t) = (Self::series(0), self.true_now().max(self.newest + 1));
        let sample = (labels, t, Value::float(1.5_f64.to_bits()));
        if t > self.now() + self.bounds().future || t < self.visible_from() {
            return;
        }
        let appended = self.send(0, std::slice::from_ref(&sample));
        let appended =
            appended.unwrap_or_else(|error| panic!("there is room again, and no write is taken: {error}"));
        self.note(format!("append 0: {sample:?}: {:?}", appended.outcome));
        let op = self.ops;
        if appended.outcome.rejected > 0 {
            return;
        }
        self.newest = self.newest.max(t);
        self.tenants[0].taken(&sample, op);
        // Whoever asks waits, and is served.
        let _ = appended.ticket.is_done();
        self.pass(Duration::from_secs(30));
        assert!(appended.ticket.is_done(), "there is room again, and nothing becomes durable");
        appended.ticket.wait().expect("there is room again");
        self.tenants[0].acknowledged(&[sample], op);
    }

    pub(super) fn matchers(&self, tenant: usize) -> Vec<CompiledMatcher> {
        let id = self.first[tenant] + self.below(ACTIVE);
        compiled(&match self.below(6) {
            0 => vec![Matcher::equal("__name__", format!("m{}", id % 4))],
            1 => vec![Matcher::equal("id", id.to_string())],
            2 => vec![Matcher::new("zone", MatchOp::Regex, "z[01]")],
            3 => vec![
                Matcher::new("__name__", MatchOp::Regex, "m[12]"),
                Matcher::new("zone", MatchOp::NotEqual, ""),
            ],
            4 => vec![Matcher::equal("zone", ""), Matcher::new("id", MatchOp::NotRegex, ".*3")],
            _ => vec![Matcher::new("__name__", MatchOp::Regex, ".+")],
        })
    }

    fn delete(&mut self) {
        let (tenant, deletion) = match self.repeat.take() {
            Some(repeated) => repeated,
            None => {
                let tenant = self.below(3) as usize;
                let mut range = self.ranges();
                if self.below(3) > 0 {
                    range.min = range.min.max(self.true_now() - 4 * 3_600_000);
                }
                range.max = range.max.max(range.min);
                (tenant, Deleted { matchers: self.matchers(tenant), range })
            }
        };
        self.held = None;
        let id = self.tenants[tenant].id.clone();
        let done = self.db().delete_series(&id, std::slice::from_ref(&deletion.matchers), deletion.range);
        let matchers: Vec<_> =
            deletion.matchers.iter().map(|matcher| format!("{:?}", matcher.matcher())).collect();
        self.note(format!("delete {tenant}: {matchers:?} {:?}: {done:?}", deletion.range));
        let visible = self.visible_from();
        self.tenants[tenant].delete(&deletion, visible, self.newest, done.is_ok());
        if let Err(error) = done {
            assert!(self.is_faulty(), "not deleted on a disk that does what it should: {error}");
            self.repeat = Some((tenant, deletion));
        }
    }

    fn clean(&mut self) {
        let cleaned = self.db().clean_tombstones();
        self.note(format!("clean: {}", cleaned.is_ok()));
        if let Err(error) = cleaned {
            assert!(self.is_faulty(), "not cleaned on a disk that does what it should: {error}");
        }
    }

    fn copy(&mut self) {
        match self.db().snapshot(false) {
            Ok(name) => {
                self.note(format!("copy {name}"));
                let contents = self.open_copy(&name);
                self.copied = Some(Copied { name, contents });
            }
            Err(error) => {
                self.note(format!("no copy: {error}"));
                assert!(self.is_faulty(), "not copied on a disk that does what it should: {error}");
            }
        }
    }

    /// What is in a copy, compared with what should be if that has not changed yet.
    fn open_copy(&mut self, name: &str) -> Vec<Content> {
        let path = Path::new(DIR).join("snapshots").join(name);
        let Ok((copy, _)) = Db::open(&path, self.options, self.fake.env.clone()) else {
            assert!(self.is_faulty(), "the copy does not open");
            return Vec::new();
        };
        let mut contents = Vec::new();
        for tenant in &self.tenants {
            let Ok((content, _)) = audit::read_all(&copy, &tenant.id, true) else {
                assert!(self.is_faulty(), "the copy cannot be read");
                return Vec::new();
            };
            let from = self.visible_from().max(copy.stats().head.floor);
            tenant.check_some(&content, &[], TimeRange::new(from, i64::MAX), (true, "the copy"));
            contents.push(content);
        }
        contents
    }

    /// What was copied before the last crash is there.
    pub(super) fn check_copy(&mut self) {
        let Some(copied) = self.copied.take().filter(|copied| !copied.contents.is_empty()) else { return };
        let path = Path::new(DIR).join("snapshots").join(&copied.name);
        let (copy, _) = Db::open(&path, self.options, self.fake.env.clone()).expect("the copy opens");
        let floor = self.floor.max(copy.stats().head.floor);
        for (tenant, before) in self.tenants.iter().zip(&copied.contents) {
            let (now, _) = audit::read_all(&copy, &tenant.id, true).expect("the copy is readable");
            for (labels, samples) in before {
                for (t, bits) in samples.range(floor..) {
                    let found = now.get(labels).and_then(|samples| samples.get(t));
                    assert_eq!(found, Some(bits), "lost in the copy: {labels} {t}");
                }
            }
        }
    }

    fn hold(&mut self) {
        let tenant = self.below(3) as usize;
        let id = &self.tenants[tenant].id;
        let from = self.visible_from();
        let moment = self.db().moment(id, TimeRange::new(from, i64::MAX));
        let querier = self.db().querier(id, TimeRange::ALL).expect("ready");
        let Ok(seen) = audit::read(&*querier, true) else { return };
        let moment = moment.filter(|_| querier.warnings().is_empty());
        self.note(format!("hold a view of {tenant}"));
        self.held = Some(Held { tenant, moment: (moment, from), querier, seen });
    }

    /// What was kept of a view is true as far as the database says so.
    fn look_at_what_was_kept(&self, held: &Held) {
        let id = &self.tenants[held.tenant].id;
        let (Some(moment), from) = held.moment else { return };
        let querier = self.db().querier(id, TimeRange::ALL).expect("ready");
        let from = from.max(self.visible_from());
        let until = self.db().changed_since(id, moment);
        let Ok(now) = audit::read(&*querier, true) else { return };
        if until <= from || !querier.warnings().is_empty() {
            return;
        }
        let kept = |content: &Content| -> Content {
            let of = content.iter().map(|(labels, of)| {
                (
                    labels.clone(),
                    of.range(from..until).map(|(t, value)| (*t, *value)).collect::<BTreeMap<_, _>>(),
                )
            });
            of.filter(|(_, of)| !of.is_empty()).collect()
        };
        assert_eq!(kept(&held.seen), kept(&now), "{from} to {until} has changed, and nobody says so");
    }

    /// A view shows what it has shown.
    fn look_again(&mut self) {
        let Some(held) = self.held.take() else { return };
        self.look_at_what_was_kept(&held);
        let Ok(now) = audit::read(&*held.querier, true) else {
            assert!(self.is_faulty(), "a view cannot be read any more");
            return;
        };
        if !held.querier.warnings().is_empty() {
            assert!(self.is_faulty(), "a warning on a disk that does what it should");
            return;
        }
        let floor = self.db().stats().head.floor;
        self.note("look at a view again".to_owned());
        for (labels, samples) in &held.seen {
            for (t, bits) in samples.range(floor..) {
                let found = now.get(labels).and_then(|samples| samples.get(t));
                assert_eq!(found, Some(bits), "a view does not show any more: {labels} {t}");
            }
        }
    }
}
