//! Moments on the command line.

use std::str::FromStr;

use chronolith_model::TimeRange;
use clap::Args;

/// A moment, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment(i64);

/// Between which moments.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Between {
    /// Only samples from then on: Unix seconds or RFC 3339
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    start: Option<Moment>,
    /// Only samples up to then, that moment included
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    end: Option<Moment>,
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(seconds) = text.parse::<f64>() {
            let ms = (seconds * 1000.0).round();
            // 2^63 as a float is the first that does not fit.
            let fits = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&ms);
            return if fits { Ok(Self(ms as i64)) } else { Err(format!("{text} is not a moment")) };
        }
        let moment = text.parse::<jiff::Timestamp>().map_err(|_| {
            "Unix seconds or RFC 3339 are needed: 1700000000, 1700000000.5 or 2023-11-14T22:13:20Z".to_owned()
        })?;
        Ok(Self(moment.as_millisecond()))
    }
}

impl Between {
    /// Both ends included.
    ///
    /// # Errors
    /// When the end lies before the start.
    pub(super) fn range(self) -> anyhow::Result<TimeRange> {
        let min = self.start.map_or(i64::MIN, |moment| moment.0);
        let max = self.end.map_or(i64::MAX, |moment| moment.0);
        anyhow::ensure!(min <= max, "--end lies before --start");
        Ok(TimeRange::new(min, max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        for (text, ms) in [
            ("1700000000", 1_700_000_000_000),
            ("1700000000.007", 1_700_000_000_007),
            ("-1", -1000),
            ("2023-11-14T22:13:20.007Z", 1_700_000_000_007),
            ("2023-11-14T23:13:20+01:00", 1_700_000_000_000),
        ] {
            assert_eq!(text.parse(), Ok(Moment(ms)), "{text}");
        }
        for text in ["", "yesterday", "NaN", "1e300", "2023-11-14"] {
            assert!(text.parse::<Moment>().is_err(), "{text}");
        }
    }

    #[test]
    fn ends_in_order() {
        let between = |start: i64, end: i64| Between { start: Some(Moment(start)), end: Some(Moment(end)) };
        assert_eq!(between(1, 1).range().ok(), Some(TimeRange::new(1, 1)));
        assert!(between(2, 1).range().is_err());
        assert_eq!(Between { start: None, end: None }.range().ok(), Some(TimeRange::ALL));
    }
}
