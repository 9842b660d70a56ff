//! What archweld counts and measures: every metric, its unit and its dimensions, in one place.
//!
//! A metric is recorded as an event of `tracing`, with a target of its own. Where
//! `archweld_runtime::serve` runs the function, the event becomes a line in CloudWatch's embedded metric format; everywhere
//! else it goes where the process's subscriber says, or nowhere.
//!
//! Each metric is kept for the whole stack, and once more for each combination of its dimensions. A
//! dimension takes few values: CloudWatch keeps, and bills, a metric for each.

use std::fmt;

use serde_json::{Map, Value};
use tracing::{
    Event,
    field::{Field, Visit},
};

/// The target of the events that metrics are recorded as.
pub const TARGET: &str = "archweld::metrics";

/// The namespace of the metrics in CloudWatch.
pub const NAMESPACE: &str = "archweld";

/// The dimension that every metric has: the name of the stack.
pub const STACK: &str = "Stack";

/// Runs that ended, by their result.
pub static RUNS: Metric<1> =
    Metric { name: "Runs", unit: Unit::Count, about: "Runs that ended.", dimensions: ["Result"] };

/// How long runs took, by their result.
pub static RUN_DURATION: Metric<1> = Metric {
    name: "RunDuration",
    unit: Unit::Seconds,
    about: "From the start of a run's execution to its end.",
    dimensions: ["Result"],
};

/// How long a push took to become an image.
pub static PUSH_TO_IMAGE: Metric<1> = Metric {
    name: "PushToImage",
    unit: Unit::Seconds,
    about: "From a push to the image that it became.",
    dimensions: ["Image"],
};

/// How long builds spent in each of CodeBuild's phases.
pub static BUILD_PHASE_DURATION: Metric<2> = Metric {
    name: "BuildPhaseDuration",
    unit: Unit::Seconds,
    about: "Time that a build spent in a phase of CodeBuild's.",
    dimensions: ["Phase", "Platform"],
};

/// Builds that are tried again, by the error that is the cause.
pub static BUILD_RETRIES: Metric<1> = Metric {
    name: "BuildRetries",
    unit: Unit::Count,
    about: "Builds that failed for no fault of the source, and are tried again.",
    dimensions: ["Cause"],
};

/// What `reconcile` put right, by what it was.
pub static RECONCILE_REPAIRS: Metric<1> = Metric {
    name: "ReconcileRepairs",
    unit: Unit::Count,
    about: "What a lost event or a crash had left behind, and reconcile put right.",
    dimensions: ["Kind"],
};

/// Every metric.
pub static ALL: [Description; 6] = [
    RUNS.describe(),
    RUN_DURATION.describe(),
    PUSH_TO_IMAGE.describe(),
    BUILD_PHASE_DURATION.describe(),
    BUILD_RETRIES.describe(),
    RECONCILE_REPAIRS.describe(),
];

/// What there is to say of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Description {
    /// The name.
    pub name: &'static str,
    /// The unit of its values.
    pub unit: Unit,
    /// What it says, in a sentence.
    pub about: &'static str,
    /// The names of its dimensions.
    pub dimensions: &'static [&'static str],
}

/// A unit of CloudWatch's
/// (<https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDatum.html>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Things that are added up.
    Count,
    /// A time.
    Seconds,
}

impl Unit {
    /// CloudWatch's name of it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Count => "Count",
            Self::Seconds => "Seconds",
        }
    }
}

/// Something that is counted or measured, with `N` dimensions beside [`STACK`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric<const N: usize> {
    /// The name.
    pub name: &'static str,
    /// The unit of its values.
    pub unit: Unit,
    /// What it says, in a sentence.
    pub about: &'static str,
    /// The names of its dimensions.
    pub dimensions: [&'static str; N],
}

impl<const N: usize> Metric<N> {
    const fn describe(&'static self) -> Description {
        let Self { name, unit, about, dimensions } = self;
        Description { name, unit: *unit, about, dimensions }
    }

    /// Records a value, in the metric's unit, for the values of its dimensions in their order.
    ///
    /// A value that is not finite is none.
    pub fn record(&self, value: f64, of: [&str; N]) {
        if !value.is_finite() {
            return;
        }
        let of = self.dimensions.iter().zip(of);
        let of: Map<String, Value> = of.map(|(&name, of)| (name.to_owned(), of.into())).collect();
        let dimensions = Value::Object(of);
        tracing::info!(
            target: TARGET,
            {
                metric.name = self.name,
                metric.unit = self.unit.as_str(),
                metric.value = value,
                metric.dimensions = %dimensions,
            },
            "metric recorded"
        );
    }
}

/// A recorded value, as whoever subscribes to the events reads it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    /// The metric's name.
    pub name: String,
    /// CloudWatch's name of its unit.
    pub unit: String,
    /// The value.
    pub value: f64,
    /// The dimensions but [`STACK`], each with its value.
    pub dimensions: Map<String, Value>,
}

impl Sample {
    /// What an event records, if it records a metric.
    pub fn of(event: &Event<'_>) -> Option<Self> {
        if event.metadata().target() != TARGET {
            return None;
        }
        let mut sample = Self::default();
        event.record(&mut sample);
        Some(sample)
    }

    /// Adds the members to a log line that let CloudWatch know the metric, of a stack and a time in
    /// milliseconds since 1970
    /// (<https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>).
    pub fn embed(self, stack: &str, now_ms: i64, line: &mut Map<String, Value>) {
        let mut all = vec![STACK.to_owned()];
        let mut sets = vec![all.clone()];
        all.extend(self.dimensions.keys().cloned());
        if all.len() > 1 {
            sets.push(all);
        }
        let metadata = serde_json::json!({
            "Timestamp": now_ms,
            "CloudWatchMetrics": [{
                "Namespace": NAMESPACE,
                "Dimensions": sets,
                "Metrics": [{"Name": self.name, "Unit": self.unit}],
            }],
        });
        line.insert("_aws".to_owned(), metadata);
        line.insert(STACK.to_owned(), stack.into());
        line.extend(self.dimensions);
        line.insert(self.name, self.value.into());
    }
}

impl Visit for Sample {
    fn record_f64(&mut self, _: &Field, value: f64) {
        self.value = value;
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "metric.name" => self.name = value.to_owned(),
            "metric.unit" => self.unit = value.to_owned(),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "metric.dimensions" {
            self.dimensions = serde_json::from_str(&format!("{value:?}")).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::json;
    use tracing_subscriber::{Layer, layer::Context, prelude::*, registry};

    use super::*;

    #[derive(Clone, Default)]
    struct Samples(Arc<Mutex<Vec<Sample>>>);

    impl<S: tracing::Subscriber> Layer<S> for Samples {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            self.0.lock().unwrap().extend(Sample::of(event));
        }
    }

    fn samples(record: impl FnOnce()) -> Vec<Sample> {
        let samples = Samples::default();
        tracing::subscriber::with_default(registry().with(samples.clone()), record);
        samples.0.lock().unwrap().clone()
    }

    #[test]
    fn a_recorded_value_is_read_back_by_whoever_subscribes() {
        let got = samples(|| {
            tracing::info!("no metric");
            BUILD_PHASE_DURATION.record(2.5, ["BUILD", "linux/arm64"]);
            BUILD_PHASE_DURATION.record(f64::NAN, ["BUILD", "linux/arm64"]);
        });
        let [sample] = &got[..] else { panic!("{got:?}") };
        assert_eq!(sample.name, "BuildPhaseDuration");
        assert_eq!(sample.unit, "Seconds");
        assert_eq!(sample.value, 2.5);
        let dimensions = json!({"Phase": "BUILD", "Platform": "linux/arm64"});
        assert_eq!(Value::Object(sample.dimensions.clone()), dimensions);
    }

    #[test]
    fn a_line_declares_what_it_holds() {
        let mut line = Map::new();
        let got = samples(|| RECONCILE_REPAIRS.record(3.0, ["tag"]));
        got[0].clone().embed("archweld", 1_795_000_000_000, &mut line);
        let expected = json!({
            "Kind": "tag",
            "ReconcileRepairs": 3.0,
            "Stack": "archweld",
            "_aws": {
                "Timestamp": 1_795_000_000_000_i64,
                "CloudWatchMetrics": [{
                    "Namespace": "archweld",
                    "Dimensions": [["Stack"], ["Stack", "Kind"]],
                    "Metrics": [{"Name": "ReconcileRepairs", "Unit": "Count"}],
                }],
            },
        });
        assert_eq!(Value::Object(line), expected);
    }
}
