//! Wiring of `report`.

use report::{Clients, Settings};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let clients = &Clients::new(&archweld_runtime::sdk_config()?);
    let settings = &Settings::from_environment()?;
    archweld_runtime::serve(move |event| report::handle(event, settings, clients)).await
}
