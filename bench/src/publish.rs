//! Publishes images with the function `publish` and with `docker manifest`, through one proxy that
//! counts and delays their requests.
//!
//! Both get the same images, one fixed tag and one moving tag, and publish one run after another
//! into a repository of their own in the local cloud. The function starts anew each time, as
//! Docker's client does for each command. What the images and the plan take is not measured, and
//! nor is opening a connection or logging in.

mod docker;
mod image;
mod proxy;
mod report;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::PathBuf,
    time::{Duration, Instant},
};

use archweld_cloud::{Cloud, OpenError, Settings};
use archweld_lambda::{
    AsynchronousRetries, FunctionSettings, Handler, InvocationType, Lambda, Outcome,
};
use archweld_local_api::{ApiError, Host};
use archweld_model::{
    Digest, ExecutableCheck, ImageTag, NameError, Platform, PlatformError, Published,
    PublishedPlatform, RepositoryName, TagError,
};
use archweld_registry::RegistryError;
use serde::Deserialize as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use self::{
    docker::Docker,
    image::{Layer, Pushed},
    proxy::Proxy,
    report::{Sample, Table},
};
use crate::cloud::{NoBuilds, settings};

/// What the images are built for: the first two of them, and all.
const PLATFORMS: [&str; 5] =
    ["linux/amd64", "linux/arm64", "linux/arm/v7", "linux/arm/v6", "linux/386"];
const COUNTS: [usize; 2] = [2, PLATFORMS.len()];

/// The image's moving tag.
const MOVING_TAG: &str = "latest";

/// How long an account's quota of `PutImage` takes to be whole again, in milliseconds.
const QUOTA_MS: u64 = 1_000;

/// Compares `publish` with `docker manifest`: requests, their depth, and the time
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The folder of the binaries
    #[arg(long, default_value = "target/release")]
    functions: PathBuf,
    /// The template that is deployed
    #[arg(long, default_value = "infra/template.yaml")]
    template: PathBuf,
    /// Docker's client
    #[arg(long, default_value = "docker")]
    docker: String,
    /// How often each publishes
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How long each request is delayed, in milliseconds
    #[arg(long, default_values_t = [0, 100])]
    delay_ms: Vec<u64>,
    /// Print each request of the last round
    #[arg(long)]
    trace: bool,
}

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot open the local cloud: {0}")]
    Open(#[from] OpenError),
    #[error("the template has no function whose binary is {0}")]
    NoFunction(&'static str),
    #[error("cannot invoke {function}: {error}")]
    Invoke { function: &'static str, error: ApiError },
    #[error("{function} did not do all of its work: {answer}")]
    Function { function: &'static str, answer: String },
    #[error("cannot push an image: {0}")]
    Push(#[from] RegistryError),
    #[error("docker manifest {step} failed: {reason}")]
    Docker { step: String, reason: String },
    #[error("{tag} of {repository} is not the index that was to be published: {problem}")]
    Published { repository: RepositoryName, tag: ImageTag, problem: String },
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Platform(#[from] PlatformError),
    #[error(transparent)]
    Tag(#[from] TagError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The cloud, and what reaches it through the proxy.
struct Bench<'a> {
    functions: &'a PathBuf,
    host: Host,
    cloud: Cloud,
    proxy: Proxy,
    docker: Docker,
    layers: Vec<Layer>,
    _folder: TempDir,
}

/// One run of an image for the first `platforms` platforms.
struct Run {
    name: String,
    commit: String,
    sequence: u32,
    platforms: usize,
}

/// The table as text.
pub(crate) async fn bench(arguments: &Arguments) -> Result<String, Error> {
    let bench = Bench::open(arguments).await?;
    let (mut report, mut sequence) = (report::head(), 0);
    for platforms in COUNTS {
        for &delay_ms in &arguments.delay_ms {
            let mut table = Table::default();
            let mut trace = String::new();
            // The first round finds no tags to move, and does not count.
            for round in 0..=arguments.rounds {
                sequence += 1;
                let run = Run::new(sequence, platforms);
                let (ours, fixed_tag) = bench.publish(&run, delay_ms).await?;
                let docker = bench.docker(&run, &fixed_tag, delay_ms).await?;
                if round > 0 {
                    table.note_publish(&ours, &fixed_tag, &bench.layers);
                    table.note_docker(&docker);
                }
                if arguments.trace && round == arguments.rounds {
                    trace = ours.trace("publish") + &docker.trace("docker manifest");
                }
            }
            report += &table.lines(platforms, delay_ms);
            report += &trace;
        }
    }
    report += &report::foot(arguments.rounds);
    bench.cloud.shutdown().await;
    Ok(report)
}

impl<'a> Bench<'a> {
    async fn open(arguments: &'a Arguments) -> Result<Self, Error> {
        let folder = tempfile::tempdir()?;
        let images = COUNTS.map(|count| {
            format!(
                "[[image]]\nname = \"{0}\"\nrepository = \"{0}\"\nplatforms = {1:?}\n\
                 tags = [\"{{sha7}}\", \"{MOVING_TAG}\"]\npublisher = \"lambda\"\n",
                name(count),
                &PLATFORMS[..count],
            )
        });
        fs::write(folder.path().join("archweld.toml"), images.concat())?;
        let settings = settings(&arguments.template, &arguments.functions, NoBuilds);
        let host = settings.host.clone();
        let layers = BTreeMap::from([("ConfigLayer".to_owned(), folder.path().to_owned())]);
        let cloud = Cloud::open(Settings { layers, ..settings }).await?;
        for count in COUNTS {
            for repository in [name(count).parse()?, docker_name(count).parse()?] {
                cloud.ensure_repository(&repository).await?;
            }
        }
        let proxy = Proxy::open(cloud.address()).await?;
        // The addresses of layers then lead through the proxy, too.
        cloud.registry().set_address(proxy.address());
        let token = cloud.registry().authorization_token();
        let docker = Docker::new(&arguments.docker, proxy.address(), &token)?;
        let layers = PLATFORMS
            .iter()
            .map(|platform| Ok(Layer::new(platform.parse::<Platform>()?)?))
            .collect::<Result<_, Error>>()?;
        let functions = &arguments.functions;
        Ok(Self { functions, host, cloud, proxy, docker, layers, _folder: folder })
    }

    /// Publishes a run with the function; says its fixed tag, too.
    async fn publish(&self, run: &Run, delay_ms: u64) -> Result<(Sample, ImageTag), Error> {
        let repository: RepositoryName = name(run.platforms).parse()?;
        let pushed = self.push(&repository, run).await?;
        let plan = self.plan(run).await?;
        let fixed_tag: ImageTag = run.commit[..7].parse()?;
        let images: Vec<Value> = (pushed.iter())
            .map(|(platform, image)| {
                json!({
                    "target": platform,
                    "digest": image.digest,
                    "media_type": image.media_type,
                    "manifest_bytes": image.manifest_bytes,
                    "size_bytes": image.size_bytes,
                    "build_id": "build:1",
                    "log": null,
                    "timing": {},
                })
            })
            .collect();
        let request = json!({"plan": plan, "images": images, "index": null});

        tokio::time::sleep(Duration::from_millis(QUOTA_MS)).await;
        let lambda = self.lambda("publish")?;
        let (sample, answer) =
            self.measure(delay_ms, invoke(&lambda, "publish", "publish", &request)).await?;
        lambda.shutdown().await;
        check_answer(&answer)?;
        self.check(&repository, &fixed_tag, &pushed).await?;
        Ok((sample, fixed_tag))
    }

    /// Publishes a run's images under the same tags with `docker manifest`.
    async fn docker(
        &self,
        run: &Run,
        fixed_tag: &ImageTag,
        delay_ms: u64,
    ) -> Result<Sample, Error> {
        let repository: RepositoryName = docker_name(run.platforms).parse()?;
        let pushed = self.push(&repository, run).await?;
        let images: Vec<_> = pushed.iter().map(|(platform, image)| (*platform, image)).collect();
        let address = &format!("{}/{repository}", self.proxy.address());
        let (sample, ()) = self
            .measure(delay_ms, async {
                for tag in [fixed_tag, &MOVING_TAG.parse()?] {
                    self.docker.publish(address, tag, &images).await?;
                }
                Ok(())
            })
            .await?;
        self.check(&repository, fixed_tag, &pushed).await?;
        Ok(sample)
    }

    async fn push(
        &self,
        repository: &RepositoryName,
        run: &Run,
    ) -> Result<Vec<(Platform, Pushed)>, Error> {
        let mut pushed = Vec::new();
        for layer in &self.layers[..run.platforms] {
            pushed.push((layer.platform, layer.push(&self.cloud, repository, &run.name).await?));
        }
        Ok(pushed)
    }

    /// The plan that `plan-build` makes of a run.
    async fn plan(&self, run: &Run) -> Result<Value, Error> {
        let function = &self.function("plan-build")?.name;
        let request = json!({
            "input": {
                "image": name(run.platforms),
                "commit": run.commit,
                "trigger": {"kind": "push", "sequence": run.sequence},
            },
            "execution": {
                "arn": self.host.arn("states", &format!("execution:archweld:{}", run.name)),
                "name": run.name,
                "start_time": self.host.now(),
            },
        });
        invoke(self.cloud.lambda(), "plan-build", function, &request).await
    }

    /// A function of the template that reaches the cloud through the proxy, not started yet.
    fn lambda(&self, binary: &'static str) -> Result<Lambda, Error> {
        let function = self.function(binary)?;
        let endpoint = format!("http://{}", self.proxy.address());
        let environment = [
            ("AWS_ENDPOINT_URL", &*endpoint),
            ("AWS_ACCESS_KEY_ID", "local"),
            ("AWS_SECRET_ACCESS_KEY", "local"),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let lambda = Lambda::new(self.host.clone(), BTreeMap::from(environment));
        let settings = FunctionSettings {
            name: binary.to_owned(),
            arn: function.arn.clone(),
            environment: function.environment.clone(),
            timeout: function.timeout,
            memory_mb: function.memory_mb,
            concurrency_max: 1,
            retries: AsynchronousRetries::default(),
            on_failure: None,
            handler: Handler::Process(self.functions.join(binary)),
        };
        let created = lambda.create_function(settings);
        created.map_err(|error| Error::Invoke { function: binary, error })?;
        Ok(lambda)
    }

    fn function(&self, binary: &'static str) -> Result<&archweld_template::Function, Error> {
        let mut functions = self.cloud.stack().functions.iter();
        functions.find(|function| function.binary == binary).ok_or(Error::NoFunction(binary))
    }

    async fn measure<T>(
        &self,
        delay_ms: u64,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<(Sample, T), Error> {
        self.proxy.set_delay(delay_ms);
        self.proxy.take();
        let began = Instant::now();
        let done = work.await?;
        let wall = began.elapsed();
        Ok((Sample { wall, began, requests: self.proxy.take() }, done))
    }

    /// Both tags must name one index of exactly the images that were pushed.
    async fn check(
        &self,
        repository: &RepositoryName,
        fixed_tag: &ImageTag,
        pushed: &[(Platform, Pushed)],
    ) -> Result<(), Error> {
        let expected: BTreeSet<Digest> = pushed.iter().map(|(_, image)| image.digest).collect();
        for tag in [fixed_tag.clone(), MOVING_TAG.parse()?] {
            let image = self.cloud.registry().manifest(repository, tag.clone()).await?;
            let index: Value = serde_json::from_slice(&image.bytes).unwrap_or_default();
            let entries = index["manifests"].as_array().into_iter().flatten();
            let found = entries.map(|entry| entry["digest"].as_str().unwrap_or_default().parse());
            if found.collect::<Result<BTreeSet<Digest>, _>>().ok().as_ref() != Some(&expected) {
                let (repository, problem) = (repository.clone(), index.to_string());
                return Err(Error::Published { repository, tag, problem });
            }
        }
        Ok(())
    }
}

impl Run {
    fn new(sequence: u32, platforms: usize) -> Self {
        let commit = Digest::of(&sequence.to_be_bytes()).to_string();
        let commit = commit.trim_start_matches("sha256:")[..40].to_owned();
        Self { name: format!("run-{sequence}"), commit, sequence, platforms }
    }
}

/// The function must have looked into every image, or the figures would be too good.
fn check_answer(answer: &Value) -> Result<(), Error> {
    let published = Published::deserialize(answer);
    let confirmed =
        |platform: &PublishedPlatform| matches!(platform.executable, ExecutableCheck::Confirmed(_));
    match published {
        Ok(published) if published.platforms.iter().all(confirmed) => Ok(()),
        _ => Err(Error::Function { function: "publish", answer: answer.to_string() }),
    }
}

fn name(platforms: usize) -> String {
    format!("publish-{platforms}")
}

fn docker_name(platforms: usize) -> String {
    format!("docker-{platforms}")
}

/// Invokes a function and reads its answer.
async fn invoke(
    lambda: &Lambda,
    binary: &'static str,
    function: &str,
    request: &Value,
) -> Result<Value, Error> {
    let payload = request.to_string().into();
    let invoked = lambda.invoke(function, payload, InvocationType::RequestResponse).await;
    let failed = |answer: String| Error::Function { function: binary, answer };
    match invoked.map_err(|error| Error::Invoke { function: binary, error })?.outcome {
        Outcome::Succeeded(answer) => {
            serde_json::from_slice(&answer).map_err(|error| failed(error.to_string()))
        }
        outcome => Err(failed(format!("{outcome:?}"))),
    }
}
