//! Metrics for Prometheus, over HTTP on loopback. What they mean: `docs/METRICS.md`.

mod families;

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::events::Counts;
use super::names::Lookups;
use super::reload::Reloads;
use crate::shard::Handle;
use families::Families;

/// Connections that are served at once; further ones wait.
const CONNECTIONS_MAX: usize = 16;
/// How long a connection may take in all.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the head of a request may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the shards may take to answer.
const SHARDS_TIMEOUT: Duration = Duration::from_secs(2);
/// After a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where the numbers come from.
pub(super) struct Sources {
    pub(super) shards: Handle,
    pub(super) reloads: Arc<Reloads>,
    pub(super) lookups: Arc<Lookups>,
    /// `None` when nobody is told of events.
    pub(super) events: Option<Arc<Counts>>,
}

/// Listens.
///
/// # Errors
/// The address cannot be had; the text names it.
pub(super) fn listen(address: SocketAddr) -> Result<StdListener, String> {
    let listen = || {
        let listener = StdListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    listen().map_err(|error: io::Error| format!("cannot serve metrics on {address}: {error}"))
}

/// Serves until the runtime ends; call it there.
pub(super) async fn serve(listener: StdListener, sources: Sources) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let sources = Arc::new(sources);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return Ok(()) };
        match listener.accept().await {
            Ok((stream, _)) => {
                let sources = Arc::clone(&sources);
                tokio::spawn(async move {
                    let _ = timeout(CONNECTION_TIMEOUT, connection(stream, sources)).await;
                    drop(place);
                });
            }
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn connection(stream: TcpStream, sources: Arc<Sources>) {
    let answer = service_fn(move |request| {
        let sources = Arc::clone(&sources);
        async move { Ok::<_, Infallible>(answer(&request, &sources).await) }
    });
    // What goes wrong on one connection is its peer's business.
    let _ = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(stream), answer)
        .await;
}

async fn answer(request: &Request<Incoming>, sources: &Sources) -> Response<Full<Bytes>> {
    if request.uri().path() != "/metrics" {
        return plain(StatusCode::NOT_FOUND, "metrics are at /metrics\n");
    }
    if request.method() != Method::GET {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "GET reads the metrics\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return response;
    }
    let Ok(snapshots) = timeout(SHARDS_TIMEOUT, sources.shards.snapshots()).await else {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "the shards do not answer\n");
    };
    let families = Families {
        snapshots,
        commands: sources.shards.queued().collect(),
        reloads: sources.reloads.counts(),
        lookups: Arc::clone(&sources.lookups),
        events: sources.events.clone(),
    };
    match families.encode() {
        Ok(text) => {
            let mut response = Response::new(Full::from(text));
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            response
        }
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written\n"),
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
}
