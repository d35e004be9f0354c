//! Writing a snapshot, step by step.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chronolith_codec::crc32;
use chronolith_env::{Env, File, OpenMode};

use super::format::{
    self, FLAG_ZSTD, FORMAT_VERSION, HEADER_BYTES, Header, NO_SHARD, SECTION_BYTES_MAX, Section,
};
use super::more::{self, More};
use super::piece::{Copies, PieceWriter};
use super::side::{StartsWriter, encode_exemplars};
use super::{
    EXTRA_SECTIONS_MAX, EXTRA_TYPE_MAX, EXTRA_TYPE_MIN, ExtraSection, HeadState, ShardSummary, SnapshotError,
    SnapshotReport, TEMPORARY, numbers, path,
};
use crate::{
    chunk_file::ChunkFiles, closed::ClosedChunk, head::Head, options::SHARDS, shard::Ref, tenant::Tenant,
};

/// Series copied under one hold of a shard's lock ...
const SERIES_AT_ONCE_MAX: usize = 256;
/// ... and chunks, which are shared, not copied ...
const CHUNKS_AT_ONCE_MAX: usize = 4096;
/// ... and bytes of chunks of histograms, which may be large ...
const HISTOGRAM_BYTES_AT_ONCE_MAX: usize = 4 << 20;
/// ... and free slots passed over.
const SLOTS_AT_ONCE_MAX: u32 = 64 * 1024;

/// A section is written when it has so many bytes.
const SECTION_BYTES: usize = 1 << 20;

/// The fastest level: names and numbers shrink to a third, chunks hardly.
const ZSTD_LEVEL: i32 = 1;

/// A snapshot that is being written. Dropping it before it is done leaves everything as it was.
pub struct SnapshotWriter {
    env: Env,
    dir: PathBuf,
    chunk_files: Arc<ChunkFiles>,
    /// `None` once the snapshot is done or given up.
    file: Option<Box<dyn File>>,
    number: u32,
    extras: Vec<ExtraSection>,
    offset: u64,
    directory: Vec<Section>,
    /// The shard being written, and the slot to go on at.
    shard: usize,
    slot: u32,
    report: SnapshotReport,
    copies: Copies,
    piece: PieceWriter,
    starts: StartsWriter,
    /// Those whose exemplars are to be written; `None` before the last shard.
    tenants: Option<Vec<u32>>,
    tenant: Option<Arc<Tenant>>,
    raw: Vec<u8>,
    out: Vec<u8>,
    /// `None` if the library refuses: then nothing is packed.
    compressor: Option<zstd::bulk::Compressor<'static>>,
}

impl fmt::Debug for SnapshotWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotWriter").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            let _ = self.env.fs.remove_file(&self.dir.join(TEMPORARY));
        }
    }
}

impl SnapshotWriter {
    pub(super) fn begin(
        env: &Env,
        dir: &Path,
        chunk_files: Arc<ChunkFiles>,
        extras: Vec<ExtraSection>,
    ) -> Result<Self, SnapshotError> {
        check(&extras)?;
        let exhausted = || SnapshotError::NumbersExhausted { dir: dir.to_path_buf() };
        let number =
            numbers(env, dir)?.last().map_or(Some(1), |last| last.checked_add(1)).ok_or_else(exhausted)?;
        let temporary = dir.join(TEMPORARY);
        // What an attempt has left is not written again: a sync proves nothing after one that failed.
        match env.fs.remove_file(&temporary) {
            Err(e) if !e.is_not_found() => return Err(e.into()),
            _ => {}
        }
        let file = env.fs.open(&temporary, OpenMode::CreateNew)?;
        let mut writer = Self {
            env: env.clone(),
            dir: dir.to_path_buf(),
            chunk_files,
            file: Some(file),
            number,
            extras,
            offset: HEADER_BYTES,
            directory: Vec::new(),
            shard: 0,
            slot: 0,
            report: SnapshotReport { number, ..SnapshotReport::default() },
            copies: Copies::default(),
            piece: PieceWriter::default(),
            starts: StartsWriter::default(),
            tenants: None,
            tenant: None,
            raw: Vec::new(),
            out: Vec::new(),
            compressor: zstd::bulk::Compressor::new(ZSTD_LEVEL).ok(),
        };
        Header { version: FORMAT_VERSION, number, created_ms: env.clock.now_ms() }.encode(&mut writer.out);
        writer.flush()?;
        Ok(writer)
    }

    /// Whether all shards are written, and what was handed over comes next: until then there may be something else of it.
    #[must_use]
    pub fn is_at_extras(&self) -> bool {
        self.shard >= SHARDS && self.tenants.as_ref().is_none_or(Vec::is_empty)
    }

    /// Replaces what was handed over. What is known when [`SnapshotWriter::is_at_extras`] says so is not older than what the
    /// snapshot has of the log.
    ///
    /// # Errors
    /// As [`Snapshots::begin`](super::Snapshots::begin).
    pub fn set_extras(&mut self, extras: Vec<ExtraSection>) -> Result<(), SnapshotError> {
        check(&extras)?;
        self.extras = extras;
        Ok(())
    }

    /// Writes the next section or two, about a megabyte. `Some` when the snapshot is done: durable, and the older ones
    /// removed; no further step is to be made then, nor after an error.
    ///
    /// # Errors
    /// When the file system refuses. The snapshot is given up, and what was there before is as it was.
    pub fn step(&mut self, head: &Head) -> Result<Option<SnapshotReport>, SnapshotError> {
        if self.shard < SHARDS {
            self.series(head)?;
            return Ok(None);
        }
        let tenants = self.tenants.get_or_insert_with(|| head.exemplars.tenants());
        if let Some(tenant) = tenants.pop() {
            self.exemplars(head, tenant)?;
            return Ok(None);
        }
        self.end(head)?;
        Ok(Some(self.report.clone()))
    }

    /// Copies series of the current shard until there is a section of them, or no more.
    fn series(&mut self, head: &Head) -> Result<(), SnapshotError> {
        let mut next_slot = u32::MAX;
        let begun = self.directory.len();
        while self.directory.len() == begun && self.slot < next_slot {
            next_slot = self.hold(head);
            self.add_copies(head)?;
        }
        if self.slot >= next_slot {
            self.section_of_series()?;
            self.section_of_starts()?;
        }
        if self.slot >= next_slot {
            let sequence = self.report.sequences.get(self.shard).copied().unwrap_or(0);
            self.raw.clear();
            ShardSummary { sequence, next_slot }.encode(&mut self.raw);
            self.section(format::SHARD, self.shard as u16, 0)?;
            (self.shard, self.slot) = (self.shard + 1, 0);
        }
        self.flush()
    }

    /// Copies some series under the lock; returns the first slot that was never given out.
    fn hold(&mut self, head: &Head) -> u32 {
        self.copies.clear();
        let Some(shard) = head.shards.get(self.shard) else { return 0 };
        let state = shard.lock();
        let begin = self.env.clock.monotonic();
        if self.slot == 0
            && let Some(sequence) = self.report.sequences.get_mut(self.shard)
        {
            // Of the first copy: later ones have more.
            *sequence = state.log_sequence();
        }
        let next = state.slab.next();
        let until = next.min(self.slot.saturating_add(SLOTS_AT_ONCE_MAX));
        while self.slot < until
            && self.copies.series.len() < SERIES_AT_ONCE_MAX
            && self.copies.chunks.len() < CHUNKS_AT_ONCE_MAX
            && self.copies.histogram_bytes < HISTOGRAM_BYTES_AT_ONCE_MAX
        {
            self.copies.copy(&state, self.slot);
            self.slot += 1;
        }
        drop(state);
        let hold = self.env.clock.monotonic().saturating_sub(begin);
        self.report.longest_hold = self.report.longest_hold.max(hold);
        next
    }

    /// Adds what was copied to the section, and writes each that is full.
    fn add_copies(&mut self, head: &Head) -> Result<(), SnapshotError> {
        let copies = std::mem::take(&mut self.copies);
        self.verify(head, &copies)?;
        for copied in &copies.series {
            if self.tenant.as_ref().is_none_or(|tenant| tenant.number != copied.tenant) {
                self.tenant = head.tenants.by_number(copied.tenant);
            }
            let Some(tenant) = self.tenant.clone() else { continue };
            let index = tenant.index.read();
            // Without labels it has no samples: it is being made, or was removed since.
            let Some(labels) = index.pairs_of(Ref::new(self.shard, copied.slot).0) else { continue };
            self.piece.add(&copies, copied, tenant.id.as_str(), labels)?;
            drop(index);
            if !copied.starts.is_empty() {
                self.starts.add(copied.slot, &copied.starts);
            }
            let more = std::mem::take(&mut self.piece.more);
            if self.piece.bytes() >= SECTION_BYTES || self.starts.bytes() >= SECTION_BYTES || !more.is_empty()
            {
                // What is said of a series is behind it.
                self.section_of_series()?;
            }
            if self.starts.bytes() >= SECTION_BYTES {
                self.section_of_starts()?;
            }
            for more in more {
                self.sections_of_more(&more, copies.chunks.get(more.chunks.clone()).unwrap_or_default())?;
            }
        }
        self.copies = copies;
        Ok(())
    }

    /// A snapshot stands for the log: it is to name nothing that cannot be read back.
    fn verify(&self, head: &Head, copies: &Copies) -> Result<(), SnapshotError> {
        let unread = copies.unread(self.shard);
        let Some(first) = unread.first().map(|chunk| chunk.error().clone()) else { return Ok(()) };
        head.note_unread(unread);
        Err(SnapshotError::Unread(first))
    }

    /// Writes chunks that an entry had no room for.
    fn sections_of_more(&mut self, more: &More, chunks: &[ClosedChunk]) -> Result<(), SnapshotError> {
        let mut rest = chunks;
        while !rest.is_empty() {
            self.raw.clear();
            let writer = &mut self.piece.chunks;
            let count = more::encode((more.slot, more.lot), rest, SECTION_BYTES, writer, &mut self.raw);
            self.report.samples += std::mem::take(&mut writer.samples);
            rest = rest.get(count..).unwrap_or_default();
            self.section(format::MORE, self.shard as u16, 0)?;
        }
        Ok(())
    }

    fn section_of_starts(&mut self) -> Result<(), SnapshotError> {
        if self.starts.bytes() == 0 {
            return Ok(());
        }
        self.raw.clear();
        self.starts.finish(&mut self.raw);
        self.section(format::STARTS, self.shard as u16, 0)
    }

    /// Writes the exemplars of a tenant: at least all that the log has under numbers up to those of the shards.
    fn exemplars(&mut self, head: &Head, tenant: u32) -> Result<(), SnapshotError> {
        let Some(id) = head.tenants.by_number(tenant).map(|tenant| tenant.id.clone()) else { return Ok(()) };
        let kept = head.exemplars.copy(tenant);
        let mut rest = kept.as_slice();
        while !rest.is_empty() {
            self.raw.clear();
            let count = encode_exemplars(id.as_str(), rest, SECTION_BYTES, &mut self.raw);
            rest = rest.get(count..).unwrap_or_default();
            self.section(format::EXEMPLARS, NO_SHARD, 0)?;
        }
        Ok(())
    }

    fn section_of_series(&mut self) -> Result<(), SnapshotError> {
        if self.piece.series == 0 {
            return Ok(());
        }
        let series = self.piece.series;
        self.report.series += u64::from(series);
        self.report.samples += self.piece.samples();
        self.raw.clear();
        self.piece.finish(&mut self.raw);
        self.section(format::SERIES, self.shard as u16, series)
    }

    /// Appends a section with the content of `raw`.
    fn section(&mut self, section_type: u8, shard: u16, items: u32) -> Result<(), SnapshotError> {
        if self.raw.len() > SECTION_BYTES_MAX {
            return Err(SnapshotError::SectionTooLarge { bytes: self.raw.len(), max: SECTION_BYTES_MAX });
        }
        let packed = self.compressor.as_mut().and_then(|compressor| compressor.compress(&self.raw).ok());
        // Where a tenth is not saved, reading is not to pay for it.
        let packed = packed.filter(|packed| packed.len() < self.raw.len() - self.raw.len() / 10);
        let (flags, payload) = match &packed {
            Some(packed) => (FLAG_ZSTD, packed.as_slice()),
            None => (0, self.raw.as_slice()),
        };
        let section = Section {
            offset: self.offset,
            section_type,
            flags,
            shard,
            stored: payload.len() as u32,
            raw: self.raw.len() as u32,
            items,
            crc: crc32(payload),
        };
        section.encode(self.number, &mut self.out);
        self.out.extend_from_slice(payload);
        self.offset = section.end();
        self.directory.push(section);
        self.flush()
    }

    fn flush(&mut self) -> Result<(), SnapshotError> {
        if let Some(file) = self.file.as_mut()
            && !self.out.is_empty()
        {
            file.write_all(&self.out)?;
        }
        self.out.clear();
        Ok(())
    }

    /// Writes what remains, makes the snapshot durable under its name and removes the older ones.
    fn end(&mut self, head: &Head) -> Result<(), SnapshotError> {
        for extra in std::mem::take(&mut self.extras) {
            self.raw = extra.bytes;
            self.section(extra.section_type, NO_SHARD, 0)?;
        }
        self.raw.clear();
        let memory_floor = head.memory_floor().unwrap_or(i64::MIN);
        HeadState { memory_floor, cut: head.cut_finished() }.encode(&mut self.raw);
        self.section(format::HEAD, NO_SHARD, 0)?;
        format::encode_directory(self.number, self.offset, &self.directory, &mut self.out);
        self.report.bytes = self.offset + self.out.len() as u64;
        self.flush()?;
        if let Some(file) = self.file.as_mut() {
            file.sync_data()?;
        }
        let fs = &self.env.fs;
        fs.rename(&self.dir.join(TEMPORARY), &path(&self.dir, self.number))?;
        self.file = None;
        fs.sync_dir(&self.dir)?;
        match self.remove_older() {
            Ok(()) => {
                self.report.covered = self.report.sequences.iter().copied().min();
                if let Err(error) = self.chunk_files.remove_unused(&self.piece.chunks.files) {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "cannot remove a chunk file that is not needed any more"
                    );
                }
            }
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "cannot remove an older snapshot; the log that goes with it is kept"
            ),
        }
        Ok(())
    }

    fn remove_older(&self) -> Result<(), chronolith_env::Error> {
        for number in numbers(&self.env, &self.dir)?.into_iter().filter(|number| *number < self.number) {
            match self.env.fs.remove_file(&path(&self.dir, number)) {
                Err(e) if !e.is_not_found() => return Err(e),
                _ => {}
            }
        }
        // Before the log goes: an older snapshot without its log is not to come back.
        self.env.fs.sync_dir(&self.dir)
    }
}

fn check(extras: &[ExtraSection]) -> Result<(), SnapshotError> {
    let allowed = |at: usize, extra: &ExtraSection| {
        (EXTRA_TYPE_MIN..=EXTRA_TYPE_MAX).contains(&extra.section_type)
            && extra.bytes.len() <= SECTION_BYTES_MAX
            && at < EXTRA_SECTIONS_MAX
    };
    match extras.iter().enumerate().find(|(at, extra)| !allowed(*at, extra)) {
        Some((number, extra)) => {
            let (section_type, bytes) = (extra.section_type, extra.bytes.len());
            Err(SnapshotError::Extra { number, section_type, bytes })
        }
        None => Ok(()),
    }
}
