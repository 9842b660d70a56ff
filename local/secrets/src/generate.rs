//! Values that the service makes up.

use archweld_local_api::{ApiError, Host};

const LOWERCASE: &str = "abcdefghijklmnopqrstuvwxyz";
const UPPERCASE: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const NUMBERS: &str = "0123456789";
const PUNCTUATION: &str = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";
const LENGTH_MAX: u32 = 4_096;

/// How a value is made up; as in CloudFormation
/// (<https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-properties-secretsmanager-secret-generatesecretstring.html>).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerateSecretString {
    /// How many characters it has.
    pub length: u32,
    /// Characters that it has none of.
    pub exclude_characters: String,
    /// No small letters.
    pub exclude_lowercase: bool,
    /// No capital letters.
    pub exclude_uppercase: bool,
    /// No digits.
    pub exclude_numbers: bool,
    /// No punctuation.
    pub exclude_punctuation: bool,
    /// The space is one of the characters.
    pub include_space: bool,
    /// At least one of each kind.
    pub require_each: bool,
    /// A JSON object, and the name that the value gets in it.
    pub template: Option<(String, String)>,
}

impl Default for GenerateSecretString {
    /// As the service has it: 32 characters of every kind but the space, at least one of each.
    fn default() -> Self {
        Self {
            length: 32,
            exclude_characters: String::new(),
            exclude_lowercase: false,
            exclude_uppercase: false,
            exclude_numbers: false,
            exclude_punctuation: false,
            include_space: false,
            require_each: true,
            template: None,
        }
    }
}

impl GenerateSecretString {
    pub(crate) fn generate(&self, host: &Host) -> Result<String, ApiError> {
        let invalid = |message: &str| ApiError::client("InvalidParameterException", message);
        let password = self.password(host).ok_or_else(|| {
            invalid("expected a length that holds one of each kind of character, of which some are left")
        })?;
        let Some((template, key)) = &self.template else { return Ok(password) };
        let mut object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(template)
            .map_err(|_| invalid("SecretStringTemplate: expected a JSON object"))?;
        object.insert(key.clone(), password.into());
        Ok(serde_json::Value::Object(object).to_string())
    }

    fn password(&self, host: &Host) -> Option<String> {
        let kinds = [
            (!self.exclude_lowercase, LOWERCASE),
            (!self.exclude_uppercase, UPPERCASE),
            (!self.exclude_numbers, NUMBERS),
            (!self.exclude_punctuation, PUNCTUATION),
            (self.include_space, " "),
        ];
        let kinds = kinds.into_iter().filter(|(included, _)| *included).map(|(_, characters)| {
            let left = characters.chars().filter(|it| !self.exclude_characters.contains(*it));
            left.collect::<Vec<char>>()
        });
        let kinds: Vec<Vec<char>> = kinds.filter(|characters| !characters.is_empty()).collect();
        let all = kinds.concat();
        let length = usize::try_from(self.length.min(LENGTH_MAX)).ok()?;
        let required = if self.require_each { kinds.len() } else { 0 };
        if all.is_empty() || length < required.max(1) {
            return None;
        }
        let below = |bound: usize| {
            let bound = u64::try_from(bound).unwrap_or(u64::MAX);
            // 64 bits over a few thousand values: the bias is below 2^-50.
            usize::try_from(host.random() % bound).unwrap_or_default()
        };
        let any_of = |characters: &[char]| characters[below(characters.len())];
        let mut password: Vec<char> =
            kinds.iter().take(required).map(|kind| any_of(kind)).collect();
        password.resize_with(length, || any_of(&all));
        // Fisher and Yates: otherwise the first characters would tell their kinds.
        for index in (1..length).rev() {
            password.swap(index, below(index + 1));
        }
        Some(password.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Host {
        Host::seeded("000000000000", "us-east-1", jiff::Timestamp::UNIX_EPOCH, 7)
    }

    #[tokio::test]
    async fn has_the_length_and_one_of_each_kind() {
        let host = host();
        for length in 4..64 {
            let rules = GenerateSecretString { length, ..GenerateSecretString::default() };
            let password = rules.generate(&host).unwrap();
            assert_eq!(password.chars().count(), usize::try_from(length).unwrap());
            for kind in [LOWERCASE, UPPERCASE, NUMBERS, PUNCTUATION] {
                assert!(password.contains(|it| kind.contains(it)), "{password}");
            }
        }
    }

    #[tokio::test]
    async fn leaves_out_what_is_excluded() {
        let rules = GenerateSecretString {
            length: 400,
            exclude_punctuation: true,
            exclude_uppercase: true,
            exclude_characters: "abc0".to_owned(),
            ..GenerateSecretString::default()
        };
        let password = rules.generate(&host()).unwrap();
        assert!(password.chars().all(|it| "defghijklmnopqrstuvwxyz123456789".contains(it)));
    }

    #[tokio::test]
    async fn goes_into_a_template() {
        let rules = GenerateSecretString {
            template: Some(("{\"user\": \"a\"}".to_owned(), "secret".to_owned())),
            ..GenerateSecretString::default()
        };
        let value: serde_json::Value =
            serde_json::from_str(&rules.generate(&host()).unwrap()).unwrap();
        assert_eq!(value["user"], "a");
        assert_eq!(value["secret"].as_str().unwrap().len(), 32);
    }

    #[tokio::test]
    async fn refuses_what_cannot_be() {
        let short = GenerateSecretString { length: 3, ..GenerateSecretString::default() };
        assert_eq!(short.generate(&host()).unwrap_err().code, "InvalidParameterException");
        let none = GenerateSecretString {
            exclude_characters: [LOWERCASE, UPPERCASE, NUMBERS, PUNCTUATION].concat(),
            ..GenerateSecretString::default()
        };
        assert!(none.generate(&host()).is_err());
    }
}
