//! The hotcache of a block, read as docs/format/block.md says: by the tables there, and nothing of the crate.

use std::path::Path;

use chronolith_codec::crc32;

use crate::fixture::Disk;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Unit {
    pub(crate) off: u64,
    pub(crate) len: u64,
    crc: u32,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    pub(crate) unit: Unit,
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) slots: u64,
    pub(crate) samples: u64,
    pub(crate) table: Unit,
    pub(crate) statistics: Option<Unit>,
}

#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// Units and columns.
    pub(crate) pages: Vec<(Unit, u64)>,
    pub(crate) floats: Vec<Frame>,
    pub(crate) histograms: Vec<Frame>,
}

/// A page of exemplars or start timestamps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page {
    pub(crate) unit: Unit,
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) items: u64,
}

/// What a test wants to know of it.
#[derive(Clone, Debug)]
pub(crate) struct Hotcache {
    pub(crate) off: u64,
    pub(crate) file_len: u64,
    /// Series, float samples, histograms, exemplars.
    pub(crate) counts: [u64; 4],
    /// Dictionaries, postings, forward table.
    pub(crate) index: [Unit; 3],
    pub(crate) parts: Vec<Part>,
    pub(crate) exemplars: Vec<Page>,
    pub(crate) starts: Vec<Page>,
    pub(crate) metadata: Vec<Unit>,
}

/// Bytes, from the front.
#[derive(Debug)]
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(crate) fn take(&mut self, len: u64) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(usize::try_from(len).unwrap());
        self.0 = rest;
        taken
    }

    pub(crate) fn uvarint(&mut self) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = self.take(1)[0];
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    }

    pub(crate) fn varint(&mut self) -> i64 {
        let raw = self.uvarint();
        (raw >> 1) as i64 ^ -((raw & 1) as i64)
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().unwrap())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take(8).try_into().unwrap())
    }

    fn prefixed(&mut self) -> &'a [u8] {
        let len = self.uvarint();
        self.take(len)
    }

    fn unit(&mut self) -> Unit {
        Unit { off: self.uvarint(), len: self.uvarint(), crc: self.u32() }
    }

    fn frame(&mut self, statistics: bool) -> Frame {
        let unit = self.unit();
        let first = self.uvarint();
        let last = first + self.uvarint();
        let (slots, samples, table) = (self.uvarint(), self.uvarint(), self.unit());
        let statistics = statistics.then(|| self.unit());
        Frame { unit, first, last, slots, samples, table, statistics }
    }

    fn part(&mut self) -> Part {
        // Priority, first timestamp, length of time, samples of the longest slot.
        self.uvarint();
        self.varint();
        self.uvarint();
        self.uvarint();
        let pages = (0..self.uvarint()).map(|_| (self.unit(), self.uvarint())).collect();
        let floats = (0..self.uvarint()).map(|_| self.frame(true)).collect();
        let histograms = (0..self.uvarint()).map(|_| self.frame(false)).collect();
        Part { pages, floats, histograms }
    }

    fn page(&mut self) -> Page {
        let (unit, first) = (self.unit(), self.uvarint());
        Page { unit, first, last: first + self.uvarint(), items: self.uvarint() }
    }
}

impl Hotcache {
    /// Reads that of a file; every unit lies behind the one before, without gap, and has its checksum.
    pub(crate) fn of(disk: &Disk, path: &Path) -> (Self, Vec<u8>) {
        let file = disk.disk.read(path).unwrap();
        let mut footer = Bytes(&file[file.len() - 40..]);
        let (off, len, crc, file_len) = (footer.u64(), footer.u32(), footer.u32(), footer.u64());
        assert_eq!((file_len, footer.take(1)), (file.len() as u64, &[2_u8][..]));
        let hotcache = &file[off as usize..][..len as usize];
        assert_eq!((crc32(hotcache), off + u64::from(len) + 40), (crc, file_len));
        let mut bytes = Bytes(hotcache);
        assert_eq!(bytes.take(1), [2]);
        bytes.take(16);
        bytes.prefixed();
        bytes.varint();
        bytes.varint();
        bytes.take(1);
        bytes.varint();
        let sources = bytes.uvarint();
        bytes.take(16 * sources);
        let hotcache = Self {
            off,
            file_len,
            counts: std::array::from_fn(|_| bytes.uvarint()),
            index: std::array::from_fn(|_| bytes.unit()),
            parts: (0..bytes.uvarint()).map(|_| bytes.part()).collect(),
            exemplars: (0..bytes.uvarint()).map(|_| bytes.page()).collect(),
            starts: (0..bytes.uvarint()).map(|_| bytes.page()).collect(),
            metadata: (0..bytes.uvarint()).map(|_| bytes.unit()).collect(),
        };
        bytes.prefixed();
        assert!(bytes.0.is_empty(), "{} bytes left", bytes.0.len());
        let mut units = hotcache.units();
        units.sort_unstable();
        let mut next = 8;
        for unit in units {
            assert_eq!(unit.off, next, "without gap");
            assert_eq!(crc32(unit.bytes(&file)), unit.crc);
            next += unit.len;
        }
        assert_eq!(next, off);
        (hotcache, file)
    }

    fn units(&self) -> Vec<Unit> {
        let mut units = self.index.to_vec();
        for part in &self.parts {
            units.extend(part.pages.iter().map(|(unit, _)| *unit));
            for frame in part.floats.iter().chain(&part.histograms) {
                units.extend([frame.unit, frame.table]);
                units.extend(frame.statistics);
            }
        }
        units.extend(self.exemplars.iter().chain(&self.starts).map(|page| page.unit));
        units.extend(&self.metadata);
        units
    }
}

impl Unit {
    pub(crate) fn bytes(self, file: &[u8]) -> &[u8] {
        &file[self.off as usize..][..self.len as usize]
    }

    /// The content of a unit that is a page.
    pub(crate) fn content(self, file: &[u8]) -> Vec<u8> {
        let (kind, content) = self.bytes(file).split_first().unwrap();
        if *kind == 0 {
            return content.to_vec();
        }
        assert_eq!(*kind, 1);
        let mut packed = Bytes(content);
        let len = packed.uvarint() as usize;
        let content = zstd::bulk::decompress(packed.0, len).unwrap();
        assert_eq!(content.len(), len);
        assert!(packed.0.len() + 8 < len, "packed where that saves more than 8 bytes");
        content
    }
}
