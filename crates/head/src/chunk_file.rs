//! Chunk files: closed chunks that have left memory.
//!
//! A background step appends chunks to the current file, makes them durable and only then forgets their bytes; what stays
//! is their place. They are read back one by one, and verified. The log has their samples too, until a snapshot is
//! durable that knows the places; a file that neither memory nor the snapshot refers to goes with the next snapshot.
//! Layout byte by byte: docs/format/head-chunks.md.

mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chronolith_codec::{Reader, crc32, crc32_continue, write};
use chronolith_env::{Env, Error, File, Op, OpenMode, Result};
use chronolith_model::Timestamp;
use parking_lot::Mutex;

use crate::{
    closed::{ChunkKind, ClosedChunk},
    error::{ChunkDamage, ReadError},
    head::Head,
    histogram::HISTOGRAM_CHUNK_BYTES_MAX,
    options::SHARDS,
    shard::{Ref, ShardState},
};

pub(crate) use verify::unreadable;

/// Version of the format.
pub const CHUNK_FILE_VERSION: u16 = 1;

const MAGIC: &[u8; 8] = b"CHRNCHNK";
const HEADER_BYTES: usize = 24;
const RECORD_HEADER_BYTES: usize = 28;

/// A file is not appended to when it has so many bytes.
const FILE_BYTES: u64 = 128 << 20;
/// Bytes of chunks written and synced in one step.
const STEP_BYTES: usize = 1 << 20;
/// Series looked at under one hold of a shard's lock.
const SERIES_AT_ONCE_MAX: u32 = 512;
/// Slots looked at in one step.
const SLOTS_IN_STEP_MAX: u32 = 64 * 1024;

/// The chunk files in a directory.
#[derive(Debug)]
pub struct ChunkFiles {
    env: Env,
    dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The files that chunks in memory refer to, or may.
    known: BTreeMap<u32, Arc<ChunkFile>>,
    current: Option<Current>,
    next_number: u32,
    /// Where the next step goes on.
    shard: usize,
    slot: u32,
}

/// The file being appended to.
#[derive(Debug)]
struct Current {
    writer: Box<dyn File>,
    file: Arc<ChunkFile>,
    bytes: u64,
}

/// A chunk file, to read from.
#[derive(Debug)]
pub(crate) struct ChunkFile {
    number: u32,
    path: PathBuf,
    /// Why not, if it cannot be opened: each read of it is an error.
    reader: Result<Box<dyn File>>,
    /// Whether its first bytes are those of a chunk file of this number.
    header_intact: bool,
}

/// The place of a chunk that has left memory.
#[derive(Debug)]
pub(crate) struct Place {
    file: Arc<ChunkFile>,
    offset: u32,
    len: u32,
}

/// What a step has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpillStep {
    /// Chunks that left memory.
    pub chunks: usize,
    /// Bytes of memory they have given back.
    pub bytes_freed: usize,
    /// All shards have been looked at since the last step that said so.
    pub round_done: bool,
}

/// A chunk on its way to a file.
struct Candidate {
    reference: Ref,
    chunk: ClosedChunk,
    offset: u32,
}

impl ChunkFiles {
    /// The chunk files in `dir`, which is made if need be.
    ///
    /// # Errors
    /// When it cannot be made or read.
    pub fn open(env: &Env, dir: &Path) -> Result<Self> {
        env.fs.create_dir_all(dir)?;
        let last = numbers(env, dir)?.last().copied().unwrap_or(0);
        let state = State {
            known: BTreeMap::new(),
            current: None,
            next_number: last.saturating_add(1),
            shard: 0,
            slot: 0,
        };
        Ok(Self { env: env.clone(), dir: dir.to_path_buf(), state: Mutex::new(state) })
    }

    /// The place of a chunk, as a snapshot tells it. A file that is not there makes each read of the chunk an error.
    pub(crate) fn place(&self, number: u32, offset: u32, len: u32) -> Place {
        let mut state = self.state.lock();
        state.next_number = state.next_number.max(number.saturating_add(1));
        let file = state
            .known
            .entry(number)
            .or_insert_with(|| Arc::new(ChunkFile::open(&self.env, path(&self.dir, number), number)));
        Place { file: Arc::clone(file), offset, len }
    }

    /// The files that chunks are said to be in, and that are not there.
    pub(crate) fn missing(&self) -> Vec<PathBuf> {
        let state = self.state.lock();
        state.known.values().filter(|file| file.reader.is_err()).map(|file| file.path.clone()).collect()
    }

    /// The files that are there, and whose first bytes are damaged. Their chunks do not depend on these.
    pub(crate) fn headless(&self) -> Vec<PathBuf> {
        let state = self.state.lock();
        let headless = state.known.values().filter(|file| file.reader.is_ok() && !file.header_intact);
        headless.map(|file| file.path.clone()).collect()
    }

    /// Why a file that is there could not be opened, if that is so of one. It says nothing of what is in it.
    pub(crate) fn refused(&self) -> Option<Error> {
        let state = self.state.lock();
        state.known.values().find_map(|file| {
            let error = file.reader.as_ref().err().filter(|error| !error.is_not_found())?;
            Some(Error::new(Op::Open, &file.path, error.kind().into()))
        })
    }

    /// Gives a file a further name in `dir`, where it stays for people when nothing needs it any more; says which.
    pub(crate) fn keep(&self, file: &Path, dir: &Path) -> Option<PathBuf> {
        let to = dir.join(file.file_name()?);
        let fs = &self.env.fs;
        if !fs.exists(&to).ok()? {
            fs.create_dir_all(dir).ok()?;
            fs.hard_link(file, &to).ok()?;
            fs.sync_dir(dir).ok()?;
        }
        Some(to)
    }

    /// Removes the files that neither `kept` names, nor a chunk in memory refers to. To be called when a snapshot is
    /// durable and no other one is there.
    pub(crate) fn remove_unused(&self, kept: &BTreeSet<u32>) -> Result<usize> {
        let mut state = self.state.lock();
        let current = state.current.as_ref().map(|current| current.file.number);
        let mut removed = 0;
        for number in numbers(&self.env, &self.dir)? {
            let used = state.known.get(&number).is_some_and(|file| Arc::strong_count(file) > 1);
            if used || kept.contains(&number) || current == Some(number) {
                continue;
            }
            match self.env.fs.remove_file(&path(&self.dir, number)) {
                Err(e) if !e.is_not_found() => return Err(e),
                _ => {}
            }
            state.known.remove(&number);
            removed += 1;
        }
        if removed > 0 {
            self.env.fs.sync_dir(&self.dir)?;
        }
        Ok(removed)
    }

    /// Appends records and makes them durable; a file whose write or sync has failed is not written again.
    fn append(&self, state: &mut State, chunks: &mut [Candidate]) -> Result<Arc<ChunkFile>> {
        let mut current = match state.current.take() {
            Some(current) if current.bytes < FILE_BYTES => current,
            _ => self.create(state)?,
        };
        let mut out = Vec::new();
        for candidate in chunks {
            candidate.offset = u32::try_from(current.bytes + out.len() as u64).unwrap_or(u32::MAX);
            encode(current.file.number, candidate, &mut out);
        }
        current.writer.write_all(&out)?;
        current.writer.sync_data()?;
        current.bytes += out.len() as u64;
        let file = Arc::clone(&current.file);
        state.current = Some(current);
        Ok(file)
    }

    /// Begins a file; its header and name are durable before there is a chunk in it.
    fn create(&self, state: &mut State) -> Result<Current> {
        let number = state.next_number;
        state.next_number = number.saturating_add(1);
        let path = path(&self.dir, number);
        let mut writer = self.env.fs.open(&path, OpenMode::CreateNew)?;
        let mut header = Vec::new();
        encode_header(number, self.env.clock.now_ms(), &mut header);
        let written = writer.write_all(&header).and_then(|()| writer.sync_data());
        let durable = written.and_then(|()| self.env.fs.sync_dir(&self.dir));
        let file = durable.and_then(|()| {
            let reader = self.env.fs.open(&path, OpenMode::Read)?;
            Ok(Arc::new(ChunkFile { number, path: path.clone(), reader: Ok(reader), header_intact: true }))
        });
        match file {
            Ok(file) => {
                state.known.insert(number, Arc::clone(&file));
                Ok(Current { writer, file, bytes: header.len() as u64 })
            }
            Err(error) => {
                let _ = self.env.fs.remove_file(&path);
                Err(error)
            }
        }
    }
}

impl Head {
    /// Moves some closed chunks that end before `older_than` (milliseconds) from memory to `files`: about a megabyte,
    /// synced once. Goes through all series, step by step; samples late within the out-of-order window compare with
    /// chunks in memory at less cost, so `older_than` is best behind it.
    ///
    /// # Errors
    /// When the file system refuses; the chunks stay in memory then.
    pub fn spill_step(&self, files: &ChunkFiles, older_than: Timestamp) -> Result<SpillStep> {
        let mut state = files.state.lock();
        let mut step = SpillStep::default();
        let mut chunks = Vec::new();
        let (mut bytes, mut slots) = (0, 0);
        while bytes < STEP_BYTES && slots < SLOTS_IN_STEP_MAX && !step.round_done {
            let Some(shard) = self.shards.get(state.shard) else { break };
            let locked = shard.lock();
            let until = locked.slab.next().min(state.slot.saturating_add(SERIES_AT_ONCE_MAX));
            for slot in state.slot..until {
                let Some((_, closed)) = locked.slab.get(slot) else { continue };
                bytes += collect(closed, (Ref::new(state.shard, slot), older_than), &mut chunks);
            }
            locked.histograms.for_each(state.slot..until.max(state.slot), |slot, lane| {
                bytes += collect(lane.closed(), (Ref::new(state.shard, slot), older_than), &mut chunks);
            });
            slots += until.saturating_sub(state.slot);
            state.slot = until;
            if until >= locked.slab.next() {
                (state.shard, state.slot) = ((state.shard + 1) % SHARDS, 0);
                step.round_done = state.shard == 0;
            }
        }
        if chunks.is_empty() {
            return Ok(step);
        }
        let file = files.append(&mut state, &mut chunks)?;
        drop(state);
        for group in chunks.chunk_by(|a, b| a.reference.shard() == b.reference.shard()) {
            self.replace(&file, group, &mut step);
        }
        Ok(step)
    }

    /// Forgets the bytes of chunks of one shard that are durable in `file` now.
    fn replace(&self, file: &Arc<ChunkFile>, chunks: &[Candidate], step: &mut SpillStep) {
        for some in chunks.chunks(SERIES_AT_ONCE_MAX as usize) {
            let Some(shard) = some.first().and_then(|first| self.shards.get(first.reference.shard())) else {
                return;
            };
            let mut locked = shard.lock();
            let ShardState { slab, histograms, accounts, .. } = &mut *locked;
            for candidate in some {
                let min = candidate.chunk.min();
                let slot = candidate.reference.slot();
                let closed = match candidate.chunk.kind() {
                    ChunkKind::Float => slab.get_mut(slot).map(|(_, closed)| closed.as_mut_slice()),
                    ChunkKind::Histogram => histograms.closed_mut(slot),
                };
                // Gone, if retention has met it meanwhile.
                let Some(closed) = closed else { continue };
                let at = closed.partition_point(|chunk| chunk.min() < min);
                let Some(chunk) = closed.get_mut(at).filter(|chunk| chunk.is_same(&candidate.chunk)) else {
                    continue;
                };
                let len = chunk.in_memory().map_or(0, |bytes| bytes.len() as u32);
                let before = chunk.memory();
                chunk.spill(Place { file: Arc::clone(file), offset: candidate.offset, len });
                match chunk.kind() {
                    ChunkKind::Float => accounts.spilled(before, chunk.memory()),
                    ChunkKind::Histogram => accounts.resize_histograms((before, 0), (chunk.memory(), 0)),
                }
                step.chunks += 1;
                step.bytes_freed += before - chunk.memory();
            }
            shard.publish(&locked);
        }
    }
}

impl Place {
    /// Number of the file, offset and length of the chunk.
    pub(crate) fn numbers(&self) -> (u32, u32, u32) {
        (self.file.number, self.offset, self.len)
    }

    /// Bytes of the chunk.
    pub(crate) const fn len(&self) -> usize {
        self.len as usize
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.file.path
    }

    /// Where the record of the chunk begins, and how many bytes it has.
    pub(crate) fn record(&self) -> (u64, u64) {
        (self.offset.into(), (RECORD_HEADER_BYTES + self.len()) as u64)
    }

    /// Where the record of the chunk ends.
    fn end(&self) -> u64 {
        self.record().0 + self.record().1
    }

    /// Reads the chunk's bytes back.
    pub(crate) fn read(&self) -> Result<Vec<u8>, ReadError> {
        self.try_read().map_err(|damage| ReadError::ChunkFile {
            path: self.file.path.clone(),
            offset: u64::from(self.offset),
            damage,
        })
    }

    fn try_read(&self) -> Result<Vec<u8>, ChunkDamage> {
        let refused = |error: &Error| match error.kind() {
            ErrorKind::UnexpectedEof => ChunkDamage::Cut,
            ErrorKind::NotFound => ChunkDamage::Missing,
            _ => ChunkDamage::Device,
        };
        let reader = self.file.reader.as_ref().map_err(refused)?;
        let mut record = vec![0; RECORD_HEADER_BYTES + self.len().min(HISTOGRAM_CHUNK_BYTES_MAX)];
        reader.read_exact_at(u64::from(self.offset), &mut record).map_err(|error| refused(&error))?;
        let fits =
            decode(self.file.number, self.offset, &record).is_some_and(|chunk| chunk.len() == self.len());
        if !fits {
            return Err(ChunkDamage::Checksum);
        }
        record.drain(..RECORD_HEADER_BYTES);
        Ok(record)
    }
}

/// Adds the chunks of a series that end before `older_than` and are worth moving; says how many bytes they take.
fn collect(
    closed: &[ClosedChunk],
    (reference, older_than): (Ref, Timestamp),
    chunks: &mut Vec<Candidate>,
) -> usize {
    let old = closed.iter().take_while(|chunk| chunk.max() < older_than);
    // A chunk smaller than its place would take more memory afterwards.
    let larger = |bytes: &[u8]| bytes.len() > size_of::<Place>();
    let mut bytes = 0;
    for chunk in old.filter(|chunk| chunk.in_memory().is_some_and(larger)) {
        bytes += chunk.memory();
        chunks.push(Candidate { reference, chunk: chunk.clone(), offset: 0 });
    }
    bytes
}

impl ChunkFile {
    fn open(env: &Env, path: PathBuf, number: u32) -> Self {
        let reader = env.fs.open(&path, OpenMode::Read);
        let header_intact = reader.as_ref().is_ok_and(|file| is_chunk_file(file.as_ref(), number));
        Self { number, path, reader, header_intact }
    }
}

fn is_chunk_file(file: &dyn File, number: u32) -> bool {
    let mut bytes = [0; HEADER_BYTES];
    file.read_exact_at(0, &mut bytes).is_ok() && decode_header(&bytes) == Some(number)
}

fn encode_header(number: u32, now_ms: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(MAGIC);
    write::u16_le(out, CHUNK_FILE_VERSION);
    write::u16_le(out, 0);
    write::u32_le(out, number);
    write::u32_le(out, (now_ms / 1000) as u32);
    let crc = crc32(out);
    write::u32_le(out, crc);
}

/// The number of a file with this header, if it is one of this version.
fn decode_header(bytes: &[u8; HEADER_BYTES]) -> Option<u32> {
    let mut reader = Reader::new(bytes);
    let magic = reader.array::<8>("magic").ok()?;
    let version = reader.u16_le("version").ok()?;
    reader.u16_le("reserved").ok()?;
    let number = reader.u32_le("number").ok()?;
    reader.u32_le("time").ok()?;
    let crc = reader.u32_le("checksum").ok()?;
    let covered = bytes.get(..HEADER_BYTES - 4)?;
    (&magic == MAGIC && version == CHUNK_FILE_VERSION && crc == crc32(covered)).then_some(number)
}

fn encode(number: u32, candidate: &Candidate, out: &mut Vec<u8>) {
    let chunk = &candidate.chunk;
    let bytes: &[u8] = chunk.in_memory().map_or(&[], |bytes| bytes);
    let start = out.len();
    write::u32_le(out, candidate.reference.0);
    out.push(chunk.kind().code());
    out.push(0);
    write::u16_le(out, chunk.count() as u16);
    write::u64_le(out, chunk.min() as u64);
    write::u32_le(out, (chunk.max() - chunk.min()) as u32);
    write::u32_le(out, bytes.len() as u32);
    let crc = record_crc(number, candidate.offset, out.get(start..).unwrap_or_default(), bytes);
    write::u32_le(out, crc);
    out.extend_from_slice(bytes);
}

fn record_crc(number: u32, offset: u32, header: &[u8], bytes: &[u8]) -> u32 {
    let place = u64::from(number) << 32 | u64::from(offset);
    crc32_continue(crc32_continue(crc32(&place.to_le_bytes()), header), bytes)
}

/// The chunk of a record that begins `record`, at `offset` of file `number`.
fn decode(number: u32, offset: u32, record: &[u8]) -> Option<&[u8]> {
    let (header, rest) = record.split_at_checked(RECORD_HEADER_BYTES)?;
    let (covered, crc) = header.split_at_checked(RECORD_HEADER_BYTES - 4)?;
    let mut reader = Reader::new(covered.get(20..)?);
    let len = reader.u32_le("length").ok()?;
    let bytes = rest.get(..usize::try_from(len).ok()?)?;
    let crc = Reader::new(crc).u32_le("checksum").ok()?;
    (crc == record_crc(number, offset, covered, bytes)).then_some(bytes)
}

fn path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:08}.chunks"))
}

/// The numbers of the files in `dir`, ascending.
fn numbers(env: &Env, dir: &Path) -> Result<Vec<u32>> {
    let number = |name: &String| name.strip_suffix(".chunks")?.parse().ok().filter(|number| *number > 0);
    let mut numbers: Vec<u32> = env.fs.list(dir)?.iter().filter_map(number).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of docs/format/head-chunks.md.
    #[test]
    fn the_documented_bytes() {
        let document = include_str!("../../../docs/format/head-chunks.md");
        let hex =
            document.split("```hex").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
        let documented: Vec<u8> = hex
            .lines()
            .flat_map(|line| line.split('|').next().unwrap_or_default().split_whitespace())
            .map(|byte| u8::from_str_radix(byte, 16).expect("hex"))
            .collect();
        let chunk = ClosedChunk::of_floats(&[(1_700_000_000_000, 1.5_f64.to_bits()), (1_700_000_015_000, 0)]);
        let chunk = chunk.expect("it has samples");
        assert_eq!(chunk.kind(), ChunkKind::Float);
        let mut bytes = Vec::new();
        encode_header(3, 1_700_000_020_000, &mut bytes);
        let candidate = Candidate { reference: Ref(17), chunk, offset: bytes.len() as u32 };
        encode(3, &candidate, &mut bytes);
        let text: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(documented, bytes, "the code writes {}", text.join(" "));
    }

    #[test]
    fn a_record_is_bound_to_its_place() {
        let chunk = ClosedChunk::of_floats(&[(1000, 1), (2000, 2)]).expect("it has samples");
        let bytes = chunk.in_memory().expect("made here").to_vec();
        let candidate = Candidate { reference: Ref(17), chunk, offset: 77 };
        let mut record = Vec::new();
        encode(3, &candidate, &mut record);
        assert_eq!(decode(3, 77, &record), Some(&*bytes));
        assert_eq!((decode(4, 77, &record), decode(3, 78, &record)), (None, None));
        for at in 0..record.len() {
            let mut damaged = record.clone();
            damaged[at] ^= 1 << (at % 8);
            assert_eq!(decode(3, 77, &damaged), None, "byte {at}");
            assert_eq!(decode(3, 77, &record[..at]), None, "cut at {at}");
        }
    }
}
