//! Memory in small pages. The allocator asks Linux for transparent huge pages. A burst of connections then waits until 2 MiB are
//! cleared wherever it uses a few KiB: two fifths of its processor time, and memory that nobody uses.

/// Turns transparent huge pages off for this process. Where the operating system refuses, it only uses more memory.
pub(crate) fn prefer() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(action = "huge_pages_kept", %error);
    }
}
