//! Connections: over TCP and over the socket in the folder, how many there are, and how long their requests may take to
//! come.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};

use crate::http::Door;

/// How many connections there are at once, over TCP and over the socket.
const MOST_TCP: usize = 448;
const MOST_SOCKET: usize = 64;

/// How long the head of a request may take to come, and a connection may wait for the next one.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long requests that are being served may take when the daemon ends.
const LAST: Duration = Duration::from_secs(2);

/// How many bytes of the head of a request are enough to refuse it, if it is not complete.
const MOST_HEAD: usize = 32 << 10;

/// How long to wait when there are no more descriptors.
const FULL: Duration = Duration::from_millis(100);

/// What a program is told that speaks the protocol of SAGE's own job manager.
const OLD: &str =
    r#"{"status":"error","message":"this job manager speaks HTTP: use the client of this version of the package"}"#;

/// Serves connections until it is dropped.
pub(crate) struct Server {
    pub(crate) router: Router,
    pub(crate) is_ending: watch::Receiver<bool>,
    /// How many connections live.
    pub(crate) open: watch::Sender<usize>,
}

impl Server {
    /// Serves those who connect over TCP.
    pub(crate) async fn serve_tcp(&self, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(MOST_TCP));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let connection = self.connection(Door::Tcp, place);
                    drop(tokio::spawn(async move {
                        match first_byte(&stream).await {
                            Some(0) => answer_old(stream).await,
                            Some(_) => connection.serve(stream).await,
                            None => {}
                        }
                    }));
                }
                Err(error) => full(&error).await,
            }
        }
    }

    /// Serves those who connect over the socket: processes of this user.
    pub(crate) async fn serve_socket(&self, listener: UnixListener) {
        let places = Arc::new(Semaphore::new(MOST_SOCKET));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let is_own =
                        stream.peer_cred().is_ok_and(|peer| [nix::unistd::geteuid().as_raw(), 0].contains(&peer.uid()));
                    if is_own {
                        let connection = self.connection(Door::Socket, place);
                        drop(tokio::spawn(async move { connection.serve::<UnixStream>(stream).await }));
                    }
                }
                Err(error) => full(&error).await,
            }
        }
    }

    fn connection(&self, door: Door, place: OwnedSemaphorePermit) -> Connection {
        let (router, is_ending) = (self.router.clone(), self.is_ending.clone());
        self.open.send_modify(|count| *count += 1);
        Connection { router, door, is_ending, _open: Open(self.open.clone()), _place: place }
    }

    /// Waits a little until connections that live have ended: the daemon is ending.
    pub(crate) async fn ended(&self) {
        // Who is late is cut off.
        let _ = timeout(LAST, self.open.subscribe().wait_for(|count| *count == 0)).await;
    }
}

/// One connection.
struct Connection {
    router: Router,
    door: Door,
    is_ending: watch::Receiver<bool>,
    _open: Open,
    _place: OwnedSemaphorePermit,
}

/// Counted while it lives.
struct Open(watch::Sender<usize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl Connection {
    async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(mut self, stream: S) {
        let (router, door) = (self.router.clone(), self.door);
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let mut router = router.clone();
            async move {
                let mut request: Request = request.map(axum::body::Body::new);
                request.extensions_mut().insert(door);
                let response = tower_service::Service::call(&mut router, request).await;
                response.map_err(|never: Infallible| match never {})
            }
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(MOST_HEAD);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        tokio::select! {
            // A client that hangs up or sends nonsense ends only its own connection.
            _ = connection.as_mut() => return,
            _ = self.is_ending.wait_for(|is_ending| *is_ending) => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = timeout(LAST, connection).await;
    }
}

async fn full(error: &io::Error) {
    tracing::warn!(%error, "a connection cannot be accepted");
    sleep(FULL).await;
}

/// The first byte that comes; `None` if none does. SAGE's own protocol begins with the length of a message, of which it
/// is zero.
async fn first_byte(stream: &TcpStream) -> Option<u8> {
    stream.set_nodelay(true).ok()?;
    let mut first = [0];
    match timeout(PATIENCE, stream.peek(&mut first)).await {
        Ok(Ok(1)) => Some(first[0]),
        _ => None,
    }
}

async fn answer_old(mut stream: TcpStream) {
    let told = timeout(PATIENCE, async {
        // One message is read, so that the answer is not lost with what was not.
        let mut length = [0; 4];
        stream.read_exact(&mut length).await?;
        let most = u64::from(u32::from_be_bytes(length)).min(1 << 20);
        tokio::io::copy(&mut (&mut stream).take(most), &mut tokio::io::sink()).await?;
        let length = u32::try_from(OLD.len()).map_err(io::Error::other)?;
        stream.write_all(&length.to_be_bytes()).await?;
        stream.write_all(OLD.as_bytes()).await?;
        stream.shutdown().await
    });
    // Who does not listen is not told.
    let _ = told.await;
}
