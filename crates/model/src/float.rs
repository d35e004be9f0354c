//! Floats as Go's `strconv.FormatFloat` prints them, which is how Prometheus does.

/// Appends `v` as `FormatFloat(v, 'f', -1, 64)`: the shortest digits that read back as `v`, never an exponent;
/// `NaN`, `+Inf`, `-Inf`.
pub fn write_fixed(out: &mut String, v: f64) {
    use std::fmt::Write as _;
    if v.is_nan() {
        out.push_str("NaN");
    } else if v.is_infinite() {
        out.push_str(if v > 0.0 { "+Inf" } else { "-Inf" });
    } else {
        // Rust's Display for f64 is the shortest round-trip form without an exponent, as 'f' with -1 is.
        let _ = write!(out, "{v}");
    }
}

/// Appends `v` as `FormatFloat(v, 'e', -1, 64)`: `1e+06`, `1.5e-07`, the exponent of at least two digits.
pub fn write_exponent(out: &mut String, v: f64) {
    use std::fmt::Write as _;
    if !v.is_finite() {
        return write_fixed(out, v);
    }
    let text = format!("{v:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let sign = if exponent < 0 { '-' } else { '+' };
    let _ = write!(out, "{mantissa}e{sign}{:02}", exponent.unsigned_abs());
}

/// Appends `v` as `FormatFloat(v, 'g', -1, 64)` (also Go's `%v`): an exponent below 1e-4 and from 1e6 on.
pub fn write_general(out: &mut String, v: f64) {
    let magnitude = v.abs();
    if v.is_finite() && v != 0.0 && !(1e-4..1e6).contains(&magnitude) {
        write_exponent(out, v);
    } else {
        write_fixed(out, v);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_go_prints() {
        let exponent = |v| {
            let mut out = String::new();
            write_exponent(&mut out, v);
            out
        };
        for (v, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (123456789.125, "123456789.125"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Inf"),
            (1e-6, "0.000001"),
            (1e21, "1000000000000000000000"),
        ] {
            assert_eq!(fixed(v), text);
        }
        for (v, text) in [
            (1e-7, "1e-07"),
            (1e21, "1e+21"),
            (1.5e300, "1.5e+300"),
            (-0.0, "-0e+00"),
            (f64::INFINITY, "+Inf"),
        ] {
            assert_eq!(exponent(v), text);
        }
        assert_eq!(general(1e6), "1e+06");
        assert_eq!(general(1234567.0), "1.234567e+06");
        assert_eq!(general(999999.0), "999999");
        assert_eq!(general(1e21), "1e+21");
        assert_eq!(general(0.00001), "1e-05");
    }
}
