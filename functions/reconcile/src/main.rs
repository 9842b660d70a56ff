//! Wiring of `reconcile`.

use aws_sdk_codebuild::Client;
use reconcile::Settings;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let codebuild = &Client::new(&archweld_runtime::sdk_config()?);
    let settings = &Settings::from_environment()?;
    archweld_runtime::serve(move |request| reconcile::handle(request, settings, codebuild)).await
}
