//! Giving memory back.

/// Gives back to the kernel what a process that goes to sleep for long does not need:
/// free heap, and its pages of program text.
///
/// The text is a read-only mapping of a file, so dropping its pages loses nothing:
/// what is executed again comes back from the page cache, one short fault per 64 KiB.
/// A shim that has started its container needs a hundredth of the code it ran for
/// that; without this each one keeps some 8 MB of the binary mapped.
pub fn release_idle_memory() {
    trim_heap();
    let (start, end) = text();
    let page = rustix::param::page_size();
    let start = start.next_multiple_of(page);
    let length = (end / page * page).saturating_sub(start);
    if length > 0 {
        // SAFETY: the range lies between the linker's marks of this program's read-only
        // segments, which are private mappings that nobody writes to (no text
        // relocations), so MADV_DONTNEED (madvise(2)) only unmaps clean file pages.
        unsafe { libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED) };
    }
}

/// First and last address of the program's read-only segments, text included.
fn text() -> (usize, usize) {
    unsafe extern "C" {
        static __executable_start: u8;
        static etext: u8;
    }
    (&raw const __executable_start as usize, &raw const etext as usize)
}

#[cfg(target_env = "gnu")]
fn trim_heap() {
    // SAFETY: malloc_trim(3) takes the allocator's locks and touches free memory only.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
fn trim_heap() {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kilobytes of this process's own executable that are mapped in.
    fn mapped() -> u64 {
        let exe = std::fs::read_link("/proc/self/exe").expect("a link");
        let exe = exe.to_str().expect("a path");
        let maps = std::fs::read_to_string("/proc/self/smaps").expect("the memory map");
        let mut inside = false;
        let mut sum = 0;
        for line in maps.lines() {
            if line.contains(exe) {
                inside = true;
            } else if inside && let Some(rest) = line.strip_prefix("Rss:") {
                sum += rest.trim().trim_end_matches(" kB").parse::<u64>().expect("a number");
                inside = false;
            }
        }
        sum
    }

    /// Reads a byte of each page of the text, as executing all of it would.
    fn touch_all() {
        let (start, end) = text();
        for address in (start..end).step_by(rustix::param::page_size()) {
            // SAFETY: all of the range is mapped readable for as long as the program runs.
            unsafe { std::ptr::read_volatile(address as *const u8) };
        }
    }

    #[test]
    fn the_program_goes_on_after_its_text_was_dropped() {
        // In a child of its own: other tests of this process would fault their text in again.
        let percent = super::super::in_forked_child(|| {
            touch_all();
            let before = mapped();
            release_idle_memory();
            i32::try_from(100 * mapped() / before.max(1)).unwrap_or(101)
        });
        assert!(percent < 50, "{percent} % of the executable is still mapped");
    }
}
