//! The input of an execution: what a trigger or a person at the console says.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    Commit, GitRef, ImageName, Platform, Publisher, Sequence, SourceTree, TagTemplate, TriggerKind,
};

/// The input of an execution. Every field is optional: `{}` builds the configuration's only image
/// from the default branch of its source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecutionInput {
    /// The image to build; needed where the configuration has more than one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageName>,
    /// The branch or tag to build.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    pub git_ref: Option<GitRef>,
    /// The commit to build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<Commit>,
    /// What the image depends on within the source, where whoever starts the execution knows it:
    /// images of equal trees are not built twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<SourceTree>,
    /// Whether to build even what was built before; only scheduled runs and runs for a new base
    /// image do so by themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
    /// The platforms, instead of the configuration's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platforms: Option<Vec<Platform>>,
    /// The tags, instead of the configuration's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<TagTemplate>>,
    /// Who makes the index, instead of the configuration's choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publisher: Option<Publisher>,
    /// What started the execution.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<Trigger>,
}

/// What started an execution.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trigger {
    /// Such as `push`, `schedule` or `local`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The trigger's own identity, such as a delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Orders the runs: the higher one is the newer source. The time when the execution starts
    /// where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<Sequence>,
    /// Who caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
}

/// An input that does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("execution input: {}{message}", prefix(field))]
pub struct InputError {
    field: String,
    message: String,
}

fn prefix(field: &str) -> String {
    if field.is_empty() { String::new() } else { format!("{field}: ") }
}

impl InputError {
    /// The path of the field, such as `platforms[1]`; none for the input as a whole.
    pub fn field(&self) -> Option<&str> {
        Some(self.field.as_str()).filter(|field| !field.is_empty())
    }

    /// What is wrong with it and what was expected.
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// The kinds of trigger that are there to build anew what was built before.
const KINDS_THAT_FORCE: [TriggerKind; 2] = [TriggerKind::Schedule, TriggerKind::BaseImage];

impl ExecutionInput {
    /// Whether everything is to be built anew.
    pub fn is_forced(&self) -> bool {
        let kind = self.trigger.as_ref().and_then(|trigger| trigger.kind.as_deref());
        let forces = |kind: &str| KINDS_THAT_FORCE.iter().any(|known| known.as_str() == kind);
        self.force.unwrap_or_else(|| kind.is_some_and(forces))
    }

    /// Reads an execution's input.
    ///
    /// # Errors
    /// When a field is unknown or wrong; the message names it and says what was expected.
    pub fn parse(input: Value) -> Result<Self, InputError> {
        if !input.is_object() {
            let message = "expected a JSON object, `{}` at the least".to_owned();
            return Err(InputError { field: String::new(), message });
        }
        serde_path_to_error::deserialize(input).map_err(|error| {
            let path = error.path().to_string();
            let field = if path == "." { String::new() } else { path };
            InputError { field, message: error.into_inner().to_string() }
        })
    }

    /// Everything that is wrong with an execution's input, each field for itself: what a form shows
    /// beside them. Empty exactly where [`ExecutionInput::parse`] succeeds.
    pub fn problems(input: &Value) -> Vec<InputError> {
        let Some(fields) = input.as_object() else {
            return Self::parse(input.clone()).err().into_iter().collect();
        };
        let mut problems = Vec::new();
        for (name, value) in fields {
            match value {
                Value::Array(items) => {
                    for (index, item) in items.iter().enumerate() {
                        let alone = Self::parse(json!({ name: [item] })).err();
                        let is_of_item = |field: &str| field.starts_with(&format!("{name}[0]"));
                        match alone {
                            Some(InputError { field, message }) if is_of_item(&field) => {
                                let field = field.replacen("[0]", &format!("[{index}]"), 1);
                                problems.push(InputError { field, message });
                            }
                            // Not of the item: of the field itself, which is told once.
                            Some(problem) if index == 0 => problems.push(problem),
                            Some(_) | None => {}
                        }
                    }
                    if items.is_empty() {
                        problems.extend(Self::parse(json!({ name: [] })).err());
                    }
                }
                Value::Object(parts) if !parts.is_empty() => {
                    for (part, value) in parts {
                        problems.extend(Self::parse(json!({ name: { part: value } })).err());
                    }
                }
                value => problems.extend(Self::parse(json!({ name: value })).err()),
            }
        }
        problems.dedup();
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_optional() {
        assert_eq!(ExecutionInput::parse(json!({})), Ok(ExecutionInput::default()));
    }

    #[test]
    fn names_the_field_and_what_was_expected() {
        let message = |input| ExecutionInput::parse(input).unwrap_err().to_string();
        insta::assert_snapshot!(message(json!({"plattforms": []})), @"execution input: plattforms: unknown field `plattforms`, expected one of `image`, `ref`, `commit`, `tree`, `force`, `platforms`, `tags`, `publisher`, `trigger`");
        insta::assert_snapshot!(message(json!({"platforms": ["linux/amd64", "linux/mips"]})), @r#"execution input: platforms[1]: unknown platform "linux/mips", expected one of linux/amd64, linux/386, linux/arm64, linux/arm/v5, linux/arm/v6, linux/arm/v7"#);
        insta::assert_snapshot!(message(json!({"trigger": {"sequence": "7"}})), @r#"execution input: trigger.sequence: invalid type: string "7", expected u64"#);
        insta::assert_snapshot!(message(json!({"trigger": {"sequence": 9_007_199_254_740_992_u64}})), @"execution input: trigger.sequence: sequence 9007199254740992 is too large, expected at most 9007199254740991");
        insta::assert_snapshot!(message(json!({"tree": "HEAD:"})), @r#"execution input: tree: tree "HEAD:" is not valid, expected 40 to 64 lower-case hexadecimal digits"#);
        insta::assert_snapshot!(message(json!({"commit": "main"})), @r#"execution input: commit: commit "main" is not valid, expected 7 to 64 lower-case hexadecimal digits"#);
        insta::assert_snapshot!(message(json!([])), @"execution input: expected a JSON object, `{}` at the least");
    }
    #[test]
    fn every_wrong_field_is_told_at_once_by_its_path() {
        let problems = |input: Value| -> Vec<String> {
            let problems = ExecutionInput::problems(&input);
            assert_eq!(problems.is_empty(), ExecutionInput::parse(input).is_ok());
            let fields = problems.iter().map(|it| it.field().unwrap_or("(all)").to_owned());
            let mut fields: Vec<_> = fields.collect();
            // Whether objects keep their order is for whoever links this crate to say.
            fields.sort_unstable();
            fields
        };
        let wrong = json!({
            "image": 5,
            "commit": "main",
            "platforms": ["linux/mips", "linux/arm64", "linux/vax"],
            "tags": "latest",
            "plattforms": ["a", "b"],
            "trigger": {"kind": "push", "sequence": "7", "actors": 1},
        });
        let expected = [
            "commit",
            "image",
            "platforms[0]",
            "platforms[2]",
            "plattforms",
            "tags",
            "trigger.actors",
            "trigger.sequence",
        ];
        assert_eq!(problems(wrong), expected);
        assert_eq!(problems(json!([])), ["(all)"]);
        assert_eq!(problems(json!({"platforms": []})), [] as [&str; 0]);
        assert_eq!(problems(json!({"unknown": {}})), ["unknown"]);
        let right =
            json!({"image": "a", "ref": "main", "platforms": ["linux/arm64"], "trigger": {}});
        assert_eq!(problems(right), [] as [&str; 0]);
    }
}
