//! Floats as Go's `strconv.FormatFloat` prints them, which is how Prometheus does: the fewest digits that read back as the
//! number, and of those the nearest; of two that are as near, the even one (Rust's `Display` takes the upper one).

/// Below it every whole number is exact, and its own digits are the fewest.
const WHOLE_MAX: f64 = 1e15;

/// Where floats are written to.
pub trait AsciiText {
    /// Appends `ascii`.
    fn push_ascii(&mut self, ascii: &[u8]);
}

impl AsciiText for String {
    #[inline]
    fn push_ascii(&mut self, ascii: &[u8]) {
        self.push_str(str::from_utf8(ascii).unwrap_or_default());
    }
}

impl AsciiText for Vec<u8> {
    #[inline]
    fn push_ascii(&mut self, ascii: &[u8]) {
        self.extend_from_slice(ascii);
    }
}

/// Appends `v` as `FormatFloat(v, 'f', -1, 64)`: the shortest digits that read back as `v`, never an exponent;
/// `NaN`, `+Inf`, `-Inf`.
pub fn write_fixed(out: &mut impl AsciiText, v: f64) {
    if v.is_nan() {
        out.push_ascii(b"NaN");
    } else if v.is_infinite() {
        out.push_ascii(if v > 0.0 { b"+Inf" } else { b"-Inf" });
    } else if v.abs() < WHOLE_MAX && v.trunc() == v {
        if v == 0.0 && v.is_sign_negative() {
            out.push_ascii(b"-");
        }
        out.push_ascii(itoa::Buffer::new().format(v as i64).as_bytes());
    } else {
        Decimal::new(v, out).fixed(out);
    }
}

/// Appends `v` as `FormatFloat(v, 'e', -1, 64)`: `1e+06`, `1.5e-07`, the exponent of at least two digits.
pub fn write_exponent(out: &mut impl AsciiText, v: f64) {
    if !v.is_finite() {
        write_fixed(out, v);
    } else if v == 0.0 {
        out.push_ascii(if v.is_sign_negative() { b"-0e+00" } else { b"0e+00" });
    } else {
        Decimal::new(v, out).exponent(out);
    }
}

/// Appends `v` as `FormatFloat(v, 'g', -1, 64)` (also Go's `%v`): an exponent below 1e-4 and from 1e6 on.
pub fn write_general(out: &mut impl AsciiText, v: f64) {
    if v == 0.0 || (1e-4..1e6).contains(&v.abs()) { write_fixed(out, v) } else { write_exponent(out, v) }
}

/// Appends `v` as Go's `encoding/json` writes floats, and the API of Prometheus its values: an exponent below 1e-6 and from
/// 1e21 on.
pub fn write_json(out: &mut impl AsciiText, v: f64) {
    if v == 0.0 || (1e-6..1e21).contains(&v.abs()) { write_fixed(out, v) } else { write_exponent(out, v) }
}

/// [`write_fixed`] into a new string.
#[must_use]
pub fn fixed(v: f64) -> String {
    let mut out = String::new();
    write_fixed(&mut out, v);
    out
}

/// [`write_general`] into a new string.
#[must_use]
pub fn general(v: f64) -> String {
    let mut out = String::new();
    write_general(&mut out, v);
    out
}

/// The shortest digits of a float: `0.d1d2d3... * 10^point`. Seventeen digits at most.
struct Decimal {
    digits: [u8; 20],
    count: usize,
    /// Where the decimal point stands, counted from before the first digit.
    point: i32,
}

impl Decimal {
    /// The digits of `v`, which is finite and not 0; its sign goes to `out`.
    fn new(v: f64, out: &mut impl AsciiText) -> Self {
        let mut buffer = zmij::Buffer::new();
        let text = buffer.format_finite(v.abs());
        if v.is_sign_negative() {
            out.push_ascii(b"-");
        }
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut decimal = Self { digits: [b'0'; 20], count: 0, point: exponent + whole.len() as i32 };
        for digit in whole.bytes().chain(fraction.bytes()) {
            if decimal.count == 0 && digit == b'0' {
                decimal.point -= 1;
            } else if decimal.count < decimal.digits.len() {
                decimal.digits[decimal.count] = digit;
                decimal.count += 1;
            }
        }
        while decimal.count > 1 && decimal.digits[decimal.count - 1] == b'0' {
            decimal.count -= 1;
        }
        decimal
    }

    fn digits(&self) -> &[u8] {
        &self.digits[..self.count]
    }

    fn fixed(&self, out: &mut impl AsciiText) {
        if self.point <= 0 {
            out.push_ascii(b"0.");
            zeros(out, self.point.unsigned_abs() as usize);
            out.push_ascii(self.digits());
        } else if self.point as usize >= self.count {
            out.push_ascii(self.digits());
            zeros(out, self.point as usize - self.count);
        } else {
            let (whole, fraction) = self.digits().split_at(self.point as usize);
            out.push_ascii(whole);
            out.push_ascii(b".");
            out.push_ascii(fraction);
        }
    }

    fn exponent(&self, out: &mut impl AsciiText) {
        let (first, rest) = self.digits().split_at(1);
        out.push_ascii(first);
        if !rest.is_empty() {
            out.push_ascii(b".");
            out.push_ascii(rest);
        }
        let exponent = self.point - 1;
        out.push_ascii(if exponent < 0 { b"e-" } else { b"e+" });
        if exponent.unsigned_abs() < 10 {
            out.push_ascii(b"0");
        }
        out.push_ascii(itoa::Buffer::new().format(exponent.unsigned_abs()).as_bytes());
    }
}

fn zeros(out: &mut impl AsciiText, count: usize) {
    (0..count).for_each(|_| out.push_ascii(b"0"));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json(v: f64) -> String {
        let mut out = String::new();
        write_json(&mut out, v);
        out
    }

    fn exponent(v: f64) -> String {
        let mut out = String::new();
        write_exponent(&mut out, v);
        out
    }

    /// Both as Go has them, said in another way.
    fn expected(v: f64) -> (String, String) {
        if !v.is_finite() {
            let text = if v.is_nan() { "NaN" } else { ["-Inf", "+Inf"][usize::from(v > 0.0)] };
            return (text.to_owned(), text.to_owned());
        }
        // Half way between two shortest texts the exact value has a single decimal more; written with that many, Rust takes
        // the even one.
        let decimals = |text: &str| text.split_once('.').map_or(0, |(_, decimals)| decimals.len());
        let shortest = v.to_string();
        let exact = decimals(format!("{v:.1100}").trim_end_matches('0'));
        let decimals = decimals(&shortest);
        let half_way = decimals > 0 && exact == decimals + 1;
        let fixed = if half_way { format!("{v:.decimals$}") } else { shortest };
        let digits = fixed.trim_matches(['-', '.', '0']).replace('.', "").len().max(1);
        let text = if half_way { format!("{v:.*e}", digits - 1) } else { format!("{v:e}") };
        let (mantissa, power) = text.split_once('e').expect("an exponent");
        let power: i32 = power.parse().expect("a number");
        let sign = if power < 0 { '-' } else { '+' };
        (fixed, format!("{mantissa}e{sign}{:02}", power.abs()))
    }

    #[track_caller]
    fn same(v: f64) {
        let (of_fixed, of_exponent) = expected(v);
        assert_eq!(fixed(v), of_fixed);
        assert_eq!(exponent(v), of_exponent);
        let within = |range: std::ops::Range<f64>| v == 0.0 || !v.is_finite() || range.contains(&v.abs());
        assert_eq!(json(v), if within(1e-6..1e21) { &*of_fixed } else { &*of_exponent });
        assert_eq!(general(v), if within(1e-4..1e6) { of_fixed } else { of_exponent });
        let mut bytes = Vec::new();
        write_json(&mut bytes, v);
        assert_eq!(bytes, json(v).into_bytes());
    }

    #[test]
    fn as_go_prints() {
        for (v, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (123456789.125, "123456789.125"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Inf"),
            (1e-6, "0.000001"),
            (1e21, "1000000000000000000000"),
            // Half way between two texts of sixteen digits: ...658.25 in truth.
            (705_120_779_736_658.2, "705120779736658.2"),
            (-705_120_779_736_658.2, "-705120779736658.2"),
            (705_120_779_736_658.8, "705120779736658.8"),
            (705_120_779_736_657.2, "705120779736657.2"),
            (705_120_779_736_657.8, "705120779736657.8"),
            (142_921_358_579_709.62, "142921358579709.62"),
        ] {
            assert_eq!(fixed(v), text);
        }
        for (v, text) in [
            (1e-7, "1e-07"),
            (1e21, "1e+21"),
            (1.5e300, "1.5e+300"),
            (0.0, "0e+00"),
            (-0.0, "-0e+00"),
            (f64::INFINITY, "+Inf"),
            (705_120_779_736_658.2, "7.051207797366582e+14"),
        ] {
            assert_eq!(exponent(v), text);
        }
        assert_eq!(general(1e6), "1e+06");
        assert_eq!(general(1234567.0), "1.234567e+06");
        assert_eq!(general(999999.0), "999999");
        assert_eq!(general(1e21), "1e+21");
        assert_eq!(general(0.00001), "1e-05");
        assert_eq!(general(705_120_779_736_658.2), "7.051207797366582e+14");
        for (v, text) in [
            (1e-7, "1e-07"),
            (1e-6, "0.000001"),
            (1e21, "1e+21"),
            (1.5e300, "1.5e+300"),
            (705_120_779_736_658.2, "705120779736658.2"),
            (999_999_999_999_999_900_000.0, "999999999999999900000"),
        ] {
            assert_eq!(json(v), text);
        }
    }

    #[test]
    fn edges() {
        for magnitude in [
            0.0,
            1.0,
            1e15,
            1e15 - 1.0,
            123_456_789_012_345_680.0,
            1e21,
            999_999_999_999_999_900_000.0,
            1e-6,
            9.999_999e-7,
            1e-7,
            0.1,
            100.5,
            5e-324,
            f64::MAX,
            f64::MIN_POSITIVE,
            1.0 / 3.0,
            705_120_779_736_658.2,
            142_921_358_579_709.62,
            1_848_303_594_544_508.2,
            f64::NAN,
            f64::INFINITY,
        ] {
            same(magnitude);
            same(-magnitude);
        }
    }

    proptest! {
        #[test]
        fn every_float(bits in any::<u64>()) {
            same(f64::from_bits(bits));
        }

        #[test]
        fn every_short_decimal(mantissa in -1_000_000_i64..1_000_000, exponent in -12_i32..12) {
            same(mantissa as f64 * 10_f64.powi(exponent));
        }

        /// Where halves are many: a few bits behind the point, and hardly room for them.
        #[test]
        fn every_half(eighths in 1_i64 << 49..1 << 53) {
            same(eighths as f64 / 8.0);
        }
    }
}
