//! `archweld validate`: whether the parts of a deployment are right, and agree.

use std::io::{self, Write as _};

use archweld_cloud::OpenError;
use archweld_model::{ErrorName, matches_wildcard};
use archweld_scheduler::{Expression, Timetable};
use archweld_states::Definition;
use archweld_template::{Deployment as StackDeployment, Stack};

use crate::{
    arguments::Project,
    deployment::{ACCOUNT, Deployment, REGION, STACK},
    error::Error,
};

/// What error names of the platform itself begin with.
const PLATFORM_ERRORS: [&str; 5] = ["States.", "Lambda.", "EventBridge.", "Runtime.", "Sandbox."];
/// What the names of variables that name CodeBuild projects begin with.
const PROJECT_VARIABLES: &str = "PROJECT_";
/// The parameter of the template that names repositories beside its own.
const MORE_REPOSITORIES: &str = "MoreRepositories";

/// Checks configuration, template and state machine, and reports what runs here.
///
/// # Errors
/// When one of them is wrong, or they do not agree.
pub(crate) fn validate(project: &Project) -> Result<(), Error> {
    let deployment = Deployment::read(project)?;
    let path = deployment.template.clone();
    let stack = Stack::read(
        &path,
        &StackDeployment {
            stack_name: STACK.to_owned(),
            account: ACCOUNT.to_owned(),
            region: REGION.to_owned(),
            parameters: deployment.parameters.clone(),
        },
    )
    .map_err(|error| OpenError::Template { path, source: Box::new(error) })?;
    let (mut problems, mut ends_within) = (Vec::new(), Vec::new());
    check_images(&deployment, &stack, &mut problems);
    check_projects(&stack, &mut problems);
    check_schedules(&stack, &mut problems);
    for state_machine in &stack.state_machines {
        let text = state_machine.definition_text().map_err(|source| OpenError::Definition {
            state_machine: state_machine.logical_id.clone(),
            source,
        })?;
        match Definition::parse(&text) {
            Ok(definition) => {
                ends_within.extend(times_max(&deployment, &definition, &mut problems));
                check_definition(
                    &state_machine.logical_id,
                    &definition,
                    &text,
                    &stack,
                    &mut problems,
                );
            }
            Err(errors) => problems.extend(
                errors.iter().map(|error| format!("{}: {error}", state_machine.logical_id)),
            ),
        }
    }
    if !problems.is_empty() {
        return Err(Error::Disagreement(problems));
    }
    report(&deployment, &stack, ends_within)
}

fn check_images(deployment: &Deployment, stack: &Stack, problems: &mut Vec<String>) {
    let known: Vec<&str> =
        stack.repositories.iter().map(|repository| repository.name.as_str()).collect();
    let more = stack.parameters.iter().find(|parameter| parameter.name == MORE_REPOSITORIES);
    let more = more.map_or("", |parameter| parameter.value.as_str());
    for image in deployment.config.images() {
        let repository = image.repository.as_str();
        if !known.contains(&repository) && !matches_wildcard(more, repository) {
            problems.push(format!(
                "image {}: repository {} is not in the template, expected one of {}, or the \
                 parameter {MORE_REPOSITORIES} to name it",
                image.name,
                image.repository,
                known.join(", ")
            ));
        }
    }
}

fn check_projects(stack: &Stack, problems: &mut Vec<String>) {
    for function in &stack.functions {
        let projects =
            function.environment.iter().filter(|(name, _)| name.starts_with(PROJECT_VARIABLES));
        for (name, project) in projects {
            if !stack.builds.iter().any(|build| build.name == *project) {
                problems.push(format!(
                    "function {}: {name} names the project {project}, which is not in the template",
                    function.logical_id
                ));
            }
        }
    }
}

fn check_schedules(stack: &Stack, problems: &mut Vec<String>) {
    for schedule in &stack.schedules {
        let settings = &schedule.settings;
        let expression = settings.expression.parse::<Expression>().map(drop);
        let zone = Timetable::zone(&settings.time_zone).map(drop);
        for error in [expression, zone].into_iter().filter_map(Result::err) {
            problems.push(format!("schedule {}: {error}", schedule.logical_id));
        }
    }
}

fn check_definition(
    id: &str,
    definition: &Definition,
    text: &str,
    stack: &Stack,
    problems: &mut Vec<String>,
) {
    for (state, name) in definition.error_names() {
        let of_platform = PLATFORM_ERRORS.iter().any(|prefix| name.starts_with(prefix));
        if !of_platform && !ErrorName::ALL.iter().any(|known| known.as_str() == name) {
            problems.push(format!("{id}: state {}: no function raises {name}", state.name));
        }
    }
    for arn in function_arns(text) {
        if !stack.functions.iter().any(|function| function.arn == arn) {
            problems.push(format!("{id}: invokes {arn}, which is not in the template"));
        }
    }
}

/// The ARNs of functions that stand in a definition.
fn function_arns(text: &str) -> impl Iterator<Item = &str> {
    text.split('"').filter(|part| part.starts_with("arn:aws:lambda:"))
}

/// How long an execution of each image can take, with every retry and every time-out.
fn times_max(
    deployment: &Deployment,
    definition: &Definition,
    problems: &mut Vec<String>,
) -> Vec<String> {
    let mut times = Vec::new();
    for image in deployment.config.images() {
        let timeout = image.task_timeout_seconds();
        match definition.time_max(&|_| Some(timeout)) {
            Some(time) => {
                let minutes = time.as_secs().div_ceil(60);
                times.push(format!("{} {} h {} min", image.name, minutes / 60, minutes % 60));
            }
            None => problems.push(format!("image {}: an execution may last for ever", image.name)),
        }
    }
    times
}

fn report(deployment: &Deployment, stack: &Stack, ends_within: Vec<String>) -> Result<(), Error> {
    let mut text = String::new();
    let mut line = |what: &str, names: Vec<String>| {
        text += &format!("{what:<15} {}\n", names.join(", "));
    };
    line("images", deployment.config.images().iter().map(|it| it.name.to_string()).collect());
    line("functions", stack.functions.iter().map(|it| it.name.clone()).collect());
    line("state machines", stack.state_machines.iter().map(|it| it.name.clone()).collect());
    line("ends within", ends_within);
    line("event rules", stack.rules.iter().map(|it| it.rule.name.clone()).collect());
    let names = stack.schedules.iter().map(|it| it.settings.name.clone());
    line("schedules", names.collect());
    let names = stack.secrets.iter().map(|it| it.settings.name.clone());
    line("secrets", names.collect());
    line("builds", stack.builds.iter().map(|it| it.name.clone()).collect());
    line("repositories", stack.repositories.iter().map(|it| it.name.clone()).collect());
    line(
        "not run here",
        stack.not_run.iter().map(|it| format!("{} ({})", it.logical_id, it.kind)).collect(),
    );
    text += "everything agrees\n";
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(|source| Error::System { what: "write to the standard output", source })
}
