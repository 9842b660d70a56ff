//! Wiring of `publish`.

use publish::Clients;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let clients = &Clients::new(&archweld_runtime::sdk_config()?);
    archweld_runtime::serve(move |request| publish::handle(request, clients)).await
}
