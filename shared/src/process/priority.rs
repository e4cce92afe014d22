//! The priority of threads that must not delay others.

use std::io;

/// By how much the priority is lower (nice(2)). A thread of usual priority that becomes runnable then gets the core at once, and nine
/// times the time if both have much to do.
pub const NICENESS: i32 = 10;

/// Lowers the priority of the calling thread, and of the threads that it starts.
///
/// # Errors
/// When the operating system refuses it.
#[cfg(target_os = "linux")]
pub fn lower() -> io::Result<()> {
    rustix::process::nice(NICENESS)?;
    Ok(())
}

/// Elsewhere only a process has a priority, so nothing is changed.
///
/// # Errors
/// None.
#[cfg(not(target_os = "linux"))]
pub fn lower() -> io::Result<()> {
    Ok(())
}
