//! What of the head is lost, and what readers are told of it.
//!
//! Damage of the head's files costs nothing as long as the log has the same. What it does not have is noted here: answers
//! about its time come with a warning until a cut has passed it. From then on the gap is one of the blocks. The notes
//! outlive a restart: snapshots carry them.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
};

use chronolith_codec::{Reader, write};
use chronolith_head::{ExtraSection, Loss};
use chronolith_model::{TenantId, TimeRange, Timestamp, tenant::TENANT_ID_BYTES_MAX};
use parking_lot::Mutex;

/// The type of the section of a snapshot.
const SECTION: u8 = 65;
/// At most so many are told apart; more are joined with the last.
const LOSSES_MAX: usize = 1000;
/// Longest path, in bytes.
const PATH_BYTES_MAX: usize = 4096;

/// What of the head is lost.
#[derive(Debug, Default)]
pub(crate) struct Losses {
    known: Mutex<Vec<Loss>>,
    /// When samples are whose deletion may be undone.
    undone: Mutex<Option<TimeRange>>,
    samples: AtomicU64,
    met: AtomicU64,
}

impl Losses {
    /// Notes a loss.
    pub(crate) fn note(&self, loss: Loss) {
        tracing::error!(
            path = %loss.path.display(),
            offset = loss.offset,
            samples = loss.samples,
            series = loss.series,
            from_ms = loss.range.min,
            to_ms = loss.range.max,
            "samples of the head are lost: neither its files nor the log have them"
        );
        self.met.fetch_add(1, Ordering::Relaxed);
        self.samples.fetch_add(loss.samples.unwrap_or(0), Ordering::Relaxed);
        self.add(loss);
    }

    fn add(&self, loss: Loss) {
        let mut known = self.known.lock();
        let same = |other: &&mut Loss| other.tenant == loss.tenant && other.path == loss.path;
        let full = known.len() >= LOSSES_MAX;
        let other = match known.iter_mut().find(same) {
            None if full => known.last_mut().inspect(|_| {}),
            other => other,
        };
        let Some(other) = other else { return known.push(loss) };
        other.range =
            TimeRange::new(other.range.min.min(loss.range.min), other.range.max.max(loss.range.max));
        other.samples = other.samples.zip(loss.samples).map(|(a, b)| a + b);
        other.series = other.series.saturating_add(loss.series);
        other.offset = other.offset.min(loss.offset);
        if other.tenant != loss.tenant {
            other.tenant = None;
        }
    }

    /// What is deleted in the head, whose samples are at `times`, is not known any more.
    pub(crate) fn undone(&self, times: Option<TimeRange>) {
        *self.undone.lock() = times;
    }

    /// A cut has everything up to `boundary`: what is missing there is a gap in blocks, as if it had never come.
    pub(crate) fn passed(&self, boundary: Timestamp) {
        self.known.lock().retain(|loss| loss.range.max > boundary);
        self.undone.lock().take_if(|undone| undone.max <= boundary);
    }

    /// What to tell of answers to `tenant` about `range`.
    pub(crate) fn warnings(&self, tenant: &TenantId, range: TimeRange) -> Vec<String> {
        let known = self.known.lock();
        let needed =
            |loss: &&Loss| loss.tenant.as_ref().is_none_or(|of| of == tenant) && loss.range.overlaps(&range);
        let told = |loss: &Loss| {
            let place = if loss.path.as_os_str().is_empty() {
                "of chunks in memory".to_owned()
            } else {
                format!("of {} at byte {}", loss.path.display(), loss.offset)
            };
            match loss.samples {
                Some(samples) => {
                    format!("{samples} samples of {} series are missing, lost by damage {place}", loss.series)
                }
                None => format!("samples may be missing, lost by damage {place}"),
            }
        };
        let mut warnings: Vec<String> = known.iter().filter(needed).map(told).collect();
        if self.undone.lock().is_some_and(|undone| undone.overlaps(&range)) {
            let text = "deleted samples may be back: the file `cut`, with the latest deletions, was damaged";
            warnings.push(text.to_owned());
        }
        warnings
    }

    /// How many losses there were since the start, and how many samples, as far as that is known.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.met.load(Ordering::Relaxed), self.samples.load(Ordering::Relaxed))
    }

    /// The section of a snapshot, if there is something to carry.
    pub(crate) fn section(&self) -> Option<ExtraSection> {
        let known = self.known.lock();
        if known.is_empty() {
            return None;
        }
        let mut bytes = Vec::new();
        write::uvarint(&mut bytes, known.len() as u64);
        for loss in known.iter() {
            write::prefixed(&mut bytes, loss.tenant.as_ref().map_or("", TenantId::as_str).as_bytes());
            write::varint(&mut bytes, loss.range.min);
            write::varint(&mut bytes, loss.range.max);
            write::uvarint(&mut bytes, loss.samples.map_or(0, |samples| samples.saturating_add(1)));
            write::uvarint(&mut bytes, loss.series);
            let path = loss.path.to_string_lossy();
            write::prefixed(
                &mut bytes,
                path.get(..path.floor_char_boundary(PATH_BYTES_MAX)).unwrap_or_default().as_bytes(),
            );
            write::uvarint(&mut bytes, loss.offset);
        }
        Some(ExtraSection { section_type: SECTION, bytes })
    }

    /// Takes over what a snapshot carries.
    pub(crate) fn restore(&self, extras: &[ExtraSection]) {
        for section in extras.iter().filter(|section| section.section_type == SECTION) {
            match decode(&section.bytes) {
                Ok(losses) => losses.into_iter().for_each(|loss| self.add(loss)),
                Err(error) => tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the snapshot's list of what is lost cannot be read"
                ),
            }
        }
    }
}

fn decode(bytes: &[u8]) -> chronolith_codec::Result<Vec<Loss>> {
    let mut reader = Reader::new(bytes);
    let mut losses = Vec::new();
    for _ in 0..reader.count(LOSSES_MAX, "number of losses")? {
        // Of nobody that is known: an empty name.
        let tenant = TenantId::new(reader.text(TENANT_ID_BYTES_MAX, "tenant")?).ok();
        let range = TimeRange::new(reader.varint("start of a range")?, reader.varint("end of a range")?);
        let samples = reader.uvarint("samples")?.checked_sub(1);
        let series = reader.uvarint("series")?;
        let path = PathBuf::from(reader.text(PATH_BYTES_MAX, "path")?);
        let offset = reader.uvarint("offset")?;
        losses.push(Loss { tenant, range, samples, series, path, offset });
    }
    reader.finish()?;
    Ok(losses)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(tenant: Option<&str>, path: &str, range: (i64, i64), samples: Option<u64>) -> Loss {
        let tenant = tenant.map(|tenant| TenantId::new(tenant).expect("valid"));
        let range = TimeRange::new(range.0, range.1);
        Loss { tenant, range, samples, series: 1, path: path.into(), offset: 24 }
    }

    #[test]
    fn told_to_whom_it_concerns_until_a_cut_has_passed() {
        let losses = Losses::default();
        losses.note(loss(Some("a"), "/x", (10, 20), Some(3)));
        losses.note(loss(Some("a"), "/x", (30, 40), Some(4)));
        losses.note(loss(None, "/y", (0, 15), None));
        assert_eq!(losses.counts(), (3, 7));
        let (a, b) = (TenantId::new("a").expect("valid"), TenantId::new("b").expect("valid"));
        let texts = losses.warnings(&a, TimeRange::new(12, 14));
        assert_eq!(texts.len(), 2);
        assert!(
            texts[0].contains("7 samples of 2 series") && texts[0].contains("/x at byte 24"),
            "{texts:?}"
        );
        assert_eq!(losses.warnings(&b, TimeRange::new(12, 14)).len(), 1);
        assert!(losses.warnings(&b, TimeRange::new(16, 50)).is_empty());
        let again = Losses::default();
        again.restore(&[losses.section().expect("some")]);
        assert_eq!(
            (again.warnings(&a, TimeRange::ALL), again.counts()),
            (losses.warnings(&a, TimeRange::ALL), (0, 0))
        );
        again.passed(20);
        assert_eq!(again.warnings(&a, TimeRange::ALL).len(), 1);
        again.passed(40);
        assert!(again.section().is_none());
    }

    #[test]
    fn bounded_and_damage_of_the_section_is_survived() {
        let losses = Losses::default();
        for number in 0..LOSSES_MAX + 5 {
            losses.note(loss(Some("a"), &format!("/{number}"), (0, 1), Some(1)));
        }
        let section = losses.section().expect("some");
        assert_eq!(decode(&section.bytes).expect("whole").len(), LOSSES_MAX);
        for len in 0..section.bytes.len().min(300) {
            assert!(decode(&section.bytes[..len]).is_err(), "{len}");
        }
    }
}
