//! Frames to columns.

use chronolith_codec::{Error as CodecError, Reader, Result as CodecResult};

use super::input::{Input, PADDING};
use super::layout::{CHAIN_MAX, EXTRA_EXCEPTIONS, EXTRA_FACTOR, PREFIXED, Tag, VERSION, read_exceptions};
use super::numbers::{EXPONENT_MAX, Mode, restore};
use super::squeeze::Piece;
use super::stream::{self, Header, Transform};
use super::{COLUMN_SAMPLES_MAX, FRAME_BYTES_MAX, FRAME_SLOTS_MAX, UNIT_FRAME as UNIT, uvarint_len};
use crate::{Error, Result};

/// An opened frame, undone from zstd; owned, so that it can stay in a cache. Opening bounds all sizes before
/// allocating.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Fields and payloads, and [`PADDING`] zeros.
    body: Vec<u8>,
    slots: Vec<Slot>,
}

/// The fields of a slot.
#[derive(Clone, Copy, Debug)]
struct Slot {
    header: Header,
    samples: u32,
    /// Where the payload begins in the body.
    payload: u32,
    payload_len: u32,
    /// The slot referred to, if `tag.referring`; of a copy, the original.
    reference: u16,
    tag: Tag,
    exponent: u8,
    /// References from here to a slot without.
    depth: u8,
    exceptions: bool,
    /// Whether another slot refers to this one.
    referred: bool,
}

/// How one slot is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodingInfo {
    /// How the numbers became integers.
    pub mode: Mode,
    /// How the integers became fewer bits.
    pub transform: Transform,
    /// The earlier slot that this one is a difference to, or a copy of.
    pub reference: Option<u16>,
    /// Bytes of the slot before zstd, its fields included.
    pub bytes: usize,
}

fn damaged(source: CodecError) -> Error {
    Error::Unreadable { unit: UNIT, source }
}

impl Frame {
    /// Opens a frame; `bytes` is the frame and nothing else. Damage inside a payload is found when its slot is decoded.
    ///
    /// # Errors
    /// [`Error::Unreadable`], [`Error::Invalid`].
    pub fn open(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8("version").map_err(damaged)?;
        if version != VERSION {
            return Err(Error::Invalid {
                unit: UNIT,
                off: 0,
                expected: "version 1",
                got: u64::from(version),
            });
        }
        let fields = Piece::read(UNIT, &mut reader, FRAME_BYTES_MAX)?;
        let payloads = Piece::read(UNIT, &mut reader, FRAME_BYTES_MAX - fields.len())?;
        reader.finish().map_err(damaged)?;
        let mut body = vec![0; fields.len() + payloads.len() + PADDING];
        let (into, rest) = body.split_at_mut(fields.len());
        fields.undo(into)?;
        payloads.undo(rest.split_at_mut(payloads.len()).0)?;
        let slots = read_slots(&body, fields.len())?;
        Ok(Self { body, slots })
    }

    /// How many slots it has.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// How many samples a slot has; `None` if there is no such slot.
    #[must_use]
    pub fn samples(&self, slot: usize) -> Option<usize> {
        self.slots.get(slot).map(|slot| slot.samples as usize)
    }

    /// Bytes it keeps on the heap.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.body.capacity() + self.slots.capacity() * size_of::<Slot>()
    }

    /// Appends the values of a slot to `into`, all or none. For many slots, [`Frame::decoder`] is quicker.
    ///
    /// # Errors
    /// [`Error::NoSlot`]; [`Error::Unreadable`] or [`Error::Invalid`] if the slot's bytes are damaged.
    pub fn decode(&self, slot: usize, into: &mut Vec<f64>) -> Result<()> {
        Decoder { keeping: false, ..self.decoder() }.decode(slot, into)
    }

    /// A decoder for many slots, best asked in ascending order: it keeps what slots were decoded from.
    #[must_use]
    pub fn decoder(&self) -> Decoder<'_> {
        Decoder { frame: self, integers: Vec::new(), ulps: Vec::new(), kept: Vec::new(), keeping: true }
    }

    /// How a slot is encoded; `None` if there is no such slot.
    #[must_use]
    pub fn encoding(&self, slot: usize) -> Option<EncodingInfo> {
        let slot = self.slots.get(slot)?;
        let refers = slot.tag.referring || slot.tag.mode == Mode::Copy;
        Some(EncodingInfo {
            mode: slot.tag.mode,
            transform: slot.header.transform,
            reference: refers.then_some(slot.reference),
            bytes: slot.field_bytes() + slot.payload_len as usize,
        })
    }

    fn slot(&self, slot: usize) -> Result<&Slot> {
        self.slots.get(slot).ok_or(Error::NoSlot { slot, slots: self.slots.len() })
    }

    fn payload(&self, slot: &Slot) -> Input<'_> {
        Input::new(&self.body, slot.payload as usize, slot.payload_len as usize)
    }
}

/// Reads the fields of all slots, the first `len` bytes of `body`; each field stands in a section of its own.
fn read_slots(body: &[u8], len: usize) -> Result<Vec<Slot>> {
    let end = body.len().saturating_sub(PADDING);
    let mut input = Input::new(body, 0, len);
    let count = input.count(FRAME_SLOTS_MAX, "number of slots").map_err(damaged)?;
    let runs = read_runs(&mut input, count)?;
    let tags_off = input.offset();
    let tags = input.slice(count, "tags").map_err(damaged)?;
    let mut fields = Fields::open(body, &mut input)?;
    let mut slots: Vec<Slot> = Vec::with_capacity(count);
    let (mut runs, mut left, mut samples) = (runs.into_iter(), 0, 0);
    input.finish().map_err(damaged)?;
    let mut payload = len;
    for (at, code) in tags.iter().enumerate() {
        if left == 0 {
            (left, samples) = runs.next().unwrap_or((count, 0));
        }
        left -= 1;
        let off = tags_off + at;
        let invalid = Error::Invalid { unit: UNIT, off, expected: "a tag", got: u64::from(*code) };
        let tag = Tag::from_code(*code).ok_or(invalid)?;
        let mut slot = fields.read(tag)?;
        slot.samples = samples;
        slot.payload = payload as u32;
        payload += slot.payload_len as usize;
        if slot.tag.referring || slot.tag.mode == Mode::Copy {
            link(&mut slot, &mut slots, off)?;
        }
        slots.push(slot);
    }
    fields.finish()?;
    if payload != end {
        let got = end as u64;
        return Err(Error::Invalid {
            unit: UNIT,
            off: payload,
            expected: "the end behind the payloads",
            got,
        });
    }
    Ok(slots)
}

/// Runs of slots with equal numbers of samples, `count` slots in all.
fn read_runs(input: &mut Input<'_>, count: usize) -> Result<Vec<(usize, u32)>> {
    let (mut runs, mut left) = (Vec::new(), count);
    while left > 0 {
        let off = input.offset();
        let run = input.count(left, "length of a run of slots").map_err(damaged)?;
        if run == 0 {
            return Err(Error::Invalid { unit: UNIT, off, expected: "a slot in the run", got: 0 });
        }
        let samples = input.count(COLUMN_SAMPLES_MAX, "number of samples").map_err(damaged)?;
        runs.push((run, samples as u32));
        left -= run;
    }
    Ok(runs)
}

/// The sections of fields, each being read.
struct Fields<'a> {
    exponents: Input<'a>,
    extras: Input<'a>,
    references: Input<'a>,
    firsts: Input<'a>,
    bases: Input<'a>,
    factors: Input<'a>,
    lengths: Input<'a>,
}

impl<'a> Fields<'a> {
    fn open(body: &'a [u8], input: &mut Input<'a>) -> Result<Self> {
        let mut section = || -> CodecResult<Input<'a>> {
            let len = input.count(FRAME_BYTES_MAX, "length of a section")?;
            let start = input.offset();
            input.slice(len, "section")?;
            Ok(Input::new(body, start, len))
        };
        let mut all = || -> CodecResult<[Input<'a>; PREFIXED]> {
            Ok([section()?, section()?, section()?, section()?, section()?, section()?, section()?])
        };
        let [exponents, extras, references, firsts, bases, factors, lengths] = all().map_err(damaged)?;
        Ok(Self { exponents, extras, references, firsts, bases, factors, lengths })
    }

    /// The next slot, not yet linked and placed.
    #[inline]
    fn read(&mut self, tag: Tag) -> Result<Slot> {
        let header = Header { transform: tag.transform, ..Header::constant(0) };
        let mut slot = Slot {
            header,
            samples: 0,
            payload: 0,
            payload_len: 0,
            reference: 0,
            tag,
            exponent: 0,
            depth: 0,
            exceptions: false,
            referred: false,
        };
        if tag.mode.has_exponent() {
            let off = self.exponents.offset();
            slot.exponent = self.exponents.u8("exponent").map_err(damaged)?;
            if slot.exponent > EXPONENT_MAX {
                let got = u64::from(slot.exponent);
                return Err(Error::Invalid { unit: UNIT, off, expected: "an exponent of at most 22", got });
            }
        }
        let mut extra = 0;
        if tag.extra {
            let off = self.extras.offset();
            extra = self.extras.u8("extra fields").map_err(damaged)?;
            if !(1..=EXTRA_FACTOR | EXTRA_EXCEPTIONS).contains(&extra) {
                let got = u64::from(extra);
                return Err(Error::Invalid { unit: UNIT, off, expected: "extra fields, 1 to 3", got });
            }
            slot.exceptions = extra & EXTRA_EXCEPTIONS != 0;
        }
        if tag.referring || tag.mode == Mode::Copy {
            let distance = self.references.count(FRAME_SLOTS_MAX, "distance of a reference");
            slot.reference = distance.map_err(damaged)? as u16;
        }
        if tag.mode != Mode::Copy {
            slot.header.first = self.firsts.varint("first number").map_err(damaged)?;
            if tag.transform.has_base() {
                slot.header.base = self.bases.varint("base").map_err(damaged)?;
            }
            if extra & EXTRA_FACTOR != 0 {
                slot.header.factor = self.factors.uvarint("factor").map_err(damaged)?;
            }
            if tag.has_payload(slot.exceptions) {
                let len = self.lengths.count(FRAME_BYTES_MAX, "length of a payload");
                slot.payload_len = len.map_err(damaged)? as u32;
            }
        }
        Ok(slot)
    }

    /// Fails if something is left in a section.
    fn finish(&self) -> Result<()> {
        let Self { exponents, extras, references, firsts, bases, factors, lengths } = self;
        let sections = [exponents, extras, references, firsts, bases, factors, lengths];
        sections.into_iter().try_for_each(Input::finish).map_err(damaged)
    }
}

/// Resolves the reference of the slot behind `before`, whose tag is at `off`: it leads backwards, to a slot of the same
/// length, in a chain of bounded length.
fn link(slot: &mut Slot, before: &mut [Slot], off: usize) -> Result<()> {
    let copy = slot.tag.mode == Mode::Copy;
    let (at, distance) = (before.len(), usize::from(slot.reference));
    let target = at.checked_sub(distance).and_then(|target| before.get_mut(target));
    let target = target.filter(|target| {
        target.samples == slot.samples && target.tag.mode != Mode::Copy && (copy || target.depth < CHAIN_MAX)
    });
    let Some(target) = target else {
        let got = distance as u64;
        return Err(Error::Invalid { unit: UNIT, off, expected: "a reference to an equally long slot", got });
    };
    slot.reference = (at - distance) as u16;
    if !copy {
        target.referred = true;
        slot.depth = target.depth + 1;
    }
    Ok(())
}

/// Slots that a decoder keeps of those that others refer to, and the most samples of one.
const KEPT_MAX: usize = 128;
const KEPT_SAMPLES_MAX: usize = 4096;

/// Decodes slots of one frame, with buffers that it reuses.
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    frame: &'a Frame,
    integers: Vec<i64>,
    ulps: Vec<i64>,
    /// Integers of slots that others refer to, each in the place that its number modulo [`KEPT_MAX`] gives.
    kept: Vec<(usize, Vec<i64>)>,
    /// Whether it is to be used more than once.
    keeping: bool,
}

impl Decoder<'_> {
    /// As [`Frame::decode`].
    ///
    /// # Errors
    /// As [`Frame::decode`].
    pub fn decode(&mut self, slot: usize, into: &mut Vec<f64>) -> Result<()> {
        let mut at = slot;
        let mut slot = *self.frame.slot(at)?;
        if slot.tag.mode == Mode::Copy {
            at = usize::from(slot.reference);
            slot = *self.frame.slot(at)?;
        }
        let samples = slot.samples as usize;
        let start = into.len();
        if slot.is_plain_constant() {
            restore(slot.tag.mode, slot.exponent, &[slot.header.first], &[], into);
            let value = into.pop().unwrap_or(0.0);
            into.resize(start + samples, value);
            return Ok(());
        }
        let mut input = self.frame.payload(&slot);
        let exceptions = if slot.exceptions { read_exceptions(&mut input, samples)? } else { Vec::new() };
        let mut integers = std::mem::take(&mut self.integers);
        let read = self.integers_of(at, &slot, &mut input, &mut integers);
        self.integers = integers;
        read?;
        if slot.tag.mode == Mode::Ulp {
            stream::decode_inline(&mut input, samples, &mut self.ulps)?;
        }
        input.finish().map_err(damaged)?;
        restore(slot.tag.mode, slot.exponent, &self.integers, &self.ulps, into);
        for exception in exceptions {
            let places = start + exception.places.start..start + exception.places.end;
            if let Some(run) = into.get_mut(places) {
                run.fill(f64::from_bits(exception.bits));
            }
        }
        Ok(())
    }

    /// The integers of `slot`, number `at`, with `input` at its stream; what it refers to is decoded before.
    fn integers_of(
        &mut self,
        at: usize,
        slot: &Slot,
        input: &mut Input<'_>,
        out: &mut Vec<i64>,
    ) -> Result<()> {
        let samples = slot.samples as usize;
        stream::decode(&slot.header, input, samples, out)?;
        if slot.tag.referring {
            self.add_reference(usize::from(slot.reference), out)?;
        }
        if slot.referred && self.keeping {
            self.keep(at, out);
        }
        Ok(())
    }

    /// Adds the integers of slot `at`. Depth is bounded by [`CHAIN_MAX`].
    fn add_reference(&mut self, at: usize, out: &mut [i64]) -> Result<()> {
        if let Some((slot, kept)) = self.kept.get(at % KEPT_MAX)
            && *slot == at
            && kept.len() == out.len()
        {
            add(kept, out);
            return Ok(());
        }
        let slot = *self.frame.slot(at)?;
        let mut input = self.frame.payload(&slot);
        if slot.exceptions {
            read_exceptions(&mut input, slot.samples as usize)?;
        }
        let mut integers = Vec::new();
        self.integers_of(at, &slot, &mut input, &mut integers)?;
        add(&integers, out);
        Ok(())
    }

    fn keep(&mut self, at: usize, integers: &[i64]) {
        if integers.len() > KEPT_SAMPLES_MAX {
            return;
        }
        if self.kept.is_empty() {
            self.kept.resize(KEPT_MAX, (usize::MAX, Vec::new()));
        }
        if let Some((slot, kept)) = self.kept.get_mut(at % KEPT_MAX)
            && *slot != at
        {
            *slot = at;
            kept.clear();
            kept.extend_from_slice(integers);
        }
    }
}

impl Slot {
    /// Bytes of the fields.
    fn field_bytes(&self) -> usize {
        let refers = self.tag.referring || self.tag.mode == Mode::Copy;
        let payload = self.tag.has_payload(self.exceptions);
        let optional = |there: bool, bytes: usize| if there { bytes } else { 0 };
        // The distance of a reference has one byte or two.
        1 + usize::from(self.tag.mode.has_exponent())
            + usize::from(self.tag.extra)
            + optional(refers, 2)
            + optional(payload, uvarint_len(u64::from(self.payload_len)))
            + optional(self.tag.mode != Mode::Copy, self.header.bytes())
    }

    /// Whether all values are those of its first integer.
    fn is_plain_constant(&self) -> bool {
        self.header.transform == Transform::Constant
            && !self.tag.referring
            && !self.exceptions
            && self.tag.mode != Mode::Ulp
    }
}

fn add(reference: &[i64], out: &mut [i64]) {
    for (x, r) in out.iter_mut().zip(reference) {
        *x = x.wrapping_add(*r);
    }
}
