//! A function that does what its event says, for the tests of this crate.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use lambda_runtime::{Diagnostic, LambdaEvent, run, service_fn};
use serde_json::{Value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    match std::env::var("PROBE_INIT").as_deref() {
        Ok("exit") => std::process::exit(7),
        Ok("error") => report_init_error(),
        Ok("ignore-sigterm") => spawn_deaf_child(),
        _ => Ok(()),
    }?;
    run(service_fn(handle)).await
}

async fn handle(event: LambdaEvent<Value>) -> Result<Value, Diagnostic> {
    let (event, context) = event.into_parts();
    match event["do"].as_str().unwrap_or("echo") {
        "echo" => Ok(event),
        "context" => Ok(json!({
            "requestId": context.request_id,
            "deadline": context.deadline,
            "arn": context.invoked_function_arn,
            "traceId": context.xray_trace_id,
            "pid": std::process::id(),
            "directory": std::env::current_dir().ok(),
        })),
        "environment" => {
            Ok(std::env::vars().map(|(key, value)| (key, Value::String(value))).collect())
        }
        "fail" => Err(Diagnostic {
            error_type: "Build.Failed".to_owned(),
            error_message: "the compiler said no".to_owned(),
        }),
        "print" => {
            let mut stdout = std::io::stdout();
            writeln!(stdout, "to standard output").map_err(diagnostic)?;
            writeln!(std::io::stderr(), "to standard error").map_err(diagnostic)?;
            Ok(Value::Null)
        }
        "sleep" => {
            let seconds = event["seconds"].as_f64().unwrap_or(3600.0);
            tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
            Ok(json!({ "pid": std::process::id() }))
        }
        "next" => Ok(Value::String(ask_again().map_err(diagnostic)?)),
        "exit" => std::process::exit(3),
        "abort" => std::process::abort(),
        "large" => Ok(Value::String("x".repeat(6 * 1024 * 1024 + 200))),
        other => Err(Diagnostic {
            error_type: "Probe.Unknown".to_owned(),
            error_message: format!("the probe cannot {other}"),
        }),
    }
}

fn diagnostic(error: std::io::Error) -> Diagnostic {
    Diagnostic { error_type: "Probe.Io".to_owned(), error_message: error.to_string() }
}

/// What the Runtime API says to who asks for an event before the last one is answered.
fn ask_again() -> std::io::Result<String> {
    let address = std::env::var("AWS_LAMBDA_RUNTIME_API").map_err(std::io::Error::other)?;
    let mut stream = TcpStream::connect(&address)?;
    write!(
        stream,
        "GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: {address}\r\n\
         Connection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// `lambda_runtime` has no call for it.
fn report_init_error() -> Result<(), lambda_runtime::Error> {
    let address = std::env::var("AWS_LAMBDA_RUNTIME_API")?;
    let body = json!({ "errorType": "Config.Missing", "errorMessage": "IMAGE_REPO is not set" });
    let body = body.to_string();
    let mut stream = TcpStream::connect(&address)?;
    write!(
        stream,
        "POST /2018-06-01/runtime/init/error HTTP/1.1\r\nHost: {address}\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    stream.read_to_end(&mut Vec::new())?;
    std::process::exit(1)
}

/// A grandchild in the same process group that only SIGKILL ends.
fn spawn_deaf_child() -> Result<(), lambda_runtime::Error> {
    std::process::Command::new("sh")
        .args(["-c", "trap '' TERM; echo $$; while :; do sleep 1; done"])
        .spawn()?;
    Ok(())
}
