use sage::{Environment, Service};

struct Greeter;

impl Service for Greeter {}

fn main() {
    let env = Environment::local("greetings");
    let greeter = env.register_service("greeter", || Greeter);
    env.from_iter(["Ada"]).map(move |name| greeter.call(|_| name)).sink(|_| {});
}
