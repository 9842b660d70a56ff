//! The plan of one run: everything that the later steps need, decided once.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    Annotations, Architecture, Attestation, Commit, Config, Digest, Environment, ErrorName,
    ExecutionInput, GitRef, ImageConfig, ImageName, ImageTag, InputError, MovingTag, Named,
    Platform, Publisher, RepositoryName, Run, RunTags, Sequence, SourceTree, TagError, TagTemplate,
    Trigger, annotation, tag::RESERVED_PREFIX, variable,
};

/// How long a build's environment variables may be together, in characters: names and values,
/// the task token included. AWS's troubleshooting page named 5,500 as the point near which builds
/// fail to provision.
pub const CHARACTERS_MAX: usize = 5_500;

/// What the task token and the retry count may add to an environment, in characters. Captured
/// tokens have up to 712; AWS's guide allows 1,024.
const TOKEN_CHARACTERS_MAX: usize = 1_024 + 64;

/// The plan of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The run.
    pub run: Run,
    /// The execution's ARN.
    pub execution: String,
    /// The image.
    pub image: ImageName,
    /// The host of the registry.
    pub registry: String,
    /// The repository within the registry.
    pub repository: RepositoryName,
    /// The branch or tag that is built, where it is known.
    #[serde(rename = "ref")]
    pub git_ref: Option<GitRef>,
    /// The commit that is built, where it is known.
    pub commit: Option<Commit>,
    /// What started the execution.
    pub trigger: Option<Trigger>,
    /// Where the run stands in the order of runs.
    pub sequence: Sequence,
    /// Who makes the index.
    pub publisher: Publisher,
    /// The tag of the run's own, under which the index is made before any other tag points at it.
    pub tag: ImageTag,
    /// The tags that never move.
    pub fixed_tags: Vec<ImageTag>,
    /// The tags that move from run to run.
    pub moving_tags: Vec<MovingTag>,
    /// The tag under which a later run finds this run's images, where it is known what they are
    /// built from.
    pub built_tag: Option<ImageTag>,
    /// Whether images that an earlier run published may stand for this run's.
    pub reuse: bool,
    /// Whether this run's images may stand for a later run's: it has all that the configuration asks
    /// for.
    pub record: bool,
    /// The tag templates that this run has no values for.
    pub tags_left_out: Vec<TagTemplate>,
    /// The annotations of an index that archweld makes, but for those that its images tell.
    pub annotations: Annotations,
    /// Whether to look into each image for the program that it starts.
    pub check_executable: bool,
    /// The platforms, in the order of the index's entries.
    pub platforms: Vec<PlannedPlatform>,
    /// The index that an earlier run made of these very images, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Built>,
    /// The manifest build, where a build makes the index.
    pub manifest: Option<BuildRequest>,
}

/// One platform of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedPlatform {
    /// The platform.
    pub platform: Platform,
    /// Its build.
    pub build: BuildRequest,
    /// The image that an earlier run published, where this run need not build it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reused: Option<Built>,
}

/// A build to start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BuildRequest {
    /// What is built, for people: a platform, or `manifest`.
    pub target: String,
    /// The CodeBuild project.
    pub project: String,
    /// The source, where it is not the project's own.
    pub source: Option<crate::Source>,
    /// The commit, branch or tag; the source's default branch where there is none.
    pub source_version: Option<String>,
    /// The buildspec's path, where it is not the project's own.
    pub buildspec: Option<String>,
    /// The environment, as far as it is known when the plan is made.
    pub environment: Environment,
    /// How long the build may run, in minutes.
    pub build_timeout_minutes: u32,
    /// How long the build may wait for a machine, in minutes.
    pub queue_timeout_minutes: u32,
    /// How long the state machine waits for it, in seconds.
    pub timeout_seconds: u32,
    /// How often it is tried again after an infrastructure or capacity error.
    pub retries: u32,
}

/// What a successful build reports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BuildOutcome {
    /// What was built: a platform, or `manifest`.
    pub target: String,
    /// The pushed manifest or index.
    #[serde(flatten)]
    pub built: Built,
    /// The CodeBuild build.
    pub build_id: String,
    /// Where its log can be read.
    pub log: Option<String>,
    /// How long it took.
    pub timing: TimingSeconds,
}

/// A manifest or an index in the registry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Built {
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// The size of the manifest or index itself, in bytes.
    pub manifest_bytes: u64,
    /// The size of an image's layers and config as they are stored, in bytes; 0 for an index.
    pub size_bytes: u64,
    /// The attestations that were pushed with an image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attestations: Vec<Attestation>,
}

/// How long a build took, in seconds, phase by phase.
pub type TimingSeconds = BTreeMap<String, f64>;

/// What `publish` reports: the output of the execution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Published {
    /// The image.
    pub image: ImageName,
    /// The run.
    pub run: Run,
    /// `<registry>/<repository>`
    pub repository_uri: String,
    /// The index's digest.
    pub digest: Digest,
    /// The index's media type.
    pub media_type: String,
    /// The tags that point at it, the run's own first.
    pub tags: Vec<ImageTag>,
    /// The tags that stay where an earlier run of the same source set them.
    pub tags_kept: Vec<ImageTag>,
    /// The moving tags that belong to a newer run.
    pub tags_ahead: Vec<ImageTag>,
    /// The tag templates that this run has no values for, or that are for another ref.
    pub tags_left_out: Vec<TagTemplate>,
    /// The digest of each platform's image, in the order of the index's entries.
    pub platforms: Vec<PublishedPlatform>,
}

/// One platform of a published image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PublishedPlatform {
    /// The platform.
    pub platform: Platform,
    /// Its image's digest.
    pub digest: Digest,
    /// The size of its layers and config as they are stored, in bytes.
    pub size_bytes: u64,
    /// Whether an earlier run built it.
    pub reused: bool,
    /// What the program that the image starts is made for.
    pub executable: ExecutableCheck,
}

/// What became of the look into an image for the program that it starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecutableCheck {
    /// It runs on the image's platform: its path, and what it is made for.
    Confirmed(String),
    /// It could not be told, and why.
    Unknown(String),
    /// Nobody looked: `check_executable = false`.
    Off,
}

/// The execution that a plan is made for: what the state machine knows of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Execution {
    /// Its ARN.
    pub arn: String,
    /// Its name.
    pub name: String,
    /// When it began.
    pub start_time: Timestamp,
}

/// What a deployment has, as far as plans name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// The host of the registry.
    pub registry: String,
    /// The git repository of images that name no `source`.
    pub source: String,
    /// The CodeBuild projects.
    pub projects: Projects,
}

/// The CodeBuild projects that a deployment has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Projects {
    /// Builds for x86.
    pub amd64: String,
    /// Builds for Arm.
    pub arm64: String,
    /// Makes indexes.
    pub manifest: String,
}

/// Why no plan can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The input does not fit.
    #[error(transparent)]
    Input(#[from] InputError),
    /// No image of that name, or none named where there are several.
    #[error("execution input: image: {problem}, expected one of {known}")]
    Image {
        /// What was found.
        problem: String,
        /// The images that there are.
        known: String,
    },
    /// No platform, or one twice.
    #[error("execution input: platforms: {0}")]
    Platforms(String),
    /// Too many tags, or one that an index cannot have.
    #[error("execution input: tags: {0}")]
    Tags(String),
    /// A tag that would not be valid.
    #[error("tags: {0}")]
    Tag(#[from] TagError),
    /// A sequence from the future.
    #[error(
        "execution input: trigger.sequence: {sequence} is more than an hour ahead of the \
         execution's start, expected milliseconds since 1970, at most about {start}"
    )]
    Sequence {
        /// The sequence.
        sequence: Sequence,
        /// When the execution began.
        start: Sequence,
    },
    /// A build's environment that is too long.
    #[error(
        "the environment of the {target} build would have {characters} characters, expected at \
         most {CHARACTERS_MAX}: shorten names, paths or `arch_tag`"
    )]
    Environment {
        /// The build.
        target: String,
        /// Its environment's length.
        characters: usize,
    },
}

impl Named for PlanError {
    fn name(&self) -> ErrorName {
        ErrorName::PlanInvalid
    }
}

impl PlanError {
    /// The path of the input's field that is to blame, such as `trigger.sequence`.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Input(error) => error.field(),
            Self::Image { .. } => Some("image"),
            Self::Platforms(_) => Some("platforms"),
            Self::Tags(_) | Self::Tag(_) => Some("tags"),
            Self::Sequence { .. } => Some("trigger.sequence"),
            Self::Environment { .. } => None,
        }
    }
}

impl Projects {
    /// The project that builds for a platform natively. Arm's 64-bit machines run its 32-bit
    /// programs, too, as x86's do.
    fn of(&self, platform: Platform) -> &str {
        match platform.architecture() {
            Architecture::Amd64 | Architecture::I386 => &self.amd64,
            Architecture::Arm64
            | Architecture::Arm32v5
            | Architecture::Arm32v6
            | Architecture::Arm32v7 => &self.arm64,
        }
    }
}

impl Plan {
    /// Makes the plan of an execution.
    ///
    /// # Errors
    /// When the input does not fit the configuration.
    pub fn new(
        config: &Config,
        input: ExecutionInput,
        execution: Execution,
        deployment: &Deployment,
    ) -> Result<Self, PlanError> {
        let Deployment { registry, source, projects } = deployment;
        let image = choose(config, input.image.as_ref())?;
        let platforms = input.platforms.clone().unwrap_or_else(|| image.platforms.clone());
        check_platforms(&platforms)?;
        let publisher = input.publisher.unwrap_or(image.publisher);
        let force = input.is_forced();
        let tags = RunTags::new(image, &input, &execution)?;
        let run = &tags.run;

        let source_version = input.commit.as_ref().map(Commit::as_str).or_else(|| {
            input.git_ref.as_ref().and_then(|git_ref| git_ref.tag().or(git_ref.branch()))
        });
        let request = Request { image, execution: &execution, run, source_version, force };
        let planned = platforms
            .iter()
            .map(|&platform| {
                let tag = tags.of_platform(platform, image, &input, &execution)?;
                let build = request.platform(platform, &tag, projects)?;
                Ok(PlannedPlatform { platform, build, reused: None })
            })
            .collect::<Result<Vec<_>, PlanError>>()?;
        let manifest = match publisher {
            Publisher::Build => Some(request.manifest(&platforms, &tags.own, projects)?),
            Publisher::Lambda => None,
        };
        let built_tag = built_tag(image, &input.commit, input.tree.as_ref())?;
        let mut annotations = image.annotations.clone();
        let source = image.source.as_ref().map_or(source.as_str(), |source| source.as_str());
        for (name, value) in [
            (annotation::SOURCE, Some(source)),
            (annotation::REVISION, input.commit.as_ref().map(Commit::as_str)),
            (
                annotation::REF_NAME,
                input.git_ref.as_ref().and_then(|git_ref| git_ref.branch().or(git_ref.tag())),
            ),
            (annotation::SEQUENCE, Some(tags.sequence.to_string().as_str())),
        ] {
            if let Some(value) = value {
                annotations.insert(name.to_owned(), value.to_owned());
            }
        }
        Ok(Self {
            reuse: image.reuse && !force && built_tag.is_some(),
            record: input.tags.is_none()
                && image.platforms.iter().all(|platform| platforms.contains(platform)),
            check_executable: image.check_executable,
            index: None,
            sequence: tags.sequence,
            built_tag,
            annotations,
            image: image.name.clone(),
            registry: registry.clone(),
            repository: image.repository.clone(),
            git_ref: input.git_ref,
            commit: input.commit,
            trigger: input.trigger,
            publisher,
            tag: tags.own,
            fixed_tags: tags.fixed,
            moving_tags: tags.moving,
            tags_left_out: tags.left_out,
            platforms: planned,
            manifest,
            execution: execution.arn,
            run: tags.run,
        })
    }
}

/// The tag under which images of one source and one way to build them are found again: for a
/// commit, or for what the image depends on within it where that is known.
///
/// # Errors
/// Never: what it is made of is a tag.
pub fn built_tag(
    image: &ImageConfig,
    commit: &Option<Commit>,
    tree: Option<&SourceTree>,
) -> Result<Option<ImageTag>, TagError> {
    let commit = commit.as_ref().filter(|commit| commit.is_whole()).map(Commit::as_str);
    let source = match (tree, commit) {
        (Some(tree), _) => ("tree", tree.as_str()),
        (None, Some(commit)) => ("commit", commit),
        (None, None) => return Ok(None),
    };
    let paths = [
        Some(&image.context),
        Some(&image.dockerfile),
        image.buildspec.as_ref(),
        image.manifest_buildspec.as_ref(),
    ];
    let paths = paths.map(|path| path.map(|path| path.as_str()));
    let repository = image.source.as_ref().map(|source| source.as_str());
    let key = serde_json::json!([source, repository, image.name, paths, image.annotations]);
    let hash = hex::encode(&Sha256::digest(key.to_string())[..16]);
    format!("{RESERVED_PREFIX}built.{hash}").parse().map(Some)
}

pub(crate) fn choose<'a>(
    config: &'a Config,
    name: Option<&ImageName>,
) -> Result<&'a ImageConfig, PlanError> {
    let problem = match (name, config.images()) {
        (None, [image]) => return Ok(image),
        (None, _) => "missing".to_owned(),
        (Some(name), _) => match config.image(name) {
            Some(image) => return Ok(image),
            None => format!("unknown image {:?}", name.as_str()),
        },
    };
    let known: Vec<&str> = config.images().iter().map(|image| image.name.as_str()).collect();
    Err(PlanError::Image { problem, known: known.join(", ") })
}

fn check_platforms(platforms: &[Platform]) -> Result<(), PlanError> {
    if platforms.is_empty() {
        return Err(PlanError::Platforms("none, expected at least one".to_owned()));
    }
    let twice = platforms.iter().enumerate().find(|(index, platform)| {
        platforms.iter().take(*index).any(|earlier| earlier == *platform)
    });
    match twice {
        Some((_, platform)) => Err(PlanError::Platforms(format!("{platform} is named twice"))),
        None => Ok(()),
    }
}

/// What the builds of one run have in common.
struct Request<'a> {
    image: &'a ImageConfig,
    execution: &'a Execution,
    run: &'a Run,
    source_version: Option<&'a str>,
    force: bool,
}

impl Request<'_> {
    fn platform(
        &self,
        platform: Platform,
        tag: &ImageTag,
        projects: &Projects,
    ) -> Result<BuildRequest, PlanError> {
        let mut environment = self.environment(tag, !self.image.arch_tag.is_of_run());
        environment.set(variable::IMAGE_ARCH, platform.architecture().image_name());
        environment.set(variable::IMAGE_PLATFORM, platform);
        environment.set(variable::IMAGE_CONTEXT, self.image.context.as_str());
        environment.set(variable::IMAGE_DOCKERFILE, self.image.dockerfile.as_str());
        let buildspec = self.image.buildspec.as_ref();
        let project = projects.of(platform).to_owned();
        self.build(platform.to_string(), project, buildspec, environment, 0)
    }

    fn manifest(
        &self,
        platforms: &[Platform],
        tag: &ImageTag,
        projects: &Projects,
    ) -> Result<BuildRequest, PlanError> {
        let sources = BuildRequest::sources(
            platforms.iter().map(|platform| (platform.to_string(), Digest::of(b""))),
        );
        let sources_characters = variable::IMAGE_SOURCES.len() + sources.chars().count();
        let environment = self.environment(tag, false);
        let buildspec = self.image.manifest_buildspec.as_ref();
        let project = projects.manifest.clone();
        self.build("manifest".to_owned(), project, buildspec, environment, sources_characters)
    }

    fn environment(&self, tag: &ImageTag, is_shared: bool) -> Environment {
        [
            (variable::IMAGE_REPO_NAME, self.image.repository.as_str()),
            (variable::IMAGE_TAG, tag.as_str()),
            (variable::RUN, self.run.as_str()),
            (variable::EXECUTION, &self.execution.arn),
        ]
        .into_iter()
        .chain(self.force.then_some((variable::FORCE, "1")))
        .chain(is_shared.then_some((variable::SHARED_TAG, "1")))
        .collect()
    }

    fn build(
        &self,
        target: String,
        project: String,
        buildspec: Option<&crate::SourcePath>,
        environment: Environment,
        sources_characters: usize,
    ) -> Result<BuildRequest, PlanError> {
        let characters = environment.characters() + sources_characters + TOKEN_CHARACTERS_MAX;
        if characters > CHARACTERS_MAX {
            return Err(PlanError::Environment { target, characters });
        }
        let (build, queue) = (self.image.build_timeout_minutes, self.image.queue_timeout_minutes);
        Ok(BuildRequest {
            target,
            project,
            source: self.image.source.clone(),
            source_version: self.source_version.map(str::to_owned),
            buildspec: buildspec.map(|path| path.as_str().to_owned()),
            environment,
            build_timeout_minutes: build,
            queue_timeout_minutes: queue,
            timeout_seconds: self.image.task_timeout_seconds(),
            retries: self.image.retries,
        })
    }
}

impl BuildRequest {
    /// The value of `IMAGE_SOURCES`: `<platform>=<digest>`, separated by spaces.
    pub fn sources(images: impl IntoIterator<Item = (String, Digest)>) -> String {
        let sources: Vec<String> =
            images.into_iter().map(|(target, digest)| format!("{target}={digest}")).collect();
        sources.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::config::TAGS_MAX;

    const TWO_IMAGES: &str = r#"
        [[image]]
        name = "api"
        platforms = ["linux/amd64", "linux/arm64"]
        tags = ["{sha7}", "{branch}", "latest"]
        [[image]]
        name = "web"
        platforms = ["linux/amd64"]
        publisher = "lambda"
        "#;

    fn plan(input: Value) -> Result<Plan, PlanError> {
        plan_of("arn:aws:states:us-east-1:000000000000:execution:archweld:r1", "r1", input)
    }

    fn plan_of(arn: &str, name: &str, input: Value) -> Result<Plan, PlanError> {
        let execution = Execution {
            arn: arn.to_owned(),
            name: name.to_owned(),
            start_time: "2026-11-23T10:00:00.000Z".parse().unwrap(),
        };
        let projects = Projects {
            amd64: "img-amd64".to_owned(),
            arm64: "img-arm64".to_owned(),
            manifest: "img-manifest".to_owned(),
        };
        let deployment = Deployment {
            registry: "registry.example".to_owned(),
            source: "https://github.com/archweld/hello.git".to_owned(),
            projects,
        };
        let config = Config::parse(TWO_IMAGES).unwrap();
        let input = ExecutionInput::parse(input)?;
        Plan::new(&config, input, execution, &deployment)
    }

    fn moving(plan: &Plan) -> Vec<&str> {
        plan.moving_tags.iter().map(|moving| moving.tag.as_str()).collect()
    }

    #[test]
    fn each_platform_has_a_native_project_and_a_tag_of_the_run() {
        let plan =
            plan(json!({"image": "api", "platforms": ["linux/arm/v7", "linux/386"]})).unwrap();
        let builds: Vec<_> = plan
            .platforms
            .iter()
            .map(|planned| {
                let environment = &planned.build.environment;
                (
                    planned.build.project.as_str(),
                    environment.get(variable::IMAGE_TAG).unwrap(),
                    environment.get(variable::IMAGE_ARCH).unwrap(),
                )
            })
            .collect();
        assert_eq!(
            builds,
            [("img-arm64", "r1-arm32v7", "arm32v7"), ("img-amd64", "r1-i386", "i386")]
        );
    }

    #[test]
    fn tags_are_fixed_moving_or_left_out() {
        let unknown = plan(json!({"image": "api"})).unwrap();
        assert_eq!(moving(&unknown), ["latest"]);
        assert_eq!(unknown.tags_left_out.len(), 2);

        let commit = "0123456789abcdef0123456789abcdef01234567";
        let known =
            plan(json!({"image": "api", "ref": "refs/heads/main", "commit": commit})).unwrap();
        assert_eq!(known.fixed_tags, ["0123456".parse().unwrap()]);
        assert_eq!(moving(&known), ["main", "latest"]);
        assert_eq!(known.platforms[0].build.source_version.as_deref(), Some(commit));
    }

    #[test]
    fn a_manifest_build_is_planned_where_a_build_publishes() {
        assert!(plan(json!({"image": "api"})).unwrap().manifest.is_some());
        assert!(plan(json!({"image": "web"})).unwrap().manifest.is_none());
    }

    #[test]
    fn refuses_what_cannot_be_planned() {
        let message = |input| plan(input).unwrap_err().to_string();
        insta::assert_snapshot!(message(json!({})), @"execution input: image: missing, expected one of api, web");
        insta::assert_snapshot!(message(json!({"image": "ap"})), @r#"execution input: image: unknown image "ap", expected one of api, web"#);
        insta::assert_snapshot!(message(json!({"image": "api", "tags": ["x-{arch}"]})), @"execution input: tags: {arch} has no value in x-{arch}: an index is of every architecture");
        insta::assert_snapshot!(message(json!({"image": "api", "tags": vec!["x"; TAGS_MAX + 1]})), @"execution input: tags: 51 tags, expected at most 50");
        insta::assert_snapshot!(message(json!({"image": "api", "ref": "b".repeat(129)})), @r#"tags: tag "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb" is not valid, expected 1 to 128 of `A-Z a-z 0-9 _ . -`, not beginning with `.` or `-`"#);
        insta::assert_snapshot!(message(json!({"image": "api", "ref": "b".repeat(110)})), @r#"tags: moving tag "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb" is 5 characters too long: it is repeated in the tag that keeps its order"#);
        insta::assert_snapshot!(message(json!({"image": "api", "trigger": {"sequence": 1_795_428_000_000_000_u64}})), @"execution input: trigger.sequence: 1795428000000000 is more than an hour ahead of the execution's start, expected milliseconds since 1970, at most about 1795428000000");
        insta::assert_snapshot!(plan_of("arn", "archweld.x", json!({"image": "api"})).unwrap_err(), @r#"tags: tag "archweld.x" is reserved: tags that begin with `archweld.` are archweld's own"#);
        insta::assert_snapshot!(message(json!({"image": "api", "platforms": []})), @"execution input: platforms: none, expected at least one");
        insta::assert_snapshot!(message(json!({"image": "api", "platforms": ["linux/arm64", "linux/arm64/v8"]})), @"execution input: platforms: linux/arm64 is named twice");
    }

    #[test]
    fn tags_that_agree_are_one_tag_fixed_where_one_of_them_is() {
        let tags = json!(["{branch}", "main", "{run}", "r1", "{sha7}", "0123456", "latest"]);
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let input = json!({"image": "api", "ref": "main", "commit": commit, "tags": tags});
        let plan = plan(input).unwrap();
        assert_eq!(plan.tag.as_str(), "r1");
        assert_eq!(plan.fixed_tags, ["0123456".parse().unwrap()]);
        assert_eq!(moving(&plan), ["main", "latest"]);
    }

    #[test]
    fn a_run_without_a_sequence_has_the_time_of_its_start() {
        assert_eq!(u64::from(plan(json!({"image": "api"})).unwrap().sequence), 1_795_428_000_000);
        let input = json!({"image": "api", "trigger": {"sequence": 7}});
        assert_eq!(u64::from(plan(input).unwrap().sequence), 7);
    }

    #[test]
    fn parts_of_a_version_make_tags_that_follow_versions() {
        let tags = json!([
            "{semver.major}",
            "{semver.major}.{semver.minor}",
            "{semver.major}.{semver.minor}.{semver.patch}",
            "latest",
        ]);
        let trigger = json!({"sequence": 7});
        let input =
            json!({"image": "api", "ref": "refs/tags/v1.2.3", "tags": tags, "trigger": trigger});
        let plan = plan(input).unwrap();
        assert_eq!(plan.fixed_tags, ["1.2.3".parse().unwrap()]);
        assert_eq!(moving(&plan), ["1", "1.2", "latest"]);
        let markers: Vec<_> =
            plan.moving_tags.iter().map(|moving| moving.marker().unwrap().to_string()).collect();
        assert_eq!(markers, ["archweld.1.1-2-3-7", "archweld.1.2.1-2-3-7", "archweld.latest.7"]);
    }

    #[test]
    fn an_image_is_built_again_only_when_its_source_or_the_way_to_build_it_changed() {
        const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
        let of = |input: Value| {
            let plan = plan(input).unwrap();
            plan.reuse.then_some(plan.built_tag).flatten()
        };
        let first = of(json!({"image": "api", "commit": COMMIT}));
        assert!(first.as_ref().unwrap().as_str().starts_with("archweld.built."));
        let again = json!({"image": "api", "commit": COMMIT, "ref": "main", "tags": ["x"]});
        assert_eq!(of(again), first);
        let other = COMMIT.replace('0', "1");
        for changed in [
            json!({"image": "api", "commit": other}),
            json!({"image": "web", "commit": COMMIT}),
            json!({"image": "api", "commit": COMMIT, "tree": COMMIT}),
        ] {
            assert!(of(changed.clone()).is_some_and(|tag| Some(tag) != first), "{changed}");
        }
        let tree = |commit| of(json!({"image": "api", "commit": commit, "tree": COMMIT}));
        assert_eq!(tree(COMMIT), tree(&other), "equal trees of two commits");
        for unknown in [
            json!({"image": "api"}),
            json!({"image": "api", "ref": "main"}),
            json!({"image": "api", "commit": "0123456"}),
            json!({"image": "api", "commit": COMMIT, "force": true}),
            json!({"image": "api", "commit": COMMIT, "trigger": {"kind": "schedule"}}),
        ] {
            assert_eq!(of(unknown.clone()), None, "{unknown}");
        }
        let scheduled = json!({
            "image": "api", "commit": COMMIT, "force": false, "trigger": {"kind": "schedule"},
        });
        assert_eq!(of(scheduled), first);
    }

    #[test]
    fn a_forced_build_is_told_so() {
        let forced = plan(json!({"image": "api", "force": true})).unwrap();
        let environment = &forced.platforms[0].build.environment;
        assert_eq!(environment.get(variable::FORCE), Some("1"));
        let plain = plan(json!({"image": "api"})).unwrap();
        assert_eq!(plain.platforms[0].build.environment.get(variable::FORCE), None);
    }

    #[test]
    fn an_environment_stays_below_the_bound_with_the_longest_names() {
        let arn = format!("arn:aws:states:eu-central-1:000000000000:execution:{}", "e".repeat(161));
        let input = json!({"image": "api", "platforms": [
            "linux/amd64", "linux/386", "linux/arm64", "linux/arm/v5", "linux/arm/v6",
            "linux/arm/v7",
        ]});
        let plan = plan_of(&arn, &"r".repeat(80), input);
        assert_eq!(plan.unwrap().platforms.len(), 6);
    }

    #[test]
    fn refuses_an_environment_above_the_bound() {
        let error = plan_of(&"a".repeat(5_000), "r1", json!({"image": "api"})).unwrap_err();
        let PlanError::Environment { target, characters } = &error else { panic!("{error}") };
        assert!(target == "linux/amd64" && *characters > CHARACTERS_MAX, "{error}");
    }
}
