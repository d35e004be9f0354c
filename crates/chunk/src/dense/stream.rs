//! Columns of integers: the transform that leaves the least, then [`blocks`].
//!
//! All arithmetic wraps, so that any integers survive.

use chronolith_codec::write;

use super::input::Input;
use super::pack::BLOCK;
use super::{UNIT_COLUMN as UNIT, blocks, uvarint_len, varint_len};
use crate::{Error, Result};

/// How a column of integers became fewer bits. `x` is the column, `y = (x - x[0]) / factor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Transform {
    /// All alike.
    Constant,
    /// All steps alike.
    ConstantDelta,
    /// Runs of equal numbers.
    Runs,
    /// Distance from the smallest.
    FrameOfReference,
    /// Steps, of either sign.
    Delta,
    /// Distance of the steps from the smallest step.
    DeltaBase,
    /// Steps of the steps.
    Delta2,
    /// Distance from a straight line.
    Line,
}

impl Transform {
    /// All, by their codes.
    const ALL: [Self; 8] = [
        Self::Constant,
        Self::ConstantDelta,
        Self::Runs,
        Self::FrameOfReference,
        Self::Delta,
        Self::DeltaBase,
        Self::Delta2,
        Self::Line,
    ];

    pub(super) const fn code(self) -> u8 {
        self as u8
    }

    /// The transform of the low three bits of `code`.
    pub(super) fn from_code(code: u8) -> Self {
        Self::ALL.get(usize::from(code & 7)).copied().unwrap_or(Self::Constant)
    }

    /// Whether [`Header::base`] is written.
    pub(super) const fn has_base(self) -> bool {
        !matches!(self, Self::Constant | Self::Runs | Self::Delta)
    }

    /// Whether a payload is written.
    pub(super) const fn has_payload(self) -> bool {
        !matches!(self, Self::Constant | Self::ConstantDelta)
    }
}

/// What is written of a stream besides its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) transform: Transform,
    /// The first number; 0 of an empty column.
    pub(super) first: i64,
    /// The smallest (frame of reference), the step (constant delta, line), the smallest step (delta with base), or
    /// the first step (delta of delta); else 0.
    pub(super) base: i64,
    /// What all differences are multiples of; at least 1.
    pub(super) factor: u64,
}

impl Header {
    pub(super) const fn constant(first: i64) -> Self {
        Self { transform: Transform::Constant, first, base: 0, factor: 1 }
    }

    pub(super) fn bytes(&self) -> usize {
        let base = if self.transform.has_base() { varint_len(self.base) } else { 0 };
        let factor = if self.factor == 1 { 0 } else { 1 + uvarint_len(self.factor) };
        varint_len(self.first) + base + factor
    }
}

/// A way to write a column, and its price in bytes, header included.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) header: Header,
    pub(super) bytes: usize,
}

/// Chooses and writes; keeps its buffers.
#[derive(Clone, Debug, Default)]
pub(super) struct Encoder {
    /// `y`.
    scaled: Vec<i64>,
    residuals: Vec<u64>,
    steps: Vec<i64>,
}

impl Encoder {
    /// The cheapest way to write `column`.
    pub(super) fn plan(&mut self, column: &[i64]) -> Plan {
        let Some(&first) = column.first() else {
            return Plan { header: Header::constant(0), bytes: 1 };
        };
        let constant = Header::constant(first);
        let factor = factor_of(column);
        if factor == 0 {
            return Plan { header: constant, bytes: constant.bytes() };
        }
        self.scale(column, first, factor);
        let steps = self.scaled.windows(2).map(|pair| match pair {
            [a, b] => b.wrapping_sub(*a),
            _ => 0,
        });
        self.steps.clear();
        self.steps.extend(steps);
        let (mut smallest, mut largest) = (i64::MAX, i64::MIN);
        let mut changes = 0;
        for step in &self.steps {
            smallest = smallest.min(*step);
            largest = largest.max(*step);
            changes += usize::from(*step != 0);
        }
        let with = |transform, base| Header { transform, base, factor, ..constant };
        if smallest == largest {
            let base = smallest.wrapping_mul(factor as i64);
            let header = Header { transform: Transform::ConstantDelta, base, ..constant };
            return Plan { header, bytes: header.bytes() };
        }
        let mut best = Plan { header: constant, bytes: usize::MAX };
        if changes < column.len() / 8 {
            let header = with(Transform::Runs, 0);
            best = Plan { header, bytes: header.bytes() + runs_cost(&self.steps, changes) };
            if changes * 12 < column.len() / BLOCK * 4 {
                return best;
            }
        }
        let low = self.scaled.iter().copied().min().unwrap_or(0);
        let mean = self.mean_step();
        let median = self.median_step().filter(|step| Some(*step) != mean);
        let candidates = [
            Some(with(Transform::FrameOfReference, low)),
            Some(with(Transform::DeltaBase, smallest)),
            (smallest < 0).then(|| with(Transform::Delta, 0)),
            self.steps.first().map(|step| with(Transform::Delta2, *step)),
            mean.map(|step| with(Transform::Line, step)),
            median.map(|step| with(Transform::Line, step)),
        ];
        // The two that look best are tried.
        let mut looks = [(usize::MAX, constant); 2];
        for header in candidates.into_iter().flatten() {
            residuals(&header, &self.scaled, &self.steps, &mut self.residuals);
            let look = blocks::estimate(&self.residuals);
            let [best, second] = &mut looks;
            if look < best.0 {
                *second = *best;
                *best = (look, header);
            } else if look < second.0 {
                *second = (look, header);
            }
        }
        for (_, header) in looks.into_iter().filter(|(look, _)| *look < usize::MAX) {
            let prefix = residuals(&header, &self.scaled, &self.steps, &mut self.residuals);
            let bytes = header.bytes() + prefix.map_or(0, varint_len) + blocks::cost(&self.residuals);
            if bytes < best.bytes {
                best = Plan { header, bytes };
            }
        }
        best
    }

    /// Appends the payload of `column` as `header` says; `header` comes from [`Encoder::plan`] of the same column.
    pub(super) fn write(&mut self, header: &Header, column: &[i64], out: &mut Vec<u8>) {
        if !header.transform.has_payload() {
            return;
        }
        self.scale(column, header.first, header.factor);
        self.steps.clear();
        self.steps.extend(self.scaled.windows(2).map(|pair| match pair {
            [a, b] => b.wrapping_sub(*a),
            _ => 0,
        }));
        if header.transform == Transform::Runs {
            write_runs(&self.steps, out);
            return;
        }
        if let Some(prefix) = residuals(header, &self.scaled, &self.steps, &mut self.residuals) {
            write::varint(out, prefix);
        }
        blocks::encode(&self.residuals, out);
    }

    /// Appends a whole stream: transform, header and payload.
    pub(super) fn write_inline(&mut self, column: &[i64], out: &mut Vec<u8>) {
        let header = self.plan(column).header;
        let scaled = header.factor != 1;
        out.push(header.transform.code() | u8::from(scaled) << 3);
        write::varint(out, header.first);
        if header.transform.has_base() {
            write::varint(out, header.base);
        }
        if scaled {
            write::uvarint(out, header.factor);
        }
        self.write(&header, column, out);
    }

    fn scale(&mut self, column: &[i64], first: i64, factor: u64) {
        self.scaled.clear();
        if factor == 1 {
            self.scaled.extend(column.iter().map(|x| x.wrapping_sub(first)));
        } else {
            // Without overflow: factor_of() gives 1 to columns that need it.
            let factor = factor as i64;
            self.scaled.extend(column.iter().map(|x| x.wrapping_sub(first).wrapping_div(factor)));
        }
    }

    fn mean_step(&self) -> Option<i64> {
        let (first, last) = (i128::from(*self.scaled.first()?), i128::from(*self.scaled.last()?));
        let steps = self.steps.len() as i128;
        let half = if last >= first { steps / 2 } else { -steps / 2 };
        i64::try_from((last - first + half).checked_div(steps)?).ok()
    }

    fn median_step(&mut self) -> Option<i64> {
        let mut sorted: Vec<i64> = self.steps.iter().step_by(self.steps.len() / 65 + 1).copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    }
}

/// The greatest common divisor of the differences to the first number: 0 if there are none, 1 if one of them
/// overflows.
fn factor_of(column: &[i64]) -> u64 {
    let Some(&first) = column.first() else { return 0 };
    let mut factor = 0_u64;
    for x in column {
        let Some(difference) = x.checked_sub(first) else { return 1 };
        if difference != 0 && factor != 1 {
            let difference = difference.unsigned_abs();
            factor = if factor == 0 {
                difference
            } else if difference % factor == 0 {
                factor
            } else {
                gcd(factor, difference)
            };
        }
    }
    // A factor of 2^63 does not fit an i64.
    if factor > i64::MAX as u64 { 1 } else { factor }
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Puts what is left of a column into `out`; what it returns is written before the blocks.
fn residuals(header: &Header, scaled: &[i64], steps: &[i64], out: &mut Vec<u64>) -> Option<i64> {
    out.clear();
    match header.transform {
        Transform::FrameOfReference => {
            out.extend(scaled.iter().map(|y| y.wrapping_sub(header.base) as u64));
        }
        Transform::Delta => out.extend(steps.iter().map(|step| write::zigzag(*step))),
        Transform::DeltaBase => out.extend(steps.iter().map(|step| step.wrapping_sub(header.base) as u64)),
        Transform::Delta2 => out.extend(steps.windows(2).map(|pair| match pair {
            [a, b] => write::zigzag(b.wrapping_sub(*a)),
            _ => 0,
        })),
        Transform::Line => {
            let mut at = 0_i64;
            out.extend(scaled.iter().map(|y| {
                let distance = y.wrapping_sub(at);
                at = at.wrapping_add(header.base);
                distance as u64
            }));
            let lowest = out.iter().map(|distance| *distance as i64).min().unwrap_or(0);
            for distance in out {
                *distance = distance.wrapping_sub(lowest as u64);
            }
            return Some(lowest);
        }
        Transform::Constant | Transform::ConstantDelta | Transform::Runs => {}
    }
    None
}

fn runs_cost(steps: &[i64], changes: usize) -> usize {
    let mut bytes = uvarint_len(changes as u64);
    let mut run = 0;
    for step in steps {
        run += 1;
        if *step != 0 {
            bytes += uvarint_len(run) + varint_len(*step);
            run = 0;
        }
    }
    bytes
}

fn write_runs(steps: &[i64], out: &mut Vec<u8>) {
    let changes = steps.iter().filter(|step| **step != 0).count();
    write::uvarint(out, changes as u64);
    let mut run = 0;
    for step in steps {
        run += 1;
        if *step != 0 {
            write::uvarint(out, run);
            write::varint(out, *step);
            run = 0;
        }
    }
}

/// Reads a stream written by [`Encoder::write_inline`] into `out`, which gets `count` numbers.
pub(super) fn decode_inline(input: &mut Input<'_>, count: usize, out: &mut Vec<i64>) -> Result<()> {
    let damaged = |source| Error::Unreadable { unit: UNIT, source };
    let off = input.offset();
    let code = input.u8("transform").map_err(damaged)?;
    if code >> 4 != 0 {
        let got = u64::from(code);
        return Err(Error::Invalid { unit: UNIT, off, expected: "a transform", got });
    }
    let transform = Transform::from_code(code);
    let first = input.varint("first number").map_err(damaged)?;
    let base = if transform.has_base() { input.varint("base").map_err(damaged)? } else { 0 };
    let factor = if code & 8 == 0 { 1 } else { input.uvarint("factor").map_err(damaged)? };
    decode(&Header { transform, first, base, factor }, input, count, out)
}

/// Reads the payload of a stream: `out` gets `count` numbers, at most [`super::COLUMN_SAMPLES_MAX`], and nothing else.
pub(super) fn decode(header: &Header, input: &mut Input<'_>, count: usize, out: &mut Vec<i64>) -> Result<()> {
    // What was in it is overwritten, all of it.
    out.resize(count, 0);
    if header.transform == Transform::Constant {
        out.fill(header.first);
        return Ok(());
    }
    let plain = header.factor == 1;
    let start = if plain { header.first } else { 0 };
    match header.transform {
        Transform::Constant => {}
        Transform::ConstantDelta => {
            let mut at = start;
            for x in &mut *out {
                *x = at;
                at = at.wrapping_add(header.base);
            }
        }
        Transform::Runs => decode_runs(start, input, out)?,
        Transform::FrameOfReference => {
            let base = start.wrapping_add(header.base);
            each_block(input, out, |residual| base.wrapping_add(residual as i64))?;
        }
        Transform::Delta | Transform::DeltaBase | Transform::Delta2 => {
            decode_steps(header, start, input, out)?
        }
        Transform::Line => {
            let lowest = input.varint("lowest distance");
            let lowest = lowest.map_err(|source| Error::Unreadable { unit: UNIT, source })?;
            let mut at = start.wrapping_add(lowest);
            each_block(input, out, |residual| {
                let x = at.wrapping_add(residual as i64);
                at = at.wrapping_add(header.base);
                x
            })?;
        }
    }
    if !plain {
        for x in out {
            *x = x.wrapping_mul(header.factor as i64).wrapping_add(header.first);
        }
    }
    Ok(())
}

fn decode_steps(header: &Header, start: i64, input: &mut Input<'_>, out: &mut [i64]) -> Result<()> {
    let Some((first, rest)) = out.split_first_mut() else { return Ok(()) };
    *first = start;
    let mut at = start;
    match header.transform {
        Transform::Delta => each_sum(input, rest, at, write::unzigzag),
        Transform::Delta2 => {
            let Some((second, rest)) = rest.split_first_mut() else { return Ok(()) };
            let step = header.base;
            at = at.wrapping_add(step);
            *second = at;
            // Sums of sums: first the steps, then the numbers.
            each_sum(input, rest, step, write::unzigzag)?;
            sum_up(rest, at);
            Ok(())
        }
        _ => {
            let base = header.base;
            each_sum(input, rest, at, move |residual| (residual as i64).wrapping_add(base))
        }
    }
}

/// Reads blocks for all of `out`: each number is the sum of `at` and the steps so far.
#[inline(always)]
fn each_sum(input: &mut Input<'_>, out: &mut [i64], at: i64, step: impl Fn(u64) -> i64) -> Result<()> {
    let (mut block, mut at) = ([0; BLOCK], at);
    for chunk in out.chunks_mut(BLOCK) {
        blocks::decode_block(input, chunk.len(), &mut block)?;
        let (fours, rest) = chunk.as_chunks_mut::<4>();
        let mut residuals = block.as_chunks::<4>().0.iter();
        for (sums, [a, b, c, d]) in fours.iter_mut().zip(residuals.by_ref()) {
            *sums = four_sums(at, [step(*a), step(*b), step(*c), step(*d)]);
            at = sums[3];
        }
        for (x, residual) in rest.iter_mut().zip(residuals.flatten()) {
            at = at.wrapping_add(step(*residual));
            *x = at;
        }
    }
    Ok(())
}

/// The sums of `at` and the steps so far, in such an order that only one addition waits for `at`.
#[inline(always)]
const fn four_sums(at: i64, [a, b, c, d]: [i64; 4]) -> [i64; 4] {
    let ab = a.wrapping_add(b);
    let cd = c.wrapping_add(d);
    [
        a.wrapping_add(at),
        ab.wrapping_add(at),
        ab.wrapping_add(c).wrapping_add(at),
        ab.wrapping_add(cd).wrapping_add(at),
    ]
}

/// Makes each step the sum of `at` and the steps so far.
fn sum_up(steps: &mut [i64], mut at: i64) {
    let (fours, rest) = steps.as_chunks_mut::<4>();
    for four in fours {
        *four = four_sums(at, *four);
        at = four[3];
    }
    for x in rest {
        at = at.wrapping_add(*x);
        *x = at;
    }
}

/// Reads blocks for all of `out`, each number through `restore`.
#[inline(always)]
fn each_block(input: &mut Input<'_>, out: &mut [i64], mut restore: impl FnMut(u64) -> i64) -> Result<()> {
    let mut block = [0; BLOCK];
    for chunk in out.chunks_mut(BLOCK) {
        blocks::decode_block(input, chunk.len(), &mut block)?;
        for (x, residual) in chunk.iter_mut().zip(&block) {
            *x = restore(*residual);
        }
    }
    Ok(())
}

fn decode_runs(start: i64, input: &mut Input<'_>, out: &mut [i64]) -> Result<()> {
    let damaged = |source| Error::Unreadable { unit: UNIT, source };
    let changes = input.count(out.len(), "number of changes").map_err(damaged)?;
    let (mut at, mut rest) = (start, out);
    for _ in 0..changes {
        let run = input.count(rest.len(), "length of a run").map_err(damaged)?;
        let step = input.varint("step").map_err(damaged)?;
        let (run, others) = std::mem::take(&mut rest).split_at_mut(run);
        run.fill(at);
        rest = others;
        at = at.wrapping_add(step);
    }
    rest.fill(at);
    Ok(())
}
