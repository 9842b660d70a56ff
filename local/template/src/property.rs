//! Resolved parts of a template, read by type.

use std::ops::RangeInclusive;

use serde_json::Value;

use crate::TemplateError;
use crate::yaml::{Kind, Node};

/// A node without intrinsic functions, and where it came from.
#[derive(Debug, Clone)]
pub(crate) struct Property {
    pub(crate) node: Node,
    pub(crate) path: String,
}

impl Property {
    pub(crate) fn error(&self, problem: impl Into<String>) -> TemplateError {
        TemplateError::invalid(self.node.position, &self.path, problem)
    }

    fn expected(&self, what: &str) -> TemplateError {
        self.error(format!("expected {what}, found {}", self.node.described()))
    }

    /// A string; numbers and booleans are taken as they were written.
    pub(crate) fn string(&self) -> Result<String, TemplateError> {
        match &self.node.kind {
            Kind::Scalar { value, text } if !value.is_null() => Ok(text.clone()),
            _ => Err(self.expected("a string")),
        }
    }

    pub(crate) fn one_of(&self, values: &[&'static str]) -> Result<&'static str, TemplateError> {
        let text = self.string()?;
        values.iter().find(|value| **value == text).copied().ok_or_else(|| {
            self.error(format!("expected one of {}, found {text}", values.join(", ")))
        })
    }

    pub(crate) fn integer(&self, range: RangeInclusive<u32>) -> Result<u32, TemplateError> {
        let number = self.string()?.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| {
            self.error(format!("expected a whole number from {} to {}", range.start(), range.end()))
        })
    }

    pub(crate) fn boolean(&self) -> Result<bool, TemplateError> {
        match self.string()?.as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(self.expected("true or false")),
        }
    }

    pub(crate) fn items(&self) -> Result<Vec<Self>, TemplateError> {
        let Kind::List(items) = &self.node.kind else { return Err(self.expected("a list")) };
        let item = |(index, node): (usize, &Node)| Self {
            node: node.clone(),
            path: format!("{}[{index}]", self.path),
        };
        Ok(items.iter().enumerate().map(item).collect())
    }

    pub(crate) fn entries(&self) -> Result<Vec<(String, Self)>, TemplateError> {
        let Kind::Map(entries) = &self.node.kind else { return Err(self.expected("a map")) };
        let entry = |(name, node): &(String, Node)| {
            (name.clone(), Self { node: node.clone(), path: format!("{}.{name}", self.path) })
        };
        Ok(entries.iter().map(entry).collect())
    }

    pub(crate) fn get(&self, name: &str) -> Result<Option<Self>, TemplateError> {
        if !matches!(self.node.kind, Kind::Map(_)) {
            return Err(self.expected("a map"));
        }
        let path = || format!("{}.{name}", self.path);
        Ok(self.node.get(name).map(|node| Self { node: node.clone(), path: path() }))
    }

    pub(crate) fn required(&self, name: &str) -> Result<Self, TemplateError> {
        self.get(name)?.ok_or_else(|| self.error(format!("expected {name}")))
    }

    pub(crate) fn string_of(&self, name: &str) -> Result<Option<String>, TemplateError> {
        self.get(name)?.map(|property| property.string()).transpose()
    }

    /// The same in JSON.
    pub(crate) fn json(&self) -> Value {
        json(&self.node)
    }
}

fn json(node: &Node) -> Value {
    match &node.kind {
        Kind::Scalar { value, .. } => value.clone(),
        Kind::List(items) => items.iter().map(json).collect(),
        Kind::Map(entries) => {
            entries.iter().map(|(name, node)| (name.clone(), json(node))).collect()
        }
        // Properties are resolved before they are read: none is left.
        Kind::Intrinsic { .. } => Value::Null,
    }
}
