//! The operations of Parameter Store.
//!
//! <https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameter.html>

use archweld_local_api::{ApiError, Host};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    seconds,
    store::{Parameter, Store},
};

const SECURE: &str = "SecureString";
const KINDS: [&str; 3] = ["String", "StringList", SECURE];
/// The longest value of the standard tier, in bytes.
const VALUE_BYTES_MAX: usize = 4_096;
const NAME_CHARS_MAX: usize = 1_011;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct GetParameter {
    name: String,
    with_decryption: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct PutParameter {
    name: String,
    value: String,
    #[serde(rename = "Type")]
    kind: Option<String>,
    overwrite: Option<bool>,
}

impl Store {
    pub(crate) fn get_parameter(
        &self,
        input: &GetParameter,
        host: &Host,
    ) -> Result<Value, ApiError> {
        let missing = || {
            let code = "ParameterNotFound";
            ApiError::client(code, format!("Parameter {} not found.", input.name))
        };
        // `name:3` asks for a version; an ARN names the parameter after `parameter`.
        let name = match input.name.split_once(":parameter") {
            Some((_, rest)) if input.name.starts_with("arn:") => self.of_arn(rest),
            _ => input.name.as_str(),
        };
        let (name, selector) = name.split_once(':').map_or((name, None), |(a, b)| (a, Some(b)));
        let parameter = self.parameters.get(name).ok_or_else(missing)?;
        if selector.is_some_and(|version| version != parameter.version.to_string()) {
            return Err(ApiError::client(
                "ParameterVersionNotFound",
                format!(
                    "Systems Manager could not find version {} of {name}",
                    selector.unwrap_or("")
                ),
            ));
        }
        let value = match (parameter.kind.as_str(), input.with_decryption) {
            // What nobody here could decrypt: the value itself is not in it.
            (SECURE, None | Some(false)) => STANDARD.encode(format!("encrypted:{name}")),
            _ => parameter.value.clone(),
        };
        Ok(json!({"Parameter": {
            "ARN": host.arn("ssm", &format!("parameter/{}", name.trim_start_matches('/'))),
            "DataType": "text",
            "LastModifiedDate": seconds(parameter.modified),
            "Name": name,
            "Type": parameter.kind,
            "Value": value,
            "Version": parameter.version,
        }}))
    }

    /// `/name` of an ARN is the parameter `/name`, or `name` where there is no such.
    fn of_arn<'a>(&self, name: &'a str) -> &'a str {
        let bare = name.strip_prefix('/').unwrap_or(name);
        if self.parameters.contains_key(name) { name } else { bare }
    }

    pub(crate) fn put_parameter(
        &mut self,
        input: PutParameter,
        host: &Host,
    ) -> Result<Value, ApiError> {
        let invalid = |message: &str| ApiError::client("ValidationException", message);
        let named = |it: char| it.is_ascii_alphanumeric() || "_.-/".contains(it);
        if input.name.is_empty()
            || input.name.len() > NAME_CHARS_MAX
            || !input.name.chars().all(named)
        {
            return Err(invalid("Name: expected letters, digits and any of _.-/"));
        }
        if input.value.is_empty() || input.value.len() > VALUE_BYTES_MAX {
            return Err(invalid("Value: expected 1 to 4096 bytes"));
        }
        let former = self.parameters.get(&input.name);
        if former.is_some() && input.overwrite != Some(true) {
            return Err(ApiError::client(
                "ParameterAlreadyExists",
                "The parameter already exists. To overwrite this value, set the overwrite option \
                 in the request to true.",
            ));
        }
        let kind = input.kind.or_else(|| former.map(|former| former.kind.clone()));
        let kind = kind
            .filter(|kind| KINDS.contains(&kind.as_str()))
            .ok_or_else(|| invalid("Type: expected String, StringList or SecureString"))?;
        let version = former.map_or(0, |former| former.version) + 1;
        let parameter = Parameter { kind, value: input.value, version, modified: host.now() };
        self.parameters.insert(input.name, parameter);
        Ok(json!({"Version": version, "Tier": "Standard"}))
    }
}
