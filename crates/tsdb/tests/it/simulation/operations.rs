//! What is done to a database.

use std::{path::Path, time::Duration};

use chronolith_env::Rng as _;
use chronolith_index::CompiledMatcher;
use chronolith_model::{MatchOp, Matcher, Sample, TimeRange, stale_nan};
use chronolith_storage::{Admin as _, Queryable as _};
use chronolith_tsdb::Db;

use super::{
    audit,
    model::{Deleted, SampleOf},
    world::{Copied, Held, Sent, World},
};
use crate::fixture::{DIR, append, compiled};

/// Series that are written at a time.
const ACTIVE: u64 = 14;

impl World {
    /// One operation, the one that comes up.
    pub(super) fn operation(&mut self) {
        match self.below(1000) {
            0..500 => self.append(),
            500..720 => {
                let seconds = self.below(110);
                self.pass(Duration::from_secs(seconds));
            }
            720..735 => {
                let minutes = 5 + self.below(50);
                self.note(format!("{minutes} minutes pass"));
                self.pass(Duration::from_secs(60 * minutes));
            }
            735..830 => {
                for _ in 0..self.below(12) {
                    self.fake.scheduler.step_one(&self.rng);
                }
            }
            830..900 => self.query(),
            900..905 => self.audit("in passing"),
            905..920 => {
                let boundary = self.now() - self.below(3 * 3_600_000) as i64;
                self.note(format!("cut at {boundary}"));
                self.db().request_cut(boundary);
            }
            920..940 => self.delete(),
            940..945 => self.clean(),
            945..948 => self.copy(),
            948..963 => self.inject(),
            963..973 => self.doom(),
            973..983 => self.hold(),
            983..990 => self.look_again(),
            _ => {
                let tenant = self.below(3) as usize;
                self.first[tenant] += self.below(4);
            }
        }
    }

    /// A sample that may be sent.
    fn sample(&self, tenant: usize) -> SampleOf {
        let labels = Self::series(self.first[tenant] + self.below(ACTIVE));
        let now = self.now();
        let bits = match self.below(8) {
            0 => stale_nan().to_bits(),
            1 => 0x7ff0_0000_0000_0000 | self.rng.next_u64(),
            2 => self.rng.next_u64(),
            3 => 1.5_f64.to_bits(),
            _ => (self.below(1000) as f64).to_bits(),
        };
        let known = || self.tenants[tenant].any(self.rng.next_u64() as usize);
        match self.below(100) {
            0..76 => (labels, now - self.below(2000) as i64, bits),
            76..88 => (labels, now - self.below(80 * 60_000) as i64, bits),
            88..92 => known().unwrap_or((labels, now, bits)),
            92..97 => known().map_or((labels.clone(), now, bits), |(labels, t, _)| (labels, t, bits)),
            97 => (labels, now + self.below(20 * 60_000) as i64, bits),
            98 => (labels, now - self.below(50 * 3_600_000) as i64, bits),
            _ => (labels, (now / 7_200_000) * 7_200_000 + self.below(2) as i64, bits),
        }
    }

    fn append(&mut self) {
        let tenant = self.below(8).saturating_sub(5) as usize;
        // No more refusals are told word for word.
        let samples: Vec<_> = (0..1 + self.below(10)).map(|_| self.sample(tenant)).collect();
        let entry =
            |(labels, t, bits): &SampleOf| (labels.clone(), vec![Sample::new(*t, f64::from_bits(*bits))]);
        let given: Vec<_> = samples.iter().map(entry).collect();
        let appended = match append(self.db(), &self.tenants[tenant].id, &given) {
            Ok(appended) => appended,
            Err(error) => {
                self.note(format!("append refused: {error}"));
                assert!(!self.clean, "refused on a disk that does what it should: {error}");
                return;
            }
        };
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
        self.sent.push(Sent { tenant, op, samples: taken, ticket: appended.ticket });
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
                    range.min = range.min.max(self.now() - 4 * 3_600_000);
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
        self.tenants[tenant].delete(&deletion, self.newest, done.is_ok());
        if let Err(error) = done {
            assert!(!self.clean, "not deleted on a disk that does what it should: {error}");
            self.repeat = Some((tenant, deletion));
        }
    }

    fn clean(&mut self) {
        let cleaned = self.db().clean_tombstones();
        self.note(format!("clean: {}", cleaned.is_ok()));
        if let Err(error) = cleaned {
            assert!(!self.clean, "not cleaned on a disk that does what it should: {error}");
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
                assert!(!self.clean, "not copied on a disk that does what it should: {error}");
            }
        }
    }

    /// What is in a copy, compared with what should be if that has not changed yet.
    fn open_copy(&mut self, name: &str) -> Vec<crate::fixture::Content> {
        let path = Path::new(DIR).join("snapshots").join(name);
        let Ok((copy, _)) = Db::open(&path, self.options, self.fake.env.clone()) else {
            assert!(!self.clean, "the copy does not open");
            return Vec::new();
        };
        let mut contents = Vec::new();
        for tenant in &self.tenants {
            let Ok((content, _)) = audit::read_all(&copy, &tenant.id) else {
                assert!(!self.clean, "the copy cannot be read");
                return Vec::new();
            };
            tenant.check(&content, self.floor.max(copy.stats().head.floor), "the copy");
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
            let (now, _) = audit::read_all(&copy, &tenant.id).expect("the copy is readable");
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
        let querier = self.db().querier(&self.tenants[tenant].id, TimeRange::ALL).expect("ready");
        let Ok(seen) = audit::read(&*querier) else { return };
        self.note(format!("hold a view of {tenant}"));
        self.held = Some(Held { querier, seen });
    }

    /// A view shows what it has shown.
    fn look_again(&mut self) {
        let Some(held) = self.held.take() else { return };
        let Ok(now) = audit::read(&*held.querier) else {
            assert!(!self.clean, "a view cannot be read any more");
            return;
        };
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
