//! Where a command looks: at a stack on AWS, or at the local cloud.

use std::collections::BTreeMap;

use aws_credential_types::provider::ProvideCredentials as _;
use roxmltree::Document;
use serde::Deserialize;
use serde_json::json;

use crate::{
    arguments::At,
    aws::{Api, CLOUDFORMATION, CallErrorKind, STATES, chain, xml},
    deployment::REGION,
    error::Error,
};

/// What the state machine's name ends with, in a stack and in the local cloud.
const STATE_MACHINE: &str = "multi-arch-build";
const STATE_MACHINE_TYPE: &str = "AWS::StepFunctions::StateMachine";

/// A deployment that answers.
#[derive(Debug)]
pub(crate) struct Target {
    /// Its API.
    pub(crate) api: Api,
    /// The ARN of the state machine.
    pub(crate) state_machine: String,
    /// What a message may say to address it once more, such as ` --stack archweld`.
    pub(crate) options: String,
    /// Whether it is on this machine, so that asking it often costs nothing.
    pub(crate) is_local: bool,
}

/// A stack of CloudFormation's.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Stack {
    /// Such as `UPDATE_COMPLETE`.
    pub(crate) status: String,
    /// Why it is in that status, where CloudFormation says.
    pub(crate) reason: Option<String>,
    /// Its parameters, defaults included.
    pub(crate) parameters: BTreeMap<String, String>,
    /// Its outputs.
    pub(crate) outputs: BTreeMap<String, String>,
    /// Its resources.
    pub(crate) resources: Vec<Resource>,
}

/// A resource of a stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resource {
    /// Its name in the template.
    pub(crate) logical_id: String,
    /// Its name, ARN or address.
    pub(crate) physical_id: String,
    /// Such as `AWS::CodeBuild::Project`.
    pub(crate) kind: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StateMachines {
    state_machines: Vec<StateMachine>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StateMachine {
    name: String,
    state_machine_arn: String,
}

impl Target {
    /// Finds the deployment that the options name.
    ///
    /// # Errors
    /// When it cannot be asked, or is not there.
    pub(crate) async fn find(at: &At) -> Result<Self, Error> {
        let Some(stack) = &at.stack else { return Self::local(at).await };
        let api = of_chain(at).await?;
        let found = Stack::read(&api, stack).await?;
        let state_machine = found
            .of_kind(STATE_MACHINE_TYPE)
            .next()
            .ok_or_else(|| Error::NotOurs { stack: stack.clone() })?
            .physical_id
            .clone();
        let mut options = format!(" --stack {stack}");
        for (name, value) in
            [("region", &at.region), ("profile", &at.profile), ("endpoint-url", &at.endpoint_url)]
        {
            options += &value.as_ref().map(|it| format!(" --{name} {it}")).unwrap_or_default();
        }
        Ok(Self { api, state_machine, options, is_local: false })
    }

    async fn local(at: &At) -> Result<Self, Error> {
        let endpoint = at.local_endpoint();
        let api = Api::local(&endpoint, REGION);
        let listed: StateMachines =
            api.call(STATES, "ListStateMachines", json!({})).await.map_err(|error| {
                if error.kind == CallErrorKind::Unavailable {
                    Error::NoLocalCloud { endpoint: endpoint.clone(), source: error }
                } else {
                    error.into()
                }
            })?;
        let machine = listed.state_machines.into_iter().find(|it| it.name.ends_with(STATE_MACHINE));
        let machine = machine.ok_or(Error::NoStateMachine)?;
        let options = match &at.endpoint_url {
            Some(url) => format!(" --endpoint-url {url}"),
            None if at.has_default_port() => String::new(),
            None => format!(" --port {}", at.port),
        };
        Ok(Self { api, state_machine: machine.state_machine_arn, options, is_local: true })
    }
}

impl Target {
    /// The host of the local cloud's registry; none on AWS.
    pub(crate) fn registry(&self) -> Option<String> {
        let endpoint = self.api.config().endpoint_url().filter(|_| self.is_local)?;
        let (_, host) = endpoint.split_once("://")?;
        Some(host.trim_end_matches('/').to_owned())
    }
}

/// The API of AWS, with credentials and a region that are there.
///
/// # Errors
/// When either is missing.
pub(crate) async fn of_chain(at: &At) -> Result<Api, Error> {
    let (region, profile) = (at.region.as_deref(), at.profile.as_deref());
    let api = Api::of_chain(region, profile, at.endpoint_url.as_deref()).await;
    if api.region().is_none() {
        return Err(Error::NoRegion);
    }
    // Asked for first: in a call, what is wrong with them would read as a failure of the service.
    match api.config().credentials_provider() {
        Some(credentials) => credentials
            .provide_credentials()
            .await
            .map_err(|error| Error::NoCredentials { reason: chain(&error) })?,
        None => return Err(Error::NoCredentials { reason: "no provider".to_owned() }),
    };
    Ok(api)
}

impl Stack {
    /// Reads a stack with all its resources.
    ///
    /// # Errors
    /// When there is none of that name, or it may not be read.
    pub(crate) async fn read(api: &Api, name: &str) -> Result<Self, Error> {
        let described = api
            .query(CLOUDFORMATION, "DescribeStacks", &[("StackName", name)])
            .await
            .map_err(|error| match error.kind {
            CallErrorKind::NotFound => Error::NoStack {
                stack: name.to_owned(),
                region: api.region().unwrap_or_default().to_owned(),
            },
            _ => error.into(),
        })?;
        let unreadable = |error: roxmltree::Error| Error::Xml(error.to_string());
        let document = Document::parse(&described).map_err(unreadable)?;
        let mut stack = Self::default();
        if let Some(found) = xml::members(document.root_element(), "Stacks").next() {
            stack.status = xml::text(found, "StackStatus").unwrap_or_default().to_owned();
            stack.reason = xml::text(found, "StackStatusReason").map(str::to_owned);
            stack.parameters = pairs(found, "Parameters", "ParameterKey", "ParameterValue");
            stack.outputs = pairs(found, "Outputs", "OutputKey", "OutputValue");
        }
        let mut token = None::<String>;
        loop {
            let mut parameters = vec![("StackName", name)];
            parameters.extend(token.as_deref().map(|token| ("NextToken", token)));
            let page = api.query(CLOUDFORMATION, "ListStackResources", &parameters).await?;
            let page = Document::parse(&page).map_err(unreadable)?;
            for member in xml::members(page.root_element(), "StackResourceSummaries") {
                let text = |field| xml::text(member, field).unwrap_or_default().to_owned();
                stack.resources.push(Resource {
                    logical_id: text("LogicalResourceId"),
                    physical_id: text("PhysicalResourceId"),
                    kind: text("ResourceType"),
                });
            }
            let next = page.descendants().find(|node| node.tag_name().name() == "NextToken");
            token = next.and_then(|node| node.text()).map(str::to_owned);
            if token.is_none() {
                return Ok(stack);
            }
        }
    }

    /// The resources of a kind.
    pub(crate) fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Resource> {
        self.resources.iter().filter(move |resource| resource.kind == kind)
    }
}

fn pairs<'a>(
    node: roxmltree::Node<'a, 'a>,
    list: &'a str,
    key: &str,
    value: &str,
) -> BTreeMap<String, String> {
    xml::members(node, list)
        .filter_map(|pair| {
            let key = xml::text(pair, key)?;
            Some((key.to_owned(), xml::text(pair, value).unwrap_or_default().to_owned()))
        })
        .collect()
}
