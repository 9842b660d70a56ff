//! Wiring of `build-events`.

use build_events::Clients;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let clients = &Clients::new(&archweld_runtime::sdk_config()?);
    archweld_runtime::serve(move |event| build_events::handle(event, clients)).await
}
