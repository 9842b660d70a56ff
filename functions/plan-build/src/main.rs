//! Wiring of `plan-build`.

use aws_sdk_ecr::Client;
use plan_build::Settings;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let ecr = &Client::new(&archweld_runtime::sdk_config()?);
    let settings = &Settings::from_environment()?;
    archweld_runtime::serve(move |request| plan_build::handle(request, settings, ecr)).await
}
