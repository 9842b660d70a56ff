//! `archweld up`: the local cloud as a server that stays.

use std::{
    env,
    io::{self, Write as _},
    time::Instant,
};

use archweld_cloud::{Cloud, webhook_target};
use jiff::tz::TimeZone;

use crate::{
    arguments::{PORT_DEFAULT, Up},
    deployment::{Deployment, REGION},
    error::Error,
    progress::Progress,
    source::Source,
    watch::{Heard, Watch},
};

/// Serves until Ctrl-C.
///
/// # Errors
/// When the cloud does not open.
pub(crate) async fn up(arguments: Up) -> Result<(), Error> {
    let deployment = Deployment::read(&arguments.project)?;
    let folder = deployment.folder.to_string_lossy().into_owned();
    let source = Source::find(arguments.source.as_deref().unwrap_or(&folder), None)?;
    let git = deployment.git(&arguments.host)?;
    let cloud = deployment.open(&arguments.host, &source.place, Some(git)).await?;
    cloud.mount(archweld_console::router(&cloud, deployment.config.clone()).await);
    let mut watch = Watch::new(&cloud)?;
    let state_machine = cloud.stack().state_machines.first().ok_or(Error::NoStateMachine)?;
    let (endpoint, arn) = (cloud.endpoint(), &state_machine.arn);
    // Whoever pulls in another terminal must reach the same engine.
    let engine = env::var("DOCKER_HOST").ok();
    let banner = format!(
        "console   {endpoint}/\n\
         AWS APIs  {endpoint}   (AWS_ENDPOINT_URL, region {REGION}, any credentials)\n\
         registry  {}\n\
         source    {}\n\
         {}start     archweld start{}\n\
         \x20         aws --endpoint-url {endpoint} --region {REGION} stepfunctions start-execution \
         --state-machine-arn {arn} --input '{{}}'\n\
         {}Ctrl-C ends it.\n",
        cloud.address(),
        source.place,
        triggers(&cloud),
        port_option(cloud.address()),
        engine.map(|engine| format!("Docker    export DOCKER_HOST={engine}\n")).unwrap_or_default(),
    );
    io::stdout()
        .write_all(banner.as_bytes())
        .map_err(|source| Error::System { what: "write to the standard output", source })?;
    let mut progress = Progress::new(false, Instant::now());
    for execution in cloud.resumed() {
        progress.say(&format!("{execution} goes on: an earlier archweld left it unfinished"));
    }
    loop {
        match watch.next(&mut progress).await {
            Heard::Started { execution } => progress.say(&format!("{execution} started")),
            Heard::Ended { execution, status } => {
                progress.say(&format!("{execution} ended: {status:?}"));
            }
            Heard::Planned(_) => {}
            Heard::Interrupted => break,
        }
    }
    progress.finish();
    cloud.shutdown().await;
    Ok(())
}

/// How other commands find a cloud at this address: by its port, where that is not the usual one.
fn port_option(address: &str) -> String {
    match address.rsplit_once(':') {
        Some((_, port)) if port != PORT_DEFAULT.to_string() => format!(" --port {port}"),
        _ => String::new(),
    }
}

/// What starts runs by itself.
fn triggers(cloud: &Cloud) -> String {
    let mut text = String::new();
    if let Some(git) = cloud.git() {
        let url = git.url();
        text += &format!("push      git remote add archweld {url}; git push archweld main\n");
    }
    if let Some(target) = webhook_target(cloud.stack()) {
        text += &format!("webhooks  {}{}\n", cloud.endpoint(), target.path);
    }
    for schedule in cloud.scheduler().schedules() {
        let settings = &schedule.settings;
        let next = schedule.next.map_or_else(
            || if settings.enabled { "over" } else { "disabled" }.to_owned(),
            |next| {
                let zone = TimeZone::get(&settings.time_zone).unwrap_or(TimeZone::UTC);
                format!("next {}", next.to_zoned_datetime(zone).strftime("%Y-%m-%d %H:%M:%S %Z"))
            },
        );
        text += &format!("schedule  {}  {}  {next}\n", settings.name, settings.expression);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_unusual_port_has_to_be_named() {
        assert_eq!(port_option("localhost:4577"), "");
        assert_eq!(port_option("localhost:8080"), " --port 8080");
    }
}
