//! `archweld.toml`: the images and how they are built.

use std::{collections::BTreeSet, fmt, ops::Range};

use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::{ImageName, Platform, PlatformError, RepositoryName, Source, TagError, TagTemplate};

/// The images of `archweld.toml`, at least one.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    images: Vec<ImageConfig>,
}

/// An `[[image]]` of `archweld.toml`, with every default filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageConfig {
    /// What the image is called in executions and logs.
    pub name: ImageName,
    /// The ECR repository it is pushed to; the name by default.
    pub repository: RepositoryName,
    /// Its git repository; the CodeBuild project's own source by default.
    pub source: Option<Source>,
    /// The folder of the image within the source; the whole source by default.
    pub context: SourcePath,
    /// The Dockerfile's path within the source; `Dockerfile` in the context by default.
    pub dockerfile: SourcePath,
    /// The platform builds' buildspec; the CodeBuild project's own by default.
    pub buildspec: Option<SourcePath>,
    /// The manifest build's buildspec; the CodeBuild project's own by default.
    pub manifest_buildspec: Option<SourcePath>,
    /// What it is built for, in the order of the index's entries.
    pub platforms: Vec<Platform>,
    /// The tags of the index.
    pub tags: Vec<TagTemplate>,
    /// Who makes the index.
    pub publisher: Publisher,
    /// The tag that each platform's image is pushed under.
    pub arch_tag: TagTemplate,
    /// How long a build may run, in minutes.
    pub build_timeout_minutes: u32,
    /// How long a build may wait for a machine, in minutes.
    pub queue_timeout_minutes: u32,
    /// How often a build is tried again after an infrastructure or capacity error.
    pub retries: u32,
}

/// Who makes the index.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Publisher {
    /// A CodeBuild build of the manifest buildspec.
    #[default]
    Build,
    /// The `publish` function, with no further build.
    Lambda,
}

impl Publisher {
    /// The name in `archweld.toml`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Lambda => "lambda",
        }
    }
}

/// A path within the source: relative and never leading out of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SourcePath(String);

impl SourcePath {
    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn join(&self, name: &str) -> Self {
        if self.0 == "." { Self(name.to_owned()) } else { Self(format!("{}/{name}", self.0)) }
    }
}

impl TryFrom<String> for SourcePath {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let path = match text.strip_prefix("./").unwrap_or(&text).trim_end_matches('/') {
            "" if text.starts_with('.') => ".",
            path => path,
        };
        let good =
            |part: &str| !part.is_empty() && part != ".." && !part.contains(char::is_control);
        if path.len() <= 255 && path.split('/').all(good) {
            Ok(Self(path.to_owned()))
        } else {
            Err(format!(
                "path {text:?} is not valid, expected a relative path of at most 255 bytes within \
                 the source"
            ))
        }
    }
}

impl From<SourcePath> for String {
    fn from(path: SourcePath) -> Self {
        path.0
    }
}

/// What is wrong with a configuration, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: {message}")]
pub struct ConfigError {
    /// Counts from 1.
    pub line: usize,
    /// Counts characters from 1.
    pub column: usize,
    /// What is wrong and what was expected.
    pub message: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    image: Vec<Spanned<Table>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    name: Spanned<ImageName>,
    repository: Option<Spanned<RepositoryName>>,
    source: Option<Source>,
    context: Option<SourcePath>,
    dockerfile: Option<SourcePath>,
    buildspec: Option<SourcePath>,
    manifest_buildspec: Option<SourcePath>,
    platforms: Spanned<Vec<Spanned<String>>>,
    tags: Option<Spanned<Vec<Spanned<String>>>>,
    #[serde(default)]
    publisher: Publisher,
    arch_tag: Option<Spanned<TagTemplate>>,
    build_timeout_minutes: Option<Bounded<5, 2160>>,
    queue_timeout_minutes: Option<Bounded<5, 480>>,
    retries: Option<Bounded<0, 5>>,
}

/// A whole number within CodeBuild's bounds
/// (<https://docs.aws.amazon.com/codebuild/latest/APIReference/API_StartBuild.html>).
#[derive(Deserialize)]
#[serde(try_from = "i64")]
struct Bounded<const MIN: u32, const MAX: u32>(u32);

impl<const MIN: u32, const MAX: u32> TryFrom<i64> for Bounded<MIN, MAX> {
    type Error = String;

    fn try_from(number: i64) -> Result<Self, Self::Error> {
        u32::try_from(number)
            .ok()
            .filter(|number| (MIN..=MAX).contains(number))
            .map(Self)
            .ok_or_else(|| format!("{number} is out of bounds, expected {MIN} to {MAX}"))
    }
}

const BUILD_TIMEOUT_MINUTES_DEFAULT: u32 = 60;
const QUEUE_TIMEOUT_MINUTES_DEFAULT: u32 = 60;
const RETRIES_DEFAULT: u32 = 2;
const TAGS_DEFAULT: [&str; 2] = ["{sha7}", "latest"];
const ARCH_TAG_DEFAULT: &str = "{run}-{arch}";
/// Bounds an execution's payloads and history, and the manifest build's environment.
const PLATFORMS_MAX: usize = 6;
/// Bounds the time that `publish` takes: ECR takes 10 `PutImage` a second of an account.
pub(crate) const TAGS_MAX: usize = 50;

impl Config {
    /// Reads the text of `archweld.toml`.
    ///
    /// # Errors
    /// At the first thing that is wrong, with its line and column.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let fail = |span: Range<usize>, message: String| ConfigError::at(text, span.start, message);
        let file: File = toml::from_str(text).map_err(|error: toml::de::Error| {
            fail(error.span().unwrap_or_default(), error.message().to_owned())
        })?;
        if file.image.is_empty() {
            return Err(fail(0..0, "no image, expected at least one `[[image]]`".to_owned()));
        }
        let mut names = BTreeSet::new();
        let mut images = Vec::new();
        for table in file.image {
            let table = table.into_inner();
            if !names.insert(table.name.get_ref().clone()) {
                let message = format!("a second image named {:?}", table.name.get_ref().as_str());
                return Err(fail(table.name.span(), message));
            }
            images.push(table.check(fail)?);
        }
        Ok(Self { images })
    }

    /// Every image, in the order of the file.
    pub fn images(&self) -> &[ImageConfig] {
        &self.images
    }

    /// The image of that name.
    pub fn image(&self, name: &ImageName) -> Option<&ImageConfig> {
        self.images.iter().find(|image| image.name == *name)
    }
}

impl Table {
    fn check(
        self,
        fail: impl Fn(Range<usize>, String) -> ConfigError,
    ) -> Result<ImageConfig, ConfigError> {
        let platforms_span = self.platforms.span();
        let mut platforms = Vec::new();
        for platform in self.platforms.into_inner() {
            let span = platform.span();
            let platform: Platform = platform
                .get_ref()
                .parse()
                .map_err(|error: PlatformError| fail(span.clone(), error.to_string()))?;
            if platforms.contains(&platform) {
                return Err(fail(span, format!("platform {platform} is named twice")));
            }
            platforms.push(platform);
        }
        if platforms.is_empty() || platforms.len() > PLATFORMS_MAX {
            let message = format!(
                "{} platforms, expected 1 to {PLATFORMS_MAX}, such as [\"linux/amd64\", \
                 \"linux/arm64\"]",
                platforms.len()
            );
            return Err(fail(platforms_span, message));
        }

        let tags = match self.tags {
            None => TAGS_DEFAULT.iter().filter_map(|tag| tag.parse().ok()).collect(),
            Some(tags) if tags.get_ref().len() > TAGS_MAX => {
                let message = format!("{} tags, expected at most {TAGS_MAX}", tags.get_ref().len());
                return Err(fail(tags.span(), message));
            }
            Some(tags) => tags
                .into_inner()
                .into_iter()
                .map(|tag| {
                    let template: TagTemplate = tag
                        .get_ref()
                        .parse()
                        .map_err(|error: TagError| fail(tag.span(), error.to_string()))?;
                    if template.is_of_one_architecture() {
                        let message = "{arch} has no value in `tags`: an index is of every \
                                       architecture; it belongs in `arch_tag`";
                        return Err(fail(tag.span(), message.to_owned()));
                    }
                    Ok(template)
                })
                .collect::<Result<_, _>>()?,
        };
        let arch_tag = match self.arch_tag {
            None => ARCH_TAG_DEFAULT.parse().map_err(|error| fail(0..0, format!("{error}")))?,
            Some(tag) if !tag.get_ref().is_of_one_architecture() => {
                let message = "no {arch} in `arch_tag`: the platforms' images would overwrite each \
                               other";
                return Err(fail(tag.span(), message.to_owned()));
            }
            Some(tag) => tag.into_inner(),
        };
        let name_span = self.name.span();
        let name = self.name.into_inner();
        let repository = match self.repository {
            Some(repository) => repository.into_inner(),
            None => name.as_str().parse().map_err(|error| {
                fail(name_span, format!("image {name} needs a `repository` of its own: {error}"))
            })?,
        };
        let context = self.context.unwrap_or_else(|| SourcePath(".".to_owned()));
        Ok(ImageConfig {
            name,
            repository,
            source: self.source,
            dockerfile: self.dockerfile.unwrap_or_else(|| context.join("Dockerfile")),
            context,
            buildspec: self.buildspec,
            manifest_buildspec: self.manifest_buildspec,
            platforms,
            tags,
            publisher: self.publisher,
            arch_tag,
            build_timeout_minutes: self
                .build_timeout_minutes
                .map_or(BUILD_TIMEOUT_MINUTES_DEFAULT, |minutes| minutes.0),
            queue_timeout_minutes: self
                .queue_timeout_minutes
                .map_or(QUEUE_TIMEOUT_MINUTES_DEFAULT, |minutes| minutes.0),
            retries: self.retries.map_or(RETRIES_DEFAULT, |retries| retries.0),
        })
    }
}

impl ConfigError {
    fn at(text: &str, offset: usize, message: String) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            message,
        }
    }
}

impl fmt::Display for SourcePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_defaults_in() {
        let config =
            Config::parse("[[image]]\nname = \"hello\"\nplatforms = [\"linux/amd64\"]\n").unwrap();
        let [image] = config.images() else { panic!("one image") };
        assert_eq!(image.repository.as_str(), "hello");
        assert_eq!(image.dockerfile.as_str(), "Dockerfile");
        assert_eq!(image.arch_tag.to_string(), "{run}-{arch}");
        assert_eq!(image.publisher, Publisher::Build);
        assert_eq!(
            image.tags.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["{sha7}", "latest"]
        );
    }

    #[test]
    fn the_dockerfile_is_in_the_context_by_default() {
        let text = "[[image]]\nname = \"api\"\ncontext = \"./services/api/\"\n\
                    platforms = [\"linux/amd64\"]\n";
        let config = Config::parse(text).unwrap();
        assert_eq!(config.images()[0].dockerfile.as_str(), "services/api/Dockerfile");
    }

    #[test]
    fn the_source_itself_is_a_context_however_it_is_written() {
        for text in [".", "./", "./."] {
            assert_eq!(SourcePath::try_from(text.to_owned()).unwrap().as_str(), ".", "{text}");
        }
        for text in ["", "/", "/etc", "..", "./../x", "a//b"] {
            assert!(SourcePath::try_from(text.to_owned()).is_err(), "{text}");
        }
    }

    #[test]
    fn says_line_column_and_what_was_expected() {
        let message = |rest: &str| {
            let text = format!("[[image]]\nname = \"hello\"\n{rest}");
            Config::parse(&text).unwrap_err().to_string()
        };
        insta::assert_snapshot!(Config::parse("").unwrap_err(), @"1:1: no image, expected at least one `[[image]]`");
        insta::assert_snapshot!(message("platforms = [\"linux/amd64\", \"linux/mips\"]"), @r#"3:29: unknown platform "linux/mips", expected one of linux/amd64, linux/386, linux/arm64, linux/arm/v5, linux/arm/v6, linux/arm/v7"#);
        insta::assert_snapshot!(message("platforms = [\"linux/arm64\", \"linux/arm64/v8\"]"), @"3:29: platform linux/arm64 is named twice");
        insta::assert_snapshot!(message("platforms = []"), @r#"3:13: 0 platforms, expected 1 to 6, such as ["linux/amd64", "linux/arm64"]"#);
        insta::assert_snapshot!(message("platform = []"), @"3:1: unknown field `platform`, expected one of `name`, `repository`, `source`, `context`, `dockerfile`, `buildspec`, `manifest_buildspec`, `platforms`, `tags`, `publisher`, `arch_tag`, `build_timeout_minutes`, `queue_timeout_minutes`, `retries`");
        insta::assert_snapshot!(message("platforms = [\"linux/amd64\"]\ntags = [\"{shaa}\"]"), @r#"4:9: unknown placeholder {shaa} in tag template "{shaa}", expected one of {arch} {branch} {date} {run} {sha} {sha7} {tag}"#);
        insta::assert_snapshot!(message("platforms = [\"linux/amd64\"]\narch_tag = \"latest\""), @"4:12: no {arch} in `arch_tag`: the platforms' images would overwrite each other");
        insta::assert_snapshot!(message("platforms = [\"linux/amd64\"]\narch_tag = \"{arch\""), @r#"4:12: unbalanced brace in tag template "{arch""#);
        insta::assert_snapshot!(message("platforms = [\"linux/amd64\"]\ntags = [\"{arch}\"]"), @"4:9: {arch} has no value in `tags`: an index is of every architecture; it belongs in `arch_tag`");
        insta::assert_snapshot!(message(&format!("platforms = [\"linux/amd64\"]\ntags = {:?}", ["x"; TAGS_MAX + 1])), @"4:8: 51 tags, expected at most 50");
        insta::assert_snapshot!(message("platforms = [\"linux/amd64\"]\nrepository = \"Hello\""), @r#"4:14: repository name "Hello" is not valid, expected 2 to 256 of `a-z 0-9`, with single `.`, `_`, `/` or any number of `-` between them"#);
        insta::assert_snapshot!(message("platforms = [\"linux/amd64\"]\nsource = \"git@github.com:a/b\""), @r#"4:10: source "git@github.com:a/b" is not valid, expected `https://HOST/PATH` of a git repository, without a user or password"#);
        insta::assert_snapshot!(Config::parse("[[image]]\nname = \"a\"\nplatforms = [\"linux/amd64\"]").unwrap_err(), @r#"2:8: image a needs a `repository` of its own: repository name "a" is not valid, expected 2 to 256 of `a-z 0-9`, with single `.`, `_`, `/` or any number of `-` between them"#);
        insta::assert_snapshot!(message("platforms = [\"linux/amd64\"]\nbuild_timeout_minutes = 4"), @"4:25: 4 is out of bounds, expected 5 to 2160");
        insta::assert_snapshot!(message("platforms = [\"linux/amd64\"]\ncontext = \"../x\""), @r#"4:11: path "../x" is not valid, expected a relative path of at most 255 bytes within the source"#);
        insta::assert_snapshot!(message("platforms = [\"linux/amd64\"]\npublisher = \"jenkins\""), @"4:13: unknown variant `jenkins`, expected `build` or `lambda`");
        insta::assert_snapshot!(message("platforms = [\"linux/amd64\"]\n[[image]]\nname = \"hello\"\nplatforms = [\"linux/amd64\"]"), @r#"5:8: a second image named "hello""#);
        insta::assert_snapshot!(message("platforms = [\"linux/amd64\""), @"3:27: unclosed array, expected `]`");
    }
}
