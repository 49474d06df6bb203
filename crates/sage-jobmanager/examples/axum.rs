//! A web server whose requests go into a job. Run it with `cargo run -p sage-jobmanager --example axum`, send it orders
//! with `curl -d 'two pears' ADDRESS/orders`, and end it with SIGTERM: what it has accepted is worked on before that.

use std::error::Error;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use sage::{Environment, SignalPolicy};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{self, Sender};

/// Accepts an order; while the job has no room for more, the client is to try again.
async fn take(State(orders): State<Sender<String>>, order: String) -> StatusCode {
    match orders.try_send(order) {
        Ok(()) => StatusCode::ACCEPTED,
        Err(_full_or_over) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (orders, receiver) = mpsc::channel::<String>(100);
    // The server sees to signals; the job's futures, if it has any, run on this runtime.
    let env = Environment::local("orders").signals(SignalPolicy::Off).runtime(Handle::current());
    env.from_channel(receiver).map(|order| order.to_uppercase()).sink(|order| println!("{order}"));
    let job = env.submit()?;

    let mut terminate = signal(SignalKind::terminate())?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    let server = Router::new().route("/orders", post(take)).with_state(orders);
    let until = async move {
        terminate.recv().await;
    };
    axum::serve(listener, server).with_graceful_shutdown(until).await?;

    // With the server, the last sender is gone: the job ends when it is done with all orders.
    let report = job.wait_async().await?;
    println!("{} orders", report.operators[0].records_out);
    Ok(())
}
