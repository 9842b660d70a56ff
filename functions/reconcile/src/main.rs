//! Wiring of `reconcile`.
#![recursion_limit = "256"]

use reconcile::{Clients, Settings};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    let clients = &Clients::new(&archweld_runtime::sdk_config()?);
    let settings = &Settings::from_environment()?;
    archweld_runtime::serve(move |request| reconcile::handle(request, settings, clients)).await
}
