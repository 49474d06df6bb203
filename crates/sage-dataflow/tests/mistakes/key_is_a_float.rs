use sage::Environment;

fn main() {
    let env = Environment::local("prices");
    let prices = env.from_iter([("apples", 1.5_f64), ("pears", 2.5)]).map(|price| price);
    prices.key_by(|price| price.1).count().sink(|_| {});
}
