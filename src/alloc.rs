//! A caching global allocator: large blocks are kept for reuse instead of going back to the kernel.
//!
//! Each training step frees and allocates the same few hundred large buffers. The system allocator returns them to the kernel,
//! which zeroes and maps every page again: up to half the time of a step. Here a block of [`LARGE`] bytes or more is rounded up to one of
//! eight sizes per power of two and, once freed, kept in the list of its size. The lists are threaded through the free blocks, so the
//! allocator itself never allocates. Smaller blocks go to the system allocator.
//!
//! Why not `mallopt`: compared on a synthetic step (two threads that allocate, write and free, glibc 2.36; CPU seconds, user and system).
//! With buffers of 0.1 to 2 MiB glibc took 9.8 s, with `M_TRIM_THRESHOLD`, `M_MMAP_THRESHOLD` and `M_TOP_PAD` raised 3.3 s, this allocator
//! 3.4 to 3.7 s. With buffers of 8 to 128 MiB, which exceed the heaps of glibc's threads, it was 5.0, 4.8 and 2.2 s. Other systems than
//! glibc have no `mallopt`; allocators that keep large blocks (mimalloc, jemalloc) need a C compiler.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Blocks of fewer bytes go to the system allocator.
pub const LARGE: usize = 64 << 10;
/// Alignment of a cached block in bytes: two cache lines, as the matrix products require.
const ALIGN: usize = 128;
/// Sizes per power of two: a block is at most 1/8 larger than requested.
const STEPS: usize = 8;
/// Powers of two from [`LARGE`] on that have lists (up to 64 GiB); larger blocks go to the system allocator.
const POWERS: usize = 20;
const CLASSES: usize = STEPS * POWERS + 1;
const LARGEST: usize = LARGE << POWERS;
/// Most bytes kept for reuse by the process.
const CACHE_LIMIT: usize = 1 << 30;

static CACHE: Cache = Cache::new(CACHE_LIMIT);

/// The global allocator; every value of this type works on the one cache of the process.
#[derive(Clone, Copy)]
pub struct Caching(&'static Cache);

impl Caching {
    /// The process-wide cache.
    pub const fn new() -> Self {
        Caching(&CACHE)
    }
}

impl Default for Caching {
    fn default() -> Self {
        Self::new()
    }
}

/// Bytes now allocated in blocks of [`LARGE`] bytes or more, as requested (before rounding). Smaller blocks are not counted.
pub fn live_bytes() -> usize {
    CACHE.live.load(Ordering::Relaxed)
}

/// The highest [`live_bytes`] since the start of the process or the last [`reset_peak`].
pub fn peak_bytes() -> usize {
    CACHE.peak.load(Ordering::Relaxed)
}

/// Restart [`peak_bytes`] from the bytes allocated now.
pub fn reset_peak() {
    CACHE.peak.store(live_bytes(), Ordering::Relaxed);
}

/// A free block's first bytes: the next free block of its size.
struct FreeBlock {
    next: *mut FreeBlock,
}

/// The free blocks of one size, behind a spin lock (held for a few instructions, and never while calling the system).
struct FreeList {
    locked: AtomicBool,
    head: UnsafeCell<*mut FreeBlock>,
}

// SAFETY: `head`, and the blocks reachable from it, are touched only while `locked` is held.
unsafe impl Sync for FreeList {}

impl FreeList {
    const fn new() -> Self {
        FreeList { locked: AtomicBool::new(false), head: UnsafeCell::new(ptr::null_mut()) }
    }

    fn with_head<T>(&self, f: impl FnOnce(&mut *mut FreeBlock) -> T) -> T {
        let mut spins = 0_u32;
        while self.locked.compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            spins += 1;
            if spins.is_multiple_of(64) {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
        // SAFETY: the lock is held, so this is the only reference to the head.
        let result = f(unsafe { &mut *self.head.get() });
        self.locked.store(false, Ordering::Release);
        result
    }

    /// A free block, or null.
    fn pop(&self) -> *mut u8 {
        self.with_head(|head| {
            let block = *head;
            if !block.is_null() {
                // SAFETY: a listed block is free, at least `LARGE` long, and holds a `FreeBlock` written by `push`.
                *head = unsafe { (*block).next };
            }
            block.cast()
        })
    }

    /// Add a free block.
    ///
    /// # Safety
    /// `block` has this list's size and is no longer used.
    unsafe fn push(&self, block: *mut u8) {
        let block: *mut FreeBlock = block.cast();
        self.with_head(|head| {
            // SAFETY: the block is free, large enough, and aligned to `ALIGN`.
            unsafe { block.write(FreeBlock { next: *head }) };
            *head = block;
        });
    }
}

/// Free blocks by size, and counters.
struct Cache {
    lists: [FreeList; CLASSES],
    limit: usize,
    /// Bytes in free blocks.
    cached: AtomicUsize,
    /// The list from which blocks are evicted first when the cache is full.
    hand: AtomicUsize,
    live: AtomicUsize,
    peak: AtomicUsize,
}

/// The list for blocks of `size` bytes, and the size of its blocks. `None` if the system allocator handles the block.
fn class_of(layout: &Layout) -> Option<(usize, usize)> {
    let size = layout.size();
    if !(LARGE..=LARGEST).contains(&size) || layout.align() > ALIGN {
        return None;
    }
    // 2^power <= size - 1 < 2^(power + 1), cut into STEPS equal parts; a block has the size of its part's upper end.
    let power = (size - 1).ilog2();
    let part = (1_usize << power) / STEPS;
    let rounded = size.div_ceil(part) * part;
    let above = rounded - (1 << power);
    let index = (power as usize + 1 - LARGE.ilog2() as usize) * STEPS + above / part;
    // The smallest is `LARGE` itself: power 15, all parts above it.
    Some((index - STEPS, rounded))
}

impl Cache {
    const fn new(limit: usize) -> Self {
        Cache {
            lists: [const { FreeList::new() }; CLASSES],
            limit,
            cached: AtomicUsize::new(0),
            hand: AtomicUsize::new(0),
            live: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
        }
    }

    fn grew(&self, bytes: usize) {
        let live = self.live.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.peak.fetch_max(live, Ordering::Relaxed);
    }

    fn shrank(&self, bytes: usize) {
        self.live.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn take(&self, class: usize, rounded: usize) -> *mut u8 {
        let block = self.lists[class].pop();
        if !block.is_null() {
            self.cached.fetch_sub(rounded, Ordering::Relaxed);
        }
        block
    }

    /// A new block from the system: `ALIGN`-aligned, with the system's own pointer in the word before it. (Asking the
    /// system itself for more than its usual alignment would make it zero a fresh block by hand.) Null if there is none.
    fn fresh(&self, rounded: usize, zeroed: bool) -> *mut u8 {
        let layout = system_layout(rounded);
        // SAFETY: the layout is not empty.
        let ask = || unsafe { if zeroed { System.alloc_zeroed(layout) } else { System.alloc(layout) } };
        let mut raw = ask();
        if raw.is_null() {
            self.evict(usize::MAX);
            raw = ask();
        }
        if raw.is_null() {
            return raw;
        }
        let offset = ALIGN - raw.addr() % ALIGN;
        // SAFETY: the system's alignment is 16, so `offset` is between 16 and 128: room for a pointer before the block,
        // and `rounded` bytes after it.
        unsafe {
            let block = raw.add(offset);
            block.cast::<*mut u8>().sub(1).write(raw);
            block
        }
    }

    /// Give blocks back to the system until `bytes` are freed or no block is left.
    fn evict(&self, bytes: usize) {
        let start = self.hand.fetch_add(1, Ordering::Relaxed);
        let mut freed = 0;
        for step in 0..CLASSES {
            let class = (start + step) % CLASSES;
            let rounded = class_size(class);
            while freed < bytes {
                let block = self.take(class, rounded);
                if block.is_null() {
                    break;
                }
                // SAFETY: the block was free and is no longer listed.
                unsafe { release(block, rounded) };
                freed += rounded;
            }
        }
    }

    /// Keep a block for reuse.
    ///
    /// # Safety
    /// `block` came from [`Cache::fresh`] with `rounded` bytes, the size of `class`, and nobody uses it any more.
    unsafe fn keep(&self, block: *mut u8, class: usize, rounded: usize) {
        let cached = self.cached.fetch_add(rounded, Ordering::Relaxed) + rounded;
        if cached > self.limit {
            if rounded > self.limit {
                self.cached.fetch_sub(rounded, Ordering::Relaxed);
                // SAFETY: by this function's contract.
                return unsafe { release(block, rounded) };
            }
            self.evict(cached - self.limit);
        }
        // SAFETY: by this function's contract.
        unsafe { self.lists[class].push(block) };
    }
}

/// Size in bytes of the blocks of a list: the inverse of [`class_of`].
fn class_size(class: usize) -> usize {
    let index = class + STEPS;
    let (power, above) = ((index - 1) / STEPS + LARGE.ilog2() as usize - 1, (index - 1) % STEPS + 1);
    (1 << power) + above * ((1 << power) / STEPS)
}

/// Layout requested from the system: a block and padding to align it.
fn system_layout(rounded: usize) -> Layout {
    // SAFETY: 16 is a power of two, and `rounded` is far below `isize::MAX` (see `LARGEST`).
    unsafe { Layout::from_size_align_unchecked(rounded + ALIGN, 16) }
}

/// Give a block back to the system.
///
/// # Safety
/// `block` came from [`Cache::fresh`] with `rounded` bytes and is not used or listed any more.
unsafe fn release(block: *mut u8, rounded: usize) {
    // SAFETY: `fresh` wrote the system's pointer there.
    unsafe { System.dealloc(block.cast::<*mut u8>().sub(1).read(), system_layout(rounded)) }
}

// SAFETY: a block's route depends on its layout alone, so it goes back the way it came; a listed block is in nobody's
// hands; blocks have at least the size and the alignment asked for; nothing here allocates or unwinds.
unsafe impl GlobalAlloc for Caching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some((class, rounded)) = class_of(&layout) else {
            // SAFETY: the caller's contract is passed on.
            return unsafe { System.alloc(layout) };
        };
        let mut block = self.0.take(class, rounded);
        if block.is_null() {
            block = self.0.fresh(rounded, false);
        }
        if !block.is_null() {
            self.0.grew(layout.size());
        }
        block
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let Some((class, rounded)) = class_of(&layout) else {
            // SAFETY: the caller's contract is passed on.
            return unsafe { System.alloc_zeroed(layout) };
        };
        let mut block = self.0.take(class, rounded);
        if block.is_null() {
            block = self.0.fresh(rounded, true);
        } else {
            // SAFETY: the block is ours and at least this long.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        if !block.is_null() {
            self.0.grew(layout.size());
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some((class, rounded)) = class_of(&layout) else {
            // SAFETY: the caller's contract is passed on.
            return unsafe { System.dealloc(block, layout) };
        };
        self.0.shrank(layout.size());
        // SAFETY: a block of this layout came from `fresh` with this size, and the caller gives it up.
        unsafe { self.0.keep(block, class, rounded) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller guarantees that the new size, rounded up to the alignment, does not overflow.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        match (class_of(&layout), class_of(&new_layout)) {
            // SAFETY: the block is the system's and stays there.
            (None, None) => unsafe { System.realloc(block, layout, new_size) },
            (Some((old, _)), Some((new, _))) if old == new => {
                self.0.grew(new_size);
                self.0.shrank(layout.size());
                block
            }
            _ => {
                // SAFETY: both blocks are valid for the bytes copied and distinct; the old one is given up afterwards.
                unsafe {
                    let moved = self.alloc(new_layout);
                    if !moved.is_null() {
                        ptr::copy_nonoverlapping(block, moved, layout.size().min(new_size));
                        self.dealloc(block, layout);
                    }
                    moved
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    fn all_bytes(block: *mut u8, size: usize, value: u8) -> bool {
        unsafe { std::slice::from_raw_parts(block, size) }.iter().all(|&b| b == value)
    }

    #[test]
    fn every_size_class_holds_its_sizes_and_wastes_at_most_an_eighth() {
        assert_eq!(class_of(&layout(LARGE - 1, 8)), None);
        assert_eq!(class_of(&layout(LARGEST + 1, 8)), None);
        assert_eq!(class_of(&layout(LARGE, 2 * ALIGN)), None);
        assert_eq!(class_of(&layout(LARGE, 8)), Some((0, LARGE)));
        assert_eq!(class_of(&layout(LARGEST, 8)), Some((CLASSES - 1, LARGEST)));
        for class in 0..CLASSES {
            let size = class_size(class);
            assert_eq!(class_of(&layout(size, 8)), Some((class, size)), "class {class}");
            if class > 0 {
                let below = class_size(class - 1);
                assert_eq!(class_of(&layout(below + 1, 8)), Some((class, size)));
                assert!((size - below) as f64 <= below as f64 / 8.0, "{below} {size}");
            }
        }
    }

    #[test]
    fn a_freed_block_is_used_again_and_zeroed_when_asked() {
        static OWN: Cache = Cache::new(1 << 30);
        let (heap, size) = (Caching(&OWN), 100_000);
        unsafe {
            let a = heap.alloc_zeroed(layout(size, 8));
            assert!(all_bytes(a, size, 0));
            assert_eq!(a.addr() % ALIGN, 0);
            a.write_bytes(7, size);
            heap.dealloc(a, layout(size, 8));
            assert_eq!(OWN.cached.load(Ordering::Relaxed), class_of(&layout(size, 8)).unwrap().1);
            let b = heap.alloc_zeroed(layout(size + 1, 4));
            assert_eq!(a, b, "the same class, so the same block");
            assert!(all_bytes(b, size + 1, 0));
            assert_eq!(OWN.cached.load(Ordering::Relaxed), 0);
            heap.dealloc(b, layout(size + 1, 4));
        }
    }

    #[test]
    fn realloc_keeps_the_content_across_small_large_and_back() {
        static OWN: Cache = Cache::new(1 << 30);
        let heap = Caching(&OWN);
        unsafe {
            let mut size = 100;
            let mut block = heap.alloc(layout(size, 16));
            block.write_bytes(9, size);
            for next in [1_000, LARGE - 1, LARGE, LARGE + 1, 70_000, 1 << 20, 70_000, LARGE - 1, 50] {
                block = heap.realloc(block, layout(size, 16), next);
                assert!(all_bytes(block, size.min(next), 9), "{size} -> {next}");
                block.write_bytes(9, next);
                size = next;
                assert_eq!(OWN.live.load(Ordering::Relaxed), if next >= LARGE { next } else { 0 });
            }
            heap.dealloc(block, layout(size, 16));
        }
        assert_eq!(OWN.peak.load(Ordering::Relaxed), (1 << 20) + 70_000, "while moving, both blocks are held");
    }

    #[test]
    fn the_cache_stays_below_its_limit_and_evicts_other_sizes() {
        static OWN: Cache = Cache::new(1 << 20);
        let heap = Caching(&OWN);
        let cached = || OWN.cached.load(Ordering::Relaxed);
        unsafe {
            let blocks: Vec<_> = (0..16).map(|_| heap.alloc(layout(LARGE, 8))).collect();
            blocks.into_iter().for_each(|b| heap.dealloc(b, layout(LARGE, 8)));
            assert_eq!(cached(), 1 << 20);
            let big = heap.alloc(layout(1 << 19, 8));
            heap.dealloc(big, layout(1 << 19, 8));
            assert_eq!(cached(), 1 << 20, "small free blocks made room");
            assert_eq!(heap.alloc(layout(1 << 19, 8)), big);
            let too_big = heap.alloc(layout(1 << 21, 8));
            heap.dealloc(too_big, layout(1 << 21, 8));
            assert_eq!(cached(), 1 << 19, "a block above the limit is not kept");
            heap.dealloc(big, layout(1 << 19, 8));
            OWN.evict(usize::MAX);
            assert_eq!(cached(), 0);
        }
    }

    #[test]
    fn alignments_of_any_width_are_honoured() {
        static OWN: Cache = Cache::new(1 << 30);
        let heap = Caching(&OWN);
        for align in (0..13).map(|p| 1_usize << p) {
            for size in [align, LARGE, 3 * LARGE + align] {
                unsafe {
                    let block = heap.alloc(layout(size, align));
                    assert_eq!(block.addr() % align, 0, "size {size} align {align}");
                    heap.dealloc(block, layout(size, align));
                }
            }
        }
    }

    #[test]
    fn threads_passing_blocks_around_never_share_one() {
        static OWN: Cache = Cache::new(4 << 20);
        let heap = Caching(&OWN);
        let (send, receive) = std::sync::mpsc::channel::<(usize, usize, u8)>();
        std::thread::scope(|scope| {
            for thread in 0..4_u8 {
                let send = send.clone();
                scope.spawn(move || {
                    for i in 0..500_usize {
                        let size = LARGE + (i * 7919 + thread as usize * 104_729) % (4 * LARGE);
                        let block = unsafe { heap.alloc(layout(size, 8)) };
                        let mark = thread.wrapping_mul(61).wrapping_add(i as u8);
                        // The whole block is written before it is handed on, and checked by the receiver.
                        unsafe { block.write_bytes(mark, size) };
                        send.send((block.expose_provenance(), size, mark)).unwrap();
                    }
                });
            }
            drop(send);
            let mut held = Vec::new();
            for (address, size, mark) in receive {
                held.push((ptr::with_exposed_provenance_mut::<u8>(address), size, mark));
                if held.len() > 40 {
                    let (block, size, mark) = held.swap_remove(size % 40);
                    assert!(all_bytes(block, size, mark));
                    unsafe { heap.dealloc(block, layout(size, 8)) };
                }
            }
            for (block, size, mark) in held {
                assert!(all_bytes(block, size, mark));
                unsafe { heap.dealloc(block, layout(size, 8)) };
            }
        });
        assert_eq!(OWN.live.load(Ordering::Relaxed), 0);
        assert!(OWN.peak.load(Ordering::Relaxed) >= 40 * LARGE);
        assert!(OWN.cached.load(Ordering::Relaxed) <= 4 << 20);
    }
}
