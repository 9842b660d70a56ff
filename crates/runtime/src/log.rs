//! What functions print: one JSON object a line, with the fields that `docs/logging.md` names.
//!
//! `lambda_runtime`'s own subscriber would also link a regular-expression engine.

use std::{
    env, fmt,
    io::{self, Write as _},
    time::SystemTime,
};

use archweld_metrics::Sample;
use aws_smithy_types::{DateTime, date_time::Format};
use serde_json::{Map, Value};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span::{Attributes, Id, Record, Span},
};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt as _},
    registry::{LookupSpan, Scope},
    util::SubscriberInitExt as _,
};

/// The name of the span of an invocation, whose fields every line of the invocation has.
const INVOCATION: &str = "invocation";

/// Logs as Lambda's logging controls say
/// (<https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-advanced.html>), in JSON
/// whichever format they name.
pub(crate) fn init() {
    let level = level(env::var("AWS_LAMBDA_LOG_LEVEL").ok().as_deref());
    let stack = env::var("ARCHWELD_STACK").unwrap_or_else(|_| "archweld".to_owned());
    tracing_subscriber::registry().with(level).with(Lines { stack }).init();
}

/// Never `TRACE`: there, the Lambda runtime and the SDK log whole payloads, task tokens included.
fn level(text: Option<&str>) -> LevelFilter {
    let level = text.and_then(|level| level.parse().ok());
    level.unwrap_or(LevelFilter::INFO).min(LevelFilter::DEBUG)
}

/// The span of an invocation.
pub(crate) fn invocation(context: &lambda_runtime::Context) -> Span {
    tracing::error_span!(
        INVOCATION,
        aws.request_id = context.request_id,
        xray.trace_id = context.xray_trace_id.as_deref().map(trace_id),
        run = tracing::field::Empty,
    )
}

/// The identity within a tracing header, `Root=1-…;Parent=…;Sampled=1`
/// (<https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader>).
fn trace_id(header: &str) -> &str {
    let root = header.split(';').find_map(|part| part.trim().strip_prefix("Root="));
    root.unwrap_or(header)
}

/// Says which run this invocation is about: every line that it logs from now on says so, too.
pub fn about_run(run: impl fmt::Display) {
    Span::current().record("run", tracing::field::display(run));
}

/// Prints events as lines.
struct Lines {
    stack: String,
}

impl Lines {
    fn line<S>(&self, event: &Event<'_>, context: &Context<'_, S>, now: SystemTime) -> Value
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let mut line = Fields::default();
        for span in context.event_scope(event).into_iter().flat_map(Scope::from_root) {
            if let Some(fields) = span.extensions().get::<Fields>() {
                line.0.extend(fields.0.clone());
            }
        }
        let now = DateTime::from(now);
        match Sample::of(event) {
            Some(sample) => {
                sample.embed(&self.stack, now.to_millis().unwrap_or_default(), &mut line.0);
            }
            None => event.record(&mut line),
        }
        line.set("level", event.metadata().level().as_str());
        line.set("timestamp", now.fmt(Format::DateTimeWithOffset).unwrap_or_default());
        Value::Object(line.0)
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        // The spans of the SDK have fields of their own.
        if attributes.metadata().name() != INVOCATION {
            return;
        }
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut line = self.line(event, &context, SystemTime::now()).to_string();
        line.push('\n');
        // Nothing is left to do when even this cannot be written.
        drop(io::stdout().write_all(line.as_bytes()));
    }
}

/// The fields of a span or an event, as JSON.
#[derive(Debug, Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field.name(), value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field.name(), format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use archweld_metrics as metrics;

    use super::*;

    /// [`Lines`], kept instead of printed.
    struct Kept(Lines, Arc<Mutex<Vec<Value>>>);

    impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Kept {
        fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
            self.0.on_new_span(attributes, id, context);
        }

        fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
            self.0.on_record(id, values, context);
        }

        fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
            let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1_795_000_000_125);
            self.1.lock().unwrap().push(self.0.line(event, &context, now));
        }
    }

    fn lines(log: impl FnOnce()) -> Vec<Value> {
        let kept = Arc::new(Mutex::new(vec![]));
        let layer = Kept(Lines { stack: "images".to_owned() }, kept.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        std::mem::take(&mut kept.lock().unwrap())
    }

    #[test]
    fn every_line_says_which_run_and_which_request_it_is_about() {
        let mut context = lambda_runtime::Context::default();
        context.request_id = "8f5cf0b7".to_owned();
        context.xray_trace_id =
            Some("Root=1-5759e988-bd862e3f;Parent=53995c3f;Sampled=1".to_owned());
        let got = lines(|| {
            invocation(&context).in_scope(|| {
                tracing::warn!(builds = 2, "no run yet");
                about_run("hello-main-1");
                let _sdk = tracing::info_span!("try_op", rpc.service = "ecr").entered();
                tracing::info!(build.id = "p:1", error.name = None::<&str>, "build started");
                metrics::RUNS.record(1.0, ["SUCCEEDED"]);
            });
            tracing::info!("outside");
        });
        insta::with_settings!({sort_maps => true}, { insta::assert_json_snapshot!(got) });
    }

    #[test]
    fn logs_no_payload_at_any_level() {
        assert_eq!(level(Some("TRACE")), LevelFilter::DEBUG);
        assert_eq!(level(Some("WARN")), LevelFilter::WARN);
        assert_eq!(level(Some("loud")), LevelFilter::INFO);
        assert_eq!(level(None), LevelFilter::INFO);
    }

    #[test]
    fn a_trace_is_known_by_its_root() {
        assert_eq!(trace_id("Self=1-2;Root=1-5759e988-bd86;Sampled=1"), "1-5759e988-bd86");
        assert_eq!(trace_id("1-5759e988-bd86"), "1-5759e988-bd86");
    }
}
