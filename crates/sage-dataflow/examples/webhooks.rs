//! A job that is fed by other threads of the program, through a channel, and calls a service. Run it with
//! `cargo run -p sage-dataflow --example webhooks`; it ends when its senders do, or with Ctrl-C.

use std::thread;
use std::time::Duration;

use sage::{BoxError, Environment, HookContext, Order, Retry, Service};

/// What is called for each order.
struct Warehouse;

impl Warehouse {
    async fn reserve(&self, order: u32) -> Result<String, BoxError> {
        tokio::time::sleep(Duration::from_millis(5)).await;
        if order.is_multiple_of(7) { Err("out of stock".into()) } else { Ok(format!("order {order} is reserved")) }
    }
}

impl Service for Warehouse {
    fn cleanup(&self, _cx: &HookContext) -> Result<(), BoxError> {
        println!("the warehouse is closed");
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (sender, orders) = crossbeam_channel::bounded(16);
    let env = Environment::local("webhooks");
    let warehouse = env.register_service("warehouse", || Warehouse).build();
    let (reserved, refused) = env
        .from_channel(orders)
        .try_map_async(8, Order::Ordered, move |order| {
            let warehouse = warehouse.clone();
            async move { warehouse.call_async(|warehouse| async move { warehouse.reserve(order).await }).await? }
        })
        .named("reserve")
        .retry(Retry::up_to(2).backoff(Duration::from_millis(1), Duration::from_millis(5)))
        .dead_letters();
    reserved.sink(|text| println!("{text}"));
    refused.sink(|letter| println!("order {} failed after {} attempts", letter.record, letter.attempts));

    let job = env.submit()?;
    // Whoever has a sender feeds the job, and waits while it has no room.
    let hooks = [1, 11].map(|first| {
        let sender = sender.clone();
        thread::spawn(move || (first..first + 10).all(|order| sender.send(order).is_ok()))
    });
    drop(sender);
    let report = job.wait()?;
    hooks.into_iter().for_each(|hook| drop(hook.join()));
    println!("{} orders", report.operators[0].records_out);
    Ok(())
}
