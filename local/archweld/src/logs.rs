//! `archweld logs`: what the builds of a run wrote, from CloudWatch Logs.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::sleep;

use crate::{
    arguments::Logs,
    error::Error,
    follow::LogReader,
    progress::plain,
    runs::{Build, Execution},
    target::Target,
    watch::EndSignals,
};

/// How often logs that are followed are asked for, and those of the local cloud.
const EVERY: Duration = Duration::from_secs(2);
const EVERY_LOCAL: Duration = Duration::from_millis(50);

/// Shows the logs.
///
/// # Errors
/// When there is no such run or build, or its logs may not be read.
pub(crate) async fn logs(arguments: Logs) -> Result<(), Error> {
    let target = Target::find(&arguments.at).await?;
    let execution = target.run(arguments.run.as_deref()).await?;
    if !arguments.follow {
        return show(&target, &execution, &arguments).await;
    }
    let mut signals = EndSignals::new()?;
    tokio::select! {
        done = show(&target, &execution, &arguments) => done,
        () = signals.recv() => Err(Error::Interrupted),
    }
}

async fn show(target: &Target, execution: &Execution, arguments: &Logs) -> Result<(), Error> {
    let mut readers: BTreeMap<String, LogReader> = BTreeMap::new();
    loop {
        // Asked for first: what builds write before the run ends is shown, too.
        let is_running = target.execution(&execution.execution_arn).await?.is_running();
        let history = target.history(&execution.execution_arn).await?;
        let all = target.builds(&history.builds).await?;
        let is_wanted = |build: &&Build| {
            let wanted = &arguments.platforms;
            wanted.is_empty() || wanted.iter().any(|it| it == build.target())
        };
        let builds: Vec<&Build> = all.iter().filter(is_wanted).collect();
        let goes_on = arguments.follow && is_running;
        if builds.is_empty() && !goes_on {
            let targets = match arguments.platforms.as_slice() {
                [] => "any platform".to_owned(),
                platforms => platforms.join(", "),
            };
            return Err(Error::NoBuild { run: execution.name.clone(), targets });
        }
        let several = arguments.platforms.len() != 1;
        for build in builds {
            let Some(log) = &build.logs else { continue };
            let tail = arguments.tail;
            let reader = readers.entry(build.id.clone()).or_insert_with(|| LogReader::tail(tail));
            let margin = if several { format!("{:<14} ", build.target()) } else { String::new() };
            while let Some(lines) = reader.page(target, log).await? {
                let lines = lines.iter().map(|line| format!("{margin}{}\n", plain(line)));
                crate::print(&lines.collect::<String>())?;
            }
        }
        if !goes_on {
            return Ok(());
        }
        sleep(if target.is_local { EVERY_LOCAL } else { EVERY }).await;
    }
}
