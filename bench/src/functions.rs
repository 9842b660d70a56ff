//! Measures the functions' start-up, memory and size beside a bare function's.
//!
//! Every round starts each binary once, so that a change in the machine's load falls on all of
//! them alike; figures are medians.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use archweld_template::{Deployment, Stack, TemplateError};
use flate2::{Compression, write::DeflateEncoder};
use serde_json::Value;

use crate::figures::{median, ratio, thousandth};

/// The bare function.
const BASELINE: &str = "hello-lambda";

/// Where a function finds the files of its layers.
const LAYERS: &str = "/opt/";

/// Measures the functions' start-up, memory and size beside a bare function's.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The folder of the binaries
    #[arg(long, default_value = "target/release")]
    functions: PathBuf,
    /// The template that says what functions there are
    #[arg(long, default_value = "infra/template.yaml")]
    template: PathBuf,
    /// How often each is started
    #[arg(long, default_value_t = 31, value_parser = clap::value_parser!(u32).range(10..=1000))]
    rounds: u32,
    /// The output of `archweld run --json`: its last line tells archweld's own time
    #[arg(long)]
    run: Vec<PathBuf>,
}

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error("cannot start {path}: {error}; build it first: make bench")]
    Start { path: PathBuf, error: io::Error },
    #[error("{name} ended without polling for an invocation")]
    NoPoll { name: String },
    #[error("cannot read {path}: {error}")]
    Read { path: PathBuf, error: io::Error },
    #[error("{path} does not end with the summary of `archweld run --json`")]
    Summary { path: PathBuf },
    #[error(transparent)]
    Io(#[from] io::Error),
}

struct Started {
    to_first_poll: Duration,
    peak_kilobytes: u64,
}

/// A function, and how it did.
#[derive(Default)]
struct Samples {
    name: String,
    environment: BTreeMap<String, String>,
    micros: Vec<u64>,
    kilobytes: Vec<u64>,
    zipped: u64,
}

/// The figures as a table.
pub(crate) fn bench(arguments: &Arguments) -> Result<String, Error> {
    let baseline = Samples { name: BASELINE.to_owned(), ..Samples::default() };
    let mut samples = vec![baseline];
    samples.extend(deployed(&arguments.template)?);
    for sample in &mut samples {
        sample.zipped = zipped_bytes(&arguments.functions.join(&sample.name))?;
    }
    for _ in 0..arguments.rounds {
        for sample in &mut samples {
            let started = start(&arguments.functions, &sample.name, &sample.environment)?;
            sample
                .micros
                .push(u64::try_from(started.to_first_poll.as_micros()).unwrap_or(u64::MAX));
            sample.kilobytes.push(started.peak_kilobytes);
        }
    }

    let baseline = samples.first().map_or(1, |sample| median(&sample.micros).max(1));
    let mut report = format!(
        "{:<14} {:>15} {:>8} {:>12} {:>10}\n",
        "function", "first poll (ms)", "ratio", "peak (MB)", "zip (MB)"
    );
    for sample in &samples {
        let micros = median(&sample.micros);
        report += &format!(
            "{:<14} {:>15.2} {:>8.2} {:>12.2} {:>10.2}\n",
            sample.name,
            thousandth(micros),
            ratio(micros, baseline),
            thousandth(median(&sample.kilobytes)),
            thousandth(sample.zipped / 1_000),
        );
    }
    report += &format!("medians of {} starts each, one after another\n", arguments.rounds);
    if !arguments.run.is_empty() {
        report += &own_time(&arguments.run)?;
    }
    Ok(report)
}

/// The functions of the template, with the environment that they get on AWS.
fn deployed(template: &Path) -> Result<Vec<Samples>, Error> {
    let deployment = Deployment {
        stack_name: "archweld".to_owned(),
        account: "000000000000".to_owned(),
        region: "us-east-1".to_owned(),
        parameters: BTreeMap::new(),
    };
    let stack = Stack::read(template, &deployment)?;
    let functions = stack.functions.into_iter().map(|mut function| {
        for value in function.environment.values_mut() {
            if let (Some(file), Some(layer)) = (value.strip_prefix(LAYERS), function.layers.last())
            {
                *value = layer.content.join(file).to_string_lossy().into_owned();
            }
        }
        Samples { name: function.binary, environment: function.environment, ..Samples::default() }
    });
    Ok(functions.collect())
}

/// Starts a function with a Runtime API of its own, and stops the clock at the first poll.
fn start(
    folder: &Path,
    name: &str,
    environment: &BTreeMap<String, String>,
) -> Result<Started, Error> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let path = folder.join(name);
    let began = Instant::now();
    let mut child = Command::new(&path)
        .env_clear()
        .env("AWS_LAMBDA_RUNTIME_API", listener.local_addr()?.to_string())
        .env("AWS_LAMBDA_FUNCTION_NAME", name)
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256")
        .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
        .env("AWS_LAMBDA_LOG_FORMAT", "JSON")
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", "bench")
        .env("AWS_SECRET_ACCESS_KEY", "bench")
        .envs(environment)
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| Error::Start { path, error })?;
    let polled = wait_for_poll(&listener, &mut child, name);
    let to_first_poll = began.elapsed();
    let peak_kilobytes = peak_kilobytes(&child);
    child.kill()?;
    child.wait()?;
    polled?;
    Ok(Started { to_first_poll, peak_kilobytes: peak_kilobytes? })
}

/// The connection of the poll, which the function waits on until it is dropped.
fn wait_for_poll(
    listener: &TcpListener,
    child: &mut Child,
    name: &str,
) -> Result<TcpStream, Error> {
    let no_poll = || Error::NoPoll { name: name.to_owned() };
    listener.set_nonblocking(true)?;
    let mut connection = loop {
        match listener.accept() {
            Ok((connection, _)) => break connection,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if child.try_wait()?.is_some() {
                    return Err(no_poll());
                }
                std::thread::sleep(Duration::from_micros(20));
            }
            Err(error) => return Err(error.into()),
        }
    };
    connection.set_nonblocking(false)?;
    let mut request = [0; 64];
    let read = connection.read(&mut request)?;
    let next = b"GET /2018-06-01/runtime/invocation/next";
    if request[..read].starts_with(next) { Ok(connection) } else { Err(no_poll()) }
}

/// The most memory that the process has had resident, as Linux counts it.
fn peak_kilobytes(child: &Child) -> Result<u64, Error> {
    let path = PathBuf::from(format!("/proc/{}/status", child.id()));
    let status =
        fs::read_to_string(&path).map_err(|error| Error::Read { path: path.clone(), error })?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|peak| peak.trim().trim_end_matches(" kB").parse().ok())
        .ok_or_else(|| Error::Read { path, error: io::Error::other("no VmHWM") })
}

/// The size of the binary as a zip file compresses it.
fn zipped_bytes(path: &Path) -> Result<u64, Error> {
    let binary = fs::read(path).map_err(|error| Error::Start { path: path.to_owned(), error })?;
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&binary)?;
    Ok(encoder.finish()?.len() as u64)
}

/// archweld's own time within runs: the wall time less the builds on the critical path.
fn own_time(runs: &[PathBuf]) -> Result<String, Error> {
    let mut own = Vec::new();
    let mut wall = Vec::new();
    for path in runs {
        let text =
            fs::read_to_string(path).map_err(|error| Error::Read { path: path.clone(), error })?;
        let summary: Value = text
            .lines()
            .last()
            .and_then(|line| serde_json::from_str(line).ok())
            .ok_or_else(|| Error::Summary { path: path.clone() })?;
        let milliseconds = |field: &str| {
            summary[field].as_u64().ok_or_else(|| Error::Summary { path: path.clone() })
        };
        wall.push(milliseconds("wall_ms")?);
        own.push(milliseconds("own_ms")?);
    }
    Ok(format!(
        "archweld run: {:.3} s, of which its own {:.3} s (medians of {} runs)\n",
        thousandth(median(&wall)),
        thousandth(median(&own)),
        runs.len()
    ))
}
