//! What frames have in common when they are written and read: header, tags, exceptions.

use chronolith_codec::{Error as CodecError, write};

use super::input::Input;
use super::numbers::{Exception, Mode};
use super::stream::Transform;
use super::{STALE_NAN_BITS, UNIT_FRAME as UNIT};
use crate::{Error, Result};

/// The version byte that frames begin with.
pub(super) const VERSION: u8 = 1;

/// How many references lead from a slot to one without.
pub(super) const CHAIN_MAX: u8 = 16;

/// Sections of fields that stand behind their lengths: exponents, extras, references, firsts, bases, factors, lengths of
/// payloads.
pub(super) const PREFIXED: usize = 7;

/// The tag of a slot: how it is encoded, and which of its optional fields are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) mode: Mode,
    pub(super) transform: Transform,
    /// The integers are the sum of those written and those of another slot.
    pub(super) referring: bool,
    /// There are a factor or exceptions.
    pub(super) extra: bool,
}

impl Tag {
    pub(super) fn code(self) -> u8 {
        self.mode.code()
            | self.transform.code() << 3
            | u8::from(self.referring) << 6
            | u8::from(self.extra) << 7
    }

    pub(super) fn from_code(code: u8) -> Option<Self> {
        Some(Self {
            mode: Mode::from_code(code)?,
            transform: Transform::from_code(code >> 3),
            referring: code & 0x40 != 0,
            extra: code & 0x80 != 0,
        })
    }
}

/// Bits of the byte that [`Tag::extra`] announces.
pub(super) const EXTRA_FACTOR: u8 = 1;
pub(super) const EXTRA_EXCEPTIONS: u8 = 2;

/// Values that exceptions often are, by their codes; any other has the code after them and is written.
const KNOWN: [u64; 6] = [
    STALE_NAN_BITS,
    // The NaN of Go and of Prometheus, and that of Rust and C.
    0x7ff8_0000_0000_0001,
    0x7ff8_0000_0000_0000,
    0x7ff0_0000_0000_0000,
    0xfff0_0000_0000_0000,
    0x8000_0000_0000_0000,
];

/// Appends exceptions: their number, then for each the gap to the one before, the length of the run, and the value.
pub(super) fn write_exceptions(exceptions: &[Exception], out: &mut Vec<u8>) {
    write::uvarint(out, exceptions.len() as u64);
    let mut end = 0;
    for exception in exceptions {
        let known = KNOWN.iter().position(|bits| *bits == exception.bits);
        write::uvarint(out, (exception.places.start - end) as u64);
        write::uvarint(out, (exception.places.len() - 1) as u64);
        out.push(known.unwrap_or(KNOWN.len()) as u8);
        if known.is_none() {
            write::u64_le(out, exception.bits);
        }
        end = exception.places.end;
    }
}

/// Reads the exceptions of a column of `samples`.
pub(super) fn read_exceptions(input: &mut Input<'_>, samples: usize) -> Result<Vec<Exception>> {
    let damaged = |source: CodecError| Error::Unreadable { unit: UNIT, source };
    let count = input.count(samples, "number of exceptions").map_err(damaged)?;
    let mut exceptions = Vec::with_capacity(count.min(64));
    let mut end = 0;
    for _ in 0..count {
        let start = end + input.count(samples - end, "gap before an exception").map_err(damaged)?;
        let left = (samples - start).checked_sub(1);
        let off = input.offset();
        let Some(left) = left else {
            return Err(Error::Invalid {
                unit: UNIT,
                off,
                expected: "an exception in the column",
                got: start as u64,
            });
        };
        end = start + 1 + input.count(left, "length of an exception").map_err(damaged)?;
        let code = input.u8("code of an exception").map_err(damaged)?;
        let bits = match KNOWN.get(usize::from(code)) {
            Some(bits) => *bits,
            None if usize::from(code) == KNOWN.len() => input.u64("an exception").map_err(damaged)?,
            None => {
                let got = u64::from(code);
                return Err(Error::Invalid { unit: UNIT, off, expected: "a code of an exception", got });
            }
        };
        exceptions.push(Exception { places: start..end, bits });
    }
    Ok(exceptions)
}

impl Tag {
    /// Whether the slot has a payload; exceptions stand there.
    pub(super) fn has_payload(self, exceptions: bool) -> bool {
        self.mode != Mode::Copy && (self.transform.has_payload() || self.mode == Mode::Ulp || exceptions)
    }
}
