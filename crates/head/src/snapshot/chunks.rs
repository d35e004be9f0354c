//! Closed chunks in sections: what is to be known of each, and beside it the bytes of those that are in memory.

use std::collections::BTreeSet;

use chronolith_codec::{Reader, write};
use chronolith_model::Timestamp;

use crate::{
    chunk_file::ChunkFiles,
    closed::{ChunkKind, ClosedChunk, WINDOW_MS},
};

/// Beside the code of a chunk's kind: its bytes are in a chunk file.
const IN_FILE: u8 = 0x80;

/// Writes closed chunks.
#[derive(Debug, Default)]
pub(super) struct ChunkWriter {
    /// The chunk files that any section refers to.
    pub(super) files: BTreeSet<u32>,
    /// In chunks, since the last section.
    pub(super) samples: u64,
}

impl ChunkWriter {
    /// Appends what is to be known of `chunk` to `entries` and its bytes, if they are in memory, to `data`.
    pub(super) fn chunk(
        &mut self,
        chunk: &ClosedChunk,
        before: &mut Timestamp,
        entries: &mut Vec<u8>,
        data: &mut Vec<u8>,
    ) {
        let in_file = chunk.place().map_or(0, |_| IN_FILE);
        entries.push(chunk.kind().code() | in_file);
        write::varint(entries, chunk.min().wrapping_sub(*before));
        write::uvarint(entries, chunk.max().abs_diff(chunk.min()));
        write::uvarint(entries, chunk.count() as u64);
        let bytes = chunk.in_memory().unwrap_or_default();
        let len = match chunk.place() {
            Some(place) => {
                let (number, offset, len) = place.numbers();
                write::uvarint(entries, u64::from(number));
                write::uvarint(entries, u64::from(offset));
                self.files.insert(number);
                len as usize
            }
            None => bytes.len(),
        };
        write::uvarint(entries, len as u64);
        data.extend_from_slice(bytes);
        self.samples += chunk.count() as u64;
        *before = chunk.max();
    }
}

/// Why the content of a section is not what its type promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl From<chronolith_codec::Error> for Malformed {
    fn from(_: chronolith_codec::Error) -> Self {
        Self
    }
}

/// Reads closed chunks.
pub(super) struct ChunkReader<'r, 'a> {
    /// What is to be known of them.
    pub(super) entries: &'r mut Reader<'a>,
    /// The bytes of those that are not in files.
    pub(super) data: &'r mut Reader<'a>,
    pub(super) files: &'r ChunkFiles,
}

impl ChunkReader<'_, '_> {
    /// `count` closed chunks of a kind; `ascending` if each has to be behind the one before it.
    pub(super) fn closed(
        &mut self,
        kind: ChunkKind,
        count: usize,
        ascending: bool,
    ) -> Result<Vec<ClosedChunk>, Malformed> {
        let mut chunks: Vec<ClosedChunk> = Vec::with_capacity(count.min(1024));
        let mut before: Timestamp = 0;
        for _ in 0..count {
            let code = self.entries.u8("kind")?;
            if ChunkKind::of(code & !IN_FILE) != Some(kind) {
                return Err(Malformed);
            }
            let min = before.wrapping_add(self.entries.varint("first timestamp")?);
            let span = self.entries.count(WINDOW_MS as usize - 1, "span")?;
            let max = min.checked_add(span as i64).ok_or(Malformed)?;
            let samples = self.entries.count(usize::from(u16::MAX), "samples")?;
            let place = match code & IN_FILE {
                0 => None,
                _ => Some((self.number("file")?, self.number("offset")?)),
            };
            let len = self.entries.count(kind.bytes_max(), "length")?;
            let follows = !ascending || chunks.last().is_none_or(|last| last.max() < min);
            if !follows || samples == 0 {
                return Err(Malformed);
            }
            let mut chunk = ClosedChunk::new(kind, min, max, samples, &[]);
            match place {
                Some((number, offset)) => chunk.spill(self.files.place(number, offset, len as u32)),
                None => {
                    let bytes = self.data.slice(len, "chunk")?;
                    if kind.sample_count(bytes) != samples {
                        return Err(Malformed);
                    }
                    chunk = ClosedChunk::new(kind, min, max, samples, bytes);
                }
            }
            chunks.push(chunk);
            before = max;
        }
        Ok(chunks)
    }

    fn number(&mut self, expected: &'static str) -> Result<u32, Malformed> {
        u32::try_from(self.entries.uvarint(expected)?).map_err(|_| Malformed)
    }
}
