//! What the functions count and measure, for Prometheus.
//!
//! The functions' own lines in CloudWatch's embedded metric format are all that is read: what stands
//! here is what CloudWatch would have. Metrics that archweld does not know are left out, and so are
//! series beyond a bound: a page that is scraped must not grow without end.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use archweld_lambda::{LogLine, LogStream};
use archweld_metrics::{ALL, Description, NAMESPACE, Unit};
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit as PrometheusUnit},
};
use serde_json::Value;
use tokio::sync::broadcast::{Receiver, error::RecvError};

/// The format's media type
/// (<https://prometheus.io/docs/specs/om/open_metrics_spec/#overall-structure>).
pub(crate) const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How many series one metric may have.
const SERIES_MAX: usize = 500;
/// The upper bounds of histograms, in seconds: from a phase of a build to a run of a day.
const SECONDS: [f64; 13] =
    [0.1, 0.5, 1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0, 86_400.0];

type Labels = Vec<(String, String)>;
type Count = Family<Labels, Counter<f64, std::sync::atomic::AtomicU64>>;
type Seconds = Family<Labels, Histogram, fn() -> Histogram>;

/// The metrics of the functions.
#[derive(Debug, Clone)]
pub(crate) struct Metrics(Arc<Mutex<Kept>>);

#[derive(Debug)]
struct Kept {
    registry: Registry,
    families: Vec<(Description, Values, BTreeSet<Labels>)>,
}

#[derive(Debug)]
enum Values {
    Count(Count),
    Seconds(Seconds),
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("archweld");
        let families = ALL.iter().map(|metric| {
            let (name, about) = (snake_case(metric.name), metric.about.trim_end_matches('.'));
            let values = match metric.unit {
                Unit::Count => {
                    let family = Count::default();
                    registry.register(name, about, family.clone());
                    Values::Count(family)
                }
                Unit::Seconds => {
                    let family = Seconds::new_with_constructor(|| Histogram::new(SECONDS));
                    let unit = PrometheusUnit::Seconds;
                    registry.register_with_unit(name, about, unit, family.clone());
                    Values::Seconds(family)
                }
            };
            (*metric, values, BTreeSet::new())
        });
        let families = families.collect();
        Self(Arc::new(Mutex::new(Kept { registry, families })))
    }
}

impl Metrics {
    /// Takes in what functions print, until there are none any more.
    pub(crate) async fn follow(self, mut lines: Receiver<LogLine>) {
        loop {
            match lines.recv().await {
                Ok(line) if line.stream == LogStream::Stdout => self.read(&line.text),
                Ok(_) => {}
                Err(RecvError::Lagged(lost)) => {
                    tracing::warn!(lines.lost = lost, "metrics may be missing");
                }
                Err(RecvError::Closed) => return,
            }
        }
    }

    fn read(&self, line: &str) {
        if !line.contains("\"_aws\"") {
            return;
        }
        let Ok(line) = serde_json::from_str::<Value>(line) else { return };
        let directives = line.pointer("/_aws/CloudWatchMetrics").and_then(Value::as_array);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for directive in directives.into_iter().flatten() {
            if directive["Namespace"] != NAMESPACE {
                continue;
            }
            for metric in directive["Metrics"].as_array().into_iter().flatten() {
                let Some(name) = metric["Name"].as_str() else { continue };
                if let Some(value) = line[name].as_f64() {
                    kept.record(name, value, &line);
                }
            }
        }
    }

    /// The page.
    pub(crate) fn page(&self) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut page = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut page, &kept.registry);
        page
    }
}

impl Kept {
    fn record(&mut self, name: &str, value: f64, line: &Value) {
        let Some((metric, values, series)) =
            self.families.iter_mut().find(|(metric, ..)| metric.name == name)
        else {
            return;
        };
        let labels: Labels = metric
            .dimensions
            .iter()
            .map(|name| (snake_case(name), line[*name].as_str().unwrap_or_default().to_owned()))
            .collect();
        if !series.contains(&labels) {
            if series.len() == SERIES_MAX {
                return;
            }
            series.insert(labels.clone());
        }
        match values {
            // A counter only ever grows.
            Values::Count(family) if value >= 0.0 => {
                family.get_or_create(&labels).inc_by(value);
            }
            Values::Count(_) => {}
            Values::Seconds(family) => family.get_or_create(&labels).observe(value),
        }
    }
}

/// `PushToImage` as Prometheus writes names: `push_to_image`.
fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for (index, character) in name.chars().enumerate() {
        if character.is_ascii_uppercase() && index > 0 {
            snake.push('_');
        }
        snake.push(character.to_ascii_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line(name: &str, value: f64, dimensions: &Value) -> String {
        let mut line = json!({
            "_aws": {"Timestamp": 1, "CloudWatchMetrics": [{
                "Namespace": "archweld", "Dimensions": [["Stack"]],
                "Metrics": [{"Name": name, "Unit": "Count"}],
            }]},
            "Stack": "archweld",
        });
        line[name] = value.into();
        for (name, value) in dimensions.as_object().unwrap() {
            line[name] = value.clone();
        }
        line.to_string()
    }

    #[test]
    fn what_functions_print_is_what_prometheus_reads() {
        let metrics = Metrics::default();
        for _ in 0..2 {
            metrics.read(&line("Runs", 1.0, &json!({"Result": "SUCCEEDED"})));
        }
        let phase = json!({"Phase": "BUILD", "Platform": "linux/arm64"});
        metrics.read(&line("BuildPhaseDuration", 40.0, &phase));
        metrics.read(&line("Unheard", 1.0, &json!({})));
        metrics.read("not JSON, though it says \"_aws\"");
        let page = metrics.page();
        for part in [
            "# HELP archweld_runs Runs that ended.\n# TYPE archweld_runs counter\n",
            "archweld_runs_total{result=\"SUCCEEDED\"} 2.0\n",
            "# TYPE archweld_build_phase_duration_seconds histogram\n",
            "# UNIT archweld_build_phase_duration_seconds seconds\n",
            "archweld_build_phase_duration_seconds_sum{phase=\"BUILD\",platform=\"linux/arm64\"} 40.0\n",
            "archweld_build_phase_duration_seconds_bucket{le=\"60.0\",phase=\"BUILD\",platform=\"linux/arm64\"} 1\n",
        ] {
            assert!(page.contains(part), "{part}in\n{page}");
        }
        assert!(page.ends_with("# EOF\n") && !page.contains("nheard"), "{page}");
    }

    #[test]
    fn the_page_does_not_grow_without_end() {
        let metrics = Metrics::default();
        for number in 0..2 * SERIES_MAX {
            metrics.read(&line("Runs", 1.0, &json!({"Result": number.to_string()})));
        }
        assert_eq!(metrics.page().matches("archweld_runs_total{").count(), SERIES_MAX);
    }
}
