//! A stack on AWS, and the account that it is in.

use std::{collections::BTreeSet, io::Cursor};

use archweld_model::Config;
use http::Method;
use roxmltree::Document;
use serde_json::{Value, json};
use zip::ZipArchive;

use super::{Finding, Findings, covers, moving_tags};
use crate::{
    arguments::Doctor,
    aws::{
        Api, CODEBUILD, CONNECTIONS, CallError, CallErrorKind, ECR, IAM, QUOTAS, SECRETS, SQS, STS,
        xml,
    },
    error::{Error, NO_CREDENTIALS},
    request,
    target::{Stack, of_chain},
};

/// The file that the configuration's layer holds, and how long it may be, in bytes.
const CONFIG_FILE: &str = "archweld.toml";
const CONFIG_BYTES_MAX: u64 = 1024 * 1024;
/// How many functions of an account run at once where nobody asked for more.
const NEW_ACCOUNT_CONCURRENCY: u64 = 10;
/// How short a webhook's secret may be, in characters: `trigger-run` refuses a shorter one.
const SECRET_CHARACTERS_MIN: usize = 16;

/// The kinds of resources that are looked at.
const PROJECT: &str = "AWS::CodeBuild::Project";
const REPOSITORY: &str = "AWS::ECR::Repository";
const STATE_MACHINE: &str = "AWS::StepFunctions::StateMachine";
const QUEUE: &str = "AWS::SQS::Queue";
const FUNCTION: &str = "AWS::Lambda::Function";

/// What all checks look at.
struct Patient<'a> {
    api: Api,
    name: &'a str,
    stack: Stack,
    account: String,
    caller: String,
    /// What CodeBuild says of the projects.
    projects: Vec<Value>,
}

pub(super) async fn examine(
    arguments: &Doctor,
    name: &str,
    local_config: Option<&str>,
    findings: &mut Findings,
) -> Result<(), Error> {
    let api = match of_chain(&arguments.at).await {
        Ok(api) => api,
        Err(Error::NoCredentials { reason }) => {
            let found = format!("there are none: {reason}");
            return findings.add(Finding::problem("credentials", found, NO_CREDENTIALS));
        }
        Err(error) => {
            let mend = "name it with --region or AWS_REGION, or in the profile";
            return findings.add(Finding::problem("region", error.to_string(), mend));
        }
    };
    let (caller, account) = match identity(&api).await {
        Ok(identity) => identity,
        Err(error) => {
            let mend = match error.kind {
                CallErrorKind::Unavailable => "is there a network, and is --region right?",
                _ => "log in again, such as with `aws sso login`, or choose another --profile",
            };
            return findings.add(Finding::problem("credentials", error.to_string(), mend));
        }
    };
    findings.add(Finding::fine("credentials", caller.clone()))?;
    let stack = match Stack::read(&api, name).await {
        Ok(stack) => stack,
        Err(error) => {
            let region = api.region().unwrap_or_default();
            let mend = format!(
                "deploy it with `make deploy`, or look elsewhere: this is account {account} in \
                 {region}"
            );
            return findings.add(Finding::problem("stack", error.to_string(), mend));
        }
    };
    findings.add(state(&stack))?;
    let mut patient = Patient { api, name, stack, account, caller, projects: Vec::new() };
    match patient.describe_projects().await {
        Ok(projects) => patient.projects = projects,
        Err(error) => findings.add(Finding::unknown("projects", error))?,
    }
    findings.add(patient.permissions().await)?;
    for finding in patient.build_quotas().await {
        findings.add(finding)?;
    }
    findings.add(patient.function_quota().await)?;
    for finding in patient.connections().await {
        findings.add(finding)?;
    }
    findings.add(patient.secret().await)?;
    findings.add(patient.webhook().await)?;
    for finding in patient.build_images().await {
        findings.add(finding)?;
    }
    let deployed = patient.deployed_config().await;
    findings.add(compare(deployed.as_deref(), local_config))?;
    let config = deployed.ok().as_deref().or(local_config).and_then(|it| Config::parse(it).ok());
    if let Some(config) = config {
        for finding in patient.repositories(&config).await {
            findings.add(finding)?;
        }
    }
    findings.add(patient.dead_letters().await)
}

/// Who calls, and in which account.
async fn identity(api: &Api) -> Result<(String, String), CallError> {
    let answer = api.query(STS, "GetCallerIdentity", &[]).await?;
    let document = Document::parse(&answer).ok();
    let text = |name: &str| {
        let document = document.as_ref()?;
        let mut nodes = document.descendants();
        nodes.find(|node| node.tag_name().name() == name)?.text().map(str::to_owned)
    };
    Ok((text("Arn").unwrap_or_default(), text("Account").unwrap_or_default()))
}

/// Whether CloudFormation is done with the stack
/// (<https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/view-stack-events.html>).
fn state(stack: &Stack) -> Finding {
    const CHECK: &str = "stack";
    let status = stack.status.as_str();
    let reason = stack.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let found = format!("{status}{reason}");
    match status {
        "CREATE_COMPLETE" | "UPDATE_COMPLETE" | "IMPORT_COMPLETE" => Finding::fine(CHECK, found),
        "UPDATE_ROLLBACK_COMPLETE" => Finding::advice(
            CHECK,
            found,
            "the last deployment was rolled back and the one before is in use: the stack's events \
             in CloudFormation's console say why",
        ),
        "ROLLBACK_COMPLETE" | "CREATE_FAILED" | "ROLLBACK_FAILED" | "DELETE_FAILED" => {
            Finding::problem(
                CHECK,
                found,
                "delete the stack and deploy it anew: its events in CloudFormation's console say \
                 what failed",
            )
        }
        "UPDATE_ROLLBACK_FAILED" => Finding::problem(
            CHECK,
            found,
            "mend what its events name, then `aws cloudformation continue-update-rollback`",
        ),
        _ if status.ends_with("_IN_PROGRESS") => {
            Finding::advice(CHECK, found, "wait until it is done, and look again")
        }
        _ => {
            Finding::problem(CHECK, found, "look at the stack's events in CloudFormation's console")
        }
    }
}

impl Patient<'_> {
    fn region(&self) -> &str {
        self.api.region().unwrap_or_default()
    }

    fn arn(&self, service: &str, resource: &str) -> String {
        // The partition is that of whoever calls: aws, aws-cn, aws-us-gov.
        let partition = self.caller.split(':').nth(1).unwrap_or("aws");
        format!("arn:{partition}:{service}:{}:{}:{resource}", self.region(), self.account)
    }

    fn physical_ids<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a str> {
        self.stack.of_kind(kind).map(|resource| resource.physical_id.as_str())
    }

    async fn describe_projects(&self) -> Result<Vec<Value>, CallError> {
        let names: Vec<&str> = self.physical_ids(PROJECT).collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let answer: Value =
            self.api.call(CODEBUILD, "BatchGetProjects", json!({ "names": names })).await?;
        Ok(answer["projects"].as_array().cloned().unwrap_or_default())
    }

    /// Whether the caller may do what this command does, by IAM's own evaluation.
    async fn permissions(&self) -> Finding {
        const CHECK: &str = "permissions";
        if self.caller.ends_with(":root") {
            return Finding::advice(
                CHECK,
                "the account's root user may do everything",
                "use a role: https://docs.aws.amazon.com/IAM/latest/UserGuide/root-user-best-practices.html",
            );
        }
        match self.denied().await {
            Ok(denied) if denied.is_empty() => {
                Finding::fine(CHECK, "start, stop, status and logs are allowed")
            }
            Ok(denied) => Finding::problem(
                CHECK,
                format!(
                    "{} may not {}",
                    self.caller,
                    denied.into_iter().collect::<Vec<_>>().join(", ")
                ),
                "allow these on the stack's resources: docs/cli.md has the policy",
            ),
            Err(error) => Finding::unknown(CHECK, error),
        }
    }

    async fn denied(&self) -> Result<BTreeSet<String>, CallError> {
        let caller = self.role().await?;
        let machines: Vec<String> = self.physical_ids(STATE_MACHINE).map(str::to_owned).collect();
        let executions: Vec<String> = machines
            .iter()
            .map(|arn| format!("{}:*", arn.replacen(":stateMachine:", ":execution:", 1)))
            .collect();
        let projects: Vec<String> = self
            .physical_ids(PROJECT)
            .map(|name| self.arn("codebuild", &format!("project/{name}")))
            .collect();
        let logs: Vec<String> = self
            .physical_ids(PROJECT)
            .map(|name| self.arn("logs", &format!("log-group:/aws/codebuild/{name}:*")))
            .collect();
        let repositories: Vec<String> = self
            .physical_ids(REPOSITORY)
            .map(|name| self.arn("ecr", &format!("repository/{name}")))
            .collect();
        let groups: [(&[&str], Vec<String>); 5] = [
            (&["states:StartExecution", "states:ListExecutions"], machines),
            (
                &["states:DescribeExecution", "states:GetExecutionHistory", "states:StopExecution"],
                executions,
            ),
            (&["codebuild:BatchGetBuilds", "codebuild:ListBuildsForProject"], projects),
            (&["logs:GetLogEvents"], logs),
            (&["ecr:BatchGetImage"], repositories),
        ];
        let mut denied = BTreeSet::new();
        for (actions, resources) in groups {
            if resources.is_empty() {
                continue;
            }
            let mut parameters = vec![("PolicySourceArn".to_owned(), caller.clone())];
            let members = |list: &str, values: &[&str]| {
                let numbered = values.iter().enumerate();
                let members = numbered.map(|(index, value)| {
                    (format!("{list}.member.{}", index + 1), (*value).to_owned())
                });
                members.collect::<Vec<_>>()
            };
            parameters.extend(members("ActionNames", actions));
            let resources: Vec<&str> = resources.iter().map(String::as_str).collect();
            parameters.extend(members("ResourceArns", &resources));
            let parameters: Vec<(&str, &str)> =
                parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let answer = self.api.query(IAM, "SimulatePrincipalPolicy", &parameters).await?;
            denied.extend(refused(&answer));
        }
        Ok(denied)
    }

    /// What policies hang on: a user, or the role that a session is of. A session's ARN leaves out
    /// the role's path, which only IAM knows.
    async fn role(&self) -> Result<String, CallError> {
        let Some((_, role)) = self.caller.split_once(":assumed-role/") else {
            return Ok(self.caller.clone());
        };
        let name = role.split('/').next().unwrap_or(role);
        let answer = self.api.query(IAM, "GetRole", &[("RoleName", name)]).await?;
        let document = Document::parse(&answer).ok();
        let arn = document.as_ref().and_then(|document| {
            document.descendants().find(|node| node.tag_name().name() == "Arn")?.text()
        });
        Ok(arn.map(str::to_owned).unwrap_or_else(|| self.caller.clone()))
    }

    /// How many builds the account may run at once on the projects' machines. New accounts have 1, or
    /// none.
    async fn build_quotas(&self) -> Vec<Finding> {
        const CHECK: &str = "build quota";
        let quotas = match self.quotas().await {
            Ok(quotas) => quotas,
            Err(error) => return vec![Finding::unknown(CHECK, error)],
        };
        let mut machines = BTreeSet::new();
        for project in &self.projects {
            let environment = &project["environment"];
            // Builds on a fleet's machines count by the fleet.
            let on_demand = environment["fleet"]["fleetArn"].is_null();
            let name = machine(&environment["type"], &environment["computeType"]);
            machines.extend(name.filter(|_| on_demand));
        }
        let mut findings = Vec::new();
        for name in machines {
            let quota = quotas.iter().find(|quota| {
                let found = quota["QuotaName"].as_str().unwrap_or_default();
                found.eq_ignore_ascii_case(&format!(
                    "Concurrently running builds for {name} environment"
                ))
            });
            let Some(quota) = quota else {
                let why = format!("Service Quotas knows none of {name}");
                findings.push(Finding::unknown(CHECK, why));
                continue;
            };
            let value = quota["Value"].as_f64().unwrap_or_default();
            let found = format!("{name}: {value} at once");
            let mend = format!(
                "ask for more: aws service-quotas request-service-quota-increase --region {} \
                 --service-code codebuild --quota-code {} --desired-value 10",
                self.region(),
                quota["QuotaCode"].as_str().unwrap_or("CODE"),
            );
            findings.push(match value {
                ..1.0 => Finding::problem(CHECK, format!("{found}: no build can start"), mend),
                1.0..2.0 => {
                    Finding::advice(CHECK, format!("{found}: builds wait for each other"), mend)
                }
                _ => Finding::fine(CHECK, found),
            });
        }
        findings
    }

    async fn quotas(&self) -> Result<Vec<Value>, CallError> {
        let mut quotas = Vec::new();
        let mut token = Value::Null;
        loop {
            let mut request = json!({"ServiceCode": "codebuild", "MaxResults": 100});
            if !token.is_null() {
                request["NextToken"] = token;
            }
            let page: Value = self.api.call(QUOTAS, "ListServiceQuotas", request).await?;
            quotas.extend(page["Quotas"].as_array().cloned().unwrap_or_default());
            token = page["NextToken"].clone();
            if token.is_null() {
                return Ok(quotas);
            }
        }
    }

    async fn function_quota(&self) -> Finding {
        const CHECK: &str = "function quota";
        let path = "/2016-08-19/account-settings/".to_owned();
        let settings = match self.api.get("lambda", "GetAccountSettings", path).await {
            Ok(settings) => settings,
            Err(error) => return Finding::unknown(CHECK, error),
        };
        let limit = &settings["AccountLimit"];
        match limit["ConcurrentExecutions"].as_u64() {
            None => Finding::unknown(CHECK, "Lambda does not say how many functions run at once"),
            Some(at_once) if at_once <= NEW_ACCOUNT_CONCURRENCY => Finding::advice(
                CHECK,
                format!("{at_once} functions at once in the whole account, as in a new one"),
                format!(
                    "ask for more: aws service-quotas request-service-quota-increase --region {} \
                     --service-code lambda --quota-code L-B99A9384 --desired-value 1000",
                    self.region()
                ),
            ),
            Some(at_once) => Finding::fine(CHECK, format!("{at_once} functions at once")),
        }
    }

    /// Whether somebody approved the connections that sources are fetched through.
    async fn connections(&self) -> Vec<Finding> {
        const CHECK: &str = "connection";
        let of_connection = |project: &Value| {
            let auth = &project["source"]["auth"];
            let arn = auth["resource"].as_str()?;
            (auth["type"] == "CODECONNECTIONS").then(|| arn.to_owned())
        };
        let arns: BTreeSet<String> = self.projects.iter().filter_map(of_connection).collect();
        let mut findings = Vec::new();
        for arn in arns {
            let request = json!({ "ConnectionArn": arn });
            let answer: Result<Value, _> =
                self.api.call(CONNECTIONS, "GetConnection", request).await;
            findings.push(match answer {
                Ok(answer) => {
                    let connection = &answer["Connection"];
                    let name = connection["ConnectionName"].as_str().unwrap_or(&arn);
                    let status = connection["ConnectionStatus"].as_str().unwrap_or_default();
                    let found = format!("{name} is {status}");
                    let console = format!(
                        "https://{0}.console.aws.amazon.com/codesuite/settings/connections?region={0}",
                        self.region()
                    );
                    match status {
                        "AVAILABLE" => Finding::fine(CHECK, found),
                        "PENDING" => Finding::problem(
                            CHECK,
                            found,
                            format!("approve it with `Update pending connection` at {console}"),
                        ),
                        _ => Finding::problem(CHECK, found, format!("connect it anew at {console}")),
                    }
                }
                Err(error) if error.kind == CallErrorKind::NotFound => Finding::problem(
                    CHECK,
                    format!("there is no {arn}"),
                    "create it, and deploy with its ARN as SourceConnection",
                ),
                Err(error) => Finding::unknown(CHECK, error),
            });
        }
        findings
    }

    async fn secret(&self) -> Finding {
        const CHECK: &str = "webhook secret";
        let Some(arn) = self.stack.outputs.get("WebhookSecretArn") else {
            return Finding::unknown(CHECK, "the stack has no output WebhookSecretArn");
        };
        let mend = format!(
            "set another: aws secretsmanager put-secret-value --region {} --secret-id {arn} \
             --secret-string \"$(openssl rand -hex 20)\", and give it to the git provider",
            self.region()
        );
        let answer: Result<Value, _> =
            self.api.call(SECRETS, "GetSecretValue", json!({ "SecretId": arn })).await;
        match answer {
            Ok(answer) => match weakness(answer["SecretString"].as_str().unwrap_or_default()) {
                None => Finding::fine(CHECK, "is there and strong enough"),
                Some(weakness) => Finding::problem(CHECK, weakness, mend),
            },
            Err(error) if error.kind == CallErrorKind::NotFound => Finding::problem(
                CHECK,
                error.to_string(),
                "deploy the stack anew: it makes the secret",
            ),
            Err(error) if error.kind == CallErrorKind::Refused => {
                // Such as one that is scheduled for deletion.
                Finding::problem(
                    CHECK,
                    error.to_string(),
                    format!("restore it: aws secretsmanager restore-secret --secret-id {arn}"),
                )
            }
            Err(error) => Finding::unknown(CHECK, error),
        }
    }

    /// Whether the webhook's URL refuses what nobody signed.
    async fn webhook(&self) -> Finding {
        const CHECK: &str = "webhook URL";
        let Some(url) = self.stack.outputs.get("WebhookUrl") else {
            return Finding::unknown(CHECK, "the stack has no output WebhookUrl");
        };
        let headers = [("content-type", "application/json".to_owned())];
        match request::send(Method::POST, url, &headers, b"{}".to_vec()).await {
            Ok((401, _)) => Finding::fine(CHECK, format!("{url} wants a signature")),
            Ok((403, _)) => Finding::problem(
                CHECK,
                format!("{url} answers 403: callers without credentials are refused"),
                "the function's policy must allow both lambda:InvokeFunctionUrl and \
                 lambda:InvokeFunction to everyone; a policy of the organization may forbid public \
                 URLs",
            ),
            Ok((429, _)) => Finding::problem(
                CHECK,
                format!("{url} answers 429: too many functions run"),
                "raise the function quota, or TriggerConcurrency",
            ),
            Ok((status, _)) => Finding::problem(
                CHECK,
                format!("{url} answers {status}"),
                format!(
                    "the function's log says why: aws logs tail --region {} /aws/lambda/{}-trigger-run",
                    self.region(),
                    self.name
                ),
            ),
            Err(error) => Finding::problem(CHECK, error.to_string(), "is it reachable from here?"),
        }
    }

    /// Whether builds run in the newest version of their image.
    async fn build_images(&self) -> Vec<Finding> {
        const CHECK: &str = "build image";
        let answer: Result<Value, _> =
            self.api.call(CODEBUILD, "ListCuratedEnvironmentImages", json!({})).await;
        let curated = match answer {
            Ok(answer) => curated(&answer),
            Err(error) => return vec![Finding::unknown(CHECK, error)],
        };
        let image = |project: &Value| project["environment"]["image"].as_str().map(str::to_owned);
        let images: BTreeSet<String> = self.projects.iter().filter_map(image).collect();
        images
            .into_iter()
            .map(|image| {
                let is_curated = image.starts_with("aws/codebuild/");
                match newest(&image, &curated) {
                    _ if !is_curated => Finding::fine(CHECK, format!("{image} is your own")),
                    Some(newest) if newest == image => {
                        Finding::fine(CHECK, format!("{image} is the newest"))
                    }
                    Some(newest) => Finding::advice(
                        CHECK,
                        format!("{image} has a newer version, {newest}"),
                        format!("deploy with {}={newest}", parameter(&image)),
                    ),
                    None => Finding::problem(
                        CHECK,
                        format!("{image} is no image of CodeBuild's any more"),
                        format!(
                            "deploy with {} as one of ListCuratedEnvironmentImages",
                            parameter(&image)
                        ),
                    ),
                }
            })
            .collect()
    }

    /// The configuration that the functions read: the file in their layer.
    async fn deployed_config(&self) -> Result<String, String> {
        let function = self.stack.of_kind(FUNCTION).find(|it| it.logical_id == "PlanBuildFunction");
        let function = function.ok_or("the stack has no PlanBuildFunction")?;
        let path = format!("/2015-03-31/functions/{}/configuration", function.physical_id);
        let text = |error: CallError| error.to_string();
        let settings =
            self.api.get("lambda", "GetFunctionConfiguration", path).await.map_err(text)?;
        let layer = settings["Layers"][0]["Arn"].as_str().ok_or("the function has no layer")?;
        let query = form_urlencoded::byte_serialize(layer.as_bytes()).collect::<String>();
        let path = format!("/2018-10-31/layers?find=LayerVersion&Arn={query}");
        let layer = self.api.get("lambda", "GetLayerVersionByArn", path).await.map_err(text)?;
        let url = layer["Content"]["Location"].as_str().ok_or("the layer has no address")?;
        let (status, bytes) = request::send(Method::GET, url, &[], Vec::new())
            .await
            .map_err(|error| error.to_string())?;
        if status != 200 {
            return Err(format!("the layer's content is answered {status}"));
        }
        unpack(bytes).map_err(|error| format!("the layer: {error}"))
    }

    /// Whether the repositories let the moving tags of the configuration move.
    async fn repositories(&self, config: &Config) -> Vec<Finding> {
        const CHECK: &str = "repository";
        let used: BTreeSet<&str> =
            config.images().iter().map(|image| image.repository.as_str()).collect();
        let mut findings = Vec::new();
        for name in used {
            let request = json!({ "repositoryNames": [name] });
            let answer: Result<Value, _> =
                self.api.call(ECR, "DescribeRepositories", request).await;
            findings.push(match answer {
                Ok(answer) => {
                    let tags = moving_tags(config, name);
                    let stuck = stuck(&answer["repositories"][0], tags);
                    if stuck.is_empty() {
                        Finding::fine(CHECK, format!("{name} lets every moving tag move"))
                    } else {
                        Finding::problem(
                            CHECK,
                            format!(
                                "{name} is immutable, and these must move: {}",
                                stuck.join(", ")
                            ),
                            "deploy with these in MovingTags, or with ImmutableTags=false",
                        )
                    }
                }
                Err(error) if error.kind == CallErrorKind::NotFound => Finding::problem(
                    CHECK,
                    format!("{name} of archweld.toml is not there"),
                    "deploy with it as RepositoryName or among MoreRepositories",
                ),
                Err(error) => Finding::unknown(CHECK, error),
            });
        }
        findings
    }

    /// Whether events wait that nobody could handle.
    async fn dead_letters(&self) -> Finding {
        const CHECK: &str = "dead letters";
        let mut waiting = 0;
        for url in self.physical_ids(QUEUE) {
            let request =
                json!({"QueueUrl": url, "AttributeNames": ["ApproximateNumberOfMessages"]});
            let answer: Result<Value, _> = self.api.call(SQS, "GetQueueAttributes", request).await;
            match answer {
                Ok(answer) => {
                    let count = answer["Attributes"]["ApproximateNumberOfMessages"].as_str();
                    waiting +=
                        count.and_then(|count| count.parse::<u64>().ok()).unwrap_or_default();
                }
                Err(error) => return Finding::unknown(CHECK, error),
            }
        }
        if waiting == 0 {
            return Finding::fine(CHECK, "none wait");
        }
        let queue = self.physical_ids(QUEUE).next().unwrap_or_default();
        Finding::problem(
            CHECK,
            format!("{waiting} wait"),
            format!(
                "each says in its attributes why: aws sqs receive-message --region {} --queue-url \
                 {queue} --attribute-names All --message-attribute-names All; docs/operations.md \
                 says what to do then",
                self.region()
            ),
        )
    }
}

/// The actions that a simulation does not allow, for any of its resources.
fn refused(answer: &str) -> Vec<String> {
    let Ok(document) = Document::parse(answer) else { return Vec::new() };
    xml::members(document.root_element(), "EvaluationResults")
        .filter(|result| {
            let decisions = result.descendants().filter(|it| {
                ["EvalDecision", "EvalResourceDecision"].contains(&it.tag_name().name())
            });
            decisions.filter_map(|it| it.text()).any(|decision| decision != "allowed")
        })
        .filter_map(|result| xml::text(result, "EvalActionName").map(str::to_owned))
        .collect()
}

/// What Service Quotas calls a project's machines, such as `ARM/Small`.
fn machine(environment: &Value, compute: &Value) -> Option<String> {
    let environment = match environment.as_str()? {
        "ARM_CONTAINER" => "ARM",
        "LINUX_CONTAINER" => "Linux",
        _ => return None,
    };
    let size = compute.as_str()?.strip_prefix("BUILD_GENERAL1_")?;
    let (first, rest) = size.split_at(size.find(|c: char| c.is_alphabetic())? + 1);
    Some(format!("{environment}/{first}{}", rest.to_lowercase()))
}

/// What makes a secret easy to guess or of no use, as `trigger-run` judges it.
fn weakness(secret: &str) -> Option<&'static str> {
    let mut lines = secret.lines().map(str::trim).filter(|line| !line.is_empty()).peekable();
    if secret.trim_start().starts_with('{') {
        return Some("is JSON, and should be its text alone");
    }
    if lines.peek().is_none() {
        return Some("is empty");
    }
    lines
        .any(|line| line.chars().count() < SECRET_CHARACTERS_MIN)
        .then_some("is too short: at least 16 characters a line are wanted")
}

/// The names of CodeBuild's own images.
fn curated(answer: &Value) -> Vec<String> {
    let list = |value: &Value, field: &str| value[field].as_array().cloned().unwrap_or_default();
    let platforms = list(answer, "platforms");
    let languages = platforms.iter().flat_map(|platform| list(platform, "languages"));
    let images = languages.flat_map(|language| list(&language, "images"));
    images.filter_map(|image| image["name"].as_str().map(str::to_owned)).collect()
}

/// The newest version of an image among CodeBuild's own.
fn newest(image: &str, curated: &[String]) -> Option<String> {
    let (family, _) = image.rsplit_once(':')?;
    let versions = curated.iter().filter_map(|known| {
        let version = known.strip_prefix(family)?.strip_prefix(':')?;
        let parts: Option<Vec<u32>> = version.split('.').map(|part| part.parse().ok()).collect();
        Some((parts?, known))
    });
    versions.max().map(|(_, newest)| newest.clone())
}

/// The template's parameter for an image of CodeBuild's.
fn parameter(image: &str) -> &'static str {
    if image.contains("aarch64") { "ArmImage" } else { "X86Image" }
}

/// The moving tags that a repository does not let move.
fn stuck(repository: &Value, tags: Vec<String>) -> Vec<String> {
    let filters = repository["imageTagMutabilityExclusionFilters"].as_array();
    let filters = filters.into_iter().flatten();
    let filters: Vec<&str> = filters.filter_map(|filter| filter["filter"].as_str()).collect();
    let excluded = |tag: &String| filters.iter().any(|filter| covers(filter, tag));
    // A filter may hold fewer tags than a pattern stands for: only what is sure to move, may.
    let is_stuck = |tag: &String| match repository["imageTagMutability"].as_str() {
        Some("IMMUTABLE") => true,
        Some("IMMUTABLE_WITH_EXCLUSION") => !excluded(tag),
        Some("MUTABLE_WITH_EXCLUSION") => excluded(tag),
        _ => false,
    };
    tags.into_iter().filter(is_stuck).collect()
}

/// The configuration in a layer's archive.
fn unpack(bytes: Vec<u8>) -> Result<String, String> {
    use std::io::Read as _;
    let text = |error: &dyn std::error::Error| error.to_string();
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|error| text(&error))?;
    let file = archive.by_name(CONFIG_FILE).map_err(|error| text(&error))?;
    let mut config = String::new();
    file.take(CONFIG_BYTES_MAX).read_to_string(&mut config).map_err(|error| text(&error))?;
    Ok(config)
}

/// Whether what is deployed is what is here.
fn compare(deployed: Result<&str, &String>, local: Option<&str>) -> Finding {
    const CHECK: &str = "configuration";
    let deployed = match deployed {
        Ok(deployed) => deployed,
        Err(why) => return Finding::unknown(CHECK, why),
    };
    if let Err(error) = Config::parse(deployed) {
        let found = format!("the deployed archweld.toml is wrong: {error}");
        return Finding::problem(CHECK, found, "mend infra/config/archweld.toml and deploy");
    }
    match local {
        None => Finding::unknown(CHECK, "is deployed; name a file to compare it with by --config"),
        Some(local) if local == deployed => {
            Finding::fine(CHECK, "what is deployed is the file here")
        }
        Some(local) => {
            let same = Config::parse(local)
                .is_ok_and(|local| Config::parse(deployed).is_ok_and(|deployed| local == deployed));
            if same {
                return Finding::fine(CHECK, "what is deployed says the same as the file here");
            }
            Finding::advice(
                CHECK,
                "what is deployed differs from the file here",
                "deploy to make the file count, or name the deployed one with --config",
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_judged_as_trigger_run_judges_them() {
        let strong = "0123456789abcdef";
        assert_eq!(weakness(strong), None);
        assert_eq!(weakness(&format!("{strong}\n\n{strong}\n")), None);
        for weak in ["", " \n", "short", &format!("{strong}\nshort"), r#"{"secret": "0123456789"}"#]
        {
            assert!(weakness(weak).is_some(), "{weak}");
        }
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        let curated = ["a:1.0", "a:9.0", "a:10.0", "a:10.0-25.01.01", "ab:11.0"].map(str::to_owned);
        assert_eq!(newest("a:9.0", &curated).as_deref(), Some("a:10.0"));
        assert_eq!(newest("c:1.0", &curated), None);
    }

    #[test]
    fn machines_have_the_names_of_service_quotas() {
        let name = |kind, compute| machine(&json!(kind), &json!(compute));
        let small = name("ARM_CONTAINER", "BUILD_GENERAL1_SMALL");
        assert_eq!(small.as_deref(), Some("ARM/Small"));
        let large = name("LINUX_CONTAINER", "BUILD_GENERAL1_2XLARGE");
        assert_eq!(large.as_deref(), Some("Linux/2Xlarge"));
        assert_eq!(name("WINDOWS_CONTAINER", "BUILD_GENERAL1_SMALL"), None);
    }

    #[test]
    fn an_immutable_repository_holds_tags_that_no_exclusion_covers() {
        let tags = || ["latest", "v*"].map(str::to_owned).to_vec();
        let repository = |mutability: &str, filters: &[&str]| {
            let filters = filters.iter().map(|filter| json!({"filter": filter}));
            json!({
                "imageTagMutability": mutability,
                "imageTagMutabilityExclusionFilters": filters.collect::<Vec<_>>(),
            })
        };
        assert!(stuck(&repository("MUTABLE", &[]), tags()).is_empty());
        assert_eq!(stuck(&repository("IMMUTABLE", &[]), tags()), tags());
        let excluding = repository("IMMUTABLE_WITH_EXCLUSION", &["latest"]);
        assert_eq!(stuck(&excluding, tags()), ["v*"]);
        let holding = repository("MUTABLE_WITH_EXCLUSION", &["v*"]);
        assert_eq!(stuck(&holding, tags()), ["v*"]);
    }

    #[test]
    fn a_simulation_that_refuses_one_resource_refuses_the_action() {
        let result = |action: &str, decision: &str, of_resource: &str| {
            format!(
                "<member><EvalActionName>{action}</EvalActionName>
                <EvalDecision>{decision}</EvalDecision><ResourceSpecificResults><member>
                <EvalResourceDecision>{of_resource}</EvalResourceDecision>
                </member></ResourceSpecificResults></member>"
            )
        };
        let answer = format!(
            r#"<SimulatePrincipalPolicyResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/">
            <SimulatePrincipalPolicyResult><EvaluationResults>{}{}{}</EvaluationResults>
            </SimulatePrincipalPolicyResult></SimulatePrincipalPolicyResponse>"#,
            result("a:Fine", "allowed", "allowed"),
            result("a:Denied", "implicitDeny", "implicitDeny"),
            result("a:Partly", "allowed", "explicitDeny"),
        );
        assert_eq!(refused(&answer), ["a:Denied", "a:Partly"]);
    }

    #[test]
    fn a_configuration_that_differs_is_told() {
        let config =
            "[[image]]\nname = \"hello\"\nplatforms = [\"linux/amd64\"]\ntags = [\"latest\"]\n";
        let verdict = |deployed, local| compare(deployed, local).verdict;
        use super::super::Verdict;
        assert_eq!(verdict(Ok(config), Some(config)), Verdict::Fine);
        let commented = format!("# a comment\n{config}");
        assert_eq!(verdict(Ok(config), Some(&commented)), Verdict::Fine);
        let other = config.replace("latest", "edge");
        assert_eq!(verdict(Ok(config), Some(&other)), Verdict::Advice);
        assert_eq!(verdict(Ok("[["), Some(config)), Verdict::Problem);
        assert_eq!(verdict(Ok(config), None), Verdict::Unknown);
        assert_eq!(verdict(Err(&"no".to_owned()), Some(config)), Verdict::Unknown);
    }
}
