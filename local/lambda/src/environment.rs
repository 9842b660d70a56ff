//! The environment of a child process.
//!
//! Nothing of this process's own environment is in it but `PATH`.
//! <https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html>

use std::collections::BTreeMap;
use std::ffi::OsString;

use archweld_local_api::{ApiError, Host};

use crate::FunctionSettings;

/// Variables that a function may not set itself.
const RESERVED: [&str; 16] = [
    "_HANDLER",
    "_X_AMZN_TRACE_ID",
    "AWS_ACCESS_KEY_ID",
    "AWS_DEFAULT_REGION",
    "AWS_EXECUTION_ENV",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
    "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_LAMBDA_FUNCTION_VERSION",
    "AWS_LAMBDA_INITIALIZATION_TYPE",
    "AWS_LAMBDA_LOG_GROUP_NAME",
    "AWS_LAMBDA_LOG_STREAM_NAME",
    "AWS_LAMBDA_RUNTIME_API",
    "AWS_REGION",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "LAMBDA_TASK_ROOT",
];

/// Refuses a function whose settings set reserved variables.
pub(crate) fn check(settings: &FunctionSettings) -> Result<(), ApiError> {
    let reserved: Vec<&str> =
        RESERVED.into_iter().filter(|key| settings.environment.contains_key(*key)).collect();
    if reserved.is_empty() {
        return Ok(());
    }
    Err(ApiError::client(
        "InvalidParameterValueException",
        format!(
            "Lambda was unable to configure your environment variables because the environment \
             variables you have provided contains reserved keys that are currently not supported \
             for modification. Reserved keys used in this request: {}",
            reserved.join(", ")
        ),
    ))
}

/// The variables of a new instance. Those of the host stand over the function's own.
pub(crate) fn of(
    host: &Host,
    settings: &FunctionSettings,
    of_host: &BTreeMap<String, String>,
) -> BTreeMap<String, OsString> {
    let name = &settings.name;
    let stream = format!("{}/[$LATEST]{}", host.now().strftime("%Y/%m/%d"), host.uuid().simple());
    let platform = [
        ("_HANDLER", "bootstrap".to_owned()),
        ("AWS_ACCESS_KEY_ID", "ASIALOCALARCHWELD000".to_owned()),
        ("AWS_DEFAULT_REGION", host.region().to_owned()),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", settings.memory_mb.to_string()),
        ("AWS_LAMBDA_FUNCTION_NAME", name.clone()),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST".to_owned()),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand".to_owned()),
        ("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{name}")),
        ("AWS_LAMBDA_LOG_STREAM_NAME", stream),
        ("AWS_REGION", host.region().to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "local".to_owned()),
        ("AWS_SESSION_TOKEN", "local".to_owned()),
        ("LANG", "en_US.UTF-8".to_owned()),
        ("TZ", ":UTC".to_owned()),
    ];
    let path = std::env::var_os("PATH").map(|path| ("PATH".to_owned(), path));
    let own = settings.environment.iter().chain(of_host);
    path.into_iter()
        .chain(platform.into_iter().map(|(key, value)| (key.to_owned(), value.into())))
        .chain(own.map(|(key, value)| (key.clone(), value.into())))
        .collect()
}
