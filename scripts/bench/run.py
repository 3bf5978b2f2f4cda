"""jigsaw against its peers, in turn on this machine. Prints a Markdown table; raw numbers go to benches/results.

usage: bench_peers.sh [SECTION ...]      (all sections if none is named; `table` prints what is stored)

Each round runs jigsaw, then the peer; a figure is the ratio of the medians over all rounds, and the range is that of the
ratios of single rounds. The peer's settings are chosen first, by trial (allocator, threads, attention, optimizer, compile).

    ROUNDS=5     rounds                               STEPS=8      timed steps of a round
    TUNE=1       0: don't try the peer's settings     COMPILE=600  seconds that torch.compile may take; 0: not tried
    PUZZLES=2000 puzzles that gen makes               QUICK=1      one round of next to nothing: does it all run?
    WORK=DIR     checkpoints, data and runs           OUT=FILE     raw numbers
"""

import datetime
import fcntl
import hashlib
import itertools
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import arithmetic
from processes import Failed, Jigsaw, deepen, peer, run

ROOT = Path(__file__).resolve().parents[2]
QUICK = os.environ.get("QUICK", "0") != "0"


def number(name, usual, quick):
    return int(os.environ.get(name, quick if QUICK else usual))


ROUNDS, STEPS, WARMUP = number("ROUNDS", 5, 1), number("STEPS", 8, 1), number("WARMUP", 2, 1)
TUNE, COMPILE, PUZZLES = number("TUNE", 1, 1), number("COMPILE", 600, 0), number("PUZZLES", 2000, 40)
WORK = Path(os.environ.get("WORK", ROOT / "target" / "bench-peers"))
OUT = Path(os.environ.get("OUT", ROOT / "benches" / "results" / f"{datetime.date.today()}-{socket.gethostname()}.json"))

#: Sizes of the table: preset, grid, tile, batch. tiny: pictures of 84 x 84; small: 224 x 224.
SIZES = {"tiny": ("3x3", 28, 64), "small": ("2x2", 112, 4)}
USUAL = {"allocator": "keep", "threads": 1 if QUICK else 2, "attn": "sdpa", "optimizer": "fused", "compile": False}
#: Rollouts: prompts, responses to each, tokens of a response.
PROMPTS, SAMPLES, NEW = (2, 2, 4) if QUICK else (16, 8, 32)
PHOTOS = ROOT / "data" / "photos"

jigsaw = Jigsaw(os.environ.get("JIGSAW", ROOT / "target" / "release" / "jigsaw"), WORK)


def say(text):
    print(text, file=sys.stderr, flush=True)


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}


# ---------------------------------------------------------------------------------------------------------------------
# The peer's best settings


def candidates():
    """What is tried first: every allocator, number of threads and attention."""
    if not TUNE or QUICK:
        return [USUAL]
    return [
        {**USUAL, "allocator": allocator, "threads": threads, "attn": attn}
        for allocator in ("default", "keep") for threads in (1, 2) for attn in ("eager", "sdpa")
    ]


def tune(job, **options):
    """The fastest settings of the peer for a job, and all that was tried: (settings, trials)."""
    trials = []

    def attempt(settings, **more):
        name = " ".join(f"{k}={v}" for k, v in settings.items())
        try:
            result = peer(job, settings, **{**options, "steps": min(STEPS, 4), "warmup": 1, **more})
            trial = {"settings": settings, "seconds": statistics.median(result["step_seconds"]), "peak_kb": result["peak_kb"]}
            say(f"    {trial['seconds']:.3f} s  {name}")
        except Failed as error:
            trial = {"settings": settings, "failed": str(error)[-400:]}
            say(f"    failed  {name}: {str(error).splitlines()[-1][:200]}")
        trials.append(trial)

    best = lambda: min((t for t in trials if "seconds" in t), key=lambda t: t["seconds"])["settings"]
    for settings in candidates():
        attempt(settings)
    if TUNE and not QUICK and job != "rollout":
        attempt({**best(), "optimizer": "foreach"})
    if TUNE and COMPILE > 0:
        attempt({**best(), "compile": True}, limit=COMPILE, warmup=3)
    return best(), trials


# ---------------------------------------------------------------------------------------------------------------------
# Rows


def row(work, unit, pairs, target, settings=None, less=False):
    """A line of the table from (jigsaw's values, peer's values) of each round. `less`: the smaller the better."""
    ours, theirs = ([v for pair in pairs for v in pair[side]] for side in (0, 1))
    ratios = [statistics.median(a) / statistics.median(b) for a, b in pairs]
    ratio = statistics.median(ours) / statistics.median(theirs)
    return {
        "work": work, "unit": unit, "jigsaw": spread(ours), "peer": spread(theirs), "ratio": ratio,
        "rounds": [min(ratios), max(ratios)], "target": target, "met": ratio <= target if less else ratio >= target,
        "less": less, "settings": settings,
    }


def same(what, ours, theirs):
    """Refuse to compare different amounts of work."""
    if abs(ours - theirs) > 0.005 * theirs:
        raise Failed(f"{what}: jigsaw works on {ours} tokens a step, the peer on {theirs}")


def sizes(preset, examples):
    grid, tile, batch = SIZES[preset]
    return jigsaw.model(preset), jigsaw.data(grid, tile, max(200, 2 * examples)), 4 if QUICK else batch


def sft(preset):
    model, data, batch = sizes(preset, 200)
    tell = {"model": model, "data": data, "batch": batch}
    settings, trials = tune("sft", **tell)
    target, unit, pairs, raw = (2.5, "samples/s", [], []) if preset == "tiny" else (1.3, "tokens/s", [], [])
    for _ in range(ROUNDS):
        ours = jigsaw.train("sft", model, data, STEPS + WARMUP, batch)
        theirs = peer("sft", settings, **tell, steps=STEPS, warmup=WARMUP)
        steps = ours["metrics"][WARMUP:]
        same("SFT", statistics.mean(s["tokens"] for s in steps), statistics.mean(theirs["tokens"]))
        amount = batch if preset == "tiny" else statistics.mean(theirs["tokens"])
        pairs.append(([amount / s["step_seconds"] for s in steps], [amount / t for t in theirs["step_seconds"]]))
        raw.append({"jigsaw": [s["step_seconds"] for s in steps], "peer": theirs})
    return [row(f"SFT step, {preset}", unit, pairs, target, settings)], {"trials": trials, "rounds": raw}


def rollout(preset):
    model, data, _ = sizes(preset, 200)
    tell = {"model": model, "data": data, "batch": PROMPTS, "samples": SAMPLES, "new": NEW}
    steps = STEPS if preset == "tiny" else max(1, STEPS // 4)
    settings, trials = tune("rollout", **{**tell, "batch": PROMPTS if preset == "tiny" else min(PROMPTS, 4), "steps": 1})
    pairs, raw = [], []
    for _ in range(ROUNDS):
        out = WORK / "eval"
        jigsaw("eval", "--model", model, "--data", data, "--split", "train", "--limit", PROMPTS * steps, "--batch-size", PROMPTS,
               "--num-generations", SAMPLES, "--temperature", 1, "--max-new-tokens", NEW, "--out", out, "--fresh")
        summary = json.loads((out / "result.json").read_text())["summary"]
        theirs = peer("rollout", settings, **tell, steps=steps, warmup=1)
        pairs.append(([summary["tokens_per_second"]], [n / t for n, t in zip(theirs["tokens"], theirs["step_seconds"])]))
        raw.append({"jigsaw": {k: summary[k] for k in ("seconds", "tokens_per_second", "mean_tokens")}, "peer": theirs})
    target = 5 if preset == "tiny" else 2
    return [row(f"rollouts, {preset}, {PROMPTS} x {SAMPLES} x {NEW}", "tokens/s", pairs, target, settings)], {"trials": trials, "rounds": raw}


def grpo():
    model, data, _ = sizes("tiny", 200)
    tell = {"model": model, "data": data, "batch": PROMPTS, "samples": SAMPLES, "new": NEW}
    settings, trials = tune("grpo", **tell)
    # Random weights earn no reward; the entropy bonus makes every gradient differ from zero, as the peer's are.
    sets = {"rollout.num_generations": SAMPLES, "rollout.max_new_tokens": NEW, "grpo.entropy_coef": 0.001}
    pairs, raw = [], []
    for _ in range(ROUNDS):
        ours = jigsaw.train("rft", model, data, STEPS + WARMUP, PROMPTS, sets)
        theirs = peer("grpo", settings, **tell, steps=STEPS, warmup=WARMUP)
        steps = ours["metrics"][WARMUP:]
        # A response of jigsaw may end early (its share is in response_length): rates, not times, are compared.
        made = [PROMPTS * SAMPLES * s["response_length"] / s["step_seconds"] for s in steps]
        pairs.append((made, [n / t for n, t in zip(theirs["tokens"], theirs["step_seconds"])]))
        raw.append({"jigsaw": [{k: s[k] for k in ("step_seconds", "response_length")} for s in steps], "peer": theirs})
    return [row(f"GRPO step, tiny, {PROMPTS} x {SAMPLES} x {NEW}", "response tokens/s", pairs, 4, settings)], {"trials": trials, "rounds": raw}


def memory():
    rows, raw = [], {}
    for preset in SIZES:
        model, data, batch = sizes(preset, 200)
        tell = {"model": model, "data": data, "batch": batch, "steps": 3, "warmup": 0}
        choices = [{**USUAL, "allocator": a, "attn": t} for a in ("default", "keep") for t in ("sdpa", "eager")]
        kinds = {json.dumps(c): [] for c in choices[: 1 if QUICK else None]}
        ours, stepping, idle = [], [], []
        for _ in range(min(ROUNDS, 3)):
            ours.append(jigsaw.train("sft", model, data, 3, batch)["peak_kb"] / 1024)
            stepping.append(jigsaw.train("sft", model, data, 100, batch, until=3)["peak_kb"] / 1024)
            out = WORK / "eval"
            _, peak, _, _ = jigsaw("eval", "--model", model, "--data", data, "--limit", 1, "--max-new-tokens", 1, "--out", out, "--fresh")
            idle.append(peak / 1024)
            for kind, found in kinds.items():
                found.append(peer("sft", json.loads(kind), **tell))
        best = min(kinds, key=lambda k: statistics.median(r["peak_kb"] for r in kinds[k]))
        theirs = [r["peak_kb"] / 1024 for r in kinds[best]]
        loaded = [r["loaded_kb"] / 1024 for r in kinds[best]]
        rows.append(row(f"peak memory, SFT step, {preset}", "MB", [([a], [b]) for a, b in zip(ours, theirs)], 0.5, json.loads(best), True))
        above = [([a - c], [b - d]) for a, b, c, d in zip(ours, theirs, idle, loaded)]
        rows.append({**row(f"the same above the loaded model, {preset}", "MB", above, 0.5, json.loads(best), True), "target": None})
        before = [([a], [b]) for a, b in zip(stepping, theirs)]
        rows.append({**row(f"the same before the model is saved, {preset}", "MB", before, 0.5, json.loads(best), True), "target": None})
        raw[preset] = {"jigsaw_mb": ours, "jigsaw_before_saving_mb": stepping, "jigsaw_loaded_mb": idle, "peer": kinds}
    return rows, raw


def first_step():
    rows, raw = [], {}
    for preset in SIZES:
        model, data, batch = sizes(preset, 200)
        begun, done = [], []
        for _ in range(ROUNDS):
            ours = jigsaw.train("sft", model, data, 100, batch, until=1)
            theirs = peer("sft", USUAL, model=model, data=data, batch=batch, batches=1, steps=1, warmup=0)
            started = theirs["started"]
            begun.append(([theirs["first_step_began"] - started], [ours["seconds"] - ours["first_step_seconds"]]))
            done.append(([theirs["first_step_at"] - started], [ours["seconds"]]))
        raw[preset] = [
            {"peer_begun": a[0], "jigsaw_begun": b[0], "peer_done": c[0], "jigsaw_done": d[0]}
            for (a, b), (c, d) in zip(begun, done)
        ]
        for what, pairs in (("begun", begun), ("done", done)):
            line = row(f"command to first step {what}, {preset} (times sooner)", "s", pairs, 20, USUAL)
            rows.append({**line, "jigsaw": line["peer"], "peer": line["jigsaw"]})
    return rows, raw


def gen():
    rows, raw = [], []
    # A new folder each time, deleted at the end: ext4 makes files slowly for a minute after it has deleted many.
    parent = WORK / "gen"
    shutil.rmtree(parent, ignore_errors=True)
    parent.mkdir(parents=True)
    number = itertools.count()

    def ours(threads):
        out = parent / str(next(number))
        env = {"RAYON_NUM_THREADS": str(threads)}
        _, _, seconds, _ = jigsaw("gen", "--images", PHOTOS, "--grid", "3x3", "--count", PUZZLES, "--out", out, env=env)
        return PUZZLES / seconds, size_of(out)

    def theirs(processes, level):
        out = parent / str(next(number))
        command = [sys.executable, Path(__file__).parent / "peer_gen.py", "--images", PHOTOS, "--out", out, "--count", PUZZLES]
        command += ["--processes", processes] + ([] if level is None else ["--level", level])
        text, _, _, _ = run(command)
        result = json.loads(text.split("RESULT ")[-1])
        return result["puzzles"] / result["seconds"], size_of(out)

    def size_of(folder):
        return sum(p.stat().st_size for p in folder.rglob("*.png")) / PUZZLES

    for threads in (1, 2):
        found = {level: [] for level in (1, None)}
        for _ in range(ROUNDS):
            rate, size = ours(threads)
            for level, pairs in found.items():
                peer_rate, peer_size = theirs(threads, level)
                pairs.append(([rate], [peer_rate]))
                raw.append({"threads": threads, "level": level, "jigsaw": rate, "peer": peer_rate, "png_bytes": [size, peer_size]})
        for level, pairs in found.items():
            name = "PNG level 1" if level else "Pillow's default PNG"
            rows.append(row(f"gen 3x3, {threads} thread{'s' * (threads > 1)}, {name}", "puzzles/s", pairs, 5))
    shutil.rmtree(parent)
    return rows, raw


def arithmetic_rate():
    model, data, batch = sizes("small", 200)
    config, grid, tile = json.loads((model / "config.json").read_text()), *SIZES["small"][:2]
    gflop = lambda metrics: step_gflop(config, grid, tile, batch, shared, metrics)
    shared = opening(model, data)
    pairs, raw = [], []
    for _ in range(ROUNDS):
        best = peer("matmul", USUAL, steps=4 if QUICK else 30, warmup=3, size=512 if QUICK else 2048)["gflops"]
        steps = jigsaw.train("sft", model, data, STEPS + WARMUP, batch)["metrics"][WARMUP:]
        rates = [gflop(s) / s["step_seconds"] for s in steps]
        pairs.append((rates, [max(best)]))
        raw.append({"jigsaw_gflops": rates, "torch_gflops": best, "step_gflop": gflop(steps[0])})
    # The larger of torch's best and, where `cargo bench --bench kernels` has measured it here, gemm's.
    peak, source = max(b[0] for _, b in pairs), "torch.mm"
    estimates = ROOT / "target" / "criterion" / "matmul 2048" / "gemm" / "new" / "estimates.json"
    if estimates.exists():
        gemm = 2 * 2048**3 / json.loads(estimates.read_text())["mean"]["point_estimate"]
        peak, source = max((peak, source), (gemm, "the gemm crate"))
    pairs = [(a, [peak]) for a, _ in pairs]
    line = row("SFT step, small: matrix products only", f"GFLOP/s, best product: {source}", pairs, 0.6)
    return [line], raw


def opening(model, data):
    """Tokens that all prompts of a dataset begin with."""
    return peer("opening", USUAL, model=model, data=data)["opening"]


def step_gflop(config, grid, tile, batch, shared, metrics):
    """Operations of a step, in 10^9. All sequences of these datasets have the same length and begin with `shared` tokens alike."""
    rows, cols = (int(n) * tile // 28 for n in grid.split("x"))
    length, response = metrics["tokens"] / batch, metrics["response_tokens"] / batch
    if length % 1 or response % 1:
        raise Failed(f"sequences of different lengths: {metrics}")
    return 1e-9 * arithmetic.training_step(config, batch, (rows, cols), int(length), int(response), shared)


def growth():
    """How time and memory of a step grow with batch, image tokens and parameters, beside the arithmetic. No peer."""
    table = []
    base, grid, tile = jigsaw.model("tiny"), *SIZES["tiny"][:2]
    small = 2 if QUICK else 16
    deeper = [(f"{n}x", deepen(base, WORK / f"model-tiny-{n}", n)[0], "3x3", 28, 2 * small) for n in (1, 2, 4, 8)]
    shared = opening(base, jigsaw.data(grid, tile, 400))
    cases = {
        "batch": [(f"{n}x", base, grid, tile, n * small) for n in (1, 2, 4, 8)],
        "image tokens": [
            (name, base, g, t, 2 * small) for name, g, t in [("1x", "2x2", 56), ("2x", "2x4", 56), ("4x", "2x2", 112), ("8x", "2x4", 112)]
        ],
        "layers": deeper,
    }
    for what, series in cases.items():
        found = [[] for _ in series]
        for _ in range(min(ROUNDS, 3)):
            for (name, model, g, t, batch), runs in zip(series, found):
                runs.append(jigsaw.train("sft", model, jigsaw.data(g, t, 400), STEPS + WARMUP, batch))
        for (name, model, g, t, batch), runs in zip(series, found):
            steps = [s for r in runs for s in r["metrics"][WARMUP:]]
            config = json.loads((model / "config.json").read_text())
            table.append({
                "what": what, "size": name, "batch": batch, "tokens": steps[0]["tokens"],
                "gflop": step_gflop(config, g, t, batch, shared, steps[0]), "seconds": spread([s["step_seconds"] for s in steps]),
                "peak_mb": statistics.median(r["peak_kb"] / 1024 for r in runs),
            })
    return [], {"growth": table}


SECTIONS = {
    "sft-tiny": lambda: sft("tiny"), "sft-small": lambda: sft("small"), "rollout-tiny": lambda: rollout("tiny"),
    "rollout-small": lambda: rollout("small"), "grpo": grpo, "memory": memory, "first-step": first_step, "gen": gen,
    "arithmetic": arithmetic_rate, "growth": growth,
}


# ---------------------------------------------------------------------------------------------------------------------
# What is kept and shown


def machine():
    cpu = Path("/proc/cpuinfo").read_text().splitlines()
    about = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in cpu)}
    total = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    flags = [f for f in about.get("flags", "").split() if f in ("avx2", "fma") or f.startswith("avx512") or f.startswith("amx")]
    return {
        "host": socket.gethostname(), "cpu": about.get("model name"), "family": about.get("cpu family"), "model": about.get("model"),
        "cores": os.cpu_count(), "flags": flags, "memory_kb": int(total.split()[1]), "kernel": platform.release(),
    }


def versions():
    found = {name: metadata.version(name) for name in ("torch", "transformers", "trl", "pillow", "numpy", "tokenizers")}
    commit = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True)
    binary = hashlib.sha256(jigsaw.binary.read_bytes()).hexdigest()
    return {"jigsaw": jigsaw("--version")[0].strip(), "binary_sha256": binary, "commit": commit.stdout.strip(), "python": platform.python_version(), **found}


def store(section, rows, raw, load):
    """Put a section's numbers into the day's file, which is always whole."""
    kept = json.loads(OUT.read_text()) if OUT.exists() else {"sections": {}}
    settings = {"rounds": ROUNDS, "steps": STEPS, "warmup": WARMUP, "quick": QUICK, "load_before": load}
    kept["sections"][section] = {
        "when": datetime.datetime.now().astimezone().isoformat(timespec="seconds"), "machine": machine(), "versions": versions(),
        "settings": settings, "rows": rows, "raw": raw,
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    part = OUT.with_name(OUT.name + ".tmp")
    part.write_text(json.dumps(kept, indent=1) + "\n")
    part.replace(OUT)


def shown(value):
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def table(sections):
    lines = ["| work | unit | jigsaw | peer | ratio | rounds | at least | reached | the peer's best settings |", "|---|---|---|---|---|---|---|---|---|"]
    for section in sections:
        for r in section["rows"]:
            low, high = r["rounds"]
            target = "" if r["target"] is None else ("at most " if r["less"] else "") + f"{r['target']:g} x"
            met = "" if r["target"] is None else "yes" if r["met"] else "**no**"
            peer_settings = " ".join(f"{k} {v}" for k, v in (r["settings"] or {}).items())
            lines.append(
                f"| {r['work']} | {r['unit']} | {shown(r['jigsaw']['median'])} | {shown(r['peer']['median'])} | {r['ratio']:.2f} | "
                f"{low:.2f} to {high:.2f} | {target} | {met} | {peer_settings} |"
            )
    growing = [g for section in sections if isinstance(section["raw"], dict) for g in section["raw"].get("growth", [])]
    if growing:
        lines += ["", "| what grows | size | tokens | GFLOP | ms | time / arithmetic, against 1x | peak MB |", "|---|---|---|---|---|---|---|"]
    first = None
    for g in growing:
        rate = g["seconds"]["median"] / g["gflop"]
        first = rate if g["size"] == "1x" else first
        lines.append(
            f"| {g['what']} | {g['size']} | {g['tokens']:,.0f} | {g['gflop']:.3g} | {1000 * g['seconds']['median']:.1f} | "
            f"{rate / first:.2f} | {g['peak_mb']:,.0f} |"
        )
    return "\n".join(lines)


def main():
    named = sys.argv[1:] or list(SECTIONS)
    if {"-h", "--help"} & set(named):
        print(f"{__doc__}\nSections: {', '.join(SECTIONS)}")
        return 0
    if named == ["table"]:
        print(table(json.loads(OUT.read_text())["sections"].values()))
        return 0
    unknown = [n for n in named if n not in SECTIONS]
    if unknown:
        print(f"no section {', '.join(unknown)}; there are: {', '.join(SECTIONS)}", file=sys.stderr)
        return 2
    lock = open(WORK / "lock", "w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"another benchmark is running in {WORK}: each would spoil the other's figures", file=sys.stderr)
        return 1
    failed, done = [], []
    for name in named:
        load = os.getloadavg()[0]
        say(f"{name} (load {load:.2f})")
        try:
            rows, raw = SECTIONS[name]()
        except Failed as error:
            failed.append(name)
            say(f"{name} failed: {error}")
            continue
        store(name, rows, raw, load)
        done.append({"rows": rows, "raw": raw})
    print(table(done))
    say(f"raw numbers: {OUT}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
