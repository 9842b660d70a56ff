//! The cloud, opened from a template.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use archweld_codebuild::{CodeBuild, Remote, Shell, ShellSettings, SourceOverride, Worker};
use archweld_events::Bus;
use archweld_git::{GitServer, GitSettings};
use archweld_lambda::{Handler, InProcessHandler, Lambda};
use archweld_local_api::{EventSink, Host};
use archweld_model::RepositoryName;
use archweld_registry::{Options, Registry, RegistryError, Storage};
use archweld_scheduler::Scheduler;
use archweld_secrets::Secrets;
use archweld_step_functions::{Integrations, StateMachineSettings, StepFunctions};
use archweld_template::{Deployment, Function, Schedule, Stack};
use aws_types::SdkConfig;
use axum::Router;
use jiff::SignedDuration;

use crate::{
    Call, OpenError,
    calls::Calls,
    door::{self, Door, Services},
    in_process,
    metrics::Metrics,
    server::{Listening, Server},
    webhooks, wiring,
};

/// The address of a cloud that listens on no port: nothing but its own clients ever sees it.
const ADDRESS_IN_PROCESS: &str = "localhost";
/// The credentials that functions and builds get. Nothing checks them.
const CREDENTIALS: [(&str, &str); 2] =
    [("AWS_ACCESS_KEY_ID", "local"), ("AWS_SECRET_ACCESS_KEY", "local")];

/// What a cloud is opened with.
pub struct Settings {
    /// Account, region, time and randomness.
    pub host: Host,
    /// The template.
    pub template: PathBuf,
    /// The name that the stack has.
    pub stack_name: String,
    /// The values of the template's parameters; for others the default is taken.
    pub parameters: BTreeMap<String, String>,
    /// Folders that take the place of layers' contents, by the layer's id in the template.
    pub layers: BTreeMap<String, PathBuf>,
    /// The folder for state and images; in memory only where there is none.
    pub state: Option<PathBuf>,
    /// The port on loopback, 0 for any; no sockets at all where there is none.
    pub port: Option<u16>,
    /// How many bytes of images the registry may hold.
    pub registry_bytes_max: Option<u64>,
    /// A git remote for pushes to this machine.
    pub git: Option<GitRemote>,
    /// The functions' code.
    pub functions: Functions,
    /// What runs builds.
    pub builds: Builds,
}

/// A git remote, whose pushes are told to the template's function URL.
#[derive(Debug, Clone)]
pub struct GitRemote {
    /// The name of its repository.
    pub name: String,
    /// The folder of the bare repository.
    pub folder: PathBuf,
    /// The parameter of the template that says where sources are: it is given the remote's address.
    pub parameter: Option<String>,
}

/// The functions' code.
pub enum Functions {
    /// Binaries in a folder, by the name that the template gives them; run over the Runtime API.
    Folder(PathBuf),
    /// Functions of this process.
    InProcess(InProcessFunctions),
}

/// Gives the handler of a function of the template, which has the given environment and reaches
/// the cloud through clients of the given configuration.
pub type InProcessFunctions =
    Box<dyn Fn(&Function, &BTreeMap<String, String>, &SdkConfig) -> InProcessHandler + Send>;

/// What runs builds.
pub enum Builds {
    /// Buildspecs' commands, for real.
    Shell(ShellBuilds),
    /// Something else, such as a simulation.
    Worker(Arc<dyn Worker>),
}

/// How builds run on this machine.
pub struct ShellBuilds {
    /// Where each build gets a folder while it runs.
    pub folder: PathBuf,
    /// The `PATH` of builds.
    pub path: OsString,
    /// Further variables of every build, such as `DOCKER_HOST`.
    pub variables: Vec<(String, String)>,
    /// Where all builds take their source from, whatever their project says.
    pub source: Option<SourceOverride>,
}

type IntegrationsSeam = dyn FnOnce(Arc<dyn Integrations>) -> Arc<dyn Integrations> + Send;

/// Where a simulation gets between the services. The services themselves know nothing of it.
pub struct Seams {
    /// The template, read before; read anew where there is none.
    pub stack: Option<Stack>,
    /// Sits between CodeBuild, Step Functions, ECR and the bus.
    pub events: Box<dyn FnOnce(EventSink) -> EventSink + Send>,
    /// Sits between the state machine's tasks and what they call.
    pub integrations: Box<IntegrationsSeam>,
    /// How CodeBuild's queue is bounded. Its folder is the state folder's.
    pub codebuild: archweld_codebuild::Settings,
    /// How far CodeBuild's clock is ahead of the others'.
    pub codebuild_ahead: SignedDuration,
}

impl Default for Seams {
    /// Nothing in between.
    fn default() -> Self {
        Self {
            stack: None,
            events: Box::new(|sink| sink),
            integrations: Box::new(|integrations| integrations),
            codebuild: archweld_codebuild::Settings::default(),
            codebuild_ahead: SignedDuration::ZERO,
        }
    }
}

/// A cloud. It ends with its handle; [`Cloud::shutdown`] ends it in order.
pub struct Cloud {
    services: Services,
    stack: Stack,
    door: Arc<Door>,
    address: String,
    git: Option<GitServer>,
    server: Option<Server>,
    resumed: Vec<String>,
    /// Held open for its lock.
    _lock: Option<File>,
}

impl Cloud {
    /// Creates the services of a template and opens the doors.
    ///
    /// # Errors
    /// When the template, a function or a folder cannot be used, another archweld has the state
    /// folder, or the port is taken. Nothing is left behind then.
    ///
    /// What an earlier cloud left unfinished in the folder goes on: see [`Cloud::resumed`].
    pub async fn open(settings: Settings) -> Result<Self, OpenError> {
        Self::open_with(settings, Seams::default()).await
    }

    /// The same, with something between the services.
    ///
    /// # Errors
    /// As [`Cloud::open`].
    pub async fn open_with(settings: Settings, seams: Seams) -> Result<Self, OpenError> {
        let Settings { host, template, stack_name, mut parameters, layers, state, git, .. } =
            settings;
        // First, as the port is part of addresses that the template is given.
        let listener = match settings.port {
            Some(port) => Some(Listening::on(port).await?),
            None => None,
        };
        let address = match &listener {
            Some(listening) => format!("localhost:{}", listening.port()),
            None => ADDRESS_IN_PROCESS.to_owned(),
        };
        let endpoint = format!("http://{address}");
        let location = |remote: &GitRemote| format!("{endpoint}/git/{}.git", remote.name);
        if let Some(remote) = &git
            && let Some(parameter) = &remote.parameter
        {
            parameters.insert(parameter.clone(), location(remote));
        }
        let deployment = Deployment {
            stack_name,
            account: host.account().to_owned(),
            region: host.region().to_owned(),
            parameters,
        };
        let stack = match seams.stack {
            Some(stack) => stack,
            None => Stack::read(&template, &deployment)
                .map_err(|error| OpenError::Template { path: template, source: Box::new(error) })?,
        };
        wiring::check(&stack)?;
        if let Functions::Folder(folder) = &settings.functions {
            check_binaries(&stack, folder)?;
        }
        // The folder comes after everything that can be refused without it.
        let lock = state.as_deref().map(lock).transpose()?;

        let mut environment = BTreeMap::from([("AWS_ENDPOINT_URL".to_owned(), endpoint.clone())]);
        environment.extend(CREDENTIALS.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let lambda = match state.as_deref() {
            Some(state) => in_folder(&state.join("lambda"), |folder| {
                Lambda::open(host.clone(), environment.clone(), folder)
            })?,
            None => Lambda::new(host.clone(), environment.clone()),
        };
        let state_machines = Arc::new(OnceLock::new());
        let deliver = wiring::deliver(lambda.clone(), Arc::downgrade(&state_machines));
        let bus = match state.as_deref() {
            Some(state) => in_folder(&state.join("events"), |folder| {
                Bus::open(host.clone(), Bus::DEFAULT, deliver, folder)
            })?,
            None => Bus::new(host.clone(), Bus::DEFAULT, deliver),
        };
        let events = (seams.events)(bus.sink());
        let tasks = wiring::Tasks { lambda: lambda.clone(), bus: bus.clone() };
        let tasks = (seams.integrations)(Arc::new(tasks));
        let step_functions = step_functions(&host, tasks, events.clone(), state.as_deref())?;
        state_machines.get_or_init(|| step_functions.clone());
        let remote = git
            .as_ref()
            .map(|remote| Remote { repository: remote.folder.clone(), location: location(remote) });
        let services = Services {
            codebuild: codebuild(
                &host.ahead(seams.codebuild_ahead),
                settings.builds,
                remote,
                state.as_deref(),
                &address,
                environment,
                seams.codebuild,
                events.clone(),
            )?,
            registry: registry(
                &host,
                &address,
                state.as_deref(),
                settings.registry_bytes_max,
                events,
            )?,
            scheduler: Scheduler::open(
                host.clone(),
                state.as_deref().map(|state| state.join("scheduler")).as_deref(),
                wiring::deliver_due(lambda.clone(), Arc::downgrade(&state_machines)),
            )?,
            secrets: Secrets::open(
                host.clone(),
                state.as_deref().map(|state| state.join("secrets")).as_deref(),
            )?,
            urls: Arc::new(wiring::urls(&stack)),
            pages: Arc::default(),
            step_functions,
            _state_machines: state_machines,
            calls: Calls::default(),
            metrics: Metrics::default(),
            host,
            lambda,
            bus,
        };
        if let Functions::Folder(_) = &settings.functions {
            tokio::spawn(services.metrics.clone().follow(services.lambda.subscribe_logs()));
        }
        let webhooks = Arc::new(OnceLock::new());
        let git = git.map(|remote| {
            let url = location(&remote);
            let git = GitSettings { name: remote.name, folder: remote.folder, url };
            let deliver = webhooks::deliver(&stack, services.secrets.clone(), webhooks.clone());
            GitServer::new(services.host.clone(), git, deliver)
        });
        let git = git.transpose()?;
        let router = Arc::new(door::router(services.clone(), git.as_ref()));
        webhooks.get_or_init(|| Arc::downgrade(&router));
        let server_router = Router::clone(&router);
        let door = Arc::new(Door::new(services.clone(), router));
        let sdk_config = in_process::sdk_config(&services.host, &endpoint, &door);
        create(&services, &stack, &settings.functions, &layers, &sdk_config).await?;
        let server = listener.map(|listening| listening.serve(server_router));
        let resumed = recover(&services, state.as_deref())?;
        Ok(Self { services, stack, door, address, git, server, resumed, _lock: lock })
    }

    /// The executions that an earlier cloud left unfinished, which go on in this one: their ARNs.
    pub fn resumed(&self) -> &[String] {
        &self.resumed
    }

    /// The host and port that door 1 listens on, as images' names begin with it.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The URL of every AWS API: the value of `AWS_ENDPOINT_URL`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Door 2: a configuration for any client of the SDK, which reaches this cloud in process.
    pub fn sdk_config(&self) -> SdkConfig {
        in_process::sdk_config(&self.services.host, &self.endpoint(), &self.door)
    }

    /// What the template says.
    pub fn stack(&self) -> &Stack {
        &self.stack
    }

    /// Step Functions.
    pub fn step_functions(&self) -> &StepFunctions {
        &self.services.step_functions
    }

    /// CodeBuild.
    pub fn codebuild(&self) -> &CodeBuild {
        &self.services.codebuild
    }

    /// ECR.
    pub fn registry(&self) -> &Registry {
        &self.services.registry
    }

    /// Lambda.
    pub fn lambda(&self) -> &Lambda {
        &self.services.lambda
    }

    /// EventBridge.
    pub fn bus(&self) -> &Bus {
        &self.services.bus
    }

    /// EventBridge Scheduler.
    pub fn scheduler(&self) -> &Scheduler {
        &self.services.scheduler
    }

    /// Secrets Manager and Parameter Store.
    pub fn secrets(&self) -> &Secrets {
        &self.services.secrets
    }

    /// The git remote, where there is one.
    pub fn git(&self) -> Option<&GitServer> {
        self.git.as_ref()
    }

    /// The URL of a function by its id in the template, where it has one of `AuthType: NONE`.
    pub fn function_url(&self, logical_id: &str) -> Option<String> {
        let known = self.services.urls.contains_key(logical_id);
        known.then(|| format!("{}{}{logical_id}/", self.endpoint(), door::FUNCTION_URLS))
    }

    /// Answers with `pages` whatever is none of the services' from now on, through the same door
    /// and its checks. The first one stays.
    pub fn mount(&self, pages: Router) {
        self.services.pages.get_or_init(|| pages);
    }

    /// Account, region, time and randomness.
    pub fn host(&self) -> &Host {
        &self.services.host
    }

    /// The newest calls that came in through either door.
    pub fn calls(&self) -> Vec<Call> {
        self.services.calls.all()
    }

    /// Makes a repository where there is none of that name.
    ///
    /// # Errors
    /// When the registry cannot be written.
    pub async fn ensure_repository(&self, name: &RepositoryName) -> Result<(), OpenError> {
        ensure_repository(&self.services.registry, name, None).await
    }

    /// Ends every build, invocation and connection, within two seconds. Executions, events and
    /// asynchronous invocations are left as they are; a cloud on the same folder goes on with them.
    pub async fn shutdown(mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown().await;
        }
        if let Some(git) = &self.git {
            git.shutdown().await;
        }
        let Services { bus, codebuild, lambda, scheduler, step_functions, .. } = &self.services;
        scheduler.shutdown().await;
        bus.shutdown().await;
        step_functions.shutdown().await;
        tokio::join!(codebuild.shutdown(), lambda.shutdown());
    }
}

fn in_folder<T>(
    folder: &Path,
    open: impl FnOnce(&Path) -> std::io::Result<T>,
) -> Result<T, OpenError> {
    open(folder).map_err(|source| OpenError::State { folder: folder.to_owned(), source })
}

/// Goes on with what an earlier cloud left, now that all that it is of is there; gives the
/// executions. Builds come first: what ended them is then told to executions that still wait.
fn recover(services: &Services, state: Option<&Path>) -> Result<Vec<String>, OpenError> {
    let Services { codebuild, lambda, bus, step_functions, .. } = services;
    let Some(state) = state else { return Ok(Vec::new()) };
    in_folder(&state.join("lambda"), |_| lambda.recover())?;
    in_folder(&state.join("events"), |_| bus.recover())?;
    codebuild.recover();
    Ok(step_functions.resume())
}

fn check_binaries(stack: &Stack, folder: &Path) -> Result<(), OpenError> {
    let missing = stack.functions.iter().find(|function| !folder.join(&function.binary).is_file());
    missing.map_or(Ok(()), |function| {
        let path = folder.join(&function.binary);
        Err(OpenError::Binary { function: function.logical_id.clone(), path })
    })
}

fn lock(folder: &Path) -> Result<File, OpenError> {
    let failed = |source| OpenError::State { folder: folder.to_owned(), source };
    fs::create_dir_all(folder).map_err(failed)?;
    let path = folder.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(path);
    let file = file.map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(folder.to_owned())),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

#[expect(clippy::too_many_arguments, reason = "each is a part of the cloud's settings, used once")]
fn codebuild(
    host: &Host,
    builds: Builds,
    remote: Option<Remote>,
    state: Option<&Path>,
    address: &str,
    environment: BTreeMap<String, String>,
    settings: archweld_codebuild::Settings,
    events: EventSink,
) -> Result<CodeBuild, OpenError> {
    let worker: Arc<dyn Worker> = match builds {
        Builds::Worker(worker) => worker,
        Builds::Shell(ShellBuilds { folder, path, mut variables, source }) => {
            variables.extend(environment);
            let settings = ShellSettings {
                folder,
                keep_folders: false,
                path,
                registry: Some(address.to_owned()),
                variables,
                source,
                remote,
            };
            Arc::new(Shell::new(host.clone(), settings)?)
        }
    };
    let settings = archweld_codebuild::Settings {
        folder: state.map(|state| state.join("codebuild")),
        ..settings
    };
    Ok(CodeBuild::open(host.clone(), settings, worker, events)?)
}

fn registry(
    host: &Host,
    address: &str,
    state: Option<&Path>,
    bytes_max: Option<u64>,
    events: EventSink,
) -> Result<Registry, OpenError> {
    let storage = match state {
        Some(state) => Storage::Folder(state.join("registry")),
        None => Storage::Memory,
    };
    let options =
        Options { storage, address: address.to_owned(), bytes_max, create_on_push: false };
    Ok(Registry::open(host.clone(), options, events)?)
}

fn step_functions(
    host: &Host,
    tasks: Arc<dyn Integrations>,
    events: EventSink,
    state: Option<&Path>,
) -> Result<StepFunctions, OpenError> {
    let host = host.clone();
    Ok(match state {
        Some(state) => StepFunctions::open(host, tasks, events, state)?,
        None => StepFunctions::in_memory(host, tasks, events),
    })
}

/// Creates what the template describes.
async fn create(
    services: &Services,
    stack: &Stack,
    functions: &Functions,
    layers: &BTreeMap<String, PathBuf>,
    sdk_config: &SdkConfig,
) -> Result<(), OpenError> {
    for secret in &stack.secrets {
        services
            .secrets
            .create_secret(secret.settings.clone())
            .map_err(|source| refused(&secret.logical_id, source))?;
    }
    for function in &stack.functions {
        let handler = match functions {
            Functions::Folder(folder) => Handler::Process(folder.join(&function.binary)),
            Functions::InProcess(functions) => {
                let environment = wiring::environment(function, layers);
                let config = in_process::sdk_config_of(sdk_config, &function.name);
                Handler::InProcess(functions(function, &environment, &config))
            }
        };
        let settings = wiring::function(function, handler, layers);
        services
            .lambda
            .create_function(settings)
            .map_err(|source| refused(&function.logical_id, source))?;
    }
    for build in &stack.builds {
        services
            .codebuild
            .create_project(wiring::project(build)?)
            .map_err(|source| refused(&build.logical_id, source))?;
    }
    for repository in &stack.repositories {
        let name = repository.name.parse::<RepositoryName>().map_err(|error| {
            let (resource, problem) = (repository.logical_id.clone(), error.to_string());
            OpenError::Unsupported { resource, problem }
        })?;
        ensure_repository(&services.registry, &name, repository.mutability.as_ref()).await?;
    }
    for state_machine in &stack.state_machines {
        let definition = state_machine.definition_text().map_err(|source| {
            OpenError::Definition { state_machine: state_machine.logical_id.clone(), source }
        })?;
        services.step_functions.create_state_machine(StateMachineSettings {
            name: state_machine.name.clone(),
            definition,
            role_arn: state_machine.role_arn.clone().unwrap_or_default(),
        })?;
    }
    for rule in &stack.rules {
        services.bus.create_rule(rule.rule.clone())?;
    }
    // Last, as one may be due at once.
    for Schedule { logical_id, settings } in &stack.schedules {
        services
            .scheduler
            .create_schedule(settings.clone())
            .map_err(|source| OpenError::Schedule { resource: logical_id.clone(), source })?;
    }
    Ok(())
}

fn refused(resource: &str, source: archweld_local_api::ApiError) -> OpenError {
    OpenError::Refused { resource: resource.to_owned(), source }
}

/// Makes a repository, or gives an existing one the template's rule for tags, where it has one.
async fn ensure_repository(
    registry: &Registry,
    name: &RepositoryName,
    template: Option<&archweld_template::TagMutability>,
) -> Result<(), OpenError> {
    let mutability = template.map(wiring::mutability);
    let made = registry.create_repository(name, mutability.clone().unwrap_or_default()).await;
    let done = match (made, mutability) {
        (Err(RegistryError::RepositoryExists(_)), Some(mutability)) => {
            registry.set_tag_mutability(name, mutability).await
        }
        (Err(RegistryError::RepositoryExists(_)), None) => Ok(()),
        (made, _) => made,
    };
    done.map_err(|error| OpenError::Repository {
        repository: name.to_string(),
        source: Box::new(error),
    })
}
