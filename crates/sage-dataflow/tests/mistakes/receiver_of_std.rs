use sage::Environment;

fn main() {
    let (sender, receiver) = std::sync::mpsc::channel::<u32>();
    let env = Environment::local("channel");
    env.from_channel(receiver).sink(|_| {});
    drop(sender);
}
