//! Names of blocks: sortable, unique without coordination.

use std::fmt;
use std::str::FromStr;

use chronolith_env::{Clock, Rng};

/// Length of the text of a [`Ulid`].
pub const ULID_TEXT_BYTES: usize = 26;

/// The alphabet of Crockford's base 32.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// A ULID (github.com/ulid/spec): 48 bits of milliseconds since 1970, 80 random bits. Orders by creation time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ulid(u128);

/// Text that is not a ULID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a block id: expected {ULID_TEXT_BYTES} characters of 0-9 A-Z without I L O U")]
pub struct UlidError {
    /// The text, cut at 64 bytes.
    pub text: String,
}

impl Ulid {
    /// A new id, from the clock and the random source.
    #[must_use]
    pub fn generate(clock: &dyn Clock, rng: &dyn Rng) -> Self {
        let millis = u64::try_from(clock.now_ms()).unwrap_or(0);
        let random = (u128::from(rng.next_u64()) << 64) | u128::from(rng.next_u64());
        Self::from_parts(millis, random)
    }

    /// An id of the low 48 bits of `millis` and the low 80 bits of `random`.
    #[must_use]
    pub const fn from_parts(millis: u64, random: u128) -> Self {
        Self(((millis as u128 & ((1 << 48) - 1)) << 80) | (random & ((1 << 80) - 1)))
    }

    /// The id of these 16 bytes, most significant first.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    /// The 16 bytes of the id, most significant first.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// When it was made, in milliseconds since 1970.
    #[must_use]
    pub const fn millis(self) -> u64 {
        (self.0 >> 80) as u64
    }
}

impl fmt::Display for Ulid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digit = |i: usize| (self.0 >> (5 * (ULID_TEXT_BYTES - 1 - i))) as usize & 31;
        let text: String =
            (0..ULID_TEXT_BYTES).filter_map(|i| ALPHABET.get(digit(i))).map(|b| char::from(*b)).collect();
        f.write_str(&text)
    }
}

impl fmt::Debug for Ulid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Ulid {
    type Err = UlidError;

    /// Only the canonical text is read: capitals, no look-alikes, no value above 128 bits.
    fn from_str(text: &str) -> Result<Self, UlidError> {
        let refuse = || UlidError { text: text.chars().take(64).collect() };
        if text.len() != ULID_TEXT_BYTES {
            return Err(refuse());
        }
        let mut value = 0_u128;
        for byte in text.bytes() {
            let digit = ALPHABET.iter().position(|b| *b == byte).ok_or_else(refuse)?;
            value = value.checked_mul(32).ok_or_else(refuse)? | digit as u128;
        }
        Ok(Self(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_order() {
        let id = Ulid::from_parts(1_469_918_176_385, 0x1234_5678_9abc_def0_1234);
        let text = id.to_string();
        assert_eq!(&text[..10], "01ARYZ6S41", "the example of the specification");
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(Ulid::from_bytes(id.to_bytes()), id);
        assert_eq!(id.millis(), 1_469_918_176_385);
        assert!(Ulid::from_parts(2, 0) > Ulid::from_parts(1, u128::MAX));
        assert!(Ulid::from_parts(2, 0).to_string() > Ulid::from_parts(1, u128::MAX).to_string());
        let last = Ulid::from_bytes([0xff; 16]);
        assert_eq!(last.to_string(), "7ZZZZZZZZZZZZZZZZZZZZZZZZZ");
        assert_eq!(last.to_string().parse(), Ok(last));
        for bad in
            ["", "8ZZZZZZZZZZZZZZZZZZZZZZZZZ", "01ARYZ6S41IIIIIIIIIIIIIIII", "01aryz6s410000000000000000"]
        {
            assert!(bad.parse::<Ulid>().is_err(), "{bad}");
        }
    }
}
