//! Functions, state machines, builds and repositories.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::{
    Build, BuildSource, BuildVariable, Function, FunctionUrl, Layer, Reader, Repository,
    StateMachine, TagMutability,
};
use crate::evaluate::Resource;
use crate::property::Property;
use crate::resources::LAYER;
use crate::yaml::{Kind, Node};
use crate::{Definition, TemplateError};

/// What SAM and Lambda take where a template says nothing
/// (<https://docs.aws.amazon.com/serverless-application-model/latest/developerguide/sam-resource-function.html>).
const TIMEOUT_SECONDS: u32 = 3;
const MEMORY_MB: u32 = 128;
const ASYNCHRONOUS_RETRIES: u32 = 2;
const ASYNCHRONOUS_AGE_SECONDS: u32 = 21_600;

/// What CodeBuild takes where a template says nothing
/// (<https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-codebuild-project.html>).
const BUILD_TIMEOUT_MINUTES: u32 = 60;
const BUILD_QUEUED_TIMEOUT_MINUTES: u32 = 480;

impl Reader<'_, '_> {
    pub(super) fn function(&mut self, resource: Resource<'_>) -> Result<(), TemplateError> {
        let property = |name: &str| self.evaluator.function_property(resource, name);
        let integer = |name: &str, range, default| match property(name)? {
            Some(property) => property.integer(range),
            None => Ok(default),
        };

        if let Some(runtime) = property("Runtime")?
            && !runtime.string()?.starts_with("provided.")
        {
            return Err(runtime.error("expected a provided runtime: only binaries run here"));
        }
        let mut environment = BTreeMap::new();
        if let Some(variables) = property("Environment")?.map(|node| node.get("Variables")) {
            for (name, value) in
                variables?.map(|node| node.entries()).transpose()?.unwrap_or_default()
            {
                environment.insert(name, value.string()?);
            }
        }
        let asynchronous = property("EventInvokeConfig")?;
        let asynchronous = |name: &str, range, default| match &asynchronous {
            Some(config) => match config.get(name)? {
                Some(property) => property.integer(range),
                None => Ok(default),
            },
            None => Ok(default),
        };
        let url = match property("FunctionUrlConfig")? {
            None => None,
            Some(config) => {
                let signed =
                    config.required("AuthType")?.one_of(&["AWS_IAM", "NONE"])? == "AWS_IAM";
                Some(FunctionUrl { signed })
            }
        };
        let reserved_concurrency = property("ReservedConcurrentExecutions")?
            .map(|property| property.integer(0..=u32::MAX))
            .transpose()?;
        let code = property("CodeUri")?;
        let (layers, foreign) = self.layers(property("Layers")?)?;
        let function = Function {
            logical_id: resource.logical_id.to_owned(),
            name: self.evaluator.name(resource)?,
            arn: self.evaluator.arn(resource)?,
            binary: binary(resource, code.as_ref())?,
            code: match &code {
                Some(code) => self.path(&code.string()?),
                None => self.folder.to_owned(),
            },
            environment,
            timeout: seconds(integer("Timeout", 1..=900, TIMEOUT_SECONDS)?),
            memory_mb: integer("MemorySize", 128..=32_768, MEMORY_MB)?,
            reserved_concurrency,
            layers,
            asynchronous_retries_max: asynchronous(
                "MaximumRetryAttempts",
                0..=2,
                ASYNCHRONOUS_RETRIES,
            )?,
            asynchronous_age_max: seconds(asynchronous(
                "MaximumEventAgeInSeconds",
                60..=21_600,
                ASYNCHRONOUS_AGE_SECONDS,
            )?),
            url,
        };
        if function.url.as_ref().is_some_and(|url| url.signed) {
            self.not_run(resource.logical_id, "function URL of AuthType AWS_IAM");
        }
        for arn in foreign {
            self.not_run(resource.logical_id, format!("layer {arn}"));
        }
        self.events(resource, &function.arn, "LambdaTarget")?;
        self.stack.functions.push(function);
        Ok(())
    }

    /// The layers of this template that a function names, and the ARNs of others.
    fn layers(&self, layers: Option<Property>) -> Result<(Vec<Layer>, Vec<String>), TemplateError> {
        let mut own = Vec::new();
        for resource in self.evaluator.resources()? {
            if resource.kind == LAYER {
                own.push((self.evaluator.arn(resource)?, resource));
            }
        }
        let (mut known, mut foreign) = (Vec::new(), Vec::new());
        for layer in layers.map(|layers| layers.items()).transpose()?.unwrap_or_default() {
            let arn = layer.string()?;
            let Some((_, resource)) = own.iter().find(|(own, _)| *own == arn) else {
                foreign.push(arn);
                continue;
            };
            let content = self.evaluator.property(*resource, "ContentUri")?;
            let content = content.ok_or_else(|| layer.error("expected a layer with ContentUri"))?;
            known.push(Layer {
                logical_id: resource.logical_id.to_owned(),
                arn,
                content: self.path(&content.string()?),
            });
        }
        Ok((known, foreign))
    }

    pub(super) fn state_machine(&mut self, resource: Resource<'_>) -> Result<(), TemplateError> {
        let property = |name: &str| self.evaluator.property(resource, name);
        let definition = match (property("DefinitionUri")?, property("Definition")?) {
            (Some(uri), None) => Definition::File(self.path(&uri.string()?)),
            (None, Some(definition)) => Definition::Inline(definition.json()),
            _ => return Err(missing(resource, "expected either DefinitionUri or Definition")),
        };
        let mut substitutions = BTreeMap::new();
        if let Some(given) = property("DefinitionSubstitutions")? {
            for (name, value) in given.entries()? {
                substitutions.insert(name, value.string()?);
            }
        }
        let express = match property("Type")? {
            Some(kind) => kind.one_of(&["STANDARD", "EXPRESS"])? == "EXPRESS",
            None => false,
        };
        let state_machine = StateMachine {
            logical_id: resource.logical_id.to_owned(),
            name: self.evaluator.name(resource)?,
            arn: self.evaluator.arn(resource)?,
            express,
            role_arn: property("Role")?.map(|role| role.string()).transpose()?,
            definition,
            substitutions,
        };
        self.events(resource, &state_machine.arn, "StepFunctionsTarget")?;
        self.stack.state_machines.push(state_machine);
        Ok(())
    }

    pub(super) fn build(&mut self, resource: Resource<'_>) -> Result<(), TemplateError> {
        let property = |name: &str| self.evaluator.property(resource, name);
        let required = |name: &str| {
            property(name)?.ok_or_else(|| missing(resource, &format!("expected {name}")))
        };
        let minutes = |name: &str, range, default| match property(name)? {
            Some(property) => property.integer(range),
            None => Ok(default),
        };
        let source = required("Source")?;
        let environment = required("Environment")?;
        let mut variables = Vec::new();
        if let Some(declared) = environment.get("EnvironmentVariables")? {
            for variable in declared.items()? {
                let types = ["PLAINTEXT", "PARAMETER_STORE", "SECRETS_MANAGER"];
                variables.push(BuildVariable {
                    name: variable.required("Name")?.string()?,
                    value: variable.required("Value")?.string()?,
                    variable_type: match variable.get("Type")? {
                        Some(kind) => kind.one_of(&types)?,
                        None => "PLAINTEXT",
                    },
                });
            }
        }
        let build = Build {
            logical_id: resource.logical_id.to_owned(),
            name: self.evaluator.name(resource)?,
            description: property("Description")?.map(|text| text.string()).transpose()?,
            source: BuildSource {
                source_type: source.required("Type")?.string()?,
                location: source.string_of("Location")?,
                buildspec: source.string_of("BuildSpec")?,
                git_clone_depth: source
                    .get("GitCloneDepth")?
                    .map(|depth| depth.integer(0..=u32::MAX))
                    .transpose()?,
            },
            source_version: property("SourceVersion")?.map(|text| text.string()).transpose()?,
            environment_type: environment.required("Type")?.string()?,
            image: environment.required("Image")?.string()?,
            compute_type: environment.required("ComputeType")?.string()?,
            privileged: match environment.get("PrivilegedMode")? {
                Some(privileged) => privileged.boolean()?,
                None => false,
            },
            variables,
            timeout_minutes: minutes("TimeoutInMinutes", 5..=2160, BUILD_TIMEOUT_MINUTES)?,
            queued_timeout_minutes: minutes(
                "QueuedTimeoutInMinutes",
                5..=480,
                BUILD_QUEUED_TIMEOUT_MINUTES,
            )?,
            service_role: required("ServiceRole")?.string()?,
        };
        self.stack.builds.push(build);
        Ok(())
    }

    pub(super) fn repository(&mut self, resource: Resource<'_>) -> Result<(), TemplateError> {
        let property = |name: &str| self.evaluator.property(resource, name);
        let mut filters = Vec::new();
        if let Some(declared) = property("ImageTagMutabilityExclusionFilters")? {
            for filter in declared.items()? {
                filter.required("ImageTagMutabilityExclusionFilterType")?.one_of(&["WILDCARD"])?;
                filters.push(filter.required("ImageTagMutabilityExclusionFilterValue")?.string()?);
            }
        }
        let mutability = match property("ImageTagMutability")? {
            None => None,
            Some(mutability) => {
                let kinds =
                    ["MUTABLE", "IMMUTABLE", "MUTABLE_WITH_EXCLUSION", "IMMUTABLE_WITH_EXCLUSION"];
                let kind = mutability.one_of(&kinds)?;
                if kind.ends_with("_WITH_EXCLUSION") == filters.is_empty() {
                    return Err(mutability.error(
                        "expected ImageTagMutabilityExclusionFilters with, and only with, _WITH_EXCLUSION",
                    ));
                }
                Some(match kind {
                    "IMMUTABLE" => TagMutability::Immutable,
                    "MUTABLE_WITH_EXCLUSION" => TagMutability::MutableExcept(filters),
                    "IMMUTABLE_WITH_EXCLUSION" => TagMutability::ImmutableExcept(filters),
                    _ => TagMutability::Mutable,
                })
            }
        };
        let name = self.evaluator.name(resource)?;
        let logical_id = resource.logical_id.to_owned();
        self.stack.repositories.push(Repository { logical_id, name, mutability });
        Ok(())
    }

    /// A path of the template, without `.` and `..` where they can be told away.
    fn path(&self, path: &str) -> PathBuf {
        let mut plain = PathBuf::new();
        for component in self.folder.join(path).components() {
            match component {
                Component::CurDir => {}
                Component::ParentDir
                    if matches!(plain.components().next_back(), Some(Component::Normal(_))) =>
                {
                    plain.pop();
                }
                component => plain.push(component),
            }
        }
        plain
    }
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}

pub(super) fn missing(resource: Resource<'_>, problem: &str) -> TemplateError {
    let path = format!("{}.Properties", resource.path());
    TemplateError::invalid(resource.node.position, path, problem)
}

fn binary(resource: Resource<'_>, code: Option<&Property>) -> Result<String, TemplateError> {
    let stated = resource
        .node
        .get("Metadata")
        .and_then(|metadata| metadata.get("BuildProperties")?.get("Binary"));
    if let Some(Node { kind: Kind::Scalar { text, .. }, .. }) = stated {
        return Ok(text.clone());
    }
    let last = match code {
        Some(code) => {
            let path = code.string()?;
            Path::new(&path).file_name().and_then(|name| name.to_str().map(str::to_owned))
        }
        None => None,
    };
    last.ok_or_else(|| {
        missing(
            resource,
            "expected Metadata.BuildProperties.Binary, or a CodeUri that names the binary",
        )
    })
}
