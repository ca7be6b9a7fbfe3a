//! Everything here that parses what others wrote, given what nobody meant to write.
//!
//! Invariant: no panic, no hang, bounded memory, and what is taken is what it says it is.

mod duplicate;
mod plan;
mod sealed;
mod values;

use fixtures::fuzz::Fuzz;

fn heap(run: &mut dyn FnMut()) -> u64 {
    allocation_counter::measure(run).bytes_max
}

/// The parser of this name, and texts that it takes.
pub(crate) fn fuzz(name: &'static str, corpus: &[&str]) -> Fuzz {
    fuzz_bytes(name, corpus.iter().map(|text| text.as_bytes().to_vec()).collect())
}

/// The parser of this name, and bytes that it takes.
pub(crate) fn fuzz_bytes(name: &'static str, corpus: Vec<Vec<u8>>) -> Fuzz {
    Fuzz::new(name, heap, corpus)
}
