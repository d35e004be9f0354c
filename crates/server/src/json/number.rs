//! Floats as Go prints them, several times faster than `chronolith_model::float` does.

/// Below it every whole number is exact, and `itoa` prints the shortest digits.
const WHOLE_MAX: f64 = 1e15;

/// A sample value of the HTTP API: with an exponent below 1e-6 and from 1e21 on.
pub(crate) fn write_float_api(out: &mut Vec<u8>, value: f64) {
    if written_simply(out, value) {
        return;
    }
    let decimal = Decimal::new(value, out);
    let magnitude = value.abs();
    if (1e-6..1e21).contains(&magnitude) { decimal.fixed(out) } else { decimal.exponent(out) }
}

/// As `model::float::write_fixed`: never an exponent.
pub(crate) fn write_float_fixed(out: &mut Vec<u8>, value: f64) {
    if !written_simply(out, value) {
        Decimal::new(value, out).fixed(out);
    }
}

/// Writes what is not finite, and whole numbers.
fn written_simply(out: &mut Vec<u8>, value: f64) -> bool {
    if value.is_nan() {
        out.extend_from_slice(b"NaN");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"+Inf" } else { b"-Inf" });
    } else if value.abs() < WHOLE_MAX && value.trunc() == value {
        if value == 0.0 && value.is_sign_negative() {
            out.push(b'-');
        }
        out.extend_from_slice(itoa::Buffer::new().format(value as i64).as_bytes());
    } else {
        return false;
    }
    true
}

/// The shortest digits of a float: `0.d1d2d3... * 10^point`. Seventeen digits at most.
struct Decimal {
    digits: [u8; 20],
    count: usize,
    /// Where the decimal point stands, counted from before the first digit.
    point: i32,
}

impl Decimal {
    /// The digits of `value`, which is finite and not 0; its sign goes to `out`.
    fn new(value: f64, out: &mut Vec<u8>) -> Self {
        let mut buffer = zmij::Buffer::new();
        let text = buffer.format_finite(value.abs());
        if value.is_sign_negative() {
            out.push(b'-');
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

    fn fixed(&self, out: &mut Vec<u8>) {
        let zeros = |out: &mut Vec<u8>, count: i32| out.resize(out.len() + count.max(0) as usize, b'0');
        if self.point <= 0 {
            out.extend_from_slice(b"0.");
            zeros(out, -self.point);
            out.extend_from_slice(self.digits());
        } else if self.point as usize >= self.count {
            out.extend_from_slice(self.digits());
            zeros(out, self.point - self.count as i32);
        } else {
            let (whole, fraction) = self.digits().split_at(self.point as usize);
            out.extend_from_slice(whole);
            out.push(b'.');
            out.extend_from_slice(fraction);
        }
    }

    fn exponent(&self, out: &mut Vec<u8>) {
        let (first, rest) = self.digits().split_at(1);
        out.extend_from_slice(first);
        if !rest.is_empty() {
            out.push(b'.');
            out.extend_from_slice(rest);
        }
        let exponent = self.point - 1;
        out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
        if exponent.unsigned_abs() < 10 {
            out.push(b'0');
        }
        out.extend_from_slice(itoa::Buffer::new().format(exponent.unsigned_abs()).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use chronolith_model::float;
    use proptest::prelude::*;

    use super::*;

    /// Half way between two shortest texts Go takes the even digit, and Rust, which `model::float` asks, the upper one. Then
    /// the exact value has a single decimal more; the text that Go has.
    fn half_way(value: f64) -> Option<String> {
        let decimals = |text: &str| text.split_once('.').map(|(_, decimals)| decimals.len());
        let shortest = decimals(&value.to_string())?;
        let exact = decimals(format!("{value:.1100}").trim_end_matches('0'))?;
        (exact == shortest + 1).then(|| format!("{value:.shortest$}"))
    }

    fn same(value: f64) {
        let mut api = Vec::new();
        write_float_api(&mut api, value);
        let mut expected = String::new();
        let half_way = half_way(value);
        if let Some(text) = &half_way {
            expected.clone_from(text);
        } else if value.is_finite() && value != 0.0 && !(1e-6..1e21).contains(&value.abs()) {
            float::write_exponent(&mut expected, value);
        } else {
            float::write_fixed(&mut expected, value);
        }
        assert_eq!(str::from_utf8(&api), Ok(expected.as_str()));
        let mut fixed = Vec::new();
        write_float_fixed(&mut fixed, value);
        assert_eq!(String::from_utf8(fixed), Ok(half_way.unwrap_or_else(|| float::fixed(value))));
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
            705_120_779_736_657.2,
            705_120_779_736_658.2,
            705_120_779_736_658.8,
            142_921_358_579_709.62,
            1_848_303_594_544_508.2,
            f64::NAN,
            f64::INFINITY,
        ] {
            same(magnitude);
            same(-magnitude);
        }
        for (value, text) in [
            (1e-7, "1e-07"),
            (1e-6, "0.000001"),
            (1e21, "1e+21"),
            (1.5e300, "1.5e+300"),
            (705_120_779_736_658.2, "705120779736658.2"),
            (705_120_779_736_657.2, "705120779736657.2"),
            (705_120_779_736_657.8, "705120779736657.8"),
            (142_921_358_579_709.62, "142921358579709.62"),
            (999_999_999_999_999_900_000.0, "999999999999999900000"),
        ] {
            let mut api = Vec::new();
            write_float_api(&mut api, value);
            assert_eq!(str::from_utf8(&api), Ok(text));
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
    }
}
