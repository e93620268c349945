#![no_main]

leaktap_fuzz_targets::target!(leaktap_fuzz::ELF);
