//! Timestamps, time ranges, durations.

use std::fmt::Write as _;

/// Milliseconds since the Unix epoch.
pub type Timestamp = i64;

/// A closed interval of time, `[min, max]`, in milliseconds. Empty when `min > max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimeRange {
    /// First millisecond inside.
    pub min: Timestamp,
    /// Last millisecond inside.
    pub max: Timestamp,
}

impl TimeRange {
    /// All of time.
    pub const ALL: Self = Self { min: i64::MIN, max: i64::MAX };

    /// The interval `[min, max]`.
    #[must_use]
    pub const fn new(min: Timestamp, max: Timestamp) -> Self {
        Self { min, max }
    }

    /// Whether `t` lies inside.
    #[must_use]
    pub const fn contains(&self, t: Timestamp) -> bool {
        self.min <= t && t <= self.max
    }

    /// Whether the two have a millisecond in common.
    #[must_use]
    pub const fn overlaps(&self, other: &Self) -> bool {
        self.min <= other.max && other.min <= self.max && self.min <= self.max && other.min <= other.max
    }
}

const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 24 * 3_600_000),
    ("w", 7 * 24 * 3_600_000),
    ("d", 24 * 3_600_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Reads a Prometheus duration such as `1h30m`, in milliseconds: units `y w d h m s ms` in that order, each at most
/// once, a bare `0` allowed. `None` for anything else, and above the 2^63 nanoseconds Prometheus can hold.
#[must_use]
pub fn parse_duration(text: &str) -> Option<i64> {
    if text == "0" {
        return Some(0);
    }
    if text.is_empty() {
        return None;
    }
    let mut rest = text;
    let mut total: u64 = 0;
    let mut next_unit = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?;
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit = rest.get(..letters)?;
        rest = rest.get(letters..)?;
        let index = UNITS.iter().position(|(name, _)| *name == unit)?;
        if index < next_unit {
            return None;
        }
        next_unit = index + 1;
        total = total.checked_add(number.checked_mul(UNITS[index].1)?)?;
    }
    let total = i64::try_from(total).ok()?;
    total.checked_mul(1_000_000).map(|_| total)
}

/// Prints milliseconds as Prometheus prints a duration: `1h30m`, `0s`; years and weeks only where they divide exactly.
/// A negative duration has a leading minus.
#[must_use]
pub fn format_duration(ms: i64) -> String {
    if ms == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    if ms < 0 {
        out.push('-');
    }
    let mut rest = ms.unsigned_abs();
    for (index, (unit, size)) in UNITS.iter().enumerate() {
        let exact_only = index < 2;
        let number = rest / size;
        if number > 0 && (!exact_only || rest.is_multiple_of(*size)) {
            let _ = write!(out, "{number}{unit}");
            rest -= number * size;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in [
            ("0", 0),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("1y2w3d", (365 + 14 + 3) * 86_400_000),
            ("1s500ms", 1_500),
            ("10ms", 10),
        ] {
            assert_eq!(parse_duration(text), Some(ms), "{text}");
        }
        for bad in ["", "5", "m", "1.5h", "1m1h", "1m1m", "-1m", "1x", "99999999999y", " 1m"] {
            assert_eq!(parse_duration(bad), None, "{bad:?}");
        }
        for (ms, text) in [
            (0, "0s"),
            (5_400_000, "1h30m"),
            (86_400_000, "1d"),
            (90_000_000, "1d1h"),
            (12 * 86_400_000, "12d"),
            (604_800_000, "1w"),
            (1, "1ms"),
            (-60_000, "-1m"),
            (31_536_000_000, "1y"),
        ] {
            assert_eq!(format_duration(ms), text);
        }
    }
}
