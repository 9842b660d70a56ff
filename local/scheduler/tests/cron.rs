//! Cron expressions against their definition, counted out day by day and minute by minute.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;

use archweld_scheduler::{Cron, Timetable};
use jiff::{
    Span, Timestamp, ToSpan as _,
    civil::{Date, DateTime, Weekday},
};
use proptest::prelude::*;

const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
const DAYS_COUNTED: usize = 3 * 366;

/// A field's text and the values that it stands for.
type Values = (String, BTreeSet<i16>);

fn item(min: i16, max: i16) -> impl Strategy<Value = Values> {
    let value = min..=max;
    prop_oneof![
        value.clone().prop_map(|it| (it.to_string(), BTreeSet::from([it]))),
        (value.clone(), value.clone()).prop_map(|(a, b)| {
            let (first, last) = (a.min(b), a.max(b));
            (format!("{first}-{last}"), (first..=last).collect())
        }),
        (value.clone(), 1_usize..20).prop_map(move |(first, step)| {
            (format!("{first}/{step}"), (first..=max).step_by(step).collect())
        }),
        (1_usize..20)
            .prop_map(move |step| { (format!("*/{step}"), (min..=max).step_by(step).collect()) }),
    ]
}

fn values(min: i16, max: i16) -> impl Strategy<Value = Values> {
    prop_oneof![
        Just(("*".to_owned(), (min..=max).collect())),
        prop::collection::vec(item(min, max), 1..4).prop_map(|items| {
            let text: Vec<_> = items.iter().map(|(text, _)| text.as_str()).collect();
            (text.join(","), items.iter().flat_map(|(_, values)| values).copied().collect())
        }),
    ]
}

#[derive(Debug, Clone)]
enum Days {
    OfMonth(Values),
    OfWeek(Values),
    Last,
    LastOfWeek(i16),
    Nearest(i16),
    Nth(i16, usize),
}

impl Days {
    fn fields(&self) -> (String, String) {
        let name = |weekday: &i16| WEEKDAYS[usize::try_from(*weekday - 1).unwrap()];
        match self {
            Self::OfMonth((text, _)) => (text.clone(), "?".to_owned()),
            Self::OfWeek((text, _)) => ("?".to_owned(), text.clone()),
            Self::Last => ("L".to_owned(), "?".to_owned()),
            Self::LastOfWeek(weekday) => ("?".to_owned(), format!("{weekday}L")),
            Self::Nearest(day) => (format!("{day}W"), "?".to_owned()),
            Self::Nth(weekday, nth) => ("?".to_owned(), format!("{}#{nth}", name(weekday))),
        }
    }

    /// By the documentation's words, not by arithmetic.
    fn contain(&self, date: Date) -> bool {
        let weekday = |date: Date| i16::from(date.weekday().to_sunday_one_offset());
        let month =
            || date.first_of_month().series(1.day()).take_while(|it| it.month() == date.month());
        match self {
            Self::OfMonth((_, days)) => days.contains(&i16::from(date.day())),
            Self::OfWeek((_, weekdays)) => weekdays.contains(&weekday(date)),
            Self::Last => month().last() == Some(date),
            Self::LastOfWeek(wanted) => {
                month().filter(|it| weekday(*it) == *wanted).last() == Some(date)
            }
            Self::Nth(wanted, nth) => {
                month().filter(|it| weekday(*it) == *wanted).nth(nth - 1) == Some(date)
            }
            Self::Nearest(day) => {
                let Some(target) = month().find(|it| i16::from(it.day()) == *day) else {
                    return false;
                };
                let is_weekday =
                    |it: &Date| !matches!(it.weekday(), Weekday::Saturday | Weekday::Sunday);
                let distance = |it: &Date| (*it - target).get_days().abs();
                month().filter(is_weekday).min_by_key(distance) == Some(date)
            }
        }
    }
}

fn days() -> impl Strategy<Value = Days> {
    prop_oneof![
        values(1, 31).prop_map(Days::OfMonth),
        values(1, 7).prop_map(Days::OfWeek),
        Just(Days::Last),
        (1_i16..=7).prop_map(Days::LastOfWeek),
        (1_i16..=31).prop_map(Days::Nearest),
        (1_i16..=7, 1_usize..=5).prop_map(|(weekday, nth)| Days::Nth(weekday, nth)),
    ]
}

fn time() -> impl Strategy<Value = DateTime> {
    (0_i64..400 * 366 * 24 * 60).prop_map(|minutes| {
        let origin: DateTime = "1999-01-01T00:00:00".parse().unwrap();
        origin + Span::new().seconds((minutes * 17) % (80 * 365 * 86_400))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_next_time_is_the_first_that_fits(
        (minutes, hours, months) in (values(0, 59), values(0, 23), values(1, 12)),
        days in days(),
        after in time(),
    ) {
        let (day_of_month, day_of_week) = days.fields();
        let text =
            format!("{} {} {day_of_month} {} {day_of_week} *", minutes.0, hours.0, months.0);
        let cron: Cron = text.parse().unwrap();
        let counted = after.date().series(1.day()).take(DAYS_COUNTED).filter(|date| {
            months.1.contains(&i16::from(date.month())) && days.contain(*date)
        });
        let counted = counted.flat_map(|date| {
            let minutes = &minutes.1;
            hours.1.iter().flat_map(move |hour| {
                minutes.iter().map(move |minute| {
                    date.at((*hour).try_into().unwrap(), (*minute).try_into().unwrap(), 0, 0)
                })
            })
        });
        let first = counted.into_iter().find(|time| *time > after);
        let next = cron.next(after);
        match first {
            Some(first) => prop_assert_eq!(next, Some(first), "cron({}) after {}", text, after),
            None => {
                let bound = after + Span::new().days(i64::try_from(DAYS_COUNTED).unwrap() - 1);
                prop_assert!(next.is_none_or(|next| next > bound), "cron({}) {:?}", text, next);
            }
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in "[0-9*?/,#LW A-Z-]{0,30}") {
        if let Ok(cron) = text.parse::<Cron>() {
            cron.next("2026-11-23T00:00:00".parse().unwrap());
        }
    }
}

#[test]
fn every_clock_change_is_counted_out_minute_by_minute() {
    let changes = [
        ("Europe/Berlin", "2026-03-28T12:00:00Z"),
        ("Europe/Berlin", "2026-10-24T12:00:00Z"),
        ("America/Los_Angeles", "2026-03-07T12:00:00Z"),
        ("America/Los_Angeles", "2026-10-31T12:00:00Z"),
        // Half an hour, and a whole day that there never was.
        ("Australia/Lord_Howe", "2026-04-03T12:00:00Z"),
        ("Australia/Lord_Howe", "2026-10-02T12:00:00Z"),
        ("Pacific/Apia", "2011-12-28T12:00:00Z"),
    ];
    for (zone, from) in changes {
        let from: Timestamp = from.parse().unwrap();
        let timetable = Timetable {
            expression: "cron(7/20 0-3,23 * * ? *)".parse().unwrap(),
            zone: Timetable::zone(zone).unwrap(),
            created: from,
            start: None,
            end: None,
        };
        let until = from + 72.hours();
        let mut seen = BTreeSet::new();
        let mut counted = Vec::new();
        let mut time = from + 1.minute();
        while time < until {
            let civil = timetable.zone.to_datetime(time);
            let fits = (civil.minute() % 20 == 7) && [0, 1, 2, 3, 23].contains(&civil.hour());
            if seen.insert(civil) && fits {
                counted.push(time);
            }
            time += 1.minute();
        }
        let first = timetable.next(from);
        let computed: Vec<_> = std::iter::successors(first, |time| timetable.next(*time))
            .take_while(|time| *time < until)
            .collect();
        assert!(counted.len() > 40, "{zone}");
        assert_eq!(computed, counted, "{zone}");
    }
}
