//! Secrets.

use archweld_secrets::{GenerateSecretString, SecretContent, SecretSettings};

use super::{Reader, Secret};
use crate::TemplateError;
use crate::evaluate::Resource;
use crate::property::Property;

impl Reader<'_, '_> {
    pub(super) fn secret(&mut self, resource: Resource<'_>) -> Result<(), TemplateError> {
        let property = |name: &str| self.evaluator.property(resource, name);
        let content = match (property("SecretString")?, property("GenerateSecretString")?) {
            (Some(text), None) => Some(SecretContent::Text(text.string()?)),
            (None, Some(rules)) => Some(SecretContent::Generated(generated(&rules)?)),
            (None, None) => None,
            (Some(_), Some(rules)) => {
                return Err(rules.error("expected at most one of this and SecretString"));
            }
        };
        let settings = SecretSettings {
            name: self.evaluator.name(resource)?,
            arn: self.evaluator.arn(resource)?,
            description: property("Description")?.map(|text| text.string()).transpose()?,
            content,
        };
        let logical_id = resource.logical_id.to_owned();
        self.stack.secrets.push(Secret { logical_id, settings });
        Ok(())
    }
}

fn generated(rules: &Property) -> Result<GenerateSecretString, TemplateError> {
    let default = GenerateSecretString::default();
    let boolean = |name: &str, default: bool| match rules.get(name)? {
        Some(property) => property.boolean(),
        None => Ok(default),
    };
    let template = match (rules.get("SecretStringTemplate")?, rules.get("GenerateStringKey")?) {
        (Some(template), Some(key)) => Some((template.string()?, key.string()?)),
        (None, None) => None,
        _ => return Err(rules.error("expected both SecretStringTemplate and GenerateStringKey")),
    };
    Ok(GenerateSecretString {
        length: match rules.get("PasswordLength")? {
            Some(length) => length.integer(1..=4096)?,
            None => default.length,
        },
        exclude_characters: rules.string_of("ExcludeCharacters")?.unwrap_or_default(),
        exclude_lowercase: boolean("ExcludeLowercase", default.exclude_lowercase)?,
        exclude_uppercase: boolean("ExcludeUppercase", default.exclude_uppercase)?,
        exclude_numbers: boolean("ExcludeNumbers", default.exclude_numbers)?,
        exclude_punctuation: boolean("ExcludePunctuation", default.exclude_punctuation)?,
        include_space: boolean("IncludeSpace", default.include_space)?,
        require_each: boolean("RequireEachIncludedType", default.require_each)?,
        template,
    })
}
