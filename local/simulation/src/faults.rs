//! The faults: their kinds, their rates, and which of them are injected.
//!
//! Whether a fault is injected at an opportunity follows from the seed, the kind and the number of
//! the opportunity among those of its kind, and from nothing else. So a run can be replayed with any
//! subset of its faults, and a fault that is left out moves none of the others by itself.

use std::{collections::BTreeSet, fmt, path::Path, str::FromStr};

use serde::Deserialize;

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $light:literal, $heavy:literal;)+) => {
        /// A kind of fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault {
            $($(#[$doc])* $name,)+
        }

        impl Fault {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The name, as plans and tables have it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }

            fn light(self) -> f64 {
                match self {
                    $(Self::$name => $light,)+
                }
            }

            fn heavy(self) -> f64 {
                match self {
                    $(Self::$name => $heavy,)+
                }
            }
        }
    };
}

// Each with its rates an opportunity: light, heavy.
faults! {
    /// An event is never delivered.
    EventLost = "event-lost", 0.01, 0.10;
    /// An event is delivered twice.
    EventDoubled = "event-doubled", 0.01, 0.10;
    /// An event is delivered up to a quarter of an hour late.
    EventDelayed = "event-delayed", 0.01, 0.06;
    /// An event is delivered after others that happened later.
    EventReordered = "event-reordered", 0.02, 0.10;
    /// An asynchronous invocation is run twice.
    InvocationDoubled = "invocation-doubled", 0.01, 0.05;
    /// A webhook is delivered again.
    WebhookRedelivered = "webhook-redelivered", 0.05, 0.30;
    /// Somebody sends a webhook with a wrong signature.
    SignatureForged = "signature-forged", 0.02, 0.15;
    /// A function is killed before a call takes effect.
    LambdaKilledBefore = "lambda-killed-before-call", 0.001, 0.006;
    /// A function is killed after a call took effect, and before it hears of it.
    LambdaKilledAfter = "lambda-killed-after-call", 0.001, 0.006;
    /// A function is killed when it has done all, and nobody hears of it.
    LambdaKilledAtEnd = "lambda-killed-at-end", 0.002, 0.02;
    /// A call takes so long that the function is out of time.
    LambdaTimedOut = "lambda-timed-out", 0.0005, 0.003;
    /// A function starts cold.
    LambdaCold = "lambda-cold", 0.05, 0.20;
    /// Lambda refuses an invocation of the state machine: too many at once.
    LambdaThrottled = "lambda-throttled", 0.005, 0.03;
    /// Lambda fails an invocation of the state machine by itself.
    LambdaUnavailable = "lambda-unavailable", 0.005, 0.03;
    /// EventBridge fails to take the result event.
    PutEventsFailed = "put-events-failed", 0.02, 0.10;
    /// An AWS API asks to slow down.
    ApiThrottled = "api-throttled", 0.005, 0.02;
    /// An AWS API answers with a fault of its own.
    ApiUnavailable = "api-5xx", 0.005, 0.02;
    /// A connection ends before the call took effect.
    ConnectionDroppedBefore = "connection-dropped-before", 0.005, 0.015;
    /// A connection ends after the call took effect.
    ConnectionDroppedAfter = "connection-dropped-after", 0.005, 0.015;
    /// ECR's lists and images are as they were up to two seconds ago.
    StaleImages = "stale-images", 0.02, 0.15;
    /// The list of executions is as it was up to 30 seconds ago.
    StaleExecutions = "stale-executions", 0.02, 0.20;
    /// CodeBuild refuses a build: the account has too many in its queue.
    BuildLimit = "build-limit", 0.01, 0.05;
    /// Others take the account's machines, so that builds are stuck in the queue.
    BuildQueued = "build-queued", 0.005, 0.05;
    /// CodeBuild cannot provide a machine.
    BuildFault = "build-fault", 0.01, 0.05;
    /// A build's container is out of memory.
    BuildOutOfMemory = "build-out-of-memory", 0.005, 0.03;
    /// A command of the build fails.
    BuildFailed = "build-failed", 0.02, 0.08;
    /// A build hangs until its time-out.
    BuildHangs = "build-hangs", 0.005, 0.03;
    /// Somebody stops a build.
    BuildStopped = "build-stopped", 0.005, 0.02;
    /// A build is stopped in the moment in which it succeeds.
    StopRaces = "stop-races", 0.10, 0.50;
    /// Somebody stops an execution.
    ExecutionStopped = "execution-stopped", 0.02, 0.08;
    /// Somebody has an execution go on that was stopped, or fail again that failed.
    ExecutionRedriven = "execution-redriven", 0.02, 0.10;
    /// Somebody starts a run again, with the same input.
    Rerun = "rerun", 0.02, 0.08;
    /// A schedule fires twice for one time.
    ScheduleDoubled = "schedule-doubled", 0.10, 0.60;
    /// Several pushes come within seconds.
    Burst = "burst", 0.10, 0.30;
    /// The clocks of CodeBuild and of whoever pushes differ from the others by up to 20 seconds.
    ClockSkew = "clock-skew", 0.10, 0.50;
}

/// How many kinds there are.
pub(crate) const FAULTS: usize = Fault::ALL.len();

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One fault that is injected: a kind, and which of its opportunities, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Injection {
    /// The kind.
    pub fault: Fault,
    /// The number of the opportunity among those of its kind.
    pub opportunity: u32,
}

impl fmt::Display for Injection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.fault, self.opportunity)
    }
}

/// A text that is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Neither a name of a plan nor a file.
    #[error("read fault plan {path}: expected none, light, heavy or a TOML file of rates")]
    Read {
        /// What was given.
        path: String,
        /// Why it cannot be read.
        source: std::io::Error,
    },
    /// A file of something else.
    #[error("fault plan {path}: {problem}")]
    Rates {
        /// The file.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// An injection that is none.
    #[error("{0:?}: expected a fault and its opportunity, such as event-lost@3")]
    Injection(String),
}

impl FromStr for Injection {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let wrong = || PlanError::Injection(text.to_owned());
        let (name, number) = text.split_once('@').ok_or_else(wrong)?;
        let fault = Fault::ALL.iter().find(|fault| fault.name() == name).ok_or_else(wrong)?;
        let opportunity = number.parse().map_err(|_| wrong())?;
        Ok(Self { fault: *fault, opportunity })
    }
}

/// Which faults are injected.
#[derive(Debug, Clone, PartialEq)]
pub enum FaultPlan {
    /// Each kind at a rate: the share of its opportunities.
    Rates(Box<[f64; FAULTS]>),
    /// Exactly these.
    Exactly(BTreeSet<Injection>),
}

impl FaultPlan {
    /// No faults: delays, durations and pushes are drawn all the same.
    pub fn none() -> Self {
        Self::Rates(Box::new([0.0; FAULTS]))
    }

    /// What a bad week brings.
    pub fn light() -> Self {
        Self::rates(Fault::light)
    }

    /// Far more of everything than AWS has ever had.
    pub fn heavy() -> Self {
        Self::rates(Fault::heavy)
    }

    fn rates(rate: fn(Fault) -> f64) -> Self {
        let mut rates = [0.0; FAULTS];
        for fault in Fault::ALL {
            rates[*fault as usize] = rate(*fault);
        }
        Self::Rates(Box::new(rates))
    }

    /// `none`, `light`, `heavy`, or a TOML file that gives rates by fault; others are zero.
    ///
    /// # Errors
    /// When it is none of these.
    pub fn named(name: &str) -> Result<Self, PlanError> {
        match name {
            "none" => return Ok(Self::none()),
            "light" => return Ok(Self::light()),
            "heavy" => return Ok(Self::heavy()),
            _ => {}
        }
        let path = name.to_owned();
        let text = std::fs::read_to_string(Path::new(name))
            .map_err(|source| PlanError::Read { path: path.clone(), source })?;
        let wrong = |problem| PlanError::Rates { path: path.clone(), problem };
        let table: toml::Table =
            text.parse().map_err(|error: toml::de::Error| wrong(error.to_string()))?;
        let mut rates = [0.0; FAULTS];
        for (key, value) in table {
            let fault = Fault::ALL.iter().find(|fault| fault.name() == key);
            let fault = fault.ok_or_else(|| wrong(format!("{key}: no such fault")))?;
            let rate = f64::deserialize(value).ok().filter(|rate| (0.0..=1.0).contains(rate));
            rates[*fault as usize] =
                rate.ok_or_else(|| wrong(format!("{key}: expected a rate from 0.0 to 1.0")))?;
        }
        Ok(Self::Rates(Box::new(rates)))
    }

    /// Whether a fault is injected at an opportunity of a world.
    pub(crate) fn injects(&self, seed: u64, fault: Fault, opportunity: u32) -> bool {
        match self {
            Self::Rates(rates) => {
                let rate = rates[fault as usize];
                rate > 0.0 && unit(mix(seed, fault as u64, opportunity.into())) < rate
            }
            Self::Exactly(injections) => injections.contains(&Injection { fault, opportunity }),
        }
    }
}

/// A number that follows from others: SplitMix64's finaliser over them
/// (<https://prng.di.unimi.it/splitmix64.c>).
pub(crate) fn mix(seed: u64, kind: u64, number: u64) -> u64 {
    let step = |mut z: u64| {
        z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    step(step(step(seed) ^ kind) ^ number)
}

/// From 0 to 1, without 1.
pub(crate) fn unit(bits: u64) -> f64 {
    // 53 bits are what a float has.
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_injection_reads_as_it_is_written() {
        for fault in Fault::ALL {
            let injection = Injection { fault: *fault, opportunity: 7 };
            assert_eq!(injection.to_string().parse::<Injection>().ok(), Some(injection));
        }
        for wrong in ["event-lost", "event-lost@x", "nothing@1"] {
            assert!(wrong.parse::<Injection>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn faults_come_at_their_rate() {
        let plan = FaultPlan::heavy();
        let injected = (0..10_000).filter(|n| plan.injects(1, Fault::EventLost, *n)).count();
        assert!((900..1_100).contains(&injected), "{injected}");
    }
}
