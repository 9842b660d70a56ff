//! Parameters, conditions, mappings and intrinsic functions.
//!
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/intrinsic-function-reference.html>

use std::cell::RefCell;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use regex::Regex;
use serde_json::Value;

use crate::property::Property;
use crate::yaml::{Kind, Node};
use crate::{Deployment, Parameter, Position, TemplateError};

/// One template for one deployment of it.
pub(crate) struct Evaluator<'a> {
    pub(crate) deployment: &'a Deployment,
    root: &'a Node,
    parameters: BTreeMap<String, Node>,
    /// Conditions and resources that are being looked at, to end cycles.
    looking_at: RefCell<Vec<String>>,
}

/// A resource of the template.
#[derive(Clone, Copy)]
pub(crate) struct Resource<'a> {
    pub(crate) logical_id: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) node: &'a Node,
}

impl Resource<'_> {
    pub(crate) fn path(&self) -> String {
        format!("Resources.{}", self.logical_id)
    }
}

type Resolved = Result<Option<Node>, TemplateError>;

impl<'a> Evaluator<'a> {
    pub(crate) fn new(root: &'a Node, deployment: &'a Deployment) -> Result<Self, TemplateError> {
        if !matches!(root.get("Resources").map(|node| &node.kind), Some(Kind::Map(_))) {
            return Err(TemplateError::invalid(
                root.position,
                "Resources",
                "expected a map of resources",
            ));
        }
        let mut parameters = BTreeMap::new();
        for (name, declared) in section(root, "Parameters") {
            parameters.insert(name.clone(), parameter_value(name, declared, deployment)?);
        }
        if let Some(name) =
            deployment.parameters.keys().find(|name| !parameters.contains_key(*name))
        {
            return Err(TemplateError::UnknownParameter { name: name.clone() });
        }
        Ok(Self { deployment, root, parameters, looking_at: RefCell::default() })
    }

    pub(crate) fn parameters(&self) -> Result<Vec<Parameter>, TemplateError> {
        section(self.root, "Parameters")
            .iter()
            .map(|(name, declared)| {
                let text = |key: &str| {
                    let path = format!("Parameters.{name}.{key}");
                    declared
                        .get(key)
                        .map(|node| Property { node: node.clone(), path }.string())
                        .transpose()
                };
                let node = self.parameters.get(name).unwrap_or(declared);
                let value = Property { node: node.clone(), path: format!("Parameters.{name}") };
                let value = match &value.node.kind {
                    Kind::List(_) => {
                        let items = value.items()?;
                        let items: Vec<_> =
                            items.iter().map(Property::string).collect::<Result<_, _>>()?;
                        items.join(",")
                    }
                    _ => value.string()?,
                };
                let secret = text("NoEcho")?.is_some_and(|secret| secret == "true");
                Ok(Parameter {
                    name: name.clone(),
                    value,
                    secret,
                    description: text("Description")?,
                })
            })
            .collect()
    }

    /// The resources whose conditions hold.
    pub(crate) fn resources(&self) -> Result<Vec<Resource<'a>>, TemplateError> {
        let mut resources = Vec::new();
        for (logical_id, node) in section(self.root, "Resources") {
            if let Some(resource) = self.resource_of(logical_id, node)? {
                resources.push(resource);
            }
        }
        Ok(resources)
    }

    pub(crate) fn resource(&self, logical_id: &str) -> Result<Option<Resource<'a>>, TemplateError> {
        match section(self.root, "Resources").iter().find(|(name, _)| name == logical_id) {
            None => Ok(None),
            Some((logical_id, node)) => self.resource_of(logical_id, node),
        }
    }

    fn resource_of(
        &self,
        logical_id: &'a str,
        node: &'a Node,
    ) -> Result<Option<Resource<'a>>, TemplateError> {
        let path = format!("Resources.{logical_id}");
        let Some(Kind::Scalar { text: kind, .. }) = node.get("Type").map(|node| &node.kind) else {
            return Err(TemplateError::invalid(node.position, path, "expected a Type"));
        };
        if let Some(condition) = node.get("Condition") {
            let path = format!("{path}.Condition");
            let Kind::Scalar { text: name, .. } = &condition.kind else {
                return Err(TemplateError::invalid(
                    condition.position,
                    path,
                    "expected the name of a condition",
                ));
            };
            if !self.condition(name, condition.position, &path)? {
                return Ok(None);
            }
        }
        Ok(Some(Resource { logical_id, kind, node }))
    }

    /// A property of a resource, resolved; `None` where it is absent or `AWS::NoValue`.
    pub(crate) fn property(
        &self,
        resource: Resource<'_>,
        name: &str,
    ) -> Result<Option<Property>, TemplateError> {
        let path = format!("{}.Properties", resource.path());
        match resource.node.get("Properties") {
            None => Ok(None),
            Some(properties) => self.child(properties, &path, name),
        }
    }

    /// The same, where SAM adds what `Globals.Function` says: lists are put together, maps are
    /// merged, and of two other values the function's own is taken.
    /// <https://docs.aws.amazon.com/serverless-application-model/latest/developerguide/sam-specification-template-anatomy-globals.html>
    pub(crate) fn function_property(
        &self,
        resource: Resource<'_>,
        name: &str,
    ) -> Result<Option<Property>, TemplateError> {
        let own = self.property(resource, name)?;
        let globals = self.root.get("Globals").and_then(|globals| globals.get("Function"));
        let global = match globals {
            None => None,
            Some(globals) => self.child(globals, "Globals.Function", name)?,
        };
        Ok(match (global, own) {
            (Some(global), Some(own)) => {
                Some(Property { node: merged(global.node, own.node), path: own.path })
            }
            (global, own) => own.or(global),
        })
    }

    fn child(&self, map: &Node, path: &str, name: &str) -> Result<Option<Property>, TemplateError> {
        let Some(node) = map.get(name) else { return Ok(None) };
        let path = format!("{path}.{name}");
        Ok(self.resolve(node, &path)?.map(|node| Property { node, path }))
    }

    /// A node without its intrinsic functions; `None` for `AWS::NoValue`.
    pub(crate) fn resolve(&self, node: &Node, path: &str) -> Resolved {
        let kind = match &node.kind {
            Kind::Scalar { text, .. } if text.contains("{{resolve:") => {
                return Err(TemplateError::invalid(
                    node.position,
                    path,
                    "cannot resolve a dynamic reference",
                ));
            }
            Kind::Scalar { .. } => node.kind.clone(),
            Kind::List(items) => {
                let mut resolved = Vec::new();
                for (index, item) in items.iter().enumerate() {
                    resolved.extend(self.resolve(item, &format!("{path}[{index}]"))?);
                }
                Kind::List(resolved)
            }
            Kind::Map(entries) => {
                let mut resolved = Vec::new();
                for (name, entry) in entries {
                    if let Some(entry) = self.resolve(entry, &format!("{path}.{name}"))? {
                        resolved.push((name.clone(), entry));
                    }
                }
                Kind::Map(resolved)
            }
            Kind::Intrinsic { name, argument } => {
                let call = Call { evaluator: self, name, position: node.position, path };
                return call.evaluate(argument);
            }
        };
        Ok(Some(Node { position: node.position, kind }))
    }

    /// Whether a named condition holds.
    fn condition(&self, name: &str, position: Position, path: &str) -> Result<bool, TemplateError> {
        let found = section(self.root, "Conditions").iter().find(|(key, _)| key == name);
        let Some((_, node)) = found else {
            return Err(TemplateError::invalid(
                position,
                path,
                format!("expected a condition, found {name}"),
            ));
        };
        self.guarded(format!("Conditions.{name}"), position, path, || {
            self.holds(node, &format!("Conditions.{name}"))
        })
    }

    fn holds(&self, node: &Node, path: &str) -> Result<bool, TemplateError> {
        let invalid = |problem: &str| TemplateError::invalid(node.position, path, problem);
        let (name, argument) = match &node.kind {
            Kind::Intrinsic { name, argument } => (name.as_str(), argument.as_ref()),
            Kind::Map(entries) => match entries.as_slice() {
                [(name, argument)] if name == "Condition" => (name.as_str(), argument),
                _ => return Err(invalid("expected a condition function")),
            },
            _ => return Err(invalid("expected a condition function")),
        };
        let path = &format!("{path}.{name}");
        let operands = || match &argument.kind {
            Kind::List(operands) => Ok(operands.as_slice()),
            _ => Err(TemplateError::invalid(argument.position, path, "expected a list")),
        };
        match name {
            "Condition" => match &argument.kind {
                Kind::Scalar { text, .. } => self.condition(text, argument.position, path),
                _ => Err(invalid("expected the name of a condition")),
            },
            "Fn::Equals" => match operands()? {
                [left, right] => {
                    let text = |node| {
                        self.resolve(node, path)?
                            .map(|node| Property { node, path: path.clone() }.string())
                            .transpose()
                    };
                    Ok(text(left)? == text(right)?)
                }
                _ => Err(invalid("expected two values")),
            },
            "Fn::Not" => match operands()? {
                [operand] => Ok(!self.holds(operand, path)?),
                _ => Err(invalid("expected one condition")),
            },
            "Fn::And" | "Fn::Or" => {
                let operands = operands()?;
                if !(2..=10).contains(&operands.len()) {
                    return Err(invalid("expected two to ten conditions"));
                }
                let mut all = true;
                let mut any = false;
                for operand in operands {
                    let holds = self.holds(operand, path)?;
                    all &= holds;
                    any |= holds;
                }
                Ok(if name == "Fn::And" { all } else { any })
            }
            _ => Err(invalid("expected a condition function")),
        }
    }

    /// Looks at something that may lead back to itself.
    pub(crate) fn guarded<T>(
        &self,
        what: String,
        position: Position,
        path: &str,
        look: impl FnOnce() -> Result<T, TemplateError>,
    ) -> Result<T, TemplateError> {
        if self.looking_at.borrow().contains(&what) {
            return Err(TemplateError::invalid(
                position,
                path,
                format!("{what} depends on itself"),
            ));
        }
        self.looking_at.borrow_mut().push(what);
        let seen = look();
        self.looking_at.borrow_mut().pop();
        seen
    }

    fn reference(&self, name: &str, position: Position, path: &str) -> Resolved {
        let deployment = self.deployment;
        let text = match name {
            "AWS::AccountId" => deployment.account.clone(),
            "AWS::Region" => deployment.region.clone(),
            "AWS::Partition" => "aws".to_owned(),
            "AWS::URLSuffix" => "amazonaws.com".to_owned(),
            "AWS::StackName" => deployment.stack_name.clone(),
            "AWS::StackId" => deployment.arn(
                "cloudformation",
                &format!("stack/{}/00000000-0000-0000-0000-000000000000", deployment.stack_name),
            ),
            "AWS::NoValue" => return Ok(None),
            name => {
                if let Some(value) = self.parameters.get(name) {
                    return Ok(Some(Node { position, kind: value.kind.clone() }));
                }
                match self.resource(name)? {
                    Some(resource) => self.resource_reference(resource, position, path)?,
                    None => {
                        return Err(TemplateError::invalid(
                            position,
                            path,
                            format!("cannot resolve Ref {name}: no such parameter or resource"),
                        ));
                    }
                }
            }
        };
        Ok(Some(Node::string(position, text)))
    }

    fn attribute(
        &self,
        logical_id: &str,
        attribute: &str,
        position: Position,
        path: &str,
    ) -> Result<String, TemplateError> {
        match self.resource(logical_id)? {
            Some(resource) => self.resource_attribute(resource, attribute, position, path),
            None => Err(TemplateError::invalid(
                position,
                path,
                format!("cannot resolve GetAtt {logical_id}.{attribute}: no such resource"),
            )),
        }
    }
}

/// One use of an intrinsic function.
struct Call<'e, 'a> {
    evaluator: &'e Evaluator<'a>,
    name: &'e str,
    position: Position,
    path: &'e str,
}

impl Call<'_, '_> {
    fn error(&self, problem: impl std::fmt::Display) -> TemplateError {
        TemplateError::invalid(self.position, self.path, format!("{}: {problem}", self.name))
    }

    fn evaluate(&self, argument: &Node) -> Resolved {
        let text = match self.name {
            "Ref" => {
                let name = self.literal(argument)?;
                return self.evaluator.reference(&name, self.position, self.path);
            }
            "Fn::If" => return self.choose(argument),
            "Fn::FindInMap" => return self.find_in_map(argument).map(Some),
            "Fn::Split" => return self.split(argument).map(Some),
            "Fn::Select" => return self.select(argument).map(Some),
            "Fn::GetAtt" => self.get_attribute(argument)?,
            "Fn::Sub" => self.substitute(argument)?,
            "Fn::Join" => self.join(argument)?,
            "Fn::Base64" => STANDARD.encode(self.text(argument)?),
            _ => return Err(self.error("cannot resolve this function")),
        };
        Ok(Some(Node::string(self.position, text)))
    }

    fn literal(&self, node: &Node) -> Result<String, TemplateError> {
        match &node.kind {
            Kind::Scalar { text, .. } => Ok(text.clone()),
            _ => Err(self.error("expected a name")),
        }
    }

    fn value(&self, node: &Node) -> Result<Node, TemplateError> {
        self.evaluator.resolve(node, self.path)?.ok_or_else(|| self.error("expected a value"))
    }

    fn text(&self, node: &Node) -> Result<String, TemplateError> {
        Property { node: self.value(node)?, path: self.path.to_owned() }.string()
    }

    fn operands<'n, const N: usize>(&self, node: &'n Node) -> Result<&'n [Node; N], TemplateError> {
        match &node.kind {
            Kind::List(items) => items.as_slice().try_into().ok(),
            _ => None,
        }
        .ok_or_else(|| self.error(format!("expected a list of {N}")))
    }

    fn choose(&self, argument: &Node) -> Resolved {
        let [condition, then, otherwise] = self.operands(argument)?;
        let condition = self.literal(condition)?;
        let holds = self.evaluator.condition(&condition, self.position, self.path)?;
        self.evaluator.resolve(if holds { then } else { otherwise }, self.path)
    }

    fn get_attribute(&self, argument: &Node) -> Result<String, TemplateError> {
        let (logical_id, attribute) = match &argument.kind {
            Kind::Scalar { text, .. } => {
                let parts = text.split_once('.');
                parts.map(|(id, attribute)| (id.to_owned(), attribute.to_owned()))
            }
            _ => {
                let [logical_id, attribute] = self.operands(argument)?;
                Some((self.literal(logical_id)?, self.text(attribute)?))
            }
        }
        .ok_or_else(|| self.error("expected a resource and one of its attributes"))?;
        self.evaluator.attribute(&logical_id, &attribute, self.position, self.path)
    }

    fn substitute(&self, argument: &Node) -> Result<String, TemplateError> {
        let (template, variables) = match &argument.kind {
            Kind::List(_) => {
                let [template, variables] = self.operands(argument)?;
                match &variables.kind {
                    Kind::Map(entries) => (self.literal(template)?, entries.as_slice()),
                    _ => return Err(self.error("expected a map of variables")),
                }
            }
            _ => (self.literal(argument)?, [].as_slice()),
        };
        let mut filled = String::new();
        let mut rest = template.as_str();
        while let Some((before, after)) = rest.split_once("${") {
            filled.push_str(before);
            let (name, after) =
                after.split_once('}').ok_or_else(|| self.error("expected } after ${"))?;
            rest = after;
            if let Some(literal) = name.strip_prefix('!') {
                filled.push_str("${");
                filled.push_str(literal);
                filled.push('}');
                continue;
            }
            let name = name.trim();
            let value = match variables.iter().find(|(variable, _)| variable == name) {
                Some((_, value)) => self.text(value)?,
                None => match name.split_once('.') {
                    Some((logical_id, attribute)) => {
                        self.evaluator.attribute(logical_id, attribute, self.position, self.path)?
                    }
                    None => {
                        let node = self
                            .evaluator
                            .reference(name, self.position, self.path)?
                            .ok_or_else(|| self.error(format!("{name} has no value")))?;
                        Property { node, path: self.path.to_owned() }.string()?
                    }
                },
            };
            filled.push_str(&value);
        }
        filled.push_str(rest);
        Ok(filled)
    }

    fn join(&self, argument: &Node) -> Result<String, TemplateError> {
        let [delimiter, values] = self.operands(argument)?;
        let values = Property { node: self.value(values)?, path: self.path.to_owned() }.items()?;
        let values: Vec<_> = values.iter().map(Property::string).collect::<Result<_, _>>()?;
        Ok(values.join(&self.text(delimiter)?))
    }

    fn split(&self, argument: &Node) -> Result<Node, TemplateError> {
        let [delimiter, text] = self.operands(argument)?;
        let (delimiter, text) = (self.text(delimiter)?, self.text(text)?);
        if delimiter.is_empty() {
            return Err(self.error("expected a delimiter"));
        }
        let parts = text.split(&delimiter).map(|part| Node::string(self.position, part)).collect();
        Ok(Node { position: self.position, kind: Kind::List(parts) })
    }

    fn select(&self, argument: &Node) -> Result<Node, TemplateError> {
        let [index, values] = self.operands(argument)?;
        let index: usize =
            self.text(index)?.parse().map_err(|_| self.error("expected an index from 0"))?;
        let values = Property { node: self.value(values)?, path: self.path.to_owned() }.items()?;
        let count = values.len();
        let selected = values.into_iter().nth(index);
        selected
            .map(|property| property.node)
            .ok_or_else(|| self.error(format!("expected an index below {count}, found {index}")))
    }

    fn find_in_map(&self, argument: &Node) -> Result<Node, TemplateError> {
        let [map, first, second] = self.operands(argument)?;
        let (map, first, second) = (self.text(map)?, self.text(first)?, self.text(second)?);
        let found = self
            .evaluator
            .root
            .get("Mappings")
            .and_then(|mappings| mappings.get(&map)?.get(&first)?.get(&second));
        match found {
            Some(node) => self.value(node),
            None => Err(self.error(format!("Mappings has no {map}.{first}.{second}"))),
        }
    }
}

fn section<'a>(root: &'a Node, name: &str) -> &'a [(String, Node)] {
    match root.get(name).map(|node| &node.kind) {
        Some(Kind::Map(entries)) => entries,
        _ => &[],
    }
}

fn merged(global: Node, own: Node) -> Node {
    let position = own.position;
    let kind = match (global.kind, own.kind) {
        (Kind::List(mut items), Kind::List(own)) => {
            items.extend(own);
            Kind::List(items)
        }
        (Kind::Map(mut entries), Kind::Map(own)) => {
            for (name, node) in own {
                match entries.iter_mut().find(|(key, _)| *key == name) {
                    Some((_, entry)) => *entry = merged(entry.clone(), node),
                    None => entries.push((name, node)),
                }
            }
            Kind::Map(entries)
        }
        (_, own) => own,
    };
    Node { position, kind }
}

/// The value given for a parameter, or its default, checked as its declaration says.
fn parameter_value(
    name: &str,
    declared: &Node,
    deployment: &Deployment,
) -> Result<Node, TemplateError> {
    let path = format!("Parameters.{name}");
    let declared = Property { node: declared.clone(), path };
    let kind = declared.required("Type")?;
    let list = match kind.string()?.as_str() {
        "String" | "Number" => false,
        "CommaDelimitedList" | "List<Number>" => true,
        "AWS::CodeConnections::Connection::Arn" => false,
        // AWS's own types are identifiers of things in the account: strings.
        other if other.starts_with("AWS::") && !other.starts_with("AWS::SSM::") => false,
        other if other.starts_with("List<AWS::") => true,
        other => return Err(kind.error(format!("cannot resolve a parameter of type {other}"))),
    };
    let value = match deployment.parameters.get(name) {
        Some(value) => value.clone(),
        None => match declared.get("Default")? {
            // An empty default is the empty string.
            Some(Property {
                node: Node { kind: Kind::Scalar { value: Value::Null, .. }, .. },
                ..
            }) => String::new(),
            Some(default) => default.string()?,
            None => return Err(declared.error("expected a value: it has no default")),
        },
    };
    let explained = match declared.string_of("ConstraintDescription")? {
        Some(description) => format!(": {description}"),
        None => String::new(),
    };
    let refused = |expected: String| Err(declared.error(format!("expected {expected}{explained}")));

    let items: Vec<&str> =
        if list { value.split(',').map(str::trim).collect() } else { vec![&value] };
    let secret = declared.string_of("NoEcho")?.is_some_and(|secret| secret == "true");
    for item in items.iter().copied() {
        let found = if secret { "another" } else { item };
        if kind.string()?.contains("Number") && item.parse::<f64>().is_err() {
            return refused(format!("a number, found {found}"));
        }
        if let Some(allowed) = declared.get("AllowedValues")? {
            let allowed: Vec<_> =
                allowed.items()?.iter().map(allowed_value).collect::<Result<_, _>>()?;
            if !allowed.iter().any(|allowed| allowed == item) {
                return refused(format!("one of {}, found {found}", allowed.join(", ")));
            }
        }
        if let Some(pattern) = declared.get("AllowedPattern")? {
            let text = pattern.string()?;
            let matcher = Regex::new(&format!("^(?:{text})$"))
                .map_err(|_| pattern.error("cannot read this regular expression"))?;
            if !matcher.is_match(item) {
                return refused(format!("a value that matches {text}, found {found}"));
            }
        }
        let bounds = [
            ("MinLength", item.chars().count() as f64, false),
            ("MaxLength", item.chars().count() as f64, true),
            ("MinValue", item.parse().unwrap_or(f64::NAN), false),
            ("MaxValue", item.parse().unwrap_or(f64::NAN), true),
        ];
        for (bound, measure, is_most) in bounds {
            let Some(property) = declared.get(bound)? else { continue };
            let limit: f64 =
                property.string()?.parse().map_err(|_| property.error("expected a number"))?;
            let fits = if is_most { measure <= limit } else { measure >= limit };
            if !fits {
                return refused(format!("{bound} {limit}, found {found}"));
            }
        }
    }
    let position = declared.node.position;
    Ok(if list {
        let items = items.into_iter().map(|item| Node::string(position, item)).collect();
        Node { position, kind: Kind::List(items) }
    } else {
        Node::string(position, value)
    })
}

/// An empty allowed value may be written as nothing at all.
fn allowed_value(property: &Property) -> Result<String, TemplateError> {
    match &property.node.kind {
        Kind::Scalar { value: Value::Null, .. } => Ok(String::new()),
        _ => property.string(),
    }
}
