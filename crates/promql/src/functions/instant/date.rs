//! Parts of dates, in UTC and the proleptic Gregorian calendar.

/// Seconds of a day.
const DAY: i128 = 86_400;

/// Days of 400 years.
const ERA: i128 = 146_097;

/// Prometheus (Go) counts time in unsigned 64-bit seconds from a year far in the past; Unix times before it wrap to
/// the end of time, among them what conversion makes of NaN and of values outside 64 bits.
const UNIX_MIN: i128 = -9_223_371_966_579_724_800;

/// A moment as a date.
#[derive(Clone, Copy, Debug)]
pub(super) struct Date {
    year: i128,
    /// From 1.
    month: i128,
    /// From 1.
    day: i128,
    /// Since the epoch.
    days: i128,
    second_of_day: i128,
}

impl Date {
    /// The date of Unix time `seconds`, truncated to a whole second toward zero.
    pub(super) fn of(seconds: f64) -> Self {
        let in_range = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&seconds);
        let mut unix = i128::from(if in_range { seconds as i64 } else { i64::MIN });
        if unix < UNIX_MIN {
            unix += 1 << 64;
        }
        let days = unix.div_euclid(DAY);
        // Years are counted from March, so that the leap day is the last of its year.
        let shifted = days + 719_468;
        let era = shifted.div_euclid(ERA);
        let day_of_era = shifted.rem_euclid(ERA);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        Self {
            year: era * 400 + year_of_era + i128::from(month <= 2),
            month,
            day: day_of_year - (153 * month_from_march + 2) / 5 + 1,
            days,
            second_of_day: unix.rem_euclid(DAY),
        }
    }

    pub(super) fn year(self) -> f64 {
        self.year as f64
    }

    /// 1 to 12.
    pub(super) fn month(self) -> f64 {
        self.month as f64
    }

    /// 1 to 31.
    pub(super) fn day(self) -> f64 {
        self.day as f64
    }

    /// 0 = Sunday.
    pub(super) fn weekday(self) -> f64 {
        (self.days + 4).rem_euclid(7) as f64
    }

    /// 1 to 366.
    pub(super) fn day_of_year(self) -> f64 {
        let before: i128 = (1..self.month).map(|month| length(self.year, month)).sum();
        (before + self.day) as f64
    }

    /// 28 to 31.
    pub(super) fn days_in_month(self) -> f64 {
        length(self.year, self.month) as f64
    }

    /// 0 to 23.
    pub(super) fn hour(self) -> f64 {
        (self.second_of_day / 3_600) as f64
    }

    /// 0 to 59.
    pub(super) fn minute(self) -> f64 {
        (self.second_of_day % 3_600 / 60) as f64
    }
}

/// Days of a month.
fn length(year: i128, month: i128) -> i128 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}
