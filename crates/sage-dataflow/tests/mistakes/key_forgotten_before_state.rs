use sage::Environment;

fn main() {
    let env = Environment::local("totals");
    let sales = env.from_iter([("a", 1), ("b", 2)]).map(|sale| sale);
    sales
        .map_with_state(0, |total, sale| {
            *total += sale.1;
            *total
        })
        .sink(|_| {});
}
