//! Template text into a tree of nodes with positions, intrinsic functions told apart.
//!
//! YAML as CloudFormation takes it, so no aliases and no merge keys:
//! <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/template-formats.html>

use saphyr::Scalar;
use saphyr_parser::{Event, Marker, Parser, Span, StrInput, Tag};
use serde_json::{Number, Value};

use crate::{Position, TemplateError};

/// The deepest nesting read; CloudFormation's own templates stay far below.
const DEPTH_MAX: usize = 128;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) position: Position,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    /// A string, number, boolean or null, and how it was written: where a string is wanted,
    /// `1.10` stays `1.10`.
    Scalar {
        value: Value,
        text: String,
    },
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
    /// A function by its long name, such as `Fn::Sub`.
    Intrinsic {
        name: String,
        argument: Box<Node>,
    },
}

impl Node {
    pub(crate) fn string(position: Position, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { position, kind: Kind::Scalar { value: Value::String(text.clone()), text } }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        let Kind::Map(entries) = &self.kind else { return None };
        entries.iter().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    /// What kind of thing this is, for errors.
    pub(crate) fn described(&self) -> &'static str {
        match &self.kind {
            Kind::Scalar { value: Value::Null, .. } => "nothing",
            Kind::Scalar { value: Value::Bool(_), .. } => "a boolean",
            Kind::Scalar { value: Value::Number(_), .. } => "a number",
            Kind::Scalar { .. } => "a string",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a map",
            Kind::Intrinsic { .. } => "an intrinsic function",
        }
    }
}

/// Reads the one document of a template.
pub(crate) fn load(text: &str) -> Result<Node, TemplateError> {
    let mut loader = Loader { parser: Parser::new_from_str(text) };
    loop {
        let (event, span) = loader.next()?;
        match event {
            Event::StreamEnd => {
                return Err(loader.error(&span, "expected a template, found nothing"));
            }
            Event::StreamStart | Event::DocumentStart(_) | Event::Nothing => {}
            event => {
                let root = loader.node(event, span, 0)?;
                return loader.end().map(|()| root);
            }
        }
    }
}

struct Loader<'a> {
    parser: Parser<'a, StrInput<'a>>,
}

impl<'a> Loader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), TemplateError> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => Err(TemplateError::Yaml {
                position: position(*error.marker()),
                problem: error.info().to_owned(),
            }),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn end(&mut self) -> Result<(), TemplateError> {
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(()),
                Event::DocumentEnd | Event::Nothing => {}
                _ => return Err(self.error(&span, "expected one document")),
            }
        }
    }

    fn error(&self, span: &Span, problem: impl Into<String>) -> TemplateError {
        TemplateError::Yaml { position: position(span.start), problem: problem.into() }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, TemplateError> {
        if depth > DEPTH_MAX {
            return Err(self.error(&span, format!("expected at most {DEPTH_MAX} levels")));
        }
        let position = position(span.start);
        let (kind, tag) = match event {
            Event::Scalar(text, style, _, tag) => {
                let written = text.clone().into_owned();
                let scalar = Scalar::parse_from_cow_and_metadata(text, style, tag.as_ref())
                    .ok_or_else(|| self.error(&span, "expected a value of the type of its tag"))?;
                (Kind::Scalar { value: value_of(scalar), text: written }, tag)
            }
            Event::SequenceStart(_, tag) => (Kind::List(self.list(depth)?), tag),
            Event::MappingStart(_, tag) => (Kind::Map(self.map(depth)?), tag),
            _ => return Err(self.error(&span, "CloudFormation takes no aliases")),
        };
        let node = long_form(Node { position, kind });
        match tag.filter(|tag| !tag.is_yaml_core_schema()) {
            None => Ok(node),
            Some(tag) => self.short_form(&tag, node, &span),
        }
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, TemplateError> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Vec<(String, Node)>, TemplateError> {
        let mut entries: Vec<(String, Node)> = Vec::new();
        loop {
            let (key, span) = match self.next()? {
                (Event::MappingEnd, _) => return Ok(entries),
                (Event::Scalar(key, ..), span) => (key.into_owned(), span),
                (_, span) => return Err(self.error(&span, "expected a key that is a string")),
            };
            if key == "<<" {
                return Err(self.error(&span, "CloudFormation takes no merge keys"));
            }
            if entries.iter().any(|(name, _)| *name == key) {
                return Err(self.error(&span, format!("expected key {key} once")));
            }
            let (event, span) = self.next()?;
            entries.push((key, self.node(event, span, depth + 1)?));
        }
    }

    /// `!Ref` is `Ref`, `!Condition` is `Condition`, any other `!X` is `Fn::X`.
    fn short_form(&self, tag: &Tag, argument: Node, span: &Span) -> Result<Node, TemplateError> {
        if tag.handle != "!" || tag.suffix.is_empty() {
            return Err(
                self.error(span, format!("expected an intrinsic function, found tag {tag}"))
            );
        }
        let name = match tag.suffix.as_str() {
            "Ref" | "Condition" => tag.suffix.clone(),
            suffix => format!("Fn::{suffix}"),
        };
        let position = argument.position;
        Ok(Node { position, kind: Kind::Intrinsic { name, argument: Box::new(argument) } })
    }
}

/// A map with the name of a function as its only key is that function. `Condition` is one only
/// within conditions, and is told apart there.
fn long_form(node: Node) -> Node {
    match node.kind {
        Kind::Map(mut entries)
            if entries.len() == 1
                && entries.iter().all(|(key, _)| key == "Ref" || key.starts_with("Fn::")) =>
        {
            let kind = match entries.pop() {
                Some((name, argument)) => Kind::Intrinsic { name, argument: Box::new(argument) },
                None => Kind::Map(entries),
            };
            Node { position: node.position, kind }
        }
        kind => Node { position: node.position, kind },
    }
}

fn value_of(scalar: Scalar<'_>) -> Value {
    match scalar {
        Scalar::Null => Value::Null,
        Scalar::Boolean(value) => Value::Bool(value),
        Scalar::Integer(value) => value.into(),
        Scalar::FloatingPoint(value) => {
            Number::from_f64(value.into_inner()).map_or(Value::Null, Value::Number)
        }
        Scalar::String(value) => Value::String(value.into_owned()),
    }
}

fn position(marker: Marker) -> Position {
    Position { line: marker.line(), column: marker.col() + 1 }
}
