//! The operations of CodeBuild's API.
//!
//! <https://docs.aws.amazon.com/codebuild/latest/APIReference/API_Operations.html>

use archweld_local_api::ApiError;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::build::{AutoRetry, Build};
use crate::error::{INVALID_INPUT, build_not_found, invalid_input, project_not_found};
use crate::project::{
    EnvironmentType, EnvironmentVariable, Project, QUEUED_TIMEOUT_MINUTES, SourceType,
    TIMEOUT_MINUTES, check_minutes, check_variable,
};
use crate::service::{CodeBuild, NewBuild};

/// How many names or ids a request or an answer holds.
const PAGE_MAX: usize = 100;
const TOKEN_CHARACTERS_MAX: usize = 64;
/// Who starts builds here: there are no identities on one machine.
const INITIATOR: &str = "archweld";

impl CodeBuild {
    /// Performs an operation of CodeBuild.
    pub async fn call(&self, operation: &str, input: Value) -> Result<Value, ApiError> {
        match operation {
            "BatchGetBuilds" => Ok(json!(self.batch_get_builds(parse(input)?)?)),
            "BatchGetProjects" => self.batch_get_projects(parse(input)?),
            "ListBuilds" => self.list_builds(parse(input)?),
            "ListBuildsForProject" => self.list_builds_for_project(parse(input)?),
            "ListProjects" => self.list_projects(parse(input)?),
            "StartBuild" => self.start_build(input),
            "StopBuild" => self.stop_build(parse(input)?),
            _ => Err(ApiError::unknown_operation(operation)),
        }
    }

    /// The same, as the text that travels: an answer with a hundred builds is half a megabyte.
    pub async fn call_for_text(&self, operation: &str, input: Value) -> Result<String, ApiError> {
        if operation == "BatchGetBuilds" {
            let answer = self.batch_get_builds(parse(input)?)?;
            return serde_json::to_string(&answer)
                .map_err(|error| ApiError::server("InternalFailure", error.to_string()));
        }
        Ok(self.call(operation, input).await?.to_string())
    }

    fn start_build(&self, mut input: Value) -> Result<Value, ApiError> {
        let request: StartBuild = parse(input.clone())?;
        let token = match request.idempotency_token.clone() {
            Some(token) if token.is_empty() || token.chars().count() > TOKEN_CHARACTERS_MAX => {
                return Err(invalid_input(format!(
                    "Invalid idempotencyToken: it is not 1 to {TOKEN_CHARACTERS_MAX} characters"
                )));
            }
            Some(token) => {
                if let Some(input) = input.as_object_mut() {
                    input.remove("idempotencyToken");
                }
                Some((token, input))
            }
            None => None,
        };
        let project = name_of(&request.project_name).to_owned();
        let build = self.submit(&project, token, |project| request.build_of(project))?;
        Ok(json!({"build": build}))
    }

    fn stop_build(&self, input: StopBuild) -> Result<Value, ApiError> {
        let id = name_of(&input.id);
        let build = self.stop(id).ok_or_else(|| build_not_found(&input.id))?;
        Ok(json!({"build": build}))
    }

    fn batch_get_builds(&self, input: BatchGetBuilds) -> Result<Builds, ApiError> {
        check_count("ids", input.ids.len())?;
        let state = self.state();
        let mut answer = Builds::default();
        for id in input.ids {
            match state.builds.get(name_of(&id)) {
                Some(entry) => answer.builds.push(entry.build.clone()),
                None => answer.builds_not_found.push(id),
            }
        }
        Ok(answer)
    }

    fn batch_get_projects(&self, input: BatchGetProjects) -> Result<Value, ApiError> {
        check_count("names", input.names.len())?;
        let state = self.state();
        let (mut projects, mut not_found) = (Vec::new(), Vec::new());
        for name in &input.names {
            match state.projects.get(name_of(name)) {
                Some(entry) => {
                    let arn = self.project_arn(&entry.project.name);
                    projects.push(entry.project.describe(&arn, entry.created));
                }
                None => not_found.push(name),
            }
        }
        Ok(json!({"projects": projects, "projectsNotFound": not_found}))
    }

    fn list_builds(&self, input: ListBuilds) -> Result<Value, ApiError> {
        let state = self.state();
        let ids = state.order.iter().map(|(sequence, id)| (*sequence, id));
        page("ids", ids.collect(), input.sort_order, input.next_token.as_deref())
    }

    fn list_builds_for_project(&self, input: ListBuildsForProject) -> Result<Value, ApiError> {
        let state = self.state();
        let name = name_of(&input.project_name);
        let builds = state.builds.values().map(|entry| &entry.build);
        let mut numbers: Vec<_> = builds
            .filter(|build| build.project_name == name)
            .map(|build| (build.build_number, &build.id))
            .collect();
        if numbers.is_empty() && !state.projects.contains_key(name) {
            return Err(project_not_found(&self.project_arn(name)));
        }
        if input.sort_order.is_some() && numbers.len() > PAGE_MAX {
            return Err(invalid_input(format!(
                "Invalid sortOrder: the project has more than {PAGE_MAX} builds, which come in \
                 descending order only"
            )));
        }
        numbers.sort_unstable();
        page("ids", numbers, input.sort_order, input.next_token.as_deref())
    }

    fn list_projects(&self, input: ListProjects) -> Result<Value, ApiError> {
        let state = self.state();
        let mut projects: Vec<_> = state.projects.values().collect();
        if input.sort_by != ProjectSort::Name {
            projects.sort_by_key(|entry| entry.created);
        }
        let names = projects.iter().map(|entry| &entry.project.name);
        let order = input.sort_order.unwrap_or(SortOrder::Ascending);
        page("projects", (0..).zip(names).collect(), Some(order), input.next_token.as_deref())
    }
}

/// One page of `items`, which come in ascending order of their keys. The token is the key of the
/// page's last item, so that items added meanwhile shift nothing.
fn page(
    field: &str,
    mut items: Vec<(u64, &String)>,
    order: Option<SortOrder>,
    token: Option<&str>,
) -> Result<Value, ApiError> {
    let after: Option<u64> = token
        .map(|token| token.parse().map_err(|_| invalid_input("Invalid nextToken")))
        .transpose()?;
    let descending = order != Some(SortOrder::Ascending);
    if descending {
        items.reverse();
    }
    if let Some(after) = after {
        items.retain(|(key, _)| if descending { *key < after } else { *key > after });
    }
    let more = items.len() > PAGE_MAX;
    items.truncate(PAGE_MAX);
    let names: Vec<_> = items.iter().map(|(_, name)| name).collect();
    let mut output = json!({field: names});
    if let (true, Some((last, _))) = (more, items.last()) {
        output["nextToken"] = json!(last.to_string());
    }
    Ok(output)
}

fn parse<T: serde::de::DeserializeOwned>(input: Value) -> Result<T, ApiError> {
    ApiError::parse_input(INVALID_INPUT, input)
}

fn check_count(field: &str, count: usize) -> Result<(), ApiError> {
    if (1..=PAGE_MAX).contains(&count) {
        return Ok(());
    }
    Err(invalid_input(format!("Invalid {field}: there are {count}, not 1 to {PAGE_MAX}")))
}

/// The name or id, which may have come as an ARN.
fn name_of(name_or_arn: &str) -> &str {
    match name_or_arn.strip_prefix("arn:") {
        Some(arn) => arn.split_once('/').map_or(name_or_arn, |(_, name)| name),
        None => name_or_arn,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum SortOrder {
    Ascending,
    Descending,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum ProjectSort {
    #[default]
    Name,
    CreatedTime,
    LastModifiedTime,
}

/// `StartBuild`, less the overrides that could have no effect and no place in the record here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StartBuild {
    project_name: String,
    source_version: Option<String>,
    source_type_override: Option<SourceType>,
    source_location_override: Option<String>,
    git_clone_depth_override: Option<u32>,
    buildspec_override: Option<String>,
    report_build_status_override: Option<bool>,
    #[serde(default)]
    environment_variables_override: Vec<EnvironmentVariable>,
    environment_type_override: Option<EnvironmentType>,
    image_override: Option<String>,
    compute_type_override: Option<String>,
    image_pull_credentials_type_override: Option<String>,
    privileged_mode_override: Option<bool>,
    service_role_override: Option<String>,
    timeout_in_minutes_override: Option<u32>,
    queued_timeout_in_minutes_override: Option<u32>,
    auto_retry_limit_override: Option<u32>,
    idempotency_token: Option<String>,
}

impl StartBuild {
    /// The project's settings with the overrides over them.
    fn build_of(self, project: &Project) -> Result<NewBuild, ApiError> {
        fn set<T>(target: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *target = value;
            }
        }
        let mut source = project.source.clone();
        set(&mut source.source_type, self.source_type_override);
        source.location = self.source_location_override.or(source.location);
        source.git_clone_depth = self.git_clone_depth_override.or(source.git_clone_depth);
        source.buildspec = self.buildspec_override.or(source.buildspec);
        set(&mut source.report_build_status, self.report_build_status_override);

        let mut environment = project.environment.clone();
        set(&mut environment.environment_type, self.environment_type_override);
        set(&mut environment.image, self.image_override);
        set(&mut environment.compute_type, self.compute_type_override);
        set(
            &mut environment.image_pull_credentials_type,
            self.image_pull_credentials_type_override,
        );
        set(&mut environment.privileged_mode, self.privileged_mode_override);
        for variable in self.environment_variables_override {
            check_variable(&variable)?;
            let variables = &mut environment.environment_variables;
            variables.retain(|old| old.name != variable.name);
            variables.push(variable);
        }

        let minutes = self.timeout_in_minutes_override.unwrap_or(project.timeout_in_minutes);
        check_minutes("timeoutInMinutesOverride", minutes, TIMEOUT_MINUTES)?;
        let queued_minutes =
            self.queued_timeout_in_minutes_override.unwrap_or(project.queued_timeout_in_minutes);
        check_minutes("queuedTimeoutInMinutesOverride", queued_minutes, QUEUED_TIMEOUT_MINUTES)?;
        let retries = self.auto_retry_limit_override.unwrap_or(project.auto_retry_limit);
        let auto_retry = AutoRetry { auto_retry_limit: retries, ..AutoRetry::default() };
        Ok(NewBuild {
            project_name: project.name.clone(),
            source,
            source_version: self
                .source_version
                .or_else(|| project.source_version.clone())
                .filter(|version| !version.is_empty()),
            environment,
            service_role: self.service_role_override.or_else(|| project.service_role.clone()),
            timeout_in_minutes: minutes,
            queued_timeout_in_minutes: queued_minutes,
            initiator: INITIATOR.to_owned(),
            auto_retry: (retries > 0).then_some(auto_retry),
        })
    }
}

#[derive(Deserialize)]
struct StopBuild {
    id: String,
}

#[derive(Deserialize)]
struct BatchGetBuilds {
    ids: Vec<String>,
}

/// What `BatchGetBuilds` answers.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Builds {
    builds: Vec<Build>,
    builds_not_found: Vec<String>,
}

#[derive(Deserialize)]
struct BatchGetProjects {
    names: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListBuilds {
    sort_order: Option<SortOrder>,
    next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListBuildsForProject {
    project_name: String,
    sort_order: Option<SortOrder>,
    next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListProjects {
    #[serde(default)]
    sort_by: ProjectSort,
    sort_order: Option<SortOrder>,
    next_token: Option<String>,
}
