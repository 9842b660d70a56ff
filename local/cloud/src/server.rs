//! Door 1: an HTTP server on loopback whose connections end with it.
//!
//! `axum::serve` leaves open connections running when it is aborted, and each of them holds every
//! service, and with the services the locks on their folders.

use std::{net::Ipv4Addr, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::OpenError;

/// How many connections are served at once; further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 512;

/// How long a client may take to send a request's head, in milliseconds.
const HEAD_WAIT_MS: u64 = 30_000;

/// How long the server waits after it could not accept, in milliseconds: such as when the process
/// has too many files open.
const ACCEPT_WAIT_MS: u64 = 100;

/// A port of loopback that is listened on, but not served yet.
pub(crate) struct Listening {
    listener: TcpListener,
    port: u16,
}

/// A server; ends when it is dropped, and in order with [`Server::shutdown`].
pub(crate) struct Server {
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl Listening {
    pub(crate) async fn on(port: u16) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Listen { port, source };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        Ok(Self { listener, port })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn serve(self, router: Router) -> Server {
        let stop = CancellationToken::new();
        let task = tokio::spawn(accept(self.listener, router, stop.clone()));
        Server { stop, task: Some(task) }
    }
}

impl Server {
    /// Closes the port and every connection, and waits until they are closed.
    pub(crate) async fn shutdown(mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take()
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the server ended badly");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept(listener: TcpListener, router: Router, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, router.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(ACCEPT_WAIT_MS)).await;
                }
            },
        }
    }
    drop(listener);
    connections.shutdown().await;
}

async fn serve(stream: TcpStream, router: Router) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps its delay");
    }
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(HEAD_WAIT_MS))
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended early");
    }
}
