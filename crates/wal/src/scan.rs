//! Reading a segment, damage and all.
//!
//! A segment is read in windows. In each, records are found one behind the other; where none begins, the next place is
//! searched at which a header fits the segment's marker, its own checksum and its payload's. What lies between is
//! damage. Blocks that the device cannot read are taken as zeros.

use std::ops::Range;

use chronolith_codec::crc32;
use chronolith_env::File;

use crate::DamageReason;
use crate::record::{HEADER_BYTES, Header, Seal};
use crate::segment::{HeaderStatus, SEGMENT_HEADER_BYTES, SegmentHeader, marker};

/// Bytes read at once; more if a record is longer.
const WINDOW_BYTES: usize = 4 * 1024 * 1024;

/// What a device loses at once.
const BLOCK_BYTES: usize = 4096;

/// After so many unreadable blocks the rest of a segment is given up: each attempt can take seconds.
const UNREADABLE_BLOCKS_MAX: usize = 64;

/// What a window holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// An intact record.
    Record {
        /// Its place in the segment.
        offset: u64,
        header: Header,
    },
    /// Bytes that belong to no intact record.
    Damage {
        offset: u64,
        bytes: u64,
        reason: DamageReason,
        /// No record follows in the segment.
        tail: bool,
    },
}

/// Reads a segment window by window.
#[derive(Debug)]
pub(crate) struct Scanner<'a> {
    file: &'a dyn File,
    number: u32,
    /// Unknown if the segment's header is damaged; then the first intact record tells.
    seal: Option<Seal>,
    /// Where to stop.
    end: u64,
    /// Where `buf` begins in the segment.
    base: u64,
    buf: Vec<u8>,
    /// How much of `buf` is done with.
    done: usize,
    /// How much of `buf` the next item needs.
    need: usize,
    damage: Option<(u64, DamageReason)>,
    unreadable: Vec<Range<u64>>,
    unreadable_blocks: usize,
}

impl<'a> Scanner<'a> {
    /// Reads the records of `file` up to `end`. `header`: the segment's, if it is intact, else `number` is the file's.
    pub(crate) fn new(file: &'a dyn File, number: u32, header: Option<&SegmentHeader>, end: u64) -> Self {
        let of = |header: &SegmentHeader| {
            let SegmentHeader { version, number, salt, .. } = *header;
            Seal { version, number, marker: marker(salt) }
        };
        Self {
            file,
            number: header.map_or(number, |header| header.number),
            seal: header.map(of),
            end,
            base: (SEGMENT_HEADER_BYTES as u64).min(end),
            buf: Vec::new(),
            done: 0,
            need: 0,
            damage: None,
            unreadable: Vec::new(),
            unreadable_blocks: 0,
        }
    }

    /// The same, beginning with the record at `start`.
    pub(crate) fn starting_at(
        file: &'a dyn File,
        number: u32,
        header: Option<&SegmentHeader>,
        start: u64,
        end: u64,
    ) -> Self {
        let mut scanner = Self::new(file, number, header, end);
        scanner.base = start.min(end);
        scanner
    }

    /// Reads the next window and its items; `false` at the end. Payloads of items live until the next call.
    pub(crate) fn next_window(&mut self, items: &mut Vec<Item>) -> bool {
        items.clear();
        while items.is_empty() {
            if self.base + self.done as u64 >= self.end {
                return self.finish(items);
            }
            self.buf.drain(..self.done);
            self.base += self.done as u64;
            self.done = 0;
            self.fill();
            self.parse(items);
        }
        true
    }

    /// The payload of a record of the current window.
    pub(crate) fn payload(&self, offset: u64, header: &Header) -> &[u8] {
        let start = offset.checked_sub(self.base).and_then(|start| usize::try_from(start).ok());
        start
            .and_then(|start| self.buf.get(start + HEADER_BYTES..start + header.record_bytes()))
            .unwrap_or_default()
    }

    /// The last damage, if it reaches the end.
    fn finish(&mut self, items: &mut Vec<Item>) -> bool {
        let Some((offset, reason)) = self.damage.take() else { return false };
        self.push_damage(items, offset, self.end, reason, true);
        self.done = self.buf.len();
        true
    }

    fn push_damage(&self, items: &mut Vec<Item>, offset: u64, end: u64, reason: DamageReason, tail: bool) {
        let unreadable = self.unreadable.iter().any(|range| range.start < end && offset < range.end);
        let reason = if unreadable { DamageReason::Unreadable } else { reason };
        items.push(Item::Damage { offset, bytes: end - offset, reason, tail });
    }

    fn at_end(&self) -> bool {
        self.base + self.buf.len() as u64 >= self.end
    }

    fn parse(&mut self, items: &mut Vec<Item>) {
        let mut at = 0;
        while let Some(rest) = self.buf.get(at..).filter(|rest| !rest.is_empty()) {
            let offset = self.base + at as u64;
            let header = Header::decode(self.number, self.seal.map(|seal| seal.version), rest)
                .filter(|(found, _)| self.seal.is_none_or(|seal| seal == *found));
            let Some((found, header)) = header else {
                if rest.len() < HEADER_BYTES && !self.at_end() {
                    break;
                }
                self.damage.get_or_insert((offset, DamageReason::RecordHeader));
                at = self.next_candidate(at + 1);
                continue;
            };
            let len = header.record_bytes();
            if offset + len as u64 > self.end {
                self.damage.get_or_insert((offset, DamageReason::Truncated));
                at = self.next_candidate(at + HEADER_BYTES);
                continue;
            }
            let Some(payload) = rest.get(HEADER_BYTES..len) else {
                self.need = len;
                break;
            };
            if crc32(payload) != header.payload_crc {
                // The length may be trusted, but not that all its bytes are there: look for records from here.
                self.damage.get_or_insert((offset, DamageReason::Payload));
                at = self.next_candidate(at + HEADER_BYTES);
                continue;
            }
            if let Some((from, reason)) = self.damage.take() {
                self.push_damage(items, from, offset, reason, false);
            }
            self.seal = Some(found);
            items.push(Item::Record { offset, header });
            at += len;
        }
        self.done = at;
    }

    /// The first index from `from` on at which a header may begin, perhaps one that is not yet wholly read.
    fn next_candidate(&self, from: usize) -> usize {
        let len = self.buf.len();
        let Some(seal) = self.seal else { return from.min(len) };
        let marker = seal.marker.to_le_bytes();
        let rest = self.buf.get(from..).unwrap_or_default();
        match rest.windows(marker.len()).position(|bytes| bytes == marker) {
            Some(at) => from + at,
            None if self.at_end() => len,
            // A marker may be cut off by the end of the window.
            None => (len.saturating_sub(marker.len() - 1)).max(from).min(len),
        }
    }

    /// Reads more of the segment into the buffer.
    fn fill(&mut self) {
        let want = WINDOW_BYTES.max(self.need);
        self.need = 0;
        let left = usize::try_from(self.end - self.base).unwrap_or(usize::MAX);
        let (from, to) = (self.buf.len(), want.min(left));
        if to <= from {
            return;
        }
        self.buf.resize(to, 0);
        let at = self.base + from as u64;
        let into = self.buf.get_mut(from..).unwrap_or_default();
        match self.file.read_at(at, into) {
            Ok(got) if from + got == to => {}
            // The file has become shorter than it was.
            Ok(got) => {
                self.buf.truncate(from + got);
                self.end = self.base + self.buf.len() as u64;
            }
            Err(_) => self.fill_by_blocks(from),
        }
    }

    /// Reads what can be read from `from` on, block by block; the rest stays zero.
    fn fill_by_blocks(&mut self, from: usize) {
        let mut at = from;
        while let Some(rest) = self.buf.get_mut(at..).filter(|rest| !rest.is_empty()) {
            let offset = self.base + at as u64;
            let to_boundary = BLOCK_BYTES - (offset % BLOCK_BYTES as u64) as usize;
            let len = to_boundary.min(rest.len());
            let Some(block) = rest.get_mut(..len) else { break };
            let given_up = self.unreadable_blocks >= UNREADABLE_BLOCKS_MAX;
            if given_up || self.file.read_at(offset, block).is_err() {
                block.fill(0);
                self.unreadable_blocks += 1;
                let end = offset + len as u64;
                match self.unreadable.last_mut().filter(|range| range.end == offset) {
                    Some(range) => range.end = end,
                    None => self.unreadable.push(offset..end),
                }
            }
            at += len;
        }
    }
}

/// Reads a segment's header. What the device refuses is asked for once more, as records are.
pub(crate) fn read_header(file: &dyn File) -> HeaderStatus {
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    match file.read_exact_at(0, &mut bytes).or_else(|_| file.read_exact_at(0, &mut bytes)) {
        Ok(()) => SegmentHeader::decode(&bytes),
        Err(_) => HeaderStatus::Damaged,
    }
}
