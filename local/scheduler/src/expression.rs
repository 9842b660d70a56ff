//! When a schedule is due: its expression, in its time zone, between its dates.
//!
//! <https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html>

use std::str::FromStr;

use jiff::{
    SignedDuration, Timestamp,
    civil::DateTime,
    tz::{AmbiguousOffset, TimeZone},
};

use crate::Cron;

/// What a rate's units are in seconds. A day is 24 hours, whatever the time zone does.
const UNITS: [(&str, &str, i64); 3] =
    [("minute", "minutes", 60), ("hour", "hours", 3_600), ("day", "days", 86_400)];

/// When a schedule is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    /// `at(2026-11-23T03:00:00)`: once.
    At(DateTime),
    /// `rate(12 hours)`: from the start of the schedule on.
    Rate(SignedDuration),
    /// `cron(0 3 * * ? *)`.
    Cron(Cron),
}

/// Why a schedule has no times.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    /// Neither `at`, `rate` nor `cron`.
    #[error("expected at(..), rate(..) or cron(..), found {0}")]
    Kind(String),
    /// An `at` without a time.
    #[error("at: expected a time such as 2026-11-23T03:00:00, found {0}")]
    At(String),
    /// A `rate` without a number and a unit.
    #[error("rate: expected a positive number and minutes, hours or days, found {0}")]
    Rate(String),
    /// A `cron` with more or fewer fields.
    #[error("expected 6 fields, found {found}")]
    Fields {
        /// How many there are.
        found: usize,
    },
    /// A `cron` that says which days twice, or not at all.
    #[error("expected ? in exactly one of day of month and day of week")]
    Days,
    /// A `cron` with a field that says nothing.
    #[error("{field}: expected numbers from {min} to {max}, found {text}")]
    Field {
        /// The field.
        field: &'static str,
        /// What stands there.
        text: String,
        /// Its least number.
        min: i16,
        /// Its greatest number.
        max: i16,
    },
    /// A time zone that there is not.
    #[error("expected a time zone such as Europe/Berlin, found {0}")]
    TimeZone(String),
}

impl FromStr for Expression {
    type Err = ExpressionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let inner =
            |kind| text.strip_prefix(kind)?.strip_prefix('(')?.strip_suffix(')').map(str::trim);
        if let Some(fields) = inner("cron") {
            return fields.parse().map(Self::Cron);
        }
        if let Some(time) = inner("at") {
            let wrong = || ExpressionError::At(time.to_owned());
            // Without a fraction, an offset or a zone.
            let read = DateTime::strptime("%Y-%m-%dT%H:%M:%S", time);
            return read.map(Self::At).map_err(|_| wrong());
        }
        if let Some(rate) = inner("rate") {
            return period(rate).map(Self::Rate).ok_or_else(|| ExpressionError::Rate(rate.into()));
        }
        Err(ExpressionError::Kind(text.to_owned()))
    }
}

fn period(rate: &str) -> Option<SignedDuration> {
    let (number, unit) = rate.split_once(' ')?;
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    let number = number.parse::<i64>().ok().filter(|number| digits && *number > 0)?;
    let unit = unit.trim();
    let (_, _, seconds) = UNITS.iter().find(|(one, many, _)| unit == *one || unit == *many)?;
    Some(SignedDuration::from_secs(number.checked_mul(*seconds)?))
}

/// The times of a schedule.
#[derive(Debug, Clone, PartialEq)]
pub struct Timetable {
    /// When it is due.
    pub expression: Expression,
    /// The zone of the expression's times.
    pub zone: TimeZone,
    /// When the schedule was made: a rate without a start counts from here.
    pub created: Timestamp,
    /// Before this it is not due.
    pub start: Option<Timestamp>,
    /// After this it is not due any more.
    pub end: Option<Timestamp>,
}

impl Timetable {
    /// The zone of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn zone(name: &str) -> Result<TimeZone, ExpressionError> {
        TimeZone::get(name).map_err(|_| ExpressionError::TimeZone(name.to_owned()))
    }

    /// The first scheduled time after `after`.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let after = match self.start {
            Some(start) if !matches!(self.expression, Expression::At(_)) => {
                after.max(start - SignedDuration::from_nanos(1))
            }
            _ => after,
        };
        match &self.expression {
            // The dates of a schedule are for recurring ones.
            Expression::At(time) => {
                let time = self.zone.to_timestamp(*time).ok()?;
                (time > after).then_some(time)
            }
            Expression::Rate(period) => {
                let first = self.start.unwrap_or(self.created);
                let passed = after.duration_since(first).as_secs();
                let next = if after < first {
                    first
                } else {
                    let periods = passed / period.as_secs() + 1;
                    let since = period.as_secs().checked_mul(periods)?;
                    first.checked_add(SignedDuration::from_secs(since)).ok()?
                };
                self.before_the_end(next)
            }
            Expression::Cron(cron) => self.next_of(cron, after),
        }
    }

    /// A time that the clock skips is left out; of one that comes twice, the first is taken.
    fn next_of(&self, cron: &Cron, after: Timestamp) -> Option<Timestamp> {
        let mut time = self.zone.to_datetime(after);
        loop {
            time = cron.next(time)?;
            let ambiguous = self.zone.to_ambiguous_timestamp(time);
            if matches!(ambiguous.offset(), AmbiguousOffset::Gap { .. }) {
                continue;
            }
            let next = ambiguous.earlier().ok()?;
            if next > after {
                return self.before_the_end(next);
            }
        }
    }

    fn before_the_end(&self, next: Timestamp) -> Option<Timestamp> {
        self.end.is_none_or(|end| next <= end).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timetable(expression: &str, zone: &str) -> Timetable {
        Timetable {
            expression: expression.parse().unwrap(),
            zone: Timetable::zone(zone).unwrap(),
            created: "2026-11-23T10:00:07Z".parse().unwrap(),
            start: None,
            end: None,
        }
    }

    fn times(timetable: &Timetable, after: &str, count: usize) -> Vec<String> {
        let first = timetable.next(after.parse().unwrap());
        std::iter::successors(first, |time| timetable.next(*time))
            .take(count)
            .map(|time| time.to_string())
            .collect()
    }

    #[test]
    fn skips_a_time_that_the_clock_skips() {
        let nightly = timetable("cron(30 2 * * ? *)", "America/Los_Angeles");
        assert_eq!(
            times(&nightly, "2026-03-07T00:00:00Z", 3),
            // There is no 02:30 on 8 March.
            ["2026-03-07T10:30:00Z", "2026-03-09T09:30:00Z", "2026-03-10T09:30:00Z"]
        );
    }

    #[test]
    fn takes_a_time_that_comes_twice_once() {
        let nightly = timetable("cron(30 1 * * ? *)", "America/Los_Angeles");
        assert_eq!(
            times(&nightly, "2026-10-31T12:00:00Z", 2),
            ["2026-11-01T08:30:00Z", "2026-11-02T09:30:00Z"]
        );
        // Between the first 01:30 and the second.
        assert_eq!(times(&nightly, "2026-11-01T09:00:00Z", 1), ["2026-11-02T09:30:00Z"]);
    }

    #[test]
    fn a_rate_counts_from_its_start() {
        let mut rate = timetable("rate(1 day)", "Europe/Berlin");
        assert_eq!(times(&rate, "2026-11-23T10:00:06Z", 1), ["2026-11-23T10:00:07Z"]);
        assert_eq!(times(&rate, "2026-11-23T10:00:07Z", 1), ["2026-11-24T10:00:07Z"]);
        assert_eq!(times(&rate, "2027-03-28T12:00:00Z", 1), ["2027-03-29T10:00:07Z"]);
        rate.start = Some("2026-11-25T00:00:00Z".parse().unwrap());
        rate.end = Some("2026-11-26T00:00:00Z".parse().unwrap());
        assert_eq!(
            times(&rate, "2026-11-23T10:00:00Z", 3),
            ["2026-11-25T00:00:00Z", "2026-11-26T00:00:00Z"]
        );
    }

    #[test]
    fn the_dates_bound_a_cron_expression() {
        let mut hourly = timetable("cron(0 * * * ? *)", "UTC");
        hourly.start = Some("2026-11-25T03:00:00Z".parse().unwrap());
        hourly.end = Some("2026-11-25T04:59:00Z".parse().unwrap());
        assert_eq!(
            times(&hourly, "2026-11-23T10:00:00Z", 3),
            ["2026-11-25T03:00:00Z", "2026-11-25T04:00:00Z"]
        );
    }

    #[test]
    fn a_time_comes_once_in_its_zone() {
        let once = timetable("at(2026-12-24T18:00:00)", "Europe/Berlin");
        assert_eq!(times(&once, "2026-11-23T00:00:00Z", 2), ["2026-12-24T17:00:00Z"]);
    }

    #[test]
    fn tells_what_was_expected() {
        let cases = [
            ("every day", "expected at(..), rate(..) or cron(..), found every day"),
            ("cron 0 3 * * ? *", "expected at(..)"),
            ("rate(0 days)", "rate: expected a positive number"),
            ("rate(5 weeks)", "rate: expected a positive number"),
            ("rate(+5 days)", "rate: expected a positive number"),
            ("at(2026-12-24)", "at: expected a time such as"),
            ("at(2026-12-24T18:00:00Z)", "at: expected a time such as"),
            ("cron(* *)", "expected 6 fields, found 2"),
        ];
        for (text, expected) in cases {
            let error = text.parse::<Expression>().unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        assert!(Timetable::zone("Mars/Olympus").unwrap_err().to_string().contains("Mars/Olympus"));
    }
}
