//! Reference paths: the part of JSONPath that names one node (`$`, `$.a.b[0]`, `$$.State.Name`,
//! `$variable.a`). No wildcards, filters, slices or intrinsic functions.
//!
//! <https://states-language.net/spec.html#ref-paths>

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// A path to one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferencePath {
    source: String,
    pub(crate) root: Root,
    steps: Vec<Step>,
}

/// What a path starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Root {
    /// `$`
    Input,
    /// `$$`
    Context,
    /// `$name`
    Variable(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Field(String),
    Index(usize),
}

impl ReferencePath {
    /// `$`
    pub(crate) fn root() -> Self {
        Self { source: "$".to_owned(), root: Root::Input, steps: Vec::new() }
    }

    pub(crate) fn parse(source: &str) -> Option<Self> {
        let rest = source.strip_prefix('$')?;
        let (root, mut rest) = if let Some(rest) = rest.strip_prefix('$') {
            (Root::Context, rest)
        } else {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            let (name, rest) = rest.split_at(end);
            match name {
                "" => (Root::Input, rest),
                name if is_name(name) => (Root::Variable(name.to_owned()), rest),
                _ => return None,
            }
        };
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let step;
            (step, rest) = parse_step(rest)?;
            steps.push(step);
        }
        Some(Self { source: source.to_owned(), root, steps })
    }

    /// The path as written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The node below `root`, which is what [`Root`] says.
    pub(crate) fn get<'a>(&self, root: &'a Value) -> Option<&'a Value> {
        self.steps.iter().try_fold(root, |node, step| match step {
            Step::Field(name) => node.as_object()?.get(name),
            Step::Index(index) => node.as_array()?.get(*index),
        })
    }

    /// Puts `value` at the path below `root`, making objects on the way; `None` where something
    /// else than an object is in the way.
    pub(crate) fn set(&self, mut root: Value, value: Value) -> Option<Value> {
        let mut node = &mut root;
        for step in &self.steps {
            node = match step {
                Step::Field(name) => {
                    if node.is_null() {
                        *node = Value::Object(Map::new());
                    }
                    node.as_object_mut()?.entry(name).or_insert(Value::Null)
                }
                Step::Index(index) => node.as_array_mut()?.get_mut(*index)?,
            };
        }
        *node = value;
        Some(root)
    }

    /// The path in the bracket notation of AWS's error messages: `$['a'][0]`.
    pub(crate) fn brackets(&self) -> String {
        let mut text = "$".to_owned();
        for step in &self.steps {
            let written = match step {
                Step::Field(name) => write!(text, "['{name}']"),
                Step::Index(index) => write!(text, "[{index}]"),
            };
            debug_assert!(written.is_ok(), "writing to a string cannot fail");
        }
        text
    }
}

fn is_name(name: &str) -> bool {
    name.chars().all(|character| character.is_alphanumeric() || matches!(character, '_' | '-'))
}

fn parse_step(text: &str) -> Option<(Step, &str)> {
    if let Some(rest) = text.strip_prefix('.') {
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let (name, rest) = rest.split_at(end);
        return (!name.is_empty() && is_name(name)).then(|| (Step::Field(name.to_owned()), rest));
    }
    let (inside, rest) = text.strip_prefix('[')?.split_once(']')?;
    let quoted = inside.strip_prefix('\'').and_then(|inside| inside.strip_suffix('\''));
    let step = match quoted {
        Some(name) if !name.contains(['\'', '\\']) => Step::Field(name.to_owned()),
        Some(_) => return None,
        None => Step::Index(inside.parse().ok()?),
    };
    Some((step, rest))
}

/// JSON in which the keys that end in `.$` have paths as their values.
#[derive(Debug)]
pub enum PathTemplate {
    /// JSON without any path.
    Literal(Value),
    /// A path.
    Path(ReferencePath),
    /// An array with a path somewhere.
    Array(Vec<PathTemplate>),
    /// An object with a path somewhere; keys as written, with their `.$`.
    Object(Vec<(String, PathTemplate)>),
}

impl PathTemplate {
    /// How the key of a path ends.
    pub(crate) const PATH_SUFFIX: &'static str = ".$";
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{ReferencePath, Root};

    #[test]
    fn finds_nested_nodes() {
        let value = json!({"a": {"b-c": [1, {"d e": 2}]}});
        let get = |path: &str| ReferencePath::parse(path).unwrap().get(&value).cloned();
        assert_eq!(get("$"), Some(value.clone()));
        assert_eq!(get("$.a.b-c[1]['d e']"), Some(json!(2)));
        assert_eq!(get("$.a.b-c[2]"), None);
        assert_eq!(get("$.a.x.y"), None);
    }

    #[test]
    fn knows_its_root() {
        let root = |path: &str| ReferencePath::parse(path).unwrap().root;
        assert_eq!(root("$.a"), Root::Input);
        assert_eq!(root("$$.State.Name"), Root::Context);
        assert_eq!(root("$answer[0]"), Root::Variable("answer".to_owned()));
    }

    #[test]
    fn refuses_what_names_more_than_one_node() {
        for path in ["a", "$.a[*]", "$..a", "$.a[?(@.b)]", "$.a[1:2]", "$.", "$[", "$['a", "$.*"] {
            assert_eq!(ReferencePath::parse(path), None, "{path}");
        }
    }

    #[test]
    fn sets_a_node_and_makes_the_objects_on_the_way() {
        let path = ReferencePath::parse("$.enigma.mystery").unwrap();
        assert_eq!(
            path.set(json!({"a": 1}), json!(42)),
            Some(json!({"a": 1, "enigma": {"mystery": 42}}))
        );
        assert_eq!(path.set(json!({"enigma": 7}), json!(42)), None);
        assert_eq!(path.set(json!("text"), json!(42)), None);
    }
}
