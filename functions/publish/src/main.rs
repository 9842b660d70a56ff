//! Wiring of `publish`.

use aws_sdk_ecr::Client;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let ecr = &Client::new(&archweld_runtime::sdk_config()?);
    archweld_runtime::serve(move |request| publish::handle(request, ecr)).await
}
