use crate::sys;

/// What a tracer needs so that its tracees do not wait for it on a busy machine: see nice(2).
const RAISED: i32 = -10;

/// Raises the priority of the calling thread, not of threads and programs that it starts from now
/// on. False if that is not allowed.
///
/// Another scheduling policy than the usual one (chrt(1)) was chosen by somebody, and stays.
pub fn raise_priority() -> bool {
    sys::has_other_policy() || sys::nice() <= RAISED || sys::set_nice_alone(RAISED).is_ok()
}

/// Undoes [`raise_priority`].
pub fn restore_priority() {
    sys::restore_nice();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a thread's own, which is what nice(2) changes on Linux.
    #[test]
    fn what_is_started_has_the_priority_from_before() {
        let before = sys::nice();
        if sys::has_other_policy() || !raise_priority() {
            return; // it was chosen by somebody; CAP_SYS_NICE is missing
        }
        assert!(sys::nice() <= RAISED);
        let inherited = std::thread::spawn(sys::nice).join().unwrap();
        assert_eq!(inherited, before.max(0));
        restore_priority();
        assert_eq!(sys::nice(), before);
    }
}
