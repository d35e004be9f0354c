//! Columns to frames.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};

use chronolith_codec::write;

use super::layout::{CHAIN_MAX, EXTRA_EXCEPTIONS, EXTRA_FACTOR, PREFIXED, Tag, VERSION, write_exceptions};
use super::numbers::{Mode, Numbers};
use super::squeeze::Squeezer;
use super::stream::{Encoder, Header, Plan};
use super::{COLUMN_SAMPLES_MAX, FRAME_BYTES_MAX, FRAME_SLOTS_MAX};
use crate::{Error, Result};

/// How many columns of a family are kept as candidates: as many buckets as common histograms have.
const FAMILY_MAX: usize = 32;

/// From so many bytes on, a frame takes no more slots: one more, at its worst, stays below [`FRAME_BYTES_MAX`].
const FRAME_BYTES_FULL: usize = FRAME_BYTES_MAX / 2;
// A sample costs at most its 8 bytes twice (decimals and distances), and a block code and base.
const _: () = assert!(FRAME_BYTES_FULL + COLUMN_SAMPLES_MAX * 8 + COLUMN_SAMPLES_MAX / 2 < FRAME_BYTES_MAX);

/// What zstd has to save at least of fields and of payloads, as one part in so many. Undoing it is most of the time that
/// opening takes, and payloads are packed bits, of which it saves little.
const FIELDS_GAIN_MIN: usize = 16;
const PAYLOADS_GAIN_MIN: usize = 12;

/// Hashes are of our own making and of bounded number: the standard hasher without random keys gives the same frames
/// for the same columns.
type Map<K, V> = HashMap<K, V, BuildHasherDefault<DefaultHasher>>;

/// Builds one frame after another from columns of values.
#[derive(Debug, Default)]
pub struct FrameBuilder {
    sections: Sections,
    candidates: Candidates,
    numbers: Numbers,
    encoder: Encoder,
    payload: Vec<u8>,
    fields: Vec<u8>,
    squeezer: Squeezer,
}

/// The frame so far, field by field.
#[derive(Debug, Default)]
struct Sections {
    tags: Vec<u8>,
    /// Runs of equal sample counts: how many slots, and how many samples they have.
    samples: Vec<(u64, u64)>,
    exponents: Vec<u8>,
    extras: Vec<u8>,
    references: Vec<u8>,
    firsts: Vec<u8>,
    bases: Vec<u8>,
    factors: Vec<u8>,
    lengths: Vec<u8>,
    payloads: Vec<u8>,
}

impl Sections {
    /// The sections behind their lengths, in the order of the format.
    fn prefixed(&mut self) -> [&mut Vec<u8>; PREFIXED] {
        [
            &mut self.exponents,
            &mut self.extras,
            &mut self.references,
            &mut self.firsts,
            &mut self.bases,
            &mut self.factors,
            &mut self.lengths,
        ]
    }

    fn len(&self) -> usize {
        self.tags.len()
            + self.exponents.len()
            + self.extras.len()
            + self.references.len()
            + self.firsts.len()
            + self.bases.len()
            + self.factors.len()
            + self.lengths.len()
            + self.payloads.len()
            + self.samples.len() * 2
    }
}

/// A column that later ones may refer to.
#[derive(Debug)]
struct Candidate {
    slot: u16,
    mode: Mode,
    exponent: u8,
    /// References from it to a column without.
    depth: u8,
    integers: Vec<i64>,
    ulps: Vec<i64>,
}

impl Candidate {
    /// How much the column grows, to find the ones alike.
    fn growth(&self) -> i64 {
        growth(&self.integers)
    }
}

fn growth(integers: &[i64]) -> i64 {
    let ends = integers.first().zip(integers.last());
    ends.map_or(0, |(first, last)| last.wrapping_sub(*first))
}

/// Columns of this frame by what finds them. At most [`FRAME_SLOTS_MAX`] of them.
#[derive(Debug, Default)]
struct Candidates {
    all: Vec<Candidate>,
    /// By timeline and differences to the first integer: the first such column.
    by_shape: Map<(u64, u64), usize>,
    /// By timeline and family, the latest ones.
    by_family: Map<(u64, u64), Vec<usize>>,
}

impl Candidates {
    fn clear(&mut self) {
        self.all.clear();
        self.by_shape.clear();
        self.by_family.clear();
    }
}

/// What was chosen for a column.
struct Choice {
    plan: Plan,
    /// Index of the candidate referred to.
    reference: Option<usize>,
}

impl FrameBuilder {
    /// A builder without slots.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a slot and returns its number. Slots of equal `timeline` have the same timestamps, and may be written as
    /// the difference of one to another; slots of equal `family` are likely alike (neighbouring buckets: the same
    /// labels but `le`) and are tried first. Neither is written.
    ///
    /// # Errors
    /// [`Error::TooLarge`] above [`COLUMN_SAMPLES_MAX`], or if the frame has [`FRAME_SLOTS_MAX`] slots or so many
    /// bytes that another slot might exceed [`FRAME_BYTES_MAX`]: finish it first. The builder is as before.
    pub fn push(&mut self, values: &[f64], timeline: u64, family: u64) -> Result<u16> {
        self.check_room(values.len())?;
        let slot = self.slots() as u16;
        match self.sections.samples.last_mut() {
            Some((slots, samples)) if *samples == values.len() as u64 => *slots += 1,
            _ => self.sections.samples.push((1, values.len() as u64)),
        }
        let constant = values.first().filter(|first| values.iter().all(|v| v.to_bits() == first.to_bits()));
        match constant {
            Some(value) => self.push_constant(*value),
            None if values.is_empty() => self.push_constant(0.0),
            None => self.push_changing(values, slot, timeline, family),
        }
        Ok(slot)
    }

    fn check_room(&self, samples: usize) -> Result<()> {
        let too_large = |of, got, max| Err(Error::TooLarge { unit: super::UNIT_FRAME, of, got, max });
        if samples > COLUMN_SAMPLES_MAX {
            return too_large("samples in a column", samples, COLUMN_SAMPLES_MAX);
        }
        if self.slots() >= FRAME_SLOTS_MAX {
            return too_large("slots", self.slots() + 1, FRAME_SLOTS_MAX);
        }
        if self.encoded_len() >= FRAME_BYTES_FULL {
            return too_large("bytes", self.encoded_len(), FRAME_BYTES_FULL);
        }
        Ok(())
    }

    fn push_constant(&mut self, value: f64) {
        let one = [value];
        let decimal = if self.numbers.regularize(&one) { self.numbers.decimals() } else { None };
        let (mode, exponent) = match decimal {
            Some((0, _)) => (Mode::Int, 0),
            Some((exponent, false)) => (Mode::Decimal, exponent),
            _ => {
                self.numbers.bits(&one);
                (Mode::Bits, 0)
            }
        };
        self.numbers.exceptions.clear();
        let first = self.numbers.integers.first().copied().unwrap_or(0);
        self.payload.clear();
        self.write_slot(mode, exponent, None, &Header::constant(first));
    }

    fn push_changing(&mut self, values: &[f64], slot: u16, timeline: u64, family: u64) {
        let (mode, exponent) = self.find_integers(values);
        let timeline = timeline ^ (values.len() as u64).rotate_left(48);
        let shape = (timeline, self.shape(mode, exponent));
        if mode == Mode::Ulp
            && let Some(original) =
                self.candidates.by_shape.get(&shape).and_then(|i| self.candidates.all.get(*i))
            && original.mode == mode
            && original.integers == self.numbers.integers
            && original.ulps == self.numbers.ulps
            && self.numbers.exceptions.is_empty()
        {
            let distance = slot - original.slot;
            self.payload.clear();
            self.write_slot(Mode::Copy, 0, Some(distance), &Header::constant(0));
            return;
        }
        let family = (timeline, family);
        let choice = self.choose(mode, exponent, shape, family);
        let (distance, depth) = self.write_payload(mode, slot, &choice);
        self.write_slot(mode, exponent, distance, &choice.plan.header);
        self.remember(slot, mode, exponent, depth, shape, family);
    }

    /// Fills `numbers` in the way that seems cheapest.
    fn find_integers(&mut self, values: &[f64]) -> (Mode, u8) {
        let numbers = &mut self.numbers;
        if !numbers.regularize(values) {
            numbers.bits(values);
            return (Mode::Bits, 0);
        }
        let decimal = numbers.decimals();
        match decimal {
            Some((0, _)) => return (Mode::Int, 0),
            Some((exponent, false)) => return (Mode::Decimal, exponent),
            _ => {}
        }
        // No short decimals. Whatever is smallest; integers are made again at the end.
        let mut best: Option<(usize, Mode, u8)> = None;
        let mut consider = |bytes: usize, mode: Mode, exponent: u8| {
            if best.is_none_or(|(least, ..)| bytes < least) {
                best = Some((bytes, mode, exponent));
            }
        };
        if let Some((exponent, _)) = decimal {
            consider(self.encoder.plan(&numbers.integers).bytes, Mode::Decimal, exponent);
        }
        if let Some(exponent) = numbers.multiples() {
            consider(self.encoder.plan(&numbers.integers).bytes, Mode::Multiple, exponent);
        }
        if let Some(exponent) = numbers.ulps() {
            let bytes = self.encoder.plan(&numbers.integers).bytes + self.encoder.plan(&numbers.ulps).bytes;
            consider(bytes, Mode::Ulp, exponent);
        }
        let exceptions = std::mem::take(&mut numbers.exceptions);
        numbers.bits(values);
        consider(self.encoder.plan(&numbers.integers).bytes, Mode::Bits, 0);
        let (_, mode, exponent) = best.unwrap_or((0, Mode::Bits, 0));
        if mode != Mode::Bits {
            numbers.exceptions = exceptions;
        }
        let again = match mode {
            Mode::Decimal => numbers.decimals().map(|(exponent, _)| exponent),
            Mode::Multiple => numbers.multiples(),
            Mode::Ulp => numbers.ulps(),
            Mode::Int | Mode::Bits | Mode::Copy => Some(exponent),
        };
        debug_assert_eq!(again, Some(exponent), "the same integers as before");
        (mode, exponent)
    }

    /// A hash of the differences to the first integer.
    fn shape(&self, mode: Mode, exponent: u8) -> u64 {
        let integers = &self.numbers.integers;
        let first = integers.first().copied().unwrap_or(0);
        let start = u64::from(mode.code()) << 8 | u64::from(exponent);
        integers.iter().fold(start, |hash, x| {
            let mixed = (hash ^ x.wrapping_sub(first) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            mixed ^ (mixed >> 29)
        })
    }

    /// The cheapest way to write `numbers.integers`, alone or as the difference to a candidate.
    fn choose(&mut self, mode: Mode, exponent: u8, shape: (u64, u64), family: (u64, u64)) -> Choice {
        let integers = &self.numbers.integers;
        let usable = |candidate: &Candidate| {
            (candidate.mode, candidate.exponent, candidate.integers.len()) == (mode, exponent, integers.len())
                && candidate.depth < CHAIN_MAX
        };
        let mut tries: Vec<usize> = Vec::with_capacity(4);
        tries.extend(self.candidates.by_shape.get(&shape));
        if let Some(members) = self.candidates.by_family.get(&family) {
            // The nearest neighbour is the bucket that grew by the next smaller or larger number.
            let own = growth(integers);
            let distance = |index: &usize| {
                self.candidates.all.get(*index).map_or(u64::MAX, |other| other.growth().abs_diff(own))
            };
            tries.extend(members.iter().rev().min_by_key(|index| distance(index)));
            tries.extend(members.last());
        }
        let mut best = Choice { plan: self.encoder.plan(integers), reference: None };
        let mut difference = Vec::new();
        let mut tried = None;
        for index in tries {
            let Some(candidate) = self.candidates.all.get(index).filter(|candidate| usable(candidate)) else {
                continue;
            };
            if tried.replace(index) == Some(index) {
                continue;
            }
            difference.clear();
            difference.extend(integers.iter().zip(&candidate.integers).map(|(x, r)| x.wrapping_sub(*r)));
            let plan = self.encoder.plan(&difference);
            // Two bytes for the reference, and something for the time it takes to follow.
            if plan.bytes + 3 < best.plan.bytes {
                best = Choice { plan, reference: Some(index) };
            }
            if best.plan.bytes < 12 {
                break;
            }
        }
        best
    }

    /// Fills `payload`; returns the distance to the slot referred to, and the depth of the new slot.
    fn write_payload(&mut self, mode: Mode, slot: u16, choice: &Choice) -> (Option<u16>, u8) {
        self.payload.clear();
        if !self.numbers.exceptions.is_empty() {
            write_exceptions(&self.numbers.exceptions, &mut self.payload);
        }
        let header = &choice.plan.header;
        let reference = choice.reference.and_then(|index| self.candidates.all.get(index));
        match reference {
            Some(candidate) => {
                let pairs = self.numbers.integers.iter().zip(&candidate.integers);
                let difference: Vec<i64> = pairs.map(|(x, r)| x.wrapping_sub(*r)).collect();
                self.encoder.write(header, &difference, &mut self.payload);
            }
            None => self.encoder.write(header, &self.numbers.integers, &mut self.payload),
        }
        if mode == Mode::Ulp {
            self.encoder.write_inline(&self.numbers.ulps, &mut self.payload);
        }
        (
            reference.map(|candidate| slot - candidate.slot),
            reference.map_or(0, |candidate| candidate.depth + 1),
        )
    }

    /// Writes the fields of a slot, and `payload` if it has one.
    fn write_slot(&mut self, mode: Mode, exponent: u8, distance: Option<u16>, header: &Header) {
        let factor = if header.factor == 1 { 0 } else { EXTRA_FACTOR };
        let exceptions =
            if self.numbers.exceptions.is_empty() || mode == Mode::Copy { 0 } else { EXTRA_EXCEPTIONS };
        let extra = factor | exceptions;
        let tag = Tag {
            mode,
            transform: header.transform,
            referring: distance.is_some() && mode != Mode::Copy,
            extra: extra != 0,
        };
        let s = &mut self.sections;
        s.tags.push(tag.code());
        if mode.has_exponent() {
            s.exponents.push(exponent);
        }
        if extra != 0 {
            s.extras.push(extra);
        }
        if let Some(distance) = distance {
            write::uvarint(&mut s.references, u64::from(distance));
        }
        if mode == Mode::Copy {
            return;
        }
        write::varint(&mut s.firsts, header.first);
        if header.transform.has_base() {
            write::varint(&mut s.bases, header.base);
        }
        if factor != 0 {
            write::uvarint(&mut s.factors, header.factor);
        }
        if tag.has_payload(exceptions != 0) {
            write::uvarint(&mut s.lengths, self.payload.len() as u64);
            s.payloads.extend_from_slice(&self.payload);
        }
    }

    /// Makes the column in `numbers` a candidate.
    fn remember(
        &mut self,
        slot: u16,
        mode: Mode,
        exponent: u8,
        depth: u8,
        shape: (u64, u64),
        family: (u64, u64),
    ) {
        let index = self.candidates.all.len();
        let integers = self.numbers.integers.clone();
        let ulps = if mode == Mode::Ulp { self.numbers.ulps.clone() } else { Vec::new() };
        self.candidates.all.push(Candidate { slot, mode, exponent, depth, integers, ulps });
        self.candidates.by_shape.entry(shape).or_insert(index);
        let members = self.candidates.by_family.entry(family).or_default();
        if members.len() == FAMILY_MAX {
            members.remove(0);
        }
        members.push(index);
    }

    /// How many slots have been added.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.sections.tags.len()
    }

    /// About how many bytes the frame has so far, before zstd.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        self.sections.len()
    }

    /// Appends the frame to `out` and starts the next one. Buffers are kept.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        let body = &mut self.fields;
        body.clear();
        write::uvarint(body, self.sections.tags.len() as u64);
        for (slots, samples) in self.sections.samples.drain(..) {
            write::uvarint(body, slots);
            write::uvarint(body, samples);
        }
        body.append(&mut self.sections.tags);
        for section in self.sections.prefixed() {
            write::prefixed(body, section);
            section.clear();
        }
        out.push(VERSION);
        self.squeezer.write(&self.fields, FIELDS_GAIN_MIN, out);
        self.squeezer.write(&self.sections.payloads, PAYLOADS_GAIN_MIN, out);
        self.sections.payloads.clear();
        self.candidates.clear();
    }
}
