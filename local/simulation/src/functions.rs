//! The functions' `handle`, called in process as `main.rs` calls it in a Lambda.

use std::{collections::BTreeMap, future::Future, path::Path, sync::Arc};

use archweld_lambda::{FunctionError, InProcessHandler, Invocation};
use archweld_model::{Deployment, Named, Projects};
use archweld_template::Function;
use aws_types::SdkConfig;
use futures_util::FutureExt as _;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

/// The handler of a function of the template.
///
/// # Panics
/// On a function that is none of archweld's, and on an environment that lacks what it needs.
#[expect(clippy::expect_used, clippy::panic, reason = "the template and this list go together")]
pub fn in_process(
    function: &Function,
    environment: &BTreeMap<String, String>,
    sdk_config: &SdkConfig,
) -> InProcessHandler {
    let variable = |name: &str| environment.get(name).expect("the template sets it").clone();
    match function.binary.as_str() {
        "plan-build" => {
            let deployment = Deployment {
                registry: variable("IMAGE_REGISTRY"),
                source: variable("SOURCE_LOCATION"),
                projects: Projects {
                    amd64: variable("PROJECT_AMD64"),
                    arm64: variable("PROJECT_ARM64"),
                    manifest: variable("PROJECT_MANIFEST"),
                },
            };
            let config = variable("ARCHWELD_CONFIG");
            let settings = plan_build::Settings::new(Path::new(&config), deployment);
            let ecr = aws_sdk_ecr::Client::new(sdk_config);
            handler((settings, ecr), |request, shared| async move {
                plan_build::handle(request, &shared.0, &shared.1).await
            })
        }
        "start-build" => {
            let codebuild = aws_sdk_codebuild::Client::new(sdk_config);
            handler(codebuild, |request, codebuild| async move {
                start_build::handle(request, &codebuild).await
            })
        }
        "build-events" => {
            let clients = build_events::Clients::new(sdk_config);
            handler(
                clients,
                |event, clients| async move { build_events::handle(event, &clients).await },
            )
        }
        "publish" => {
            let clients = publish::Clients::new(sdk_config);
            handler(
                clients,
                |request, clients| async move { publish::handle(request, &clients).await },
            )
        }
        "reconcile" => {
            let names = ["PROJECT_AMD64", "PROJECT_ARM64", "PROJECT_MANIFEST"];
            let config = variable("ARCHWELD_CONFIG");
            let projects = names.map(variable).to_vec();
            let settings = reconcile::Settings::new(
                projects,
                variable("STATE_MACHINE_ARN"),
                Path::new(&config),
            );
            let clients = reconcile::Clients::new(sdk_config);
            handler((settings, clients), |payload, shared| async move {
                reconcile::handle(payload, &shared.0, &shared.1).await
            })
        }
        "report" => {
            let config = variable("ARCHWELD_CONFIG");
            let settings = report::Settings::new(Path::new(&config), variable("SOURCE_LOCATION"));
            let clients = report::Clients::new(sdk_config);
            handler((settings, clients), |event, shared| async move {
                report::handle(event, &shared.0, &shared.1).await
            })
        }
        "trigger-run" => {
            let config = variable("ARCHWELD_CONFIG");
            let settings = trigger_run::Settings::new(
                Path::new(&config),
                variable("STATE_MACHINE_ARN"),
                variable("SOURCE_LOCATION"),
                &variable("WEBHOOK_SECRET"),
                None,
            );
            let badges = variable("STATUS_BADGES") == "true";
            let settings = settings.expect("the settings are valid").with_badges(badges);
            let clients = trigger_run::Clients::new(sdk_config);
            handler((settings, clients), |event, shared| async move {
                trigger_run::handle(event, &shared.0, &shared.1).await
            })
        }
        other => panic!("no function {other}"),
    }
}

fn handler<S, I, O, E, F>(shared: S, handle: fn(I, Arc<S>) -> F) -> InProcessHandler
where
    S: Send + Sync + 'static,
    I: DeserializeOwned + 'static,
    O: Serialize,
    E: Named,
    F: Future<Output = Result<O, E>> + Send + 'static,
{
    let shared = Arc::new(shared);
    Arc::new(move |invocation: Invocation| {
        let input = archweld_runtime::parse(invocation.payload);
        let shared = Arc::clone(&shared);
        match input {
            Ok(input) => {
                let handled = handle(input, shared);
                async move { handled.await.map(|output| json!(output)).map_err(|error| named(&error)) }
                    .boxed()
            }
            Err(error) => std::future::ready(Err(named(&error))).boxed(),
        }
    })
}

fn named(error: &impl Named) -> FunctionError {
    FunctionError { error_type: error.name().to_string(), error_message: error.to_string() }
}
