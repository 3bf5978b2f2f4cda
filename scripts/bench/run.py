"""jigsaw against its peers, in turn on this machine: see docs/speed.md.

Each row has a file DIR/ROW.json, whole after every round. A row that is done with the same binary, versions and settings is not measured
again. In a round each side does a few steps: jigsaw, the peer eager and compiled, and all of them again in bf16 where the processor has it.
"""

import argparse
import datetime
import fcntl
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import table
from processes import ROOT, Failed, Jigsaw
from rows import Bench, TorchRow, rows

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "pillow", "numpy", "tokenizers")


def say(text):
    print(text, file=sys.stderr, flush=True)


def machine():
    cpu = Path("/proc/cpuinfo").read_text().splitlines()
    about = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in cpu)}
    total = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    flags = [f for f in about.get("flags", "").split() if f in ("avx2", "fma") or f.startswith(("avx512", "amx"))]
    return {
        "cpu": about.get("model name"), "family": about.get("cpu family"), "model": about.get("model"), "cores": os.cpu_count(),
        "flags": flags, "memory_kb": int(total.split()[1]), "kernel": platform.release(),
    }


def busy_cores():
    """Cores that other programs keep busy, over a second."""
    def busy():
        user, nice, system, _idle, _waiting, *other = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9])
        return user + nice + system + sum(other)

    before, start = busy(), time.monotonic()
    time.sleep(1)
    return (busy() - before) / os.sysconf("SC_CLK_TCK") / (time.monotonic() - start)


def first_line(*command):
    """What a program says of itself; None if it is not there."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return None


def versions(jigsaw, compiler, llama):
    found = {name: metadata.version(name) for name in PACKAGES}
    found["llama-cpp-python"] = llama and first_line(llama, "-c", "import llama_cpp; print(llama_cpp.__version__)")
    return {
        "jigsaw": jigsaw("--version")[0].strip(), "binary_sha256": hashlib.sha256(jigsaw.binary.read_bytes()).hexdigest(),
        "commit": first_line("git", "-C", ROOT, "describe", "--always", "--dirty"), "rustc": first_line("rustc", "--version"),
        "c++": compiler and first_line(compiler, "--version"), "python": platform.python_version(), **found,
    }


def store(path, record):
    part = path.with_suffix(".tmp")
    part.write_text(json.dumps(record, indent=1) + "\n")
    part.replace(path)


def measure(row, bench, rounds, seconds, record, keep):
    """Fill `record`: settings, sides with their rounds, facts. `keep` stores it, after every round."""
    row.prepare()
    settings = bench.usual
    if isinstance(row, TorchRow):
        settings, record["trials"] = row.settings()
        say("    " + ", ".join(f"{k} {v}" for k, v in settings.items()))
    record["settings"] = settings
    sides, ready, first = row.sides(settings), {}, {}
    kept = record["sides"] = {name: {"rounds": []} for name in sides}

    def drop(name, error):
        # A side that fails is left out, and said so; the others go on.
        sides.pop(name).close()
        kept[name]["failed"] = str(error)[-2000:]
        say(f"    {name} failed: {str(error).splitlines()[-1][:200]}")

    try:
        # All together: nothing is measured until they are ready.
        for side in sides.values():
            side.start()
        for name, side in list(sides.items()):
            began = time.monotonic()
            try:
                ready[name] = side.ready()
            except Failed as error:
                drop(name, error)
                continue
            if ready[name]:
                kept[name]["ready"] = ready[name]
                say(f"    {name} is ready ({time.monotonic() - began:.0f} s more)")
        if isinstance(row, TorchRow) and "eager f32" not in ready:
            raise Failed(f"the peer does not run: {kept['eager f32']['failed']}")
        deadline = time.monotonic() + seconds
        for number in range(rounds):
            if number > 1 and time.monotonic() > deadline:
                record["stopped"] = f"after {number} of {rounds} rounds: {seconds:.0f} s had passed"
                break
            begun, visits = time.monotonic(), {}
            for name, side in list(sides.items()):
                try:
                    visits[name] = side.visit(bench.limit)
                except Failed as error:
                    if name.startswith("jigsaw"):
                        raise
                    drop(name, error)
            if not number:
                record["facts"] = row.check({n: r for n, r in ready.items() if n in sides and r}, visits)
            for name, visit in visits.items():
                kept[name]["rounds"].append(visit)
            keep(record)
            say(f"    round {number + 1} of {rounds}: {time.monotonic() - begun:.0f} s")
    finally:
        for side in sides.values():
            side.close()
    record["complete"] = True
    keep(record)


def main():
    parser = argparse.ArgumentParser(prog="bench_peers.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", help="names, separated by commas (default: all; --rows list names them)")
    parser.add_argument("--rounds", type=int, help="rounds of each row (3)")
    parser.add_argument("--quick", action="store_true", help="one round of next to nothing: does it all run? Its figures mean nothing")
    parser.add_argument("--out", type=Path, help="directory of the raw numbers (docs/results/DATE-peers)")
    parser.add_argument("--work", type=Path, default=ROOT / "target" / "bench-peers", help="checkpoints, data, runs and logs")
    parser.add_argument("--seconds", type=float, default=120, help="seconds after which a row that has two rounds begins no other")
    parser.add_argument("--limit", type=float, default=420, help="seconds within which a side must be ready (compiled), and do its steps")
    parser.add_argument("--again", action="store_true", help="measure rows that are done, too")
    args = parser.parse_args()
    rounds = args.rounds or (1 if args.quick else 3)
    out = args.out or (args.work / "quick" if args.quick else ROOT / "docs" / "results" / f"{datetime.date.today()}-peers")

    jigsaw = Jigsaw(os.environ["JIGSAW"], args.work)
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(args.work / "inductor"))
    here, compiler, llama = machine(), shutil.which(os.environ.get("CXX", "g++")), os.environ.get("LLAMA_PYTHON") or None
    bench = Bench(jigsaw, args.quick, here["flags"], compiler, llama, args.limit)
    every = rows(bench)
    named = list(every) if args.rows is None else args.rows.split(",")
    if named == ["list"]:
        print("\n".join(f"{name}: {row.work}" for name, row in every.items()))
        return 0
    if unknown := [n for n in named if n not in every]:
        parser.error(f"no row {', '.join(unknown)}; there are: {', '.join(every)}")
    if not compiler:
        say("torch.compile is left out: it needs a C++ compiler (apt-get install g++)")
    if "bf16" not in bench.dtypes:
        say("bf16 is left out: this processor has neither avx512_bf16 nor amx_bf16")
    if not llama:
        say("llama.cpp is left out: LLAMA_PYTHON names no interpreter with llama-cpp-python and gguf")
    lock = open(args.work / "lock", "w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say(f"another benchmark is running in {args.work}: each would spoil the other's figures")
        return 1

    # A stop from outside closes the processes of the peer, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    out.mkdir(parents=True, exist_ok=True)
    about, failed = versions(jigsaw, compiler, llama), []
    # What a stored row must agree with to count as done.
    key = {"binary": about["binary_sha256"], "torch": about["torch"], "cpu": here["cpu"], "rounds": rounds, "quick": args.quick}
    for name in named:
        path = out / f"{name}.json"
        done = json.loads(path.read_text()) if path.exists() else {}
        if done.get("complete") and done["key"] == key and not args.again:
            say(f"{name}: done on {done['when']}")
            continue
        begun = time.monotonic()
        busy = busy_cores()
        say(f"{name}: {every[name].work} ({busy:.2f} cores are busy)")
        record = {
            "row": name, "work": every[name].work, "unit": every[name].unit, "lower": every[name].lower, "complete": False, "key": key,
            "when": datetime.datetime.now().astimezone().isoformat(timespec="seconds"), "busy_cores_before": busy, "machine": here,
            "versions": about,
        }
        try:
            measure(every[name], bench, rounds, args.seconds, record, lambda found: store(path, found))
        except Failed as error:
            failed.append(name)
            say(f"{name} failed: {error}")
            store(path, {"sides": {}, **record, "failed": str(error)[-2000:]})
        say(f"    {time.monotonic() - begun:.0f} s")
    print(table.page(out))
    say(f"raw numbers: {out}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
