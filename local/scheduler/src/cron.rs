//! Cron expressions as EventBridge Scheduler reads them.
//!
//! <https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html#cron-based>

use std::str::FromStr;

use jiff::civil::{Date, DateTime, Time, Weekday};

use crate::ExpressionError;

/// The years that an expression may name.
const YEAR_MIN: i16 = 1970;
const YEAR_MAX: i16 = 2199;

const MONTHS: [&str; 12] =
    ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// A cron expression: the fields minutes, hours, day of month, month, day of week and year.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    minutes: Vec<i16>,
    hours: Vec<i16>,
    days: Days,
    months: Vec<i16>,
    years: Vec<i16>,
}

/// Which days of a month: of day of month and day of week, one is always `?`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Days {
    OfMonth(Vec<i16>),
    /// `L`.
    LastOfMonth,
    /// `15W`: the weekday nearest to a day, within its month.
    NearestWeekday(i16),
    /// 1 is Sunday.
    OfWeek(Vec<i16>),
    /// `6L`: the last such day of the week.
    LastOfWeek(i16),
    /// `6#3`: the third such day of the week.
    Nth {
        weekday: i16,
        nth: i16,
    },
}

/// What a field may hold.
struct Field {
    name: &'static str,
    min: i16,
    max: i16,
    names: &'static [&'static str],
}

const MINUTES: Field = Field { name: "minutes", min: 0, max: 59, names: &[] };
const HOURS: Field = Field { name: "hours", min: 0, max: 23, names: &[] };
const DAYS_OF_MONTH: Field = Field { name: "day of month", min: 1, max: 31, names: &[] };
const MONTHS_OF_YEAR: Field = Field { name: "month", min: 1, max: 12, names: &MONTHS };
const DAYS_OF_WEEK: Field = Field { name: "day of week", min: 1, max: 7, names: &WEEKDAYS };
const YEARS: Field = Field { name: "year", min: YEAR_MIN, max: YEAR_MAX, names: &[] };

impl FromStr for Cron {
    type Err = ExpressionError;

    /// Reads the fields, without the `cron()` around them.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        let &[minutes, hours, day_of_month, month, day_of_week, year] = fields.as_slice() else {
            let found = fields.len();
            return Err(ExpressionError::Fields { found });
        };
        let days = match (day_of_month, day_of_week) {
            ("?", "?") | (_, _) if (day_of_month == "?") == (day_of_week == "?") => {
                return Err(ExpressionError::Days);
            }
            ("?", day_of_week) => days_of_week(day_of_week)?,
            (day_of_month, _) => days_of_month(day_of_month)?,
        };
        Ok(Self {
            minutes: MINUTES.values(minutes)?,
            hours: HOURS.values(hours)?,
            days,
            months: MONTHS_OF_YEAR.values(month)?,
            years: YEARS.values(year)?,
        })
    }
}

fn days_of_month(text: &str) -> Result<Days, ExpressionError> {
    if text == "L" {
        return Ok(Days::LastOfMonth);
    }
    match text.strip_suffix('W') {
        Some(day) => Ok(Days::NearestWeekday(DAYS_OF_MONTH.value(day, text)?)),
        None => Ok(Days::OfMonth(DAYS_OF_MONTH.values(text)?)),
    }
}

fn days_of_week(text: &str) -> Result<Days, ExpressionError> {
    if text == "L" {
        return Ok(Days::OfWeek(vec![DAYS_OF_WEEK.max]));
    }
    if let Some(weekday) = text.strip_suffix('L') {
        return Ok(Days::LastOfWeek(DAYS_OF_WEEK.value(weekday, text)?));
    }
    match text.split_once('#') {
        Some((weekday, nth)) => {
            let nth = nth.parse().ok().filter(|nth| (1..=5).contains(nth));
            let nth = nth.ok_or_else(|| DAYS_OF_WEEK.error(text))?;
            Ok(Days::Nth { weekday: DAYS_OF_WEEK.value(weekday, text)?, nth })
        }
        None => Ok(Days::OfWeek(DAYS_OF_WEEK.values(text)?)),
    }
}

impl Field {
    fn error(&self, text: &str) -> ExpressionError {
        ExpressionError::Field {
            field: self.name,
            text: text.to_owned(),
            min: self.min,
            max: self.max,
        }
    }

    /// A number or a name.
    fn value(&self, value: &str, text: &str) -> Result<i16, ExpressionError> {
        let named = self.names.iter().position(|name| name.eq_ignore_ascii_case(value));
        let named = named.and_then(|index| i16::try_from(index).ok()).map(|index| index + 1);
        let number = || {
            let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
            value.parse().ok().filter(|_| digits)
        };
        named
            .or_else(number)
            .filter(|value| (self.min..=self.max).contains(value))
            .ok_or_else(|| self.error(text))
    }

    /// All values of a list, in order.
    fn values(&self, text: &str) -> Result<Vec<i16>, ExpressionError> {
        let mut values = Vec::new();
        for item in text.split(',') {
            let (range, step) = match item.split_once('/') {
                None => (item, None),
                Some((range, step)) => {
                    let positive = step.parse().ok().filter(|step| *step > 0_usize);
                    let digits = step.bytes().all(|byte| byte.is_ascii_digit());
                    let step = positive.filter(|_| digits).ok_or_else(|| self.error(text))?;
                    (range, Some(step))
                }
            };
            let (first, last) = match range.split_once('-') {
                _ if range == "*" => (self.min, self.max),
                Some((first, last)) => (self.value(first, text)?, self.value(last, text)?),
                None => {
                    let first = self.value(range, text)?;
                    (first, if step.is_some() { self.max } else { first })
                }
            };
            if first > last {
                return Err(self.error(text));
            }
            values.extend((first..=last).step_by(step.unwrap_or(1)));
        }
        values.sort_unstable();
        values.dedup();
        Ok(values)
    }
}

impl Cron {
    /// The first time after `after`, on the clock of the expression's time zone.
    pub fn next(&self, after: DateTime) -> Option<DateTime> {
        let mut date = after.date();
        loop {
            if date.year() > *self.years.last()? {
                return None;
            }
            if !self.years.contains(&date.year()) {
                date = Date::new(date.year() + 1, 1, 1).ok()?;
                continue;
            }
            if !self.months.contains(&date.month().into()) {
                date = date.first_of_month().checked_add(jiff::Span::new().months(1)).ok()?;
                continue;
            }
            if self.days.contain(date)
                && let Some(time) = self.time(date, after)
            {
                return Some(date.to_datetime(time));
            }
            date = date.tomorrow().ok()?;
        }
    }

    /// The first time of a day that is after `after`.
    fn time(&self, date: Date, after: DateTime) -> Option<Time> {
        self.hours
            .iter()
            .flat_map(|hour| self.minutes.iter().map(move |minute| (*hour, *minute)))
            .filter_map(|(hour, minute)| {
                Time::new(hour.try_into().ok()?, minute.try_into().ok()?, 0, 0).ok()
            })
            .find(|time| date.to_datetime(*time) > after)
    }
}

impl Days {
    fn contain(&self, date: Date) -> bool {
        let (day, last) = (i16::from(date.day()), i16::from(date.days_in_month()));
        let weekday = i16::from(date.weekday().to_sunday_one_offset());
        match self {
            Self::OfMonth(days) => days.contains(&day),
            Self::LastOfMonth => day == last,
            Self::NearestWeekday(nearest) => {
                *nearest <= last && nearest_weekday(date, *nearest) == Some(day)
            }
            Self::OfWeek(weekdays) => weekdays.contains(&weekday),
            Self::LastOfWeek(last_weekday) => weekday == *last_weekday && day + 7 > last,
            Self::Nth { weekday: wanted, nth } => weekday == *wanted && (day - 1) / 7 + 1 == *nth,
        }
    }
}

/// The day from Monday to Friday that is nearest to a day of `month`, and in that month.
fn nearest_weekday(month: Date, day: i16) -> Option<i16> {
    let date = Date::new(month.year(), month.month(), day.try_into().ok()?).ok()?;
    let last = i16::from(month.days_in_month());
    Some(match date.weekday() {
        Weekday::Saturday if day == 1 => 3,
        Weekday::Saturday => day - 1,
        Weekday::Sunday if day == last => day - 2,
        Weekday::Sunday => day + 1,
        _ => day,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(fields: &str, after: &str) -> String {
        let cron: Cron = fields.parse().unwrap();
        cron.next(after.parse().unwrap()).map_or("never".to_owned(), |next| next.to_string())
    }

    #[test]
    fn reads_awss_own_examples() {
        let cases = [
            ("0 10 * * ? *", "2026-11-23T10:00:00", "2026-11-24T10:00:00"),
            ("15 12 * * ? *", "2026-11-23T12:14:59", "2026-11-23T12:15:00"),
            ("0 18 ? * MON-FRI *", "2026-11-27T18:00:00", "2026-11-30T18:00:00"),
            ("0 8 1 * ? *", "2026-12-01T08:00:00", "2027-01-01T08:00:00"),
            ("0/15 * * * ? *", "2026-11-23T23:46:00", "2026-11-24T00:00:00"),
            ("0/10 * ? * MON-FRI *", "2026-11-27T23:50:00", "2026-11-30T00:00:00"),
            ("0/5 8-17 ? * MON-FRI *", "2026-11-23T17:55:00", "2026-11-24T08:00:00"),
            ("15 10 ? * 6L 2022-2023", "2022-01-01T00:00:00", "2022-01-28T10:15:00"),
            ("15 10 ? * 6L 2022-2023", "2023-12-29T10:15:00", "never"),
            ("0 0 L * ? *", "2028-02-01T00:00:00", "2028-02-29T00:00:00"),
            ("0 9 3W * ? *", "2026-10-01T00:00:00", "2026-10-02T09:00:00"),
            ("0 9 ? * 3#2 *", "2026-11-01T00:00:00", "2026-11-10T09:00:00"),
            ("0 9 ? * L *", "2026-11-23T00:00:00", "2026-11-28T09:00:00"),
            ("0 9 ? * tue#2 *", "2026-11-01T00:00:00", "2026-11-10T09:00:00"),
            ("0 0 29 FEB ? *", "2026-11-23T00:00:00", "2028-02-29T00:00:00"),
            ("0 0 30 2 ? *", "2026-11-23T00:00:00", "never"),
        ];
        for (fields, after, expected) in cases {
            assert_eq!(next(fields, after), expected, "cron({fields}) after {after}");
        }
    }

    #[test]
    fn the_nearest_weekday_stays_in_its_month() {
        // 2026-08-01 is a Saturday, 2026-05-31 a Sunday.
        assert_eq!(next("0 0 1W 8 ? 2026", "2026-01-01T00:00:00"), "2026-08-03T00:00:00");
        assert_eq!(next("0 0 31W 5 ? 2026", "2026-01-01T00:00:00"), "2026-05-29T00:00:00");
        assert_eq!(next("0 0 31W 6 ? 2026", "2026-01-01T00:00:00"), "never");
    }

    #[test]
    fn tells_the_field_and_what_it_takes() {
        let cases = [
            ("0 10 * * ?", "expected 6 fields, found 5"),
            ("0 10 * * * *", "expected ? in exactly one of day of month and day of week"),
            ("0 10 ? * ? *", "expected ? in exactly one of day of month and day of week"),
            ("60 10 * * ? *", "minutes: expected numbers from 0 to 59, found 60"),
            ("0 24 * * ? *", "hours: expected numbers from 0 to 23, found 24"),
            ("0 0 0 * ? *", "day of month: expected numbers from 1 to 31, found 0"),
            ("0 0 32W * ? *", "day of month: expected numbers from 1 to 31, found 32W"),
            ("0 0 * JANUARY ? *", "month: expected numbers from 1 to 12, found JANUARY"),
            ("0 0 ? * 8 *", "day of week: expected numbers from 1 to 7, found 8"),
            ("0 0 ? * 2#6 *", "day of week: expected numbers from 1 to 7, found 2#6"),
            ("0 0 ? * 2#1,3#1 *", "day of week: expected numbers from 1 to 7, found 2#1,3#1"),
            ("0 0 * * ? 1969", "year: expected numbers from 1970 to 2199, found 1969"),
            ("5-1 0 * * ? *", "minutes: expected numbers from 0 to 59, found 5-1"),
            ("0/0 0 * * ? *", "minutes: expected numbers from 0 to 59, found 0/0"),
            ("+5 0 * * ? *", "minutes: expected numbers from 0 to 59, found +5"),
            (", 0 * * ? *", "minutes: expected numbers from 0 to 59, found ,"),
        ];
        for (fields, expected) in cases {
            let error = fields.parse::<Cron>().unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
