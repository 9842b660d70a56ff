//! The local clouds that are measured: in memory, at a port of their own.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use archweld_cloud::{Builds, Functions, Settings};
use archweld_codebuild::{Job, Outcome, Status, Worker};
use archweld_local_api::Host;
use futures_util::{FutureExt as _, future::BoxFuture};

/// No build runs here.
pub(crate) struct NoBuilds;

impl Worker for NoBuilds {
    fn run(&self, _: Job) -> BoxFuture<'_, Outcome> {
        async { Outcome::from(Status::Failed) }.boxed()
    }
}

/// A cloud of a template, with the binaries of a folder, whose builds a worker does.
pub(crate) fn settings(template: &Path, functions: &Path, worker: impl Worker) -> Settings {
    Settings {
        host: Host::real("000000000000", "us-east-1"),
        template: template.to_owned(),
        stack_name: "archweld".to_owned(),
        parameters: BTreeMap::new(),
        layers: BTreeMap::new(),
        state: None,
        port: Some(0),
        registry_bytes_max: None,
        git: None,
        functions: Functions::Folder(functions.to_owned()),
        builds: Builds::Worker(Arc::new(worker)),
    }
}
