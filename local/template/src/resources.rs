//! What `Ref` and `GetAtt` of a resource give: the names and ARNs of the local cloud.

use archweld_scheduler::GROUP_DEFAULT;

use crate::evaluate::{Evaluator, Resource};
use crate::{Position, TemplateError};

pub(crate) const FUNCTION: &str = "AWS::Serverless::Function";
pub(crate) const LAYER: &str = "AWS::Serverless::LayerVersion";
pub(crate) const STATE_MACHINE: &str = "AWS::Serverless::StateMachine";
pub(crate) const RULE: &str = "AWS::Events::Rule";
pub(crate) const SCHEDULE: &str = "AWS::Scheduler::Schedule";
pub(crate) const SECRET: &str = "AWS::SecretsManager::Secret";
pub(crate) const PROJECT: &str = "AWS::CodeBuild::Project";
pub(crate) const REPOSITORY: &str = "AWS::ECR::Repository";

/// How the resources of one type are named.
struct Naming {
    /// The property that states the name.
    name: &'static str,
    /// Service and resource of the ARN, before the name; a service alone for names that follow
    /// it directly.
    arn: (&'static str, &'static str),
    /// Whether `Ref` gives the ARN and not the name.
    ref_is_arn: bool,
}

/// What follows a secret's name in its ARN: on AWS a dash and six characters at random.
const SECRET_SUFFIX: &str = "-000000";

/// <https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-template-resource-type-ref.html>,
/// "Return values" of each type. Beside what the local cloud runs, these are the resources that
/// what it runs refers to.
fn naming(kind: &str) -> Option<Naming> {
    let (name, arn, ref_is_arn) = match kind {
        FUNCTION => ("FunctionName", ("lambda", "function:"), false),
        LAYER => ("LayerName", ("lambda", "layer:"), true),
        STATE_MACHINE => ("Name", ("states", "stateMachine:"), true),
        RULE => ("Name", ("events", "rule/"), false),
        SCHEDULE => ("Name", ("scheduler", "schedule/"), false),
        SECRET => ("Name", ("secretsmanager", "secret:"), true),
        PROJECT => ("Name", ("codebuild", "project/"), false),
        REPOSITORY => ("RepositoryName", ("ecr", "repository/"), false),
        "AWS::Events::EventBus" => ("Name", ("events", "event-bus/"), false),
        "AWS::IAM::Role" => ("RoleName", ("iam", "role/"), false),
        "AWS::Logs::LogGroup" => ("LogGroupName", ("logs", "log-group:"), false),
        "AWS::Scheduler::ScheduleGroup" => ("Name", ("scheduler", "schedule-group/"), false),
        "AWS::SNS::Topic" => ("TopicName", ("sns", ""), true),
        "AWS::SQS::Queue" => ("QueueName", ("sqs", ""), false),
        _ => return None,
    };
    Some(Naming { name, arn, ref_is_arn })
}

impl Evaluator<'_> {
    /// The name of a resource.
    pub(crate) fn name(&self, resource: Resource<'_>) -> Result<String, TemplateError> {
        let stated = match naming(resource.kind) {
            Some(naming) => self.property(resource, naming.name)?,
            None => None,
        };
        match stated {
            Some(name) => name.string(),
            None => {
                let name = format!("{}-{}", self.deployment.stack_name, resource.logical_id);
                Ok(if resource.kind == REPOSITORY { name.to_lowercase() } else { name })
            }
        }
    }

    /// The ARN of a resource of a type that [`naming`] knows.
    pub(crate) fn arn(&self, resource: Resource<'_>) -> Result<String, TemplateError> {
        let name = self.name(resource)?;
        let (service, prefix) = naming(resource.kind).map_or(("", ""), |naming| naming.arn);
        Ok(match service {
            "iam" => format!("arn:aws:iam::{}:{prefix}{name}", self.deployment.account),
            "logs" => format!("{}:*", self.deployment.arn(service, &format!("{prefix}{name}"))),
            "lambda" if resource.kind == LAYER => {
                format!("{}:1", self.deployment.arn(service, &format!("{prefix}{name}")))
            }
            "scheduler" if resource.kind == SCHEDULE => {
                let group = self.group(resource)?;
                self.deployment.arn(service, &format!("{prefix}{group}/{name}"))
            }
            "secretsmanager" => {
                self.deployment.arn(service, &format!("{prefix}{name}{SECRET_SUFFIX}"))
            }
            service => self.deployment.arn(service, &format!("{prefix}{name}")),
        })
    }

    /// The group of a schedule.
    pub(crate) fn group(&self, schedule: Resource<'_>) -> Result<String, TemplateError> {
        match self.property(schedule, "GroupName")? {
            Some(group) => group.string(),
            None => Ok(GROUP_DEFAULT.to_owned()),
        }
    }

    pub(crate) fn resource_reference(
        &self,
        resource: Resource<'_>,
        position: Position,
        path: &str,
    ) -> Result<String, TemplateError> {
        let naming = naming(resource.kind).ok_or_else(|| {
            let (id, kind) = (resource.logical_id, resource.kind);
            TemplateError::invalid(
                position,
                path,
                format!("cannot resolve Ref {id} of type {kind}"),
            )
        })?;
        self.guarded(resource.path(), position, path, || {
            if naming.ref_is_arn { self.arn(resource) } else { self.name(resource) }
        })
    }

    pub(crate) fn resource_attribute(
        &self,
        resource: Resource<'_>,
        attribute: &str,
        position: Position,
        path: &str,
    ) -> Result<String, TemplateError> {
        self.guarded(resource.path(), position, path, || match (resource.kind, attribute) {
            (REPOSITORY, "RepositoryUri") => {
                let (account, region) = (&self.deployment.account, &self.deployment.region);
                let name = self.name(resource)?;
                Ok(format!("{account}.dkr.ecr.{region}.amazonaws.com/{name}"))
            }
            (STATE_MACHINE | "AWS::Events::EventBus", "Name") => self.name(resource),
            ("AWS::SNS::Topic", "TopicName") => self.name(resource),
            ("AWS::SQS::Queue", "QueueName") => self.name(resource),
            ("AWS::SNS::Topic", "TopicArn") => self.arn(resource),
            (SECRET, "Id") => self.arn(resource),
            (kind, "Arn") if naming(kind).is_some() && kind != LAYER => self.arn(resource),
            (kind, _) => {
                let id = resource.logical_id;
                Err(TemplateError::invalid(
                    position,
                    path,
                    format!("cannot resolve GetAtt {id}.{attribute} of type {kind}"),
                ))
            }
        })
    }
}
