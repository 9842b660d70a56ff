//! Deliberate defects: the simulation finds every one of them, by the invariant that breaks first.
//!
//! They take the place of handlers here, in the tests. Nothing that is shipped knows of them.

use std::{path::Path, sync::Arc};

use archweld_lambda::{FunctionError, InProcessHandler, Invocation};
use archweld_simulation::{Alterations, FaultPlan, run};
use aws_sdk_ecr::types::ImageIdentifier;
use aws_types::SdkConfig;
use futures_util::FutureExt as _;
use serde_json::{Value, json};

/// Something that is wrong with archweld.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Defect {
    /// A tag is moved as soon as one platform is built.
    TagBeforeVerification,
    /// Builds of all runs push to one tag, and what it names is taken for theirs.
    DigestOfSharedTag,
    /// The entries of an index are in another order than its platforms.
    PlatformsSwapped,
    /// A fixed tag is put whether it is taken or not.
    FixedTagForced,
    /// Whoever publishes last has the moving tags.
    SequenceIgnored,
    /// Tasks have no time-out, nobody tells of builds, and no pass of `reconcile` finds them.
    NoTimeouts,
    /// `reconcile` does nothing.
    ReconcileDisabled,
    /// A delivery starts an execution each time that it comes.
    DeliveryNotOnce,
    /// Every failure is taken for one of the infrastructure.
    FailuresRetried,
    /// A signature may be anything.
    SignatureUnchecked,
    /// An event that comes again has an effect again: it moves a tag.
    EventNotIdempotent,
}

/// One test a defect: it is found by the invariant that it breaks first, within so many runs.
macro_rules! found {
    ($($test:ident: $defect:ident, $invariant:literal, $runs_max:literal;)*) => {$(
        #[test]
        fn $test() {
            let alterations = alterations(Defect::$defect);
            let summary = run(1, $runs_max, &FaultPlan::heavy(), &alterations, 1, &|_| {}).unwrap();
            let found = summary.found.first().map(|found| found.violation.invariant);
            assert_eq!(found, Some($invariant), "in {} runs", summary.runs);
        }
    )*};
}

found! {
    a_tag_before_verification: TagBeforeVerification, 1, 300;
    a_digest_of_a_shared_tag: DigestOfSharedTag, 2, 300;
    swapped_platforms: PlatformsSwapped, 3, 300;
    a_fixed_tag_that_is_forced: FixedTagForced, 4, 1_000;
    a_sequence_that_is_ignored: SequenceIgnored, 5, 300;
    no_timeouts: NoTimeouts, 6, 300;
    no_reconcile: ReconcileDisabled, 7, 300;
    a_delivery_that_counts_more_than_once: DeliveryNotOnce, 8, 300;
    failures_that_are_retried: FailuresRetried, 9, 300;
    a_signature_that_is_not_checked: SignatureUnchecked, 10, 300;
    an_event_that_is_not_idempotent: EventNotIdempotent, 1, 300;
}

/// archweld with a defect.
pub(crate) fn alterations(defect: Defect) -> Alterations {
    let handler =
        move |binary: &str, inner: InProcessHandler, config: &SdkConfig| match (defect, binary) {
            (Defect::TagBeforeVerification, "build-events") => {
                let ecr = aws_sdk_ecr::Client::new(config);
                after(inner, move |payload, _| tag_platform(ecr.clone(), payload))
            }
            (Defect::EventNotIdempotent, "build-events") => {
                let ecr = aws_sdk_ecr::Client::new(config);
                after(inner, move |payload, answer| {
                    let payload = if answer == "not_waited_for" { payload } else { Value::Null };
                    tag_platform(ecr.clone(), payload)
                })
            }
            (Defect::DigestOfSharedTag, "plan-build") => Arc::new(move |invoked| {
                let planned = inner(invoked);
                async move { planned.await.map(share_tags) }.boxed()
            }),
            (Defect::PlatformsSwapped, "publish") => {
                let ecr = aws_sdk_ecr::Client::new(config);
                after(inner, move |payload, _| {
                    publish_again(ecr.clone(), payload, swap, |plan| vec![plan["tag"].clone()])
                })
            }
            (Defect::FixedTagForced, "publish") => {
                let ecr = aws_sdk_ecr::Client::new(config);
                after(inner, move |payload, _| {
                    let fixed =
                        |plan: &Value| plan["fixed_tags"].as_array().cloned().unwrap_or_default();
                    publish_again(ecr.clone(), payload, |text| text, fixed)
                })
            }
            (Defect::SequenceIgnored, "publish") => {
                let ecr = aws_sdk_ecr::Client::new(config);
                after(inner, move |payload, _| {
                    let moving = |plan: &Value| {
                        let moving = plan["moving_tags"].as_array().cloned().unwrap_or_default();
                        moving.into_iter().map(|moving| moving["tag"].clone()).collect()
                    };
                    publish_again(ecr.clone(), payload, |text| text, moving)
                })
            }
            (Defect::SequenceIgnored, "reconcile") => without_images(config),
            (Defect::NoTimeouts, "reconcile") => without_passes(inner),
            (Defect::ReconcileDisabled, "reconcile") | (Defect::NoTimeouts, "build-events") => {
                nothing()
            }
            (Defect::FailuresRetried, "build-events") => {
                Arc::new(move |mut invoked: Invocation| {
                    if invoked.payload["detail"]["build-status"] == "FAILED" {
                        invoked.payload["detail"]["build-status"] = "FAULT".into();
                    }
                    inner(invoked)
                })
            }
            (Defect::DeliveryNotOnce, "trigger-run") => starts_anew(inner, config, 200),
            (Defect::SignatureUnchecked, "trigger-run") => starts_anew(inner, config, 401),
            _ => inner,
        };
    let without_timeouts = |text: String| {
        let mut definition: Value = serde_json::from_str(&text).unwrap();
        let platform = &mut definition["States"]["Build platforms"]["ItemProcessor"]["States"]["Build platform"];
        platform.as_object_mut().unwrap().remove("TimeoutSeconds");
        let manifest = definition["States"]["Build manifest"].as_object_mut().unwrap();
        manifest.remove("TimeoutSeconds");
        definition.to_string()
    };
    Alterations {
        handler: Some(Arc::new(handler)),
        definition: (defect == Defect::NoTimeouts).then_some(without_timeouts),
    }
}

/// A function that does nothing.
fn nothing() -> InProcessHandler {
    Arc::new(|_| std::future::ready(Ok(json!({}))).boxed())
}

/// A `reconcile` that knows of no image, and so of no tag.
fn without_images(config: &SdkConfig) -> InProcessHandler {
    let projects = ["amd64", "arm64", "manifest"].map(|name| format!("archweld-{name}")).to_vec();
    let state_machine =
        "arn:aws:states:us-east-1:123456789012:stateMachine:archweld-multi-arch-build";
    let nowhere = Path::new("/nowhere/archweld.toml");
    let settings = reconcile::Settings::new(projects, state_machine.to_owned(), nowhere);
    let shared = Arc::new((settings, reconcile::Clients::new(config)));
    Arc::new(move |invoked: Invocation| {
        let shared = Arc::clone(&shared);
        async move {
            drop(reconcile::handle(invoked.payload, &shared.0, &shared.1).await);
            Ok(json!({}))
        }
        .boxed()
    })
}

/// A `reconcile` that looks for nothing by itself.
fn without_passes(inner: InProcessHandler) -> InProcessHandler {
    Arc::new(move |invoked: Invocation| {
        if invoked.payload.get("scheduled_time").is_none() {
            return inner(invoked);
        }
        let error_message = "no pass".to_owned();
        let error = FunctionError { error_type: "Unhandled".to_owned(), error_message };
        std::future::ready(Err(error)).boxed()
    })
}

/// A function that does something more once it has done what it should; whatever fails of that is
/// nobody's business.
fn after<F>(
    inner: InProcessHandler,
    more: impl Fn(Value, &Value) -> F + Send + Sync + 'static,
) -> InProcessHandler
where
    F: Future<Output = Option<()>> + Send + 'static,
{
    let more = Arc::new(more);
    Arc::new(move |invoked: Invocation| {
        let (more, payload) = (Arc::clone(&more), invoked.payload.clone());
        let done = inner(invoked);
        async move {
            let answer: Result<Value, FunctionError> = done.await;
            if let Ok(answer) = &answer {
                more(payload, answer).await;
            }
            answer
        }
        .boxed()
    })
}

async fn manifest(ecr: &aws_sdk_ecr::Client, repository: &str, tag: &str) -> Option<String> {
    let id = ImageIdentifier::builder().image_tag(tag).build();
    let images = ecr.batch_get_image().repository_name(repository).image_ids(id);
    images.send().await.ok()?.images?.pop()?.image_manifest
}

async fn put(ecr: &aws_sdk_ecr::Client, repository: &str, tag: &str, text: String) -> Option<()> {
    let put = ecr.put_image().repository_name(repository).image_tag(tag).image_manifest(text);
    put.send().await.ok().map(drop)
}

/// Points `latest` at the image of a build that ended.
async fn tag_platform(ecr: aws_sdk_ecr::Client, payload: Value) -> Option<()> {
    let information = &payload["detail"]["additional-information"];
    let variables = information["environment"]["environment-variables"].as_array()?;
    let variable = |name: &str| {
        let variable = variables.iter().find(|variable| variable["name"] == name)?;
        variable["value"].as_str()
    };
    variable("IMAGE_PLATFORM")?;
    let repository = variable("IMAGE_REPO_NAME")?;
    let text = manifest(&ecr, repository, variable("IMAGE_TAG")?).await?;
    put(&ecr, repository, "latest", text).await
}

/// The tags that builds push to are those of every run.
fn share_tags(mut plan: Value) -> Value {
    for platform in plan["platforms"].as_array_mut().into_iter().flatten() {
        let variables = platform["build"]["environment"].as_array_mut();
        for variable in variables.into_iter().flatten() {
            if variable["name"] == "IMAGE_TAG" {
                let tag = variable["value"].as_str().unwrap_or_default();
                let arch = tag.rsplit('-').next().unwrap_or_default();
                variable["value"] = format!("edge-{arch}").into();
            }
        }
    }
    plan
}

fn swap(text: String) -> String {
    let mut index: Value = serde_json::from_str(&text).unwrap_or_default();
    let Some(entries) = index["manifests"].as_array_mut() else { return text };
    if let [first, second, ..] = &mut entries[..] {
        let platform = first["platform"].take();
        first["platform"] = second["platform"].take();
        second["platform"] = platform;
    }
    index.to_string()
}

/// Puts the run's index, changed, under some of its tags.
async fn publish_again(
    ecr: aws_sdk_ecr::Client,
    payload: Value,
    change: fn(String) -> String,
    tags: impl Fn(&Value) -> Vec<Value>,
) -> Option<()> {
    let plan = &payload["plan"];
    let repository = plan["repository"].as_str()?;
    let text = change(manifest(&ecr, repository, plan["tag"].as_str()?).await?);
    for tag in tags(plan) {
        put(&ecr, repository, tag.as_str()?, text.clone()).await?;
    }
    Some(())
}

/// A trigger that starts an execution whenever it answers so, each time under another name.
fn starts_anew(inner: InProcessHandler, config: &SdkConfig, status: u16) -> InProcessHandler {
    let sfn = aws_sdk_sfn::Client::new(config);
    Arc::new(move |invoked: Invocation| {
        let (inner, sfn) = (Arc::clone(&inner), sfn.clone());
        async move {
            let Some(body) = invoked.payload["body"].as_str() else { return inner(invoked).await };
            let headers = invoked.payload["headers"].clone();
            let push: Value = serde_json::from_str(body).unwrap_or_default();
            let answer = inner(invoked.clone()).await?;
            if answer["statusCode"] != status {
                return Ok(answer);
            }
            let machines = sfn.list_state_machines().send().await;
            let arn = machines.ok().and_then(|machines| {
                machines.state_machines.into_iter().next().map(|machine| machine.state_machine_arn)
            });
            let input = json!({
                "image": "hello", "ref": push["ref"], "commit": push["after"],
                "trigger": {"kind": "push", "id": headers["x-github-delivery"]},
            });
            let name = format!("anew-{}", invoked.request_id);
            let start = sfn.start_execution().name(name).input(input.to_string());
            drop(start.set_state_machine_arn(arn).send().await);
            Ok(answer)
        }
        .boxed()
    })
}
