//! Demangles each line.
use std::io::{BufRead, Write};
fn main() {
    let mut out = std::io::BufWriter::new(std::io::stdout());
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("a line");
        let name = leaktap_symbols::demangle(&line).unwrap_or(line);
        writeln!(out, "{name}").expect("a line");
    }
}
