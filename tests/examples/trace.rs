//! Prints the trace hash of each seed in a range: `cargo run --release -p seawall-tests --example
//! trace -- 0 100`. The same function, built for another machine, must print the same.

use seawall_tests::trace::trace_hash;

fn main() {
    let bounds: Vec<u64> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    let (from, to) = match bounds[..] {
        [from, to] => (from, to),
        [to] => (0, to),
        _ => (0, 10),
    };
    for seed in from..to {
        println!("{seed} {:016x}", trace_hash(seed));
    }
}
