//! A caching global allocator: large blocks are kept for reuse instead of going back to the kernel.
//!
//! Each training step frees and allocates the same few hundred large buffers. The system allocator returns them to the kernel,
//! which zeroes and maps every page again: up to half the time of a step. Here a block of [`LARGE`] bytes or more is rounded up to one of
//! eight sizes per power of two and, once freed, kept in the list of its size. The lists are threaded through the free blocks, so the
//! allocator itself never allocates. Smaller blocks go to the system allocator.
//!
//! **What is kept is bounded**: blocks in use and free ones together never take more than the most that was in use at once, and a
//! sixteenth (see [`SPARE`]). Beyond that, free blocks of the size that has been unused for the longest time go back to the kernel. Without the
//! bound, sizes that come up once (the active samples of a decoding step, say) stay for good, and a run grows with the number of sizes
//! that it has met. So the memory that a process takes follows from what it has in use at its peak, which a memory plan can count.
//!
//! Blocks come from the kernel by `mmap` and go back by `munmap`: glibc's own heaps may keep what is freed.
//!
//! Why not `mallopt`: an earlier form, which asked the system allocator for its blocks, was compared on a synthetic step (two threads that allocate, write and free, glibc 2.36; CPU seconds, user and system).
//! With buffers of 0.1 to 2 MiB glibc took 9.8 s, with `M_TRIM_THRESHOLD`, `M_MMAP_THRESHOLD` and `M_TOP_PAD` raised 3.3 s, this allocator
//! 3.4 to 3.7 s. With buffers of 8 to 128 MiB, which exceed the heaps of glibc's threads, it was 5.0, 4.8 and 2.2 s. Other systems than
//! glibc have no `mallopt`; allocators that keep large blocks (mimalloc, jemalloc) need a C compiler.

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Blocks of fewer bytes go to the system allocator.
pub const LARGE: usize = 64 << 10;
/// Largest alignment of a cached block in bytes; the kernel's pages have more.
const ALIGN: usize = 128;
/// Sizes per power of two: a block is at most 1/8 larger than requested.
const STEPS: usize = 8;
/// Powers of two from [`LARGE`] on that have lists (up to 64 GiB); larger blocks go to the system allocator.
const POWERS: usize = 20;
const CLASSES: usize = STEPS * POWERS + 1;
const LARGEST: usize = LARGE << POWERS;
/// Most bytes kept for reuse by the process.
const CACHE_LIMIT: usize = 1 << 30;
/// In use and kept together, at most: what was in use at the highest, and one part in so many of it.
pub const SPARE: usize = 16;

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
    /// When a block of this size was last asked for, by [`Cache::clock`].
    asked: AtomicUsize,
}

// SAFETY: `head`, and the blocks reachable from it, are touched only while `locked` is held.
unsafe impl Sync for FreeList {}

impl FreeList {
    const fn new() -> Self {
        FreeList { locked: AtomicBool::new(false), head: UnsafeCell::new(ptr::null_mut()), asked: AtomicUsize::new(0) }
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

    fn is_empty(&self) -> bool {
        self.with_head(|head| head.is_null())
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
    /// Bytes of all blocks that came from the kernel and have not gone back, in use or free.
    mapped: AtomicUsize,
    /// Bytes in free blocks.
    cached: AtomicUsize,
    /// The most bytes that were in use at once, in whole blocks.
    most_used: AtomicUsize,
    /// Counts requests for blocks.
    clock: AtomicUsize,
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
            mapped: AtomicUsize::new(0),
            cached: AtomicUsize::new(0),
            most_used: AtomicUsize::new(0),
            clock: AtomicUsize::new(0),
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

    /// A free block of this class, or null.
    fn take(&self, class: usize, rounded: usize) -> *mut u8 {
        let block = self.lists[class].pop();
        if !block.is_null() {
            self.cached.fetch_sub(rounded, Ordering::Relaxed);
        }
        block
    }

    /// A block of this class, from the list or from the kernel, and whether it is fresh, and so holds zeros. Null if there is none.
    fn get(&self, class: usize, rounded: usize) -> (*mut u8, bool) {
        self.lists[class].asked.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        let block = self.take(class, rounded);
        if !block.is_null() {
            self.in_use(0);
            return (block, false);
        }
        let most = self.in_use(rounded);
        let mapped = self.mapped.fetch_add(rounded, Ordering::Relaxed) + rounded;
        self.evict(mapped.saturating_sub(most + most / SPARE));
        let mut block = map(rounded);
        if block.is_null() {
            self.evict(usize::MAX);
            block = map(rounded);
        }
        if block.is_null() {
            self.mapped.fetch_sub(rounded, Ordering::Relaxed);
        }
        (block, true)
    }

    /// The most bytes that were in use at once, now with `more` of them.
    fn in_use(&self, more: usize) -> usize {
        let mapped = self.mapped.load(Ordering::Relaxed);
        let used = mapped.saturating_sub(self.cached.load(Ordering::Relaxed)) + more;
        self.most_used.fetch_max(used, Ordering::Relaxed).max(used)
    }

    /// Give blocks back to the kernel until `bytes` are freed or no block is left: first of the size that nobody has asked for the longest.
    fn evict(&self, bytes: usize) {
        let mut freed = 0;
        while freed < bytes {
            let filled = (0..CLASSES).filter(|&class| !self.lists[class].is_empty());
            let Some(class) = filled.min_by_key(|&class| self.lists[class].asked.load(Ordering::Relaxed)) else {
                return;
            };
            let rounded = class_size(class);
            while freed < bytes {
                let block = self.take(class, rounded);
                if block.is_null() {
                    break;
                }
                // SAFETY: the block was free and is no longer listed.
                unsafe { self.release(block, rounded) };
                freed += rounded;
            }
        }
    }

    /// Keep a block for reuse.
    ///
    /// # Safety
    /// `block` came from [`Cache::get`] with `rounded` bytes, the size of `class`, and nobody uses it any more.
    unsafe fn keep(&self, block: *mut u8, class: usize, rounded: usize) {
        if rounded > self.limit {
            // SAFETY: by this function's contract.
            return unsafe { self.release(block, rounded) };
        }
        let cached = self.cached.fetch_add(rounded, Ordering::Relaxed) + rounded;
        self.evict(cached.saturating_sub(self.limit));
        // SAFETY: by this function's contract.
        unsafe { self.lists[class].push(block) };
    }

    /// Give a block back to the kernel.
    ///
    /// # Safety
    /// `block` came from [`Cache::get`] with `rounded` bytes and is not used or listed any more.
    unsafe fn release(&self, block: *mut u8, rounded: usize) {
        // SAFETY: by this function's contract, the mapping is this long and nobody's.
        if unsafe { munmap(block.cast(), rounded) }.is_ok() {
            self.mapped.fetch_sub(rounded, Ordering::Relaxed);
        }
    }
}

/// Zeroed pages from the kernel; null if there are none.
fn map(bytes: usize) -> *mut u8 {
    // SAFETY: a mapping of its own, at an address that the kernel chooses.
    let pages =
        unsafe { mmap_anonymous(ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE) };
    pages.map_or(ptr::null_mut(), |pages| pages.cast())
}

/// Size in bytes of the blocks of a list: the inverse of [`class_of`].
fn class_size(class: usize) -> usize {
    let index = class + STEPS;
    let (power, above) = ((index - 1) / STEPS + LARGE.ilog2() as usize - 1, (index - 1) % STEPS + 1);
    (1 << power) + above * ((1 << power) / STEPS)
}

// SAFETY: a block's route depends on its layout alone, so it goes back the way it came; a listed block is in nobody's
// hands; blocks have at least the size and the alignment asked for; nothing here allocates or unwinds.
unsafe impl GlobalAlloc for Caching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some((class, rounded)) = class_of(&layout) else {
            // SAFETY: the caller's contract is passed on.
            return unsafe { System.alloc(layout) };
        };
        let (block, _) = self.0.get(class, rounded);
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
        let (block, fresh) = self.0.get(class, rounded);
        if !block.is_null() && !fresh {
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
        // SAFETY: a block of this layout came from `get` with this size, and the caller gives it up.
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
            assert!(cached() <= 1 << 20, "small free blocks made room");
            assert_eq!(heap.alloc(layout(1 << 19, 8)), big);
            let too_big = heap.alloc(layout(1 << 21, 8));
            let before = cached();
            heap.dealloc(too_big, layout(1 << 21, 8));
            assert_eq!(cached(), before, "a block above the limit is not kept");
            heap.dealloc(big, layout(1 << 19, 8));
            OWN.evict(usize::MAX);
            assert_eq!((cached(), OWN.mapped.load(Ordering::Relaxed)), (0, 0));
        }
    }

    #[test]
    fn blocks_of_many_sizes_take_no_more_than_was_in_use_at_once_and_a_part() {
        static OWN: Cache = Cache::new(1 << 30);
        let heap = Caching(&OWN);
        let mapped = || OWN.mapped.load(Ordering::Relaxed);
        unsafe {
            for mebibytes in 1..40 {
                let size = mebibytes << 20;
                let block = heap.alloc(layout(size, 8));
                heap.dealloc(block, layout(size, 8));
                let most = class_of(&layout(size, 8)).unwrap().1;
                assert!(mapped() <= most + most / SPARE, "{mebibytes} MiB: {}", mapped());
            }
            // A size that is asked for again and again stays; one that is not makes room.
            let often = heap.alloc(layout(4 << 20, 8));
            heap.dealloc(often, layout(4 << 20, 8));
            for size in (8..32).map(|mebibytes| mebibytes << 20) {
                let other = heap.alloc(layout(size, 8));
                assert_eq!(heap.alloc(layout(4 << 20, 8)), often, "{size}");
                heap.dealloc(often, layout(4 << 20, 8));
                heap.dealloc(other, layout(size, 8));
            }
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
