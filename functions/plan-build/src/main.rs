//! Wiring of `plan-build`.

use plan_build::Settings;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let settings = &Settings::from_environment()?;
    archweld_runtime::serve(move |request| plan_build::handle(request, settings)).await
}
