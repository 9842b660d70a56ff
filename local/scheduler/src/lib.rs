//! EventBridge Scheduler on one machine.
//!
//! A [`Scheduler`] computes the next time of each schedule from its `at`, `rate` or `cron`
//! expression in the schedule's time zone, waits for it on tokio's clock and hands the target its
//! input. As on AWS a slot is the scheduled time, whatever the flexible window adds to it, and is
//! handed over at least once: [`Scheduler::fire`] does it again.
//!
//! Schedules come from the template, so that of the API only `ListSchedules` and `GetSchedule` are
//! served. A slot that passes while no local cloud runs is not made up for.
//!
//! The language of cron expressions is AWS's own: six fields, with `?`, `L`, `W` and `#`, and
//! days of the week from 1 for Sunday. No maintained crate reads it with its rules for daylight
//! saving, so that [`Cron`] does.

mod api;
mod cron;
mod expression;
mod service;
mod store;

pub use cron::Cron;
pub use expression::{Expression, ExpressionError, Timetable};
pub use service::{
    CreateScheduleError, Deliver, GROUP_DEFAULT, OpenError, ScheduleInfo, ScheduleRetries,
    ScheduleSettings, Scheduler,
};
