//! Wiring of `start-build`.

use aws_sdk_codebuild::Client;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let codebuild = &Client::new(&archweld_runtime::sdk_config()?);
    archweld_runtime::serve(move |request| start_build::handle(request, codebuild)).await
}
