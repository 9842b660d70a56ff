//! Event rules and schedules, as resources of their own and as SAM events of functions and state
//! machines.

use std::time::Duration;

use archweld_events::{Bus, Input, JsonPath, Pattern, RetryPolicy, Rule, Target, Transformer};
use archweld_scheduler::{GROUP_DEFAULT, ScheduleRetries, ScheduleSettings};

use jiff::Timestamp;

use super::compute::missing;
use super::{EventRule, Reader, Schedule};
use crate::TemplateError;
use crate::evaluate::Resource;
use crate::property::Property;
use crate::yaml::{Kind, Node};

/// Whether an ARN is that of a topic.
fn is_topic(arn: &str) -> bool {
    arn.split(':').nth(2) == Some("sns")
}

impl Reader<'_, '_> {
    pub(super) fn rule(&mut self, resource: Resource<'_>) -> Result<(), TemplateError> {
        let property = |name: &str| self.evaluator.property(resource, name);
        let logical_id = resource.logical_id.to_owned();
        let name = self.evaluator.name(resource)?;
        let enabled = enabled(property("State")?)?;
        let mut targets = Vec::new();
        for declared in
            property("Targets")?.map(|list| list.items()).transpose()?.unwrap_or_default()
        {
            let id = declared.required("Id")?.string()?;
            let arn = declared.required("Arn")?.string()?;
            targets.push(target(&declared, id, arn)?);
        }
        // Nobody subscribes to topics here.
        if !targets.is_empty() && targets.iter().all(|target| is_topic(&target.arn)) {
            self.not_run(logical_id, "AWS::Events::Rule whose targets are topics");
            return Ok(());
        }
        if property("ScheduleExpression")?.is_some() {
            // Superseded by schedules, which have time zones.
            self.not_run(logical_id, "AWS::Events::Rule with ScheduleExpression");
            return Ok(());
        }
        let declared = property("EventPattern")?
            .ok_or_else(|| missing(resource, "expected EventPattern or ScheduleExpression"))?;
        let rule = Rule { name, pattern: Some(pattern(&declared)?), enabled, targets };
        let bus = bus(property("EventBusName")?)?;
        self.stack.rules.push(EventRule { logical_id, bus, rule });
        Ok(())
    }

    pub(super) fn schedule(&mut self, resource: Resource<'_>) -> Result<(), TemplateError> {
        let property = |name: &str| self.evaluator.property(resource, name);
        let required = |name: &str| {
            property(name)?.ok_or_else(|| missing(resource, &format!("expected {name}")))
        };
        let target = required("Target")?;
        let dates = |name: &str| property(name)?.map(|it| date(&it)).transpose();
        let settings = ScheduleSettings {
            name: self.evaluator.name(resource)?,
            group: self.evaluator.group(resource)?,
            expression: required("ScheduleExpression")?.string()?,
            time_zone: time_zone(property("ScheduleExpressionTimezone")?)?,
            start: dates("StartDate")?,
            end: dates("EndDate")?,
            flexible_window: flexible_window(&required("FlexibleTimeWindow")?)?,
            enabled: enabled(property("State")?)?,
            target_arn: target.required("Arn")?.string()?,
            role_arn: Some(target.required("RoleArn")?.string()?),
            input: constant(&target)?,
            retries: schedule_retries(target.get("RetryPolicy")?)?,
        };
        let logical_id = resource.logical_id.to_owned();
        self.stack.schedules.push(Schedule { logical_id, settings });
        Ok(())
    }

    /// The events that SAM lets a function or a state machine declare on itself. Each is resolved
    /// by itself, so that one of a type that is not run here may say what it will.
    pub(super) fn events(
        &mut self,
        resource: Resource<'_>,
        target_arn: &str,
        target_suffix: &str,
    ) -> Result<(), TemplateError> {
        let path = format!("{}.Properties.Events", resource.path());
        let declared =
            resource.node.get("Properties").and_then(|properties| properties.get("Events"));
        let events = match declared.map(|node| &node.kind) {
            None => return Ok(()),
            Some(Kind::Map(events)) => events,
            Some(_) => return Err(missing(resource, "expected Events to be a map")),
        };
        for (event, node) in events {
            let Some(Node { kind: Kind::Scalar { text: kind, .. }, .. }) = node.get("Type") else {
                return Err(TemplateError::invalid(
                    node.position,
                    format!("{path}.{event}"),
                    "expected a Type",
                ));
            };
            let logical_id = format!("{}{event}", resource.logical_id);
            let path = format!("{path}.{event}.Properties");
            let empty = Node { position: node.position, kind: Kind::Map(Vec::new()) };
            let properties = node.get("Properties").unwrap_or(&empty);
            let properties = || {
                let node = self.evaluator.resolve(properties, &path)?.unwrap_or(empty.clone());
                Ok::<_, TemplateError>(Property { node, path: path.clone() })
            };
            match kind.as_str() {
                "EventBridgeRule" | "CloudWatchEvent" => {
                    let properties = properties()?;
                    let id = match properties.get("Target")? {
                        Some(target) => target.required("Id")?.string()?,
                        None => format!("{logical_id}{target_suffix}"),
                    };
                    let rule = Rule {
                        name: self.event_name(&properties, "RuleName", &logical_id)?,
                        pattern: Some(pattern(&properties.required("Pattern")?)?),
                        enabled: enabled(properties.get("State")?)?,
                        targets: vec![target(&properties, id, target_arn.to_owned())?],
                    };
                    let bus = bus(properties.get("EventBusName")?)?;
                    self.stack.rules.push(EventRule { logical_id, bus, rule });
                }
                "ScheduleV2" => {
                    let properties = properties()?;
                    let dates = |name: &str| properties.get(name)?.map(|it| date(&it)).transpose();
                    let window = properties.get("FlexibleTimeWindow")?;
                    let settings = ScheduleSettings {
                        name: self.event_name(&properties, "Name", &logical_id)?,
                        group: properties
                            .string_of("GroupName")?
                            .unwrap_or_else(|| GROUP_DEFAULT.to_owned()),
                        expression: properties.required("ScheduleExpression")?.string()?,
                        time_zone: time_zone(properties.get("ScheduleExpressionTimezone")?)?,
                        start: dates("StartDate")?,
                        end: dates("EndDate")?,
                        flexible_window: window
                            .map_or(Ok(None), |window| flexible_window(&window))?,
                        enabled: enabled(properties.get("State")?)?,
                        target_arn: target_arn.to_owned(),
                        role_arn: properties.string_of("RoleArn")?,
                        input: constant(&properties)?,
                        retries: schedule_retries(properties.get("RetryPolicy")?)?,
                    };
                    self.stack.schedules.push(Schedule { logical_id, settings });
                }
                kind => {
                    self.not_run(
                        format!("{}.{event}", resource.logical_id),
                        format!("event {kind}"),
                    );
                }
            }
        }
        Ok(())
    }

    fn event_name(
        &self,
        properties: &Property,
        key: &str,
        logical_id: &str,
    ) -> Result<String, TemplateError> {
        let stated = properties.string_of(key)?;
        Ok(stated
            .unwrap_or_else(|| format!("{}-{logical_id}", self.evaluator.deployment.stack_name)))
    }
}

fn pattern(declared: &Property) -> Result<Pattern, TemplateError> {
    Pattern::parse(&declared.json()).map_err(|error| {
        let path = format!("{}{}", declared.path, error.path.trim_start_matches('$'));
        TemplateError::invalid(declared.node.position, path, error.problem)
    })
}

/// A bus by its name, also where the template gives its ARN.
fn bus(declared: Option<Property>) -> Result<String, TemplateError> {
    let Some(declared) = declared else { return Ok(Bus::DEFAULT.to_owned()) };
    let bus = declared.string()?;
    Ok(bus.rsplit_once(":event-bus/").map_or(bus.as_str(), |(_, name)| name).to_owned())
}

fn enabled(state: Option<Property>) -> Result<bool, TemplateError> {
    const STATES: [&str; 3] =
        ["ENABLED", "DISABLED", "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS"];
    Ok(state.map(|state| state.one_of(&STATES)).transpose()? != Some("DISABLED"))
}

fn target(declared: &Property, id: String, arn: String) -> Result<Target, TemplateError> {
    Ok(Target {
        id,
        arn,
        input: input(declared)?,
        retry: retry_policy(declared.get("RetryPolicy")?)?,
        dead_letter_arn: match declared.get("DeadLetterConfig")? {
            Some(config) => config.string_of("Arn")?,
            None => None,
        },
    })
}

fn input(declared: &Property) -> Result<Input, TemplateError> {
    let path = declared.get("InputPath")?;
    let transformer = declared.get("InputTransformer")?;
    match (constant(declared)?, path, transformer) {
        (None, None, None) => Ok(Input::Whole),
        (Some(value), None, None) => Ok(Input::Constant(value)),
        (None, Some(path), None) => Ok(Input::Path(json_path(&path)?)),
        (None, None, Some(transformer)) => {
            let mut paths = Vec::new();
            if let Some(map) = transformer.get("InputPathsMap")? {
                for (name, path) in map.entries()? {
                    paths.push((name, json_path(&path)?));
                }
            }
            let template = transformer.required("InputTemplate")?.string()?;
            Ok(Input::Transformer(Transformer { paths: paths.into_iter().collect(), template }))
        }
        _ => Err(declared.error("expected at most one of Input, InputPath and InputTransformer")),
    }
}

/// `Input`: JSON in a string.
fn constant(declared: &Property) -> Result<Option<serde_json::Value>, TemplateError> {
    let Some(input) = declared.get("Input")? else { return Ok(None) };
    match serde_json::from_str(&input.string()?) {
        Ok(value) => Ok(Some(value)),
        Err(error) => Err(input.error(format!("expected JSON: {error}"))),
    }
}

fn json_path(declared: &Property) -> Result<JsonPath, TemplateError> {
    JsonPath::parse(&declared.string()?).map_err(|error| declared.error(error.to_string()))
}

fn retry_policy(declared: Option<Property>) -> Result<RetryPolicy, TemplateError> {
    let mut retry = RetryPolicy::default();
    let Some(declared) = declared else { return Ok(retry) };
    if let Some(attempts) = declared.get("MaximumRetryAttempts")? {
        retry.attempts_max = attempts.integer(0..=RetryPolicy::ATTEMPTS_MAX)?;
    }
    if let Some(age) = declared.get("MaximumEventAgeInSeconds")? {
        retry.age_max = Duration::from_secs(age.integer(60..=86_400)?.into());
    }
    Ok(retry)
}

fn schedule_retries(declared: Option<Property>) -> Result<ScheduleRetries, TemplateError> {
    let RetryPolicy { attempts_max, age_max } = retry_policy(declared)?;
    Ok(ScheduleRetries { attempts_max, age_max })
}

fn date(declared: &Property) -> Result<Timestamp, TemplateError> {
    let date = declared.string()?.parse();
    date.map_err(|_| declared.error("expected a time such as 2026-11-23T03:00:00Z"))
}

fn time_zone(declared: Option<Property>) -> Result<String, TemplateError> {
    declared.map_or_else(|| Ok("UTC".to_owned()), |zone| zone.string())
}

fn flexible_window(declared: &Property) -> Result<Option<Duration>, TemplateError> {
    if declared.required("Mode")?.one_of(&["OFF", "FLEXIBLE"])? == "OFF" {
        return Ok(None);
    }
    let minutes = declared.required("MaximumWindowInMinutes")?.integer(1..=1440)?;
    Ok(Some(Duration::from_secs(u64::from(minutes) * 60)))
}
