//! Repair: what an earlier process may have left in the system's memory only is written again.
//!
//! A process that was killed leaves records of which nobody knows whether they are on the device: their sync had not
//! returned, or it had failed, after which readers still see them and further syncs succeed without saving them. Only
//! bytes that are written anew, to another file, are saved by a sync that succeeds. So all records behind the last mark
//! of the last segment are copied to a new segment, and nothing is acknowledged before that is durable. A mark stands
//! before each batch whose predecessors are synced: hardly ever is more than one batch copied.

use std::io;
use std::path::{Path, PathBuf};

use chronolith_codec::crc32_continue;
use chronolith_env::{Env, File, Op, OpenMode, Result};

use crate::open::Found;
use crate::record::{Header, Seal};
use crate::scan::{Item, Scanner};
use crate::segment::{self, FORMAT_VERSION, SEGMENT_HEADER_BYTES, SegmentHeader};

/// The new segment, until it is whole and durable.
const REPAIR_NAME: &str = "repair.tmp";

/// Bytes written at once.
const WRITE_BYTES: usize = 1024 * 1024;

/// What a look at all records of a segment has told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Survey {
    /// There are records, or places that cannot be read and may hold some.
    pub(crate) records: bool,
    /// Where bytes begin that no record follows.
    pub(crate) torn: Option<u64>,
    /// Where the last mark begins: what is before it was durable when it was written.
    pub(crate) mark: Option<u64>,
    /// Where it ends.
    sure: u64,
    /// Nothing behind that but intact records, the torn end aside.
    pub(crate) clean: bool,
    /// What the records behind it are.
    unsure: Digest,
}

/// Tells whether records are those that were there before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Digest {
    records: u64,
    crc: u32,
}

/// Records to be written again.
#[derive(Debug)]
pub(crate) struct Repair {
    from: PathBuf,
    from_number: u32,
    from_header: Option<SegmentHeader>,
    sure: u64,
    end: u64,
    unsure: Digest,
    /// The old segment is void when the new one is there.
    pub(crate) replaces: bool,
    /// Where the old segment ends then.
    pub(crate) from_end: u64,
    /// Of the new segment, but for the salt.
    header: SegmentHeader,
}

/// The new segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mended {
    pub(crate) header: SegmentHeader,
    pub(crate) bytes: u64,
}

impl Digest {
    fn add(&mut self, header: &Header) {
        self.records += 1;
        // The payload's checksum has been compared with the payload.
        for number in [
            u64::from(header.type_code) << 32 | u64::from(header.flags) << 16 | u64::from(header.shard),
            u64::from(header.payload_len) << 32 | u64::from(header.payload_crc),
            header.seq,
        ] {
            self.crc = crc32_continue(self.crc, &number.to_le_bytes());
        }
    }
}

impl Survey {
    /// Reads all of a segment up to `found.end`.
    pub(crate) fn of(file: &dyn File, found: &Found) -> Self {
        let mut scanner = Scanner::new(file, found.number, found.header.as_ref(), found.end);
        let mut survey = Self {
            records: false,
            torn: None,
            mark: None,
            sure: (SEGMENT_HEADER_BYTES as u64).min(found.end),
            clean: true,
            unsure: Digest::default(),
        };
        let mut items = Vec::new();
        while scanner.next_window(&mut items) {
            items.iter().for_each(|item| survey.add(item));
        }
        survey
    }

    fn add(&mut self, item: &Item) {
        match *item {
            Item::Record { offset, header } => {
                self.records = true;
                if header.is_mark() {
                    self.mark = Some(offset);
                    self.sure = offset + header.record_bytes() as u64;
                    (self.clean, self.unsure) = (true, Digest::default());
                } else {
                    self.unsure.add(&header);
                }
            }
            // What the device cannot read now, it may read another time.
            Item::Damage { reason: crate::DamageReason::Unreadable, .. } => {
                (self.records, self.clean) = (true, false);
            }
            Item::Damage { offset, tail: true, .. } => self.torn = Some(offset),
            Item::Damage { .. } => self.clean = false,
        }
    }

    /// Something is to be written again.
    pub(crate) const fn is_unsure(&self) -> bool {
        self.unsure.records > 0
    }
}

impl Repair {
    /// What is to be done about `from`, to be written as segment `number`; `last`: the last segment, often the same.
    pub(crate) fn plan(from: &Found, survey: &Survey, last: &Found, number: u32) -> Self {
        // Damage stays where it is, and is reported. Its neighbours are then there twice, and count once.
        let hides = survey.clean && from.number == last.number;
        let whole = hides && survey.sure <= SEGMENT_HEADER_BYTES as u64;
        let (previous, previous_end, continues, replaces) = match from.header.filter(|_| whole) {
            Some(header) => (header.previous, header.previous_end, header.continues, true),
            None => (last.number, if hides { survey.sure } else { last.end }, true, false),
        };
        Self {
            from: from.path.clone(),
            from_number: from.number,
            from_header: from.header,
            sure: survey.sure,
            end: from.end,
            unsure: survey.unsure,
            replaces,
            from_end: if hides { survey.sure } else { from.end },
            header: SegmentHeader {
                version: FORMAT_VERSION,
                number,
                continues,
                previous,
                previous_end,
                salt: 0,
            },
        }
    }

    /// The number of the old segment.
    pub(crate) const fn old_number(&self) -> u32 {
        self.from_number
    }

    /// Writes the new segment. It gets its name when all of it is durable: until then a crash leaves the old one as it
    /// was. May be called again after a failure.
    ///
    /// # Errors
    /// Those of the file system, and when the old segment has changed since it was surveyed.
    pub(crate) fn run(&self, env: &Env, dir: &Path) -> Result<Mended> {
        let temporary = dir.join(REPAIR_NAME);
        // What an attempt has left is not written again.
        match env.fs.remove_file(&temporary) {
            Err(e) if !e.is_not_found() => return Err(e),
            _ => {}
        }
        let header = SegmentHeader { salt: env.rng.next_u64(), ..self.header };
        let seal = Seal::new(header.number, header.salt);
        let mut file = env.fs.open(&temporary, OpenMode::CreateNew)?;
        let (bytes, last_seq) = self.copy(env, &header, seal, file.as_mut())?;
        file.sync_data()?;
        let path = segment::path(dir, header.number);
        env.fs.rename(&temporary, &path)?;
        env.fs.sync_dir(dir)?;
        // So that a start after this one need not do the same. Not synced, so not part of what is valid.
        let mut mark = Vec::new();
        Header::mark(last_seq).encode(seal, &mut mark);
        let _ = file.write_all(&mark);
        if self.replaces {
            // If it stays, the new header says that it is void.
            let _ = env.fs.remove_file(&self.from);
        }
        Ok(Mended { header, bytes })
    }

    /// Copies the records under the new seal; returns the length and the last record's number.
    fn copy(&self, env: &Env, header: &SegmentHeader, seal: Seal, file: &mut dyn File) -> Result<(u64, u64)> {
        let old = env.fs.open(&self.from, OpenMode::Read)?;
        let mut scanner = Scanner::starting_at(
            old.as_ref(),
            self.from_number,
            self.from_header.as_ref(),
            self.sure,
            self.end,
        );
        let mut items = Vec::new();
        let mut out = header.encode();
        let (mut bytes, mut last_seq) = (0, 0);
        let mut copied = Digest::default();
        while scanner.next_window(&mut items) {
            for item in &items {
                let Item::Record { offset, header } = item else { continue };
                copied.add(header);
                last_seq = header.seq;
                header.encode(seal, &mut out);
                out.extend_from_slice(scanner.payload(*offset, header));
                if out.len() >= WRITE_BYTES {
                    file.write_all(&out)?;
                    bytes += out.len() as u64;
                    out.clear();
                }
            }
        }
        if copied != self.unsure {
            // The system has dropped from its memory what was never on the device, but a replay may have shown it.
            let lost = format!(
                "{} records behind byte {} could be read once and cannot be read again: start the program anew",
                self.unsure.records, self.sure
            );
            return Err(chronolith_env::Error::new(Op::Read, &self.from, io::Error::other(lost)));
        }
        file.write_all(&out)?;
        Ok((bytes + out.len() as u64, last_seq))
    }
}
