//! Functions that map each value on its own: mathematics, rounding, clamping, parts of dates.

mod date;

use std::f64::consts::{LOG2_E, LOG10_E, PI};

use self::date::Date;
use crate::series::Column;

/// A function of one value at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum InstantFunction {
    /// Of the value alone.
    Plain(fn(f64) -> f64),
    /// `round(v, to)`, ties up; `to` is 1 where the call has no parameter.
    Round,
    /// `clamp(v, min, max)`
    Clamp,
    /// `clamp_min(v, min)`
    ClampMin,
    /// `clamp_max(v, max)`
    ClampMax,
}

impl InstantFunction {
    /// The function called `name` in PromQL.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "abs" => Self::Plain(f64::abs),
            "ceil" => Self::Plain(f64::ceil),
            "floor" => Self::Plain(f64::floor),
            "exp" => Self::Plain(f64::exp),
            "sqrt" => Self::Plain(f64::sqrt),
            "ln" => Self::Plain(f64::ln),
            "log2" => Self::Plain(log2),
            "log10" => Self::Plain(|v| v.ln() * LOG10_E),
            "sin" => Self::Plain(f64::sin),
            "cos" => Self::Plain(f64::cos),
            "tan" => Self::Plain(f64::tan),
            "asin" => Self::Plain(f64::asin),
            "acos" => Self::Plain(f64::acos),
            "atan" => Self::Plain(f64::atan),
            "sinh" => Self::Plain(f64::sinh),
            "cosh" => Self::Plain(f64::cosh),
            "tanh" => Self::Plain(f64::tanh),
            "asinh" => Self::Plain(asinh),
            "acosh" => Self::Plain(acosh),
            "atanh" => Self::Plain(f64::atanh),
            "deg" => Self::Plain(|v| v * 180.0 / PI),
            "rad" => Self::Plain(|v| v * PI / 180.0),
            "sgn" => Self::Plain(sgn),
            "round" => Self::Round,
            "clamp" => Self::Clamp,
            "clamp_min" => Self::ClampMin,
            "clamp_max" => Self::ClampMax,
            "year" => Self::Plain(|v| Date::of(v).year()),
            "month" => Self::Plain(|v| Date::of(v).month()),
            "day_of_month" => Self::Plain(|v| Date::of(v).day()),
            "day_of_week" => Self::Plain(|v| Date::of(v).weekday()),
            "day_of_year" => Self::Plain(|v| Date::of(v).day_of_year()),
            "days_in_month" => Self::Plain(|v| Date::of(v).days_in_month()),
            "hour" => Self::Plain(|v| Date::of(v).hour()),
            "minute" => Self::Plain(|v| Date::of(v).minute()),
            _ => return None,
        })
    }
}

/// Applies `function` to each value of `column`; `params[i]` has a value per step for the i-th scalar argument.
pub(crate) fn eval(function: InstantFunction, params: &[&[f64]], column: &mut Column) {
    match function {
        InstantFunction::Plain(f) => column.map(f),
        InstantFunction::Round => match params.first() {
            Some(to) => column.filter_map(|step, v| Some(round(v, to[step]))),
            None => column.map(|v| round(v, 1.0)),
        },
        InstantFunction::Clamp => column.filter_map(|step, v| {
            let (min, max) = (params[0][step], params[1][step]);
            let nothing = max < min;
            (!nothing).then(|| maximum(min, minimum(max, v)))
        }),
        // An absent bound is an infinity, not nothing: it decides over NaN.
        InstantFunction::ClampMin => {
            column.filter_map(|step, v| Some(maximum(params[0][step], minimum(f64::INFINITY, v))));
        }
        InstantFunction::ClampMax => {
            column.filter_map(|step, v| Some(maximum(f64::NEG_INFINITY, minimum(params[0][step], v))));
        }
    }
}

/// The larger of two values: an infinity above all, then NaN; zero above negative zero. Also `max_of`.
pub(crate) fn maximum(a: f64, b: f64) -> f64 {
    if a == f64::INFINITY || b == f64::INFINITY {
        f64::INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a == 0.0 && b == 0.0 {
        if a.is_sign_negative() { b } else { a }
    } else if a > b {
        a
    } else {
        b
    }
}

/// The smaller of two values: a negative infinity below all, then NaN; negative zero below zero. Also `min_of`.
pub(crate) fn minimum(a: f64, b: f64) -> f64 {
    -maximum(-a, -b)
}

fn round(v: f64, to: f64) -> f64 {
    // Multiplying by the inverse is more accurate for the usual 0.1 and 0.01.
    let inverse = 1.0 / to;
    (v * inverse + 0.5).floor() / inverse
}

fn sgn(v: f64) -> f64 {
    if v < 0.0 {
        -1.0
    } else if v > 0.0 {
        1.0
    } else {
        v
    }
}

/// The exponent plus the logarithm of the mantissa, as Prometheus computes it: powers of two are exact.
fn log2(v: f64) -> f64 {
    if v <= 0.0 || !v.is_finite() {
        return v.log2();
    }
    let (v, shift) = if v < f64::MIN_POSITIVE { (v * 2f64.powi(54), 54) } else { (v, 0) };
    let bits = v.to_bits();
    let exponent = ((bits >> 52) as i32) - 1022 - shift;
    // The mantissa, in [0.5, 1).
    let mantissa = f64::from_bits(bits & !(0x7ff << 52) | 1022 << 52);
    if mantissa == 0.5 { f64::from(exponent - 1) } else { mantissa.ln() * LOG2_E + f64::from(exponent) }
}

/// Inverse hyperbolic sine; accurate near zero and without overflow, which the standard library's is not everywhere.
fn asinh(v: f64) -> f64 {
    let x = v.abs();
    let result = if !x.is_finite() {
        x
    } else if x > (1u64 << 28) as f64 {
        x.ln() + std::f64::consts::LN_2
    } else if x > 2.0 {
        (2.0 * x + 1.0 / ((x * x + 1.0).sqrt() + x)).ln()
    } else if x < 1.0 / (1u64 << 28) as f64 {
        x
    } else {
        (x + x * x / (1.0 + (1.0 + x * x).sqrt())).ln_1p()
    };
    result.copysign(v)
}

/// Inverse hyperbolic cosine, without overflow.
fn acosh(v: f64) -> f64 {
    if v < 1.0 || v.is_nan() {
        f64::NAN
    } else if v == 1.0 {
        0.0
    } else if v >= (1u64 << 28) as f64 {
        v.ln() + std::f64::consts::LN_2
    } else if v > 2.0 {
        (2.0 * v - 1.0 / (v + (v * v - 1.0).sqrt())).ln()
    } else {
        let t = v - 1.0;
        (t + (2.0 * t + t * t).sqrt()).ln_1p()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(name: &str, params: &[f64], v: f64) -> Option<f64> {
        let params: Vec<[f64; 1]> = params.iter().map(|p| [*p]).collect();
        let params: Vec<&[f64]> = params.iter().map(|p| &p[..]).collect();
        let mut column = Column::constant(v, 1);
        eval(InstantFunction::from_name(name).unwrap(), &params, &mut column);
        column.get(0)
    }

    #[track_caller]
    fn check(name: &str, params: &[f64], v: f64, expected: f64) {
        let got = apply(name, params, v).unwrap();
        let same = got.to_bits() == expected.to_bits() || (got.is_nan() && expected.is_nan());
        assert!(same, "{name}({v}, {params:?}) = {got}, not {expected}");
    }

    #[test]
    fn rounding() {
        for (v, to, expected) in
            [(-2.5, 1.0, -2.0), (2.5, 1.0, 3.0), (5.0, 0.0, f64::NAN), (1.25, 0.1, 1.3), (-0.4, 1.0, 0.0)]
        {
            check("round", &[to], v, expected);
        }
        check("round", &[], 2.4, 2.0);
    }

    #[test]
    fn clamping() {
        let (nan, inf) = (f64::NAN, f64::INFINITY);
        assert_eq!(apply("clamp", &[3.0, 1.0], 5.0), None);
        check("clamp", &[1.0, nan], 5.0, nan);
        check("clamp", &[1.0, 3.0], 5.0, 3.0);
        check("clamp", &[1.0, 3.0], nan, nan);
        check("clamp", &[inf, inf], nan, inf);
        check("clamp_min", &[2.0], 1.0, 2.0);
        check("clamp_min", &[nan], 1.0, nan);
        check("clamp_min", &[0.0], -0.0, 0.0);
        check("clamp_max", &[2.0], 3.0, 2.0);
        check("clamp_max", &[-0.0], 0.0, -0.0);
        check("clamp_max", &[2.0], nan, nan);
    }

    #[test]
    fn mathematics() {
        for (name, v, expected) in [
            ("sgn", -0.0, -0.0),
            ("sgn", -3.0, -1.0),
            ("sgn", f64::NAN, f64::NAN),
            ("ln", 0.0, f64::NEG_INFINITY),
            ("ln", -1.0, f64::NAN),
            ("sqrt", -1.0, f64::NAN),
            ("exp", 1000.0, f64::INFINITY),
            ("log2", 8.0, 3.0),
            ("log2", 5e-324, -1074.0),
            ("log2", 1000.0, 9.965784284662087),
            ("log2", 0.0, f64::NEG_INFINITY),
            ("log2", f64::INFINITY, f64::INFINITY),
            ("log2", -1.0, f64::NAN),
            ("log10", 1000.0, 3.0),
            ("log10", 1e15, 14.999999999999998),
            ("log10", 12345.678, 4.091514945509201),
            ("deg", PI, 180.0),
            ("rad", 180.0, PI),
            ("asinh", -1e300, -691.4686750787736),
            ("asinh", 1e-9, 1e-9),
            ("acosh", 0.5, f64::NAN),
            ("acosh", 1.0, 0.0),
            ("atanh", 1.0, f64::INFINITY),
            ("ceil", 1.2, 2.0),
            ("abs", f64::NEG_INFINITY, f64::INFINITY),
        ] {
            let got = apply(name, &[], v).unwrap();
            let near = (got - expected).abs() <= expected.abs() * 1e-15;
            let same = got == expected && got.is_sign_negative() == expected.is_sign_negative();
            assert!(
                same || near || (got.is_nan() && expected.is_nan()),
                "{name}({v}) = {got}, not {expected}"
            );
        }
        for name in ["asinh", "acosh"] {
            for v in [1.5f64, 2.5, 100.0, 3e8] {
                let expected = if name == "asinh" { v.asinh() } else { v.acosh() };
                let got = apply(name, &[], v).unwrap();
                assert!((got - expected).abs() <= 4e-16 * expected, "{name}({v}): {got} {expected}");
            }
        }
    }

    #[test]
    fn dates() {
        for (name, v, expected) in [
            ("day_of_week", 0.0, 4.0),
            ("day_of_year", 1_700_000_000.0, 318.0),
            ("days_in_month", 1_709_164_800.0, 29.0),
            ("minute", -1.0, 59.0),
            ("hour", -1.0, 23.0),
            ("year", 1e12, 33_658.0),
            ("year", -1e12, -29_719.0),
            ("month", -1e12, 4.0),
            ("day_of_month", -1e12, 5.0),
            ("day_of_week", -1e12, 2.0),
            ("hour", 1_700_000_000.0, 22.0),
            ("day_of_month", -0.5, 1.0),
            ("year", -86_400.5, 1969.0),
            ("day_of_year", -62_135_596_801.0, 366.0),
            ("year", f64::NAN, 292_277_026_596.0),
            ("day_of_year", 1e20, 339.0),
            ("minute", f64::NEG_INFINITY, 30.0),
            ("day_of_week", f64::NAN, 0.0),
            ("year", 9.2e18, 291_536_396_232.0),
            ("day_of_year", -9.2e18, 123.0),
        ] {
            check(name, &[], v, expected);
        }
    }

    #[test]
    fn what_is_absent_stays_absent() {
        let mut column = Column::absent(2);
        column.set(1, 4.0);
        eval(InstantFunction::from_name("sqrt").unwrap(), &[], &mut column);
        assert_eq!((column.get(0), column.get(1)), (None, Some(2.0)));
        assert!(InstantFunction::from_name("rate").is_none());
    }
}
