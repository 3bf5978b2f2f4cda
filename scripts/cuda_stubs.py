#!/usr/bin/env python3
"""Static libraries that stand for CUDA's shared ones when jigsaw is linked: cuda_stubs.py CUDARC_SOURCES OUT [KERNELS_FFI]

A program linked with them needs no CUDA library to start. A function of CUDA loads its library when it is called for the first time; if there is
none, it says so on stderr (but for the driver, of which the program itself speaks) and returns an error. The names come from the sources
of the crate cudarc. With KERNELS_FFI, the ffi.rs of candle-kernels, also a libmoe.a whose functions are not there: for a program without kernels.

x86-64 Linux alone. Needs gcc and ar.
"""

import pathlib
import re
import subprocess
import sys
import tempfile

# Library, folder in cudarc/src, files to load, what a function returns if there is none ("stub library", "not initialised").
LIBRARIES = [
    ("cuda", "driver", ["libcuda.so.1", "libcuda.so"], 34),
    ("cublas", "cublas", ["libcublas.so.13", "libcublas.so"], 1),
    ("cublasLt", "cublaslt", ["libcublasLt.so.13", "libcublasLt.so"], 1),
    ("curand", "curand", ["libcurand.so.10", "libcurand.so"], 203),
    ("nvrtc", "nvrtc", ["libnvrtc.so.13", "libnvrtc.so"], 11),
]

FIND = r"""
#include <dlfcn.h>
#include <stdio.h>
static const char *const names[] = {%(names)s};
static const char *const files[] = {%(files)s};
__attribute__((visibility("hidden"))) void *slots_%(library)s[sizeof names / sizeof *names];
static long absent(void) { return %(absent)d; }
static const char *absent_text(void) { return "the library is not there"; }
__attribute__((visibility("hidden"))) void *find_%(library)s(unsigned i) {
    static void *handle;
    static int said;
    for (unsigned f = 0; !handle && f < sizeof files / sizeof *files; f++) handle = dlopen(files[f], RTLD_NOW | RTLD_GLOBAL);
    void *found = handle ? dlsym(handle, names[i]) : 0;
    if (found) return slots_%(library)s[i] = found;
    if (!said++ && %(speaks)d)
        fprintf(stderr, handle ? "CUDA's %%s has no %%s: it is of another version\n"
                               : "CUDA's %%s was not found (for %%s): name its folder in LD_LIBRARY_PATH\n", files[0], names[i]);
    return %(is_text)s ? (void *)absent_text : (void *)absent;
}
"""

# Keeps every register that may hold an argument while the function is looked for.
RESOLVE = """
resolve_{0}:
    pushq %rbp
    movq %rsp, %rbp
    pushq %rdi; pushq %rsi; pushq %rdx; pushq %rcx; pushq %r8; pushq %r9
    subq $128, %rsp
{1}
    movl %r11d, %edi
    call find_{0}
    movq %rax, %r11
{2}
    addq $128, %rsp
    popq %r9; popq %r8; popq %rcx; popq %rdx; popq %rsi; popq %rdi
    popq %rbp
    jmp *%r11
"""

STUB = """
    .globl {1}
    .hidden {1}
    .type {1}, @function
{1}:
    movq slots_{0}+{2}(%rip), %r11
    testq %r11, %r11
    jz 1f
    jmp *%r11
1:  movl ${3}, %r11d
    jmp resolve_{0}
"""


def library(out, name, functions, files, absent):
    """Write lib{name}.a."""
    quoted = lambda words: ", ".join(f'"{word}"' for word in words)
    is_text = " || ".join(f"i == {i}" for i, f in enumerate(functions) if name != "cuda" and re.search("(Status|Error)(Name|String)$", f))
    saved = "\n".join(f"    movups %xmm{i}, {16 * i}(%rsp)" for i in range(8))
    restored = "\n".join(f"    movups {16 * i}(%rsp), %xmm{i}" for i in range(8))
    resolve = RESOLVE.format(name, saved, restored)
    stubs = "".join(STUB.format(name, f, 8 * i, i) for i, f in enumerate(functions))
    find = FIND % {"names": quoted(functions), "files": quoted(files), "library": name, "absent": absent, "speaks": name != "cuda", "is_text": is_text or "0"}
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        (work / "stubs.S").write_text(f"    .text\n{resolve}{stubs}\n    .section .note.GNU-stack,\"\",@progbits\n")
        (work / "find.c").write_text(find)
        for source in ["stubs.S", "find.c"]:
            subprocess.run(["gcc", "-O2", "-fPIC", "-c", source, "-o", f"{source}.o"], cwd=work, check=True)
        target = out / f"lib{name}.a"
        target.unlink(missing_ok=True)
        subprocess.run(["ar", "rcs", target.resolve(), "stubs.S.o", "find.c.o"], cwd=work, check=True)
    print(f"{target}: {len(functions)} functions")


def main():
    cudarc, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    for name, folder, files, absent in LIBRARIES:
        text = (cudarc / "src" / folder / "sys" / "mod.rs").read_text()
        functions = sorted(set(re.findall(r"extern \"C\" \{\s*fn (\w+)\(", text)))
        library(out, name, functions, files, absent)
    if len(sys.argv) > 3:
        functions = sorted(set(re.findall(r"pub fn (\w+)\(", pathlib.Path(sys.argv[3]).read_text())))
        library(out, "moe", functions, ["none"], 1)


if __name__ == "__main__":
    main()
