//! Where the units of a block are, and where its hotcache has their checksums: by docs/format/block.md.

/// A unit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unit {
    pub(crate) off: usize,
    pub(crate) len: usize,
    /// In the hotcache.
    pub(crate) crc_at: usize,
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    units: Vec<Unit>,
}

impl Cursor<'_> {
    fn skip(&mut self, len: usize) {
        self.at += len;
    }

    fn number(&mut self) -> usize {
        let (mut value, mut shift) = (0_u64, 0);
        loop {
            let byte = self.bytes[self.at];
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value as usize;
            }
        }
    }

    fn numbers(&mut self, count: usize) {
        (0..count).for_each(|_| drop(self.number()));
    }

    fn unit(&mut self) {
        let (off, len) = (self.number(), self.number());
        self.units.push(Unit { off, len, crc_at: self.at });
        self.skip(4);
    }

    fn frames(&mut self, statistics: bool) {
        for _ in 0..self.number() {
            self.unit();
            self.numbers(4);
            self.unit();
            if statistics {
                self.unit();
            }
        }
    }
}

/// Those of a sound hotcache of version 2.
pub(crate) fn units(hotcache: &[u8]) -> Vec<Unit> {
    let mut cursor = Cursor { bytes: hotcache, at: 0, units: Vec::new() };
    // Version, identity, tenant, range, level, time.
    cursor.skip(1 + 16);
    let tenant = cursor.number();
    cursor.skip(tenant);
    cursor.numbers(2);
    cursor.skip(1);
    cursor.numbers(1);
    let sources = cursor.number();
    cursor.skip(16 * sources);
    cursor.numbers(4);
    (0..3).for_each(|_| cursor.unit());
    for _ in 0..cursor.number() {
        cursor.numbers(4);
        for _ in 0..cursor.number() {
            cursor.unit();
            cursor.numbers(1);
        }
        cursor.frames(true);
        cursor.frames(false);
    }
    // Exemplars and start timestamps, then metadata.
    for _ in 0..2 {
        for _ in 0..cursor.number() {
            cursor.unit();
            cursor.numbers(3);
        }
    }
    for _ in 0..cursor.number() {
        cursor.unit();
    }
    cursor.units
}
