//! What a call through the AWS SDK costs by itself: it bounds how many runs can be simulated.
//!
//! The clients are those of the simulation: on one thread, without a socket. One is answered at once,
//! the other by the local Step Functions, in turns.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use archweld_cloud::{Cloud, OpenError};
use aws_sdk_sfn::Client;
use aws_smithy_runtime_api::client::{
    http::{
        HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
        SharedHttpConnector,
    },
    orchestrator::{HttpRequest, HttpResponse},
    runtime_components::RuntimeComponents,
};
use aws_smithy_types::body::SdkBody;
use http::StatusCode;

use crate::{
    cloud::{NoBuilds, settings},
    figures::{median, thousandth},
};

/// How many calls a sample is the mean of.
const BATCH: u32 = 100;
/// What Step Functions says where nothing ran.
const ANSWER: &str = r#"{"executions":[]}"#;

/// Measures what a call through the AWS SDK costs, without a network
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The folder of the binaries
    #[arg(long, default_value = "target/release")]
    functions: PathBuf,
    /// The template that is deployed
    #[arg(long, default_value = "infra/template.yaml")]
    template: PathBuf,
    /// How many times a hundred calls of each kind are made
    #[arg(long, default_value_t = 51, value_parser = clap::value_parser!(u32).range(3..=1000))]
    rounds: u32,
}

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot open the local cloud: {0}")]
    Open(#[from] OpenError),
    #[error("the template has no state machine")]
    NoStateMachine,
    #[error("cannot list executions: {0}")]
    Call(String),
}

/// A client that has the answer before it is asked.
#[derive(Debug, Clone)]
struct AtOnce;

impl HttpClient for AtOnce {
    fn http_connector(
        &self,
        _: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for AtOnce {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        let answer = HttpResponse::new(StatusCode::OK.into(), SdkBody::from(ANSWER));
        HttpConnectorFuture::ready(Ok(answer))
    }
}

/// The figures as text.
pub(crate) async fn bench(arguments: &Arguments) -> Result<String, Error> {
    let cloud = Cloud::open(settings(&arguments.template, &arguments.functions, NoBuilds)).await?;
    let state_machine = cloud.stack().state_machines.first().ok_or(Error::NoStateMachine)?;
    let config = cloud.sdk_config();
    let local = Client::new(&config);
    let mut at_once = config.into_builder();
    at_once.set_http_client(Some(SharedHttpClient::new(AtOnce)));
    let at_once = Client::new(&at_once.build());
    let clients = [("answered at once", &at_once), ("answered by the local cloud", &local)];
    let mut samples = clients.map(|_| Vec::new());
    for round in 0..=arguments.rounds {
        for ((_, client), samples) in clients.iter().zip(&mut samples) {
            let took = list(client, &state_machine.arn).await?;
            // The first warms up.
            if round > 0 {
                samples.push(took / BATCH);
            }
        }
    }
    cloud.shutdown().await;
    let mut report = format!("{:<28} {:>8}\n", "call through the SDK (us)", "median");
    for ((kind, _), samples) in clients.iter().zip(&samples) {
        let nanos = u64::try_from(median(samples).as_nanos()).unwrap_or(u64::MAX);
        report += &format!("{kind:<28} {:>8.1}\n", thousandth(nanos));
    }
    let calls = arguments.rounds * BATCH;
    report += &format!(
        "ListExecutions, of {calls} calls each in turns, on one thread without a socket\n"
    );
    Ok(report)
}

/// How long a batch takes.
async fn list(client: &Client, state_machine: &str) -> Result<Duration, Error> {
    let began = Instant::now();
    for _ in 0..BATCH {
        let listed = client.list_executions().state_machine_arn(state_machine).send().await;
        listed.map_err(|error| Error::Call(error.to_string()))?;
    }
    Ok(began.elapsed())
}
