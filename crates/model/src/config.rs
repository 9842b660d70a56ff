//! `archweld.toml`: the images and how they are built.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::Range,
};

use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::{
    Annotations, BaseImage, GitRef, ImageName, Notify, Platform, PlatformError, RefPattern,
    RepositoryName, ScheduleName, Source, TagError, TagTemplate, annotation, notify,
};

/// The images of `archweld.toml`, at least one, and who is told of their runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    images: Vec<ImageConfig>,
    notify: Vec<Notify>,
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
    /// The index's annotations, beside archweld's own.
    pub annotations: Annotations,
    /// Whether to look into each image for the program that it starts, and which processor that
    /// is for.
    pub check_executable: bool,
    /// Whether a platform whose image was published from the same source is not built again.
    pub reuse: bool,
    /// How long a build may run, in minutes.
    pub build_timeout_minutes: u32,
    /// How long a build may wait for a machine, in minutes.
    pub queue_timeout_minutes: u32,
    /// How often a build is tried again after an infrastructure or capacity error.
    pub retries: u32,
    /// The branches and tags whose pushes build it.
    pub refs: Vec<RefPattern>,
    /// The files and folders that it depends on beside its own.
    pub paths: Vec<SourcePath>,
    /// The images of the same registry whose pushes rebuild it.
    pub base_images: Vec<BaseImage>,
    /// Whether a push to a branch stops the older run of that branch.
    pub supersede: bool,
    /// When it is rebuilt without a push.
    pub schedule: Option<ScheduleName>,
    /// What schedules and base images rebuild; where there are any of these, it is there.
    pub schedule_ref: Option<GitRef>,
    /// Whether a schedule rebuilds it only where its source or a base image has moved.
    pub only_if_base_changed: bool,
}

/// What a task waits beyond its build's own time-outs, in seconds: provisioning, uploading, and
/// the way of the event.
const TASK_MARGIN_SECONDS: u32 = 600;

/// The buildspecs of the CodeBuild projects, for images that name none.
const BUILDSPEC: &str = "buildspec.yml";
const MANIFEST_BUILDSPEC: &str = "buildspec-manifest.yml";

impl ImageConfig {
    /// How long a task waits for one of the image's builds to report its end, in seconds.
    pub fn task_timeout_seconds(&self) -> u32 {
        (self.build_timeout_minutes + self.queue_timeout_minutes) * 60 + TASK_MARGIN_SECONDS
    }

    /// The files and folders within the source that the image depends on: when none of them
    /// changes, neither does the image.
    pub fn depends_on(&self) -> Vec<SourcePath> {
        let path = |own: &Option<SourcePath>, default: &str| {
            own.clone().unwrap_or_else(|| SourcePath(default.to_owned()))
        };
        let mut paths =
            vec![self.context.clone(), self.dockerfile.clone(), path(&self.buildspec, BUILDSPEC)];
        if self.manifest_buildspec.is_some() || self.publisher == Publisher::Build {
            paths.push(path(&self.manifest_buildspec, MANIFEST_BUILDSPEC));
        }
        paths.extend(self.paths.iter().cloned());
        paths
    }
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

    /// Whether `file` is this path, within the folder of this path, or a file where this path has
    /// a folder: a symbolic link or a submodule, which holds all below it.
    pub fn holds(&self, file: &str) -> bool {
        let is_below = |path: &str, folder: &str| {
            path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.0 == "." || is_below(file, &self.0) || is_below(&self.0, file)
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
    #[serde(default)]
    notify: Vec<Spanned<notify::Table>>,
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
    #[serde(default)]
    annotations: BTreeMap<Spanned<String>, Spanned<String>>,
    check_executable: Option<bool>,
    reuse: Option<bool>,
    build_timeout_minutes: Option<Bounded<5, 2160>>,
    queue_timeout_minutes: Option<Bounded<5, 480>>,
    retries: Option<Bounded<0, 5>>,
    refs: Option<Spanned<Vec<RefPattern>>>,
    paths: Option<Spanned<Vec<SourcePath>>>,
    base_images: Option<Spanned<Vec<Spanned<BaseImage>>>>,
    supersede: Option<bool>,
    schedule: Option<Spanned<ScheduleName>>,
    schedule_ref: Option<Spanned<GitRef>>,
    only_if_base_changed: Option<Spanned<bool>>,
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
const REFS_DEFAULT: [&str; 2] = ["main", "master"];
/// Bounds the calls that a schedule and the matches that a push take, and the size of the plan.
const TRIGGERS_MAX: usize = 50;
/// Bounds the requests that a run's end takes.
const NOTIFY_MAX: usize = 20;
/// Bounds the index and the plan.
const ANNOTATIONS_MAX: usize = 20;
/// In bytes, name and value together.
const ANNOTATION_BYTES_MAX: usize = 1_024;
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
            let span = table.name.span();
            let image = table.check(fail)?;
            if let Some((other, tag)) = shared_tag(&images, &image) {
                let message = format!(
                    "image {} would have the tag {tag} of image {other}: they have one repository, \
                     {}; give each `tags` of its own, such as \"{}-{tag}\"",
                    image.name, image.repository, image.name
                );
                return Err(fail(span, message));
            }
            images.push(image);
            if let Some(image) = images.last().filter(|image| is_built_on_itself(image, &images)) {
                let message =
                    format!("image {} is built on itself by way of `base_images`", image.name);
                return Err(fail(span, message));
            }
        }
        if let Some(one) = file.notify.get(NOTIFY_MAX) {
            let message = format!("too many `[[notify]]`, expected at most {NOTIFY_MAX}");
            return Err(fail(one.span(), message));
        }
        let known: Vec<&ImageName> = images.iter().map(|image| &image.name).collect();
        let notify = file.notify.into_iter().map(|one| one.into_inner().check(&known, &fail));
        let notify = notify.collect::<Result<_, _>>()?;
        Ok(Self { images, notify })
    }

    /// Who is told of runs, in the order of the file.
    pub fn notify(&self) -> &[Notify] {
        &self.notify
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
        let annotations = check_annotations(self.annotations, &fail)?;
        let refs = bounded("refs", self.refs, &fail)?.unwrap_or_else(|| {
            REFS_DEFAULT.iter().filter_map(|pattern| pattern.parse().ok()).collect()
        });
        let paths = bounded("paths", self.paths, &fail)?.unwrap_or_default();
        let base_images = bounded("base_images", self.base_images, &fail)?.unwrap_or_default();
        let own = |base: &&Spanned<BaseImage>| base.get_ref().repository == repository;
        if let Some(base) = base_images.iter().find(own) {
            let message = format!(
                "base image {} is in the image's own repository: each of its pushes would rebuild \
                 it without end",
                base.get_ref()
            );
            return Err(fail(base.span(), message));
        }
        if let Some(git_ref) = &self.schedule_ref
            && self.schedule.is_none()
            && base_images.is_empty()
        {
            let message = "`schedule_ref` has no meaning without `schedule` or `base_images`";
            return Err(fail(git_ref.span(), message.to_owned()));
        }
        if let Some(only) = self.only_if_base_changed.as_ref().filter(|only| *only.get_ref()) {
            let missing =
                [(self.schedule.is_none(), "schedule"), (base_images.is_empty(), "base_images")];
            if let Some((_, key)) = missing.into_iter().find(|(is_missing, _)| *is_missing) {
                let message = format!("`only_if_base_changed` has no meaning without `{key}`");
                return Err(fail(only.span(), message));
            }
        }
        let asking = self.schedule.as_ref().map(Spanned::span);
        let asking = asking.or_else(|| base_images.first().map(Spanned::span));
        let schedule_ref = match (self.schedule_ref, asking) {
            (Some(git_ref), _) => Some(git_ref.into_inner()),
            (None, None) => None,
            (None, Some(span)) => match refs.iter().find_map(RefPattern::plain_branch) {
                Some(branch) => Some(branch),
                None => {
                    let message = "no entry of `refs` is a plain branch: add `schedule_ref`, the \
                                   branch or tag to rebuild";
                    return Err(fail(span, message.to_owned()));
                }
            },
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
            annotations,
            check_executable: self.check_executable.unwrap_or(true),
            reuse: self.reuse.unwrap_or(true),
            build_timeout_minutes: self
                .build_timeout_minutes
                .map_or(BUILD_TIMEOUT_MINUTES_DEFAULT, |minutes| minutes.0),
            queue_timeout_minutes: self
                .queue_timeout_minutes
                .map_or(QUEUE_TIMEOUT_MINUTES_DEFAULT, |minutes| minutes.0),
            retries: self.retries.map_or(RETRIES_DEFAULT, |retries| retries.0),
            refs,
            paths,
            base_images: base_images.into_iter().map(Spanned::into_inner).collect(),
            supersede: self.supersede.unwrap_or(true),
            schedule: self.schedule.map(Spanned::into_inner),
            schedule_ref,
            only_if_base_changed: self.only_if_base_changed.is_some_and(Spanned::into_inner),
        })
    }
}

fn bounded<T>(
    key: &str,
    entries: Option<Spanned<Vec<T>>>,
    fail: &impl Fn(Range<usize>, String) -> ConfigError,
) -> Result<Option<Vec<T>>, ConfigError> {
    let Some(entries) = entries else { return Ok(None) };
    let (span, entries) = (entries.span(), entries.into_inner());
    if entries.len() > TRIGGERS_MAX {
        let message =
            format!("{} entries of `{key}`, expected at most {TRIGGERS_MAX}", entries.len());
        return Err(fail(span, message));
    }
    Ok(Some(entries))
}

/// Whether each push of an image would in the end cause the next one.
fn is_built_on_itself(image: &ImageConfig, images: &[ImageConfig]) -> bool {
    let mut seen: BTreeSet<&RepositoryName> = BTreeSet::new();
    let mut open = vec![&image.repository];
    while let Some(repository) = open.pop() {
        let of_repository = images.iter().filter(|image| image.repository == *repository);
        for base in of_repository.flat_map(|image| &image.base_images) {
            if seen.insert(&base.repository) {
                open.push(&base.repository);
            }
        }
    }
    seen.contains(&image.repository)
}

/// A tag that an image would have in common with another of the same repository.
fn shared_tag<'a>(
    known: &'a [ImageConfig],
    image: &'a ImageConfig,
) -> Option<(&'a ImageName, &'a TagTemplate)> {
    known.iter().filter(|other| other.repository == image.repository).find_map(|other| {
        let shared =
            image.tags.iter().find(|tag| other.tags.iter().any(|known| known.is_like(tag)));
        shared.map(|tag| (&other.name, tag))
    })
}

fn check_annotations(
    annotations: BTreeMap<Spanned<String>, Spanned<String>>,
    fail: &impl Fn(Range<usize>, String) -> ConfigError,
) -> Result<Annotations, ConfigError> {
    let mut checked = Annotations::new();
    for (name, value) in annotations {
        let span = name.span();
        let (name, value) = (name.into_inner(), value.into_inner());
        let problem = if annotation::is_reserved(&name) {
            Some(format!("annotation {name:?} is archweld's own to set"))
        } else if name.is_empty() || name.contains(char::is_control) {
            Some(format!(
                "annotation {name:?} is not valid, expected a name such as \"org.opencontainers.image.title\""
            ))
        } else if name.len() + value.len() > ANNOTATION_BYTES_MAX {
            Some(format!(
                "annotation {name:?} is too long, expected at most {ANNOTATION_BYTES_MAX} bytes"
            ))
        } else if checked.len() == ANNOTATIONS_MAX {
            Some(format!("too many annotations, expected at most {ANNOTATIONS_MAX}"))
        } else {
            None
        };
        if let Some(problem) = problem {
            return Err(fail(span, problem));
        }
        checked.insert(name, value);
    }
    Ok(checked)
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

    fn image(rest: &str) -> Result<ImageConfig, ConfigError> {
        let text = format!("[[image]]\nname = \"hello\"\nplatforms = [\"linux/amd64\"]\n{rest}");
        Config::parse(&text).map(|config| config.images()[0].clone())
    }

    #[test]
    fn a_path_holds_itself_and_what_is_below_it() {
        let path = |text: &str| SourcePath::try_from(text.to_owned()).unwrap();
        assert!(path("libs/a").holds("libs/a") && path("libs/a").holds("libs/a/b.rs"));
        assert!(!path("libs/a").holds("libs/ab") && !path("libs/a").holds("lib"));
        assert!(path("libs/a").holds("libs"), "a link or a submodule that moved");
        assert!(!path("libs/a").holds(""));
        assert!(path(".").holds("anything"));
    }

    #[test]
    fn an_image_depends_on_the_projects_buildspecs_where_it_has_none_of_its_own() {
        let of = |rest: &str| {
            let paths = image(rest).unwrap().depends_on();
            paths.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(of(""), ". Dockerfile buildspec.yml buildspec-manifest.yml");
        let rest =
            "context = \"api\"\nbuildspec = \"b.yml\"\npublisher = \"lambda\"\npaths = [\"libs\"]";
        assert_eq!(of(rest), "api api/Dockerfile b.yml libs");
    }

    #[test]
    fn a_schedule_follows_the_first_plain_branch_of_refs() {
        let of = |rest: &str| image(rest).unwrap().schedule_ref.map(String::from);
        assert_eq!(of("schedule = \"nightly\"").as_deref(), Some("main"));
        let rest = "refs = [\"release/*\", \"refs/heads/next\"]\nbase_images = [\"base\"]";
        assert_eq!(of(rest).as_deref(), Some("refs/heads/next"));
        let rest = "schedule = \"nightly\"\nschedule_ref = \"refs/tags/stable\"";
        assert_eq!(of(rest).as_deref(), Some("refs/tags/stable"));
        assert_eq!(of(""), None);
    }

    #[test]
    fn says_what_is_wrong_with_triggers() {
        let message = |rest: &str| image(rest).unwrap_err().to_string();
        insta::assert_snapshot!(message("schedule_ref = \"main\""), @"4:16: `schedule_ref` has no meaning without `schedule` or `base_images`");
        insta::assert_snapshot!(message("base_images = [\"base\", \"hello:3\"]"), @"4:24: base image hello:3 is in the image's own repository: each of its pushes would rebuild it without end");
        insta::assert_snapshot!(message("base_images = [\"Base\"]"), @r#"4:15: base image "Base": repository name "Base" is not valid, expected 2 to 256 of `a-z 0-9`, with single `.`, `_`, `/` or any number of `-` between them"#);
        insta::assert_snapshot!(message("base_images = [\"base:\"]"), @r#"4:15: base image "base:": tag "" is not valid, expected 1 to 128 of `A-Z a-z 0-9 _ . -`, not beginning with `.` or `-`"#);
        insta::assert_snapshot!(message("base_images = [\"base:archweld.x\"]"), @r#"4:15: base image "base:archweld.x": tag "archweld.x" is reserved: tags that begin with `archweld.` are archweld's own"#);
        insta::assert_snapshot!(message("schedule = \"every night\""), @r#"4:12: schedule "every night" is not valid, expected 1 to 64 of `A-Z a-z 0-9 - _ .`"#);
        insta::assert_snapshot!(message("schedule = \"nightly\"\nrefs = [\"release/*\"]"), @"4:12: no entry of `refs` is a plain branch: add `schedule_ref`, the branch or tag to rebuild");
        insta::assert_snapshot!(message("schedule = \"nightly\"\nonly_if_base_changed = true"), @"5:24: `only_if_base_changed` has no meaning without `base_images`");
        insta::assert_snapshot!(message("base_images = [\"base\"]\nonly_if_base_changed = true"), @"5:24: `only_if_base_changed` has no meaning without `schedule`");
        insta::assert_snapshot!(message("refs = [\"refs/pull/*\"]"), @r#"4:8: ref pattern "refs/pull/*" is not valid, expected branches or tags, such as `main`, `release/*` or `refs/tags/v*`"#);
        insta::assert_snapshot!(message("refs = [\"\"]"), @r#"4:8: ref pattern "" is not valid, expected branches or tags, such as `main`, `release/*` or `refs/tags/v*`"#);
        insta::assert_snapshot!(message("paths = [\"/etc\"]"), @r#"4:9: path "/etc" is not valid, expected a relative path of at most 255 bytes within the source"#);
        insta::assert_snapshot!(message("base_images = [\"b2\"]\n[[image]]\nname = \"b2\"\nplatforms = [\"linux/amd64\"]\nbase_images = [\"c3\"]\n[[image]]\nname = \"c3\"\nplatforms = [\"linux/amd64\"]\nbase_images = [\"hello\"]"), @"10:8: image c3 is built on itself by way of `base_images`");
        insta::assert_snapshot!(message(&format!("paths = {:?}", ["x"; TRIGGERS_MAX + 1])), @"4:9: 51 entries of `paths`, expected at most 50");
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
        insta::assert_snapshot!(message("platform = []"), @"3:1: unknown field `platform`, expected one of `name`, `repository`, `source`, `context`, `dockerfile`, `buildspec`, `manifest_buildspec`, `platforms`, `tags`, `publisher`, `arch_tag`, `annotations`, `check_executable`, `reuse`, `build_timeout_minutes`, `queue_timeout_minutes`, `retries`, `refs`, `paths`, `base_images`, `supersede`, `schedule`, `schedule_ref`, `only_if_base_changed`");
        insta::assert_snapshot!(message("platforms = [\"linux/amd64\"]\ntags = [\"{shaa}\"]"), @r#"4:9: unknown placeholder {shaa} in tag template "{shaa}", expected one of {arch} {branch} {date} {run} {sha} {sha7} {tag} {semver.major} {semver.minor} {semver.patch}"#);
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
        insta::assert_snapshot!(message("platforms = [\"linux/amd64\"]\nannotations = { \"dev.archweld.sequence\" = \"1\" }"), @r#"4:17: annotation "dev.archweld.sequence" is archweld's own to set"#);
        insta::assert_snapshot!(message(&format!("platforms = [\"linux/amd64\"]\nannotations = {{ a = {:?} }}", "x".repeat(1_024))), @r#"4:17: annotation "a" is too long, expected at most 1024 bytes"#);
        insta::assert_snapshot!(message("platforms = [\"linux/amd64\"]\n[[image]]\nname = \"web\"\nrepository = \"hello\"\nplatforms = [\"linux/amd64\"]\ntags = [\"web-{sha7}\", \"latest@main\"]"), @r#"5:8: image web would have the tag latest@main of image hello: they have one repository, hello; give each `tags` of its own, such as "web-latest@main""#);
        insta::assert_snapshot!(message("platforms = [\"linux/amd64\""), @"3:27: unclosed array, expected `]`");
    }
}
