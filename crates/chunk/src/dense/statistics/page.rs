//! Pages of statistics: a section per field, and nothing for what follows from other fields.

use chronolith_codec::{Error as CodecError, Reader, write};

use super::{Statistics, growth};
use crate::dense::FRAME_SLOTS_MAX;
use crate::dense::numbers::{decimal, distance, exponent_of, power};
use crate::dense::squeeze::{Piece, Squeezer};
use crate::{Error, Result};

const UNIT: &str = "statistics page";

/// The most bytes of a page before zstd: the most that [`FRAME_SLOTS_MAX`] slots take.
const PAGE_BYTES_MAX: usize = FRAME_SLOTS_MAX * 128;

/// The version byte that pages begin with.
const VERSION: u8 = 1;

/// What zstd has to save at least, as one part in so many.
const GAIN_MIN: usize = 16;

/// Low bits of a kind: how its values are written.
const FORM_MASK: u8 = 3;
const FORM_EMPTY: u8 = 0;
const FORM_INTEGER: u8 = 1;
const FORM_DECIMAL: u8 = 2;
const FORM_FLOAT: u8 = 3;
/// Bits of a kind: least, greatest, first and last are the same.
const SAME: u8 = 1 << 2;
/// The least is the first.
const MIN_FIRST: u8 = 1 << 3;
/// The greatest is the last.
const MAX_LAST: u8 = 1 << 4;
/// Of the same values: their sum follows from count and value. Else: the totals are integers or nearest to their
/// decimals, and have lost nothing.
const EXACT: u8 = 1 << 5;
/// No resets, and the increase is the last minus the first.
const STEADY: u8 = 1 << 6;
/// The counts are those of the slot before; before the first slot they are 0.
const COUNTS_AGAIN: u8 = 1 << 7;

const SECTIONS: usize = 12;

/// A page taken apart: one part for each field, in the order of the format.
#[derive(Debug, Default)]
struct Sections<T> {
    kinds: T,
    counts: T,
    exponents: T,
    firsts: T,
    lasts: T,
    mins: T,
    maxs: T,
    sums: T,
    resets: T,
    increases: T,
    ulps: T,
    compensations: T,
}

impl<T> Sections<T> {
    fn all(&mut self) -> [&mut T; SECTIONS] {
        [
            &mut self.kinds,
            &mut self.counts,
            &mut self.exponents,
            &mut self.firsts,
            &mut self.lasts,
            &mut self.mins,
            &mut self.maxs,
            &mut self.sums,
            &mut self.resets,
            &mut self.increases,
            &mut self.ulps,
            &mut self.compensations,
        ]
    }
}

/// Appends a page of statistics to `out`.
///
/// # Errors
/// [`Error::TooLarge`] above [`FRAME_SLOTS_MAX`]; `out` is then as before.
pub fn encode_statistics(statistics: &[Statistics], out: &mut Vec<u8>) -> Result<()> {
    if statistics.len() > FRAME_SLOTS_MAX {
        return Err(Error::TooLarge { unit: UNIT, of: "slots", got: statistics.len(), max: FRAME_SLOTS_MAX });
    }
    let mut sections = Sections::<Vec<u8>>::default();
    let mut counts = (0, 0);
    for s in statistics {
        let again = if counts == (s.count, s.stale) { COUNTS_AGAIN } else { 0 };
        if again == 0 {
            counts = (s.count, s.stale);
            write::uvarint(&mut sections.counts, u64::from(s.count));
            write::uvarint(&mut sections.counts, u64::from(s.stale));
        }
        sections.write(s, again);
    }
    let mut body = Vec::new();
    write::uvarint(&mut body, statistics.len() as u64);
    for section in sections.all() {
        write::prefixed(&mut body, section);
    }
    out.push(VERSION);
    Squeezer::default().write(&body, GAIN_MIN, out);
    Ok(())
}

/// Integers that stand for the values of a slot at an exponent.
#[derive(Clone, Copy, Debug)]
struct Scaled {
    exponent: u8,
    first: i64,
    last: i64,
    min: i64,
    max: i64,
    sum: i64,
    increase: i64,
}

impl Scaled {
    fn of(s: &Statistics) -> Option<Self> {
        let ends = [s.first, s.last, s.min, s.max];
        let exponent = exponent_of(&ends)?;
        let scale = power(exponent);
        let total = |total: f64| {
            let scaled = (total * scale).round_ties_even();
            (scaled.abs() < 9e15).then_some(scaled as i64)
        };
        Some(Self {
            exponent,
            first: decimal(s.first, scale)?,
            last: decimal(s.last, scale)?,
            min: decimal(s.min, scale)?,
            max: decimal(s.max, scale)?,
            sum: total(s.sum)?,
            increase: total(s.increase)?,
        })
    }

    /// What the sum would be if the values lay on a line.
    fn sum_expected(first: i64, last: i64, count: u32) -> i64 {
        ((i128::from(first) + i128::from(last)) * i128::from(count) / 2) as i64
    }
}

/// The sum, and its compensation, of `count` times `value`, where that is plain.
fn sum_of_same(value: f64, count: u32) -> Option<(f64, f64)> {
    if value.is_nan() {
        return Some((f64::NAN, 0.0));
    }
    let product = value * f64::from(count);
    let exact = value.is_infinite() || value.fract() == 0.0 && product.abs() <= 9e15;
    exact.then_some((product, 0.0))
}

fn same(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits()
}

impl Sections<Vec<u8>> {
    fn write(&mut self, s: &Statistics, again: u8) {
        let empty = Statistics { stale: s.stale, ..Statistics::EMPTY };
        if s.count == 0 && empty.bits() == s.bits() {
            self.kinds.push(FORM_EMPTY | again);
            return;
        }
        let is = |condition: bool, bit: u8| if condition { bit } else { 0 };
        let all_same = same(s.min, s.first) && same(s.max, s.first) && same(s.last, s.first);
        let (increase, lost) = growth(s.first, s.last);
        let steady = s.resets == 0 && same(s.increase, increase) && same(s.increase_compensation, lost);
        let mut kind = again | is(all_same, SAME) | is(steady, STEADY);
        if !all_same {
            kind |= is(same(s.min, s.first), MIN_FIRST) | is(same(s.max, s.last), MAX_LAST);
        }
        let plain = sum_of_same(s.first, s.count).filter(|_| all_same);
        let derived = plain.is_some_and(|(sum, lost)| same(sum, s.sum) && same(lost, s.compensation));
        kind |= is(derived, EXACT);
        match Scaled::of(s) {
            Some(scaled) => self.write_scaled(s, scaled, kind),
            None => self.write_floats(s, kind | FORM_FLOAT),
        }
    }

    fn write_scaled(&mut self, s: &Statistics, scaled: Scaled, mut kind: u8) {
        let Scaled { exponent, first, last, min, max, sum, increase } = scaled;
        let scale = power(exponent);
        let sum_ulps = distance(s.sum, sum, scale);
        let increase_ulps = distance(s.increase, increase, scale);
        let exact = |ulps: i64, lost: f64| ulps == 0 && lost.to_bits() == 0;
        if kind & SAME == 0
            && exact(sum_ulps, s.compensation)
            && (kind & STEADY != 0 || exact(increase_ulps, s.increase_compensation))
        {
            kind |= EXACT;
        }
        kind |= if exponent == 0 { FORM_INTEGER } else { FORM_DECIMAL };
        self.kinds.push(kind);
        if exponent > 0 {
            self.exponents.push(exponent);
        }
        write::varint(&mut self.firsts, first);
        if kind & SAME == 0 {
            write::varint(&mut self.lasts, last.wrapping_sub(first));
            if kind & MIN_FIRST == 0 {
                write::varint(&mut self.mins, first.wrapping_sub(min));
            }
            if kind & MAX_LAST == 0 {
                write::varint(&mut self.maxs, max.wrapping_sub(last));
            }
        }
        if kind & (SAME | EXACT) != SAME | EXACT {
            write::varint(&mut self.sums, sum.wrapping_sub(Scaled::sum_expected(first, last, s.count)));
        }
        if kind & EXACT == 0 {
            write::varint(&mut self.ulps, sum_ulps);
            write_float(&mut self.compensations, s.compensation);
        }
        if kind & STEADY == 0 {
            write::uvarint(&mut self.resets, u64::from(s.resets));
            write::varint(&mut self.increases, increase);
            if kind & (SAME | EXACT) != EXACT {
                write::varint(&mut self.ulps, increase_ulps);
                write_float(&mut self.compensations, s.increase_compensation);
            }
        }
    }

    fn write_floats(&mut self, s: &Statistics, kind: u8) {
        self.kinds.push(kind);
        write_float(&mut self.firsts, s.first);
        if kind & SAME == 0 {
            write_float(&mut self.lasts, s.last);
            if kind & MIN_FIRST == 0 {
                write_float(&mut self.mins, s.min);
            }
            if kind & MAX_LAST == 0 {
                write_float(&mut self.maxs, s.max);
            }
        }
        if kind & EXACT == 0 {
            write_float(&mut self.sums, s.sum);
            write_float(&mut self.compensations, s.compensation);
        }
        if kind & STEADY == 0 {
            write::uvarint(&mut self.resets, u64::from(s.resets));
            write_float(&mut self.increases, s.increase);
            write_float(&mut self.compensations, s.increase_compensation);
        }
    }
}

/// Appends the statistics of a page to `into`, all or none; `bytes` is the page and nothing else.
///
/// # Errors
/// [`Error::Unreadable`], [`Error::Invalid`].
pub fn decode_statistics(bytes: &[u8], into: &mut Vec<Statistics>) -> Result<()> {
    let damaged = |source| Error::Unreadable { unit: UNIT, source };
    let mut reader = Reader::new(bytes);
    let version = reader.u8("version").map_err(damaged)?;
    if version != VERSION {
        return Err(Error::Invalid { unit: UNIT, off: 0, expected: "version 1", got: u64::from(version) });
    }
    let piece = Piece::read(UNIT, &mut reader, PAGE_BYTES_MAX)?;
    reader.finish().map_err(damaged)?;
    let mut body = vec![0; piece.len()];
    piece.undo(&mut body)?;
    let mut reader = Reader::new(&body);
    let count = reader.count(FRAME_SLOTS_MAX, "number of slots").map_err(damaged)?;
    let mut sections = Sections::<Section<'_>>::default();
    for section in sections.all() {
        let bytes = reader.prefixed(PAGE_BYTES_MAX, "a section").map_err(damaged)?;
        *section = Section { reader: Reader::new(bytes), origin: reader.offset() - bytes.len() };
    }
    reader.finish().map_err(damaged)?;
    let start = into.len();
    let mut all = || {
        let mut counts = (0, 0);
        for _ in 0..count {
            into.push(sections.read(&mut counts)?);
        }
        sections.all().into_iter().try_for_each(|section| section.read(|reader| reader.finish()))
    };
    let read = all();
    if read.is_err() {
        into.truncate(start);
    }
    read
}

/// A section being read.
#[derive(Debug)]
struct Section<'a> {
    reader: Reader<'a>,
    /// Where it begins in the page.
    origin: usize,
}

impl Default for Section<'_> {
    fn default() -> Self {
        Self { reader: Reader::new(&[]), origin: 0 }
    }
}

impl<'a> Section<'a> {
    #[inline]
    fn read<T>(&mut self, read: impl FnOnce(&mut Reader<'a>) -> Result<T, CodecError>) -> Result<T> {
        read(&mut self.reader).map_err(|error| Error::Unreadable {
            unit: UNIT,
            source: crate::dense::input::moved(error, self.origin),
        })
    }

    fn varint(&mut self) -> Result<i64> {
        self.read(|reader| reader.varint("an integer"))
    }

    fn count(&mut self) -> Result<u32> {
        self.read(|reader| reader.count(u32::MAX as usize, "a count")).map(|count| count as u32)
    }

    fn float(&mut self) -> Result<f64> {
        self.read(read_float)
    }
}

impl Sections<Section<'_>> {
    fn read(&mut self, counts: &mut (u32, u32)) -> Result<Statistics> {
        let kind = self.kinds.read(|reader| reader.u8("kind"))?;
        if kind & COUNTS_AGAIN == 0 {
            *counts = (self.counts.count()?, self.counts.count()?);
        }
        let (count, stale) = *counts;
        let mut s = Statistics { count, stale, ..Statistics::EMPTY };
        match kind & FORM_MASK {
            FORM_EMPTY => {}
            FORM_FLOAT => self.read_floats(kind, &mut s)?,
            FORM_INTEGER => self.read_scaled(kind, 0, &mut s)?,
            _ => {
                let exponent = self.exponents.read(|reader| reader.u8("exponent"))?;
                self.read_scaled(kind, exponent, &mut s)?;
            }
        }
        Ok(s)
    }

    fn read_scaled(&mut self, kind: u8, exponent: u8, s: &mut Statistics) -> Result<()> {
        let scale = power(exponent);
        let float = |integer: i64| integer as f64 / scale;
        let near = |integer: i64, ulps: i64| {
            f64::from_bits((float(integer).to_bits() as i64).wrapping_add(ulps) as u64)
        };
        let first = self.firsts.varint()?;
        let (mut last, mut min, mut max) = (first, first, first);
        if kind & SAME == 0 {
            last = first.wrapping_add(self.lasts.varint()?);
            if kind & MIN_FIRST == 0 {
                min = first.wrapping_sub(self.mins.varint()?);
            }
            max = if kind & MAX_LAST == 0 { last.wrapping_add(self.maxs.varint()?) } else { last };
        }
        (s.first, s.last, s.min, s.max) = (float(first), float(last), float(min), float(max));
        if kind & (SAME | EXACT) == SAME | EXACT {
            (s.sum, s.compensation) = sum_of_same(s.first, s.count).unwrap_or((0.0, 0.0));
        } else {
            let sum = self.sums.varint()?.wrapping_add(Scaled::sum_expected(first, last, s.count));
            let ulps = if kind & EXACT == 0 { self.ulps.varint()? } else { 0 };
            s.sum = near(sum, ulps);
            s.compensation = if kind & EXACT == 0 { self.compensations.float()? } else { 0.0 };
        }
        if kind & STEADY != 0 {
            (s.increase, s.increase_compensation) = growth(s.first, s.last);
        } else {
            s.resets = self.resets.count()?;
            let increase = self.increases.varint()?;
            let written = kind & (SAME | EXACT) != EXACT;
            s.increase = near(increase, if written { self.ulps.varint()? } else { 0 });
            s.increase_compensation = if written { self.compensations.float()? } else { 0.0 };
        }
        Ok(())
    }

    fn read_floats(&mut self, kind: u8, s: &mut Statistics) -> Result<()> {
        s.first = self.firsts.float()?;
        (s.last, s.min, s.max) = (s.first, s.first, s.first);
        if kind & SAME == 0 {
            s.last = self.lasts.float()?;
            if kind & MIN_FIRST == 0 {
                s.min = self.mins.float()?;
            }
            s.max = if kind & MAX_LAST == 0 { self.maxs.float()? } else { s.last };
        }
        if kind & EXACT == 0 {
            s.sum = self.sums.float()?;
            s.compensation = self.compensations.float()?;
        } else {
            (s.sum, s.compensation) = sum_of_same(s.first, s.count).unwrap_or((0.0, 0.0));
        }
        if kind & STEADY != 0 {
            (s.increase, s.increase_compensation) = growth(s.first, s.last);
        } else {
            s.resets = self.resets.count()?;
            s.increase = self.increases.float()?;
            s.increase_compensation = self.compensations.float()?;
        }
        Ok(())
    }
}

/// Floats that have a code of their own; [`FLOAT_RAW`] is followed by eight bytes, and codes from
/// [`FLOAT_ODD`] on by an odd number.
const KNOWN: [u64; 5] =
    [0, 0x7ff8_0000_0000_0000, 0x7ff8_0000_0000_0001, 0x7ff0_0000_0000_0000, 0xfff0_0000_0000_0000];
const FLOAT_RAW: u64 = 5;
const FLOAT_ODD: u64 = 6;

/// Appends a float as an odd number times a power of two, which is short for integers and for what rounding loses.
fn write_float(out: &mut Vec<u8>, value: f64) {
    let bits = value.to_bits();
    if let Some(code) = KNOWN.iter().position(|known| *known == bits) {
        write::uvarint(out, code as u64);
        return;
    }
    let biased = (bits >> 52) & 0x7ff;
    let mantissa = (bits & ((1 << 52) - 1)) | 1 << 52;
    let zeros = mantissa.trailing_zeros();
    let odd = mantissa >> zeros;
    // Odd numbers of more than 49 bits would take longer than the bits.
    if biased == 0 || biased == 0x7ff || odd >= 1 << 49 {
        write::uvarint(out, FLOAT_RAW);
        write::u64_le(out, bits);
        return;
    }
    let exponent = biased as i64 - 1075 + i64::from(zeros);
    write::uvarint(out, FLOAT_ODD + write::zigzag(exponent));
    write::uvarint(out, odd & !1 | bits >> 63);
}

fn read_float(reader: &mut Reader<'_>) -> Result<f64, CodecError> {
    let off = reader.offset();
    let code = reader.uvarint("a float")?;
    if let Some(bits) = KNOWN.get(code as usize) {
        return Ok(f64::from_bits(*bits));
    }
    if code == FLOAT_RAW {
        return reader.u64_le("a float").map(f64::from_bits);
    }
    let odd = reader.uvarint("an odd number")?;
    let exponent = write::unzigzag(code - FLOAT_ODD);
    let zeros = i64::from((odd | 1).leading_zeros()) - 11;
    let biased = exponent + 1075 - zeros;
    if zeros < 0 || !(1..0x7ff).contains(&biased) {
        return Err(CodecError::TooLarge { off, expected: "a float", got: code, max: FLOAT_ODD + 2148 });
    }
    let mantissa = (odd | 1) << zeros;
    Ok(f64::from_bits((odd & 1) << 63 | (biased as u64) << 52 | (mantissa & ((1 << 52) - 1))))
}
