//! Heaps that leaktap cannot see: those of interpreters and of emulated programs, whose objects no
//! allocator function makes.

use std::path::Path;

use leaktap_image::{Image, Module};

/// Programs that do not run under qemu, though their names begin so.
const NO_EMULATORS: [&str; 6] = ["system-", "img", "io", "nbd", "ga", "storage-daemon"];

/// What is not seen of the heap of the process, and what would show it; none if all of it can be
/// seen.
pub fn unseen(image: &Image) -> Option<&'static str> {
    let of_program = image.program().and_then(|program| emulator(program.path()));
    of_program.or_else(|| image.modules().iter().find_map(runtime))
}

fn emulator(program: &Path) -> Option<&'static str> {
    let name = program.file_name()?.to_str()?;
    let is_in_valgrind = || {
        program
            .components()
            .any(|part| part.as_os_str() == "valgrind")
    };
    if name.ends_with("-amd64-linux") && is_in_valgrind() {
        return Some(
            "valgrind emulates the program, and leaktap cannot see that one's heap: run it without \
             valgrind",
        );
    }
    let emulated = name.strip_prefix("qemu-")?;
    let is_emulator = !NO_EMULATORS.iter().any(|other| emulated.starts_with(other));
    is_emulator.then_some(
        "qemu emulates the program, and leaktap sees qemu's heap, not that one's: trace it where \
         it runs natively",
    )
}

fn runtime(module: &Module) -> Option<&'static str> {
    if module
        .path()
        .file_name()
        .is_some_and(|name| name == "libjvm.so")
    {
        return Some(
            "Java's heap is not seen, only what native code allocates: `jcmd PID \
             GC.class_histogram` shows its objects",
        );
    }
    module
        .file()
        .has_section(".go.buildinfo")
        .then_some("Go's heap is not seen, only what C code allocates: net/http/pprof shows Go's")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emulators_are_known_by_name() {
        for (path, word) in [
            (
                "/usr/libexec/valgrind/memcheck-amd64-linux",
                Some("valgrind"),
            ),
            ("/usr/bin/qemu-x86_64", Some("qemu")),
            ("/usr/bin/qemu-aarch64-static", Some("qemu")),
            ("/usr/bin/qemu-system-x86_64", None),
            ("/usr/bin/qemu-img", None),
            ("/usr/bin/memcheck-amd64-linux", None),
            ("/usr/bin/redis-server", None),
        ] {
            let found = emulator(Path::new(path));
            let is_right = found.is_some_and(|text| text.starts_with(word.unwrap_or("?")));
            assert_eq!(is_right, word.is_some(), "{path}");
        }
    }
}
