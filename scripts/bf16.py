#!/usr/bin/env python3
"""bf16 beside f32 on this machine's CPU: speed of an SFT step, of rollouts and of decoding, and loss curves of 300 steps.

    scripts/bf16.py OUT [speed] [rollouts] [decode] [curves]      JIGSAW names the program (target/release/jigsaw); ROUNDS (3), STEPS (8), SEEDS (3)

speed: steps of the small and the tiny preset as in scripts/bench_peers.sh, f32 and bf16 in turns. rollouts: 8 responses of up to 32 tokens to
each of 16 prompts at a time, as there. decode: seconds of a decoding step of half a billion parameters (qwen2.5-vl-3b-cut) for 1 and 16
responses, and the share of this machine's read bandwidth at which it reads the weights; numpy is needed. curves: 300 steps of the embedded base
(data/base-tiny) on puzzles, each seed in f32 and in bf16. Writes OUT/WHAT.json for each, prints tables.
"""
import json
import os
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts" / "bench"))
from processes import Jigsaw

ROUNDS, STEPS, SEEDS = (int(os.environ.get(name, n)) for name, n in (("ROUNDS", 3), ("STEPS", 8), ("SEEDS", 3)))
DTYPES = ("f32", "bf16")
WARMUP = 2


def machine():
    lines = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
    about = {key.strip(): value.strip() for key, _, value in lines}
    flags = [f for f in about["flags"].split() if f.startswith(("avx512", "amx"))]
    return {"cpu": about["model name"], "cores": os.cpu_count(), "flags": flags, "load": os.getloadavg()}


def speed(jigsaw):
    found = {"machine": machine(), "steps": STEPS, "warmup": WARMUP, "presets": {}}
    for preset, (grid, tile, batch) in {"small": ("2x2", 112, 4), "tiny": ("3x3", 28, 64)}.items():
        model, data = jigsaw.model(preset), jigsaw.data(grid, tile, 400)
        rounds = []
        for _ in range(ROUNDS):
            runs = {d: jigsaw.train("sft", model, data, STEPS + WARMUP, batch, {"train.dtype": d}) for d in DTYPES}
            rate = {d: [s["tokens"] / s["step_seconds"] for s in run["metrics"][WARMUP:]] for d, run in runs.items()}
            rounds.append({"tokens_per_second": rate, "peak_kb": {d: run["peak_kb"] for d, run in runs.items()}})
        median = {d: statistics.median(v for r in rounds for v in r["tokens_per_second"][d]) for d in DTYPES}
        ratios = [statistics.median(r["tokens_per_second"]["bf16"]) / statistics.median(r["tokens_per_second"]["f32"]) for r in rounds]
        peak = {d: max(r["peak_kb"][d] for r in rounds) // 1000 for d in DTYPES}
        found["presets"][preset] = {"rounds": rounds, "median": median, "ratios": ratios}
        print(f"{preset}: f32 {median['f32']:,.0f} tokens/s, bf16 {median['bf16']:,.0f}: {median['bf16'] / median['f32']:.2f} "
              f"({min(ratios):.2f} to {max(ratios):.2f}); peak {peak['f32']} and {peak['bf16']} MB", flush=True)
    return found


def evaluate(jigsaw, model, data, dtype, prompts, samples, new):
    out = jigsaw.work / "eval"
    jigsaw("eval", "--model", model, "--data", data, "--split", "train", "--limit", prompts, "--batch-size", 16, "--num-generations", samples,
           "--temperature", 1 if samples > 1 else 0, "--max-new-tokens", new, "--dtype", dtype, "--out", out, "--fresh")
    return json.loads((out / "result.json").read_text())["summary"]


def rollouts(jigsaw):
    found = {"machine": machine(), "presets": {}}
    for preset, (grid, tile, prompts) in {"small": ("2x2", 112, 16), "tiny": ("3x3", 28, 128)}.items():
        model, data = jigsaw.model(preset), jigsaw.data(grid, tile, 400)
        rounds = [{d: evaluate(jigsaw, model, data, d, prompts, 8, 32)["tokens_per_second"] for d in DTYPES} for _ in range(ROUNDS)]
        median = {d: statistics.median(r[d] for r in rounds) for d in DTYPES}
        ratios = [r["bf16"] / r["f32"] for r in rounds]
        found["presets"][preset] = {"rounds": rounds, "median": median, "ratios": ratios}
        print(f"rollouts, {preset}: f32 {median['f32']:,.0f} tokens/s, bf16 {median['bf16']:,.0f}: {median['bf16'] / median['f32']:.2f} "
              f"({min(ratios):.2f} to {max(ratios):.2f})", flush=True)
    return found


def read_bandwidth():
    """GB/s at which all cores together read memory: the best of ten sums over 1 GB."""
    import numpy
    cores = os.cpu_count()
    parts = [numpy.ones((1 << 30) // 8 // cores, numpy.uint64) for _ in range(cores)]
    best = 0
    with ThreadPoolExecutor(cores) as pool:
        for _ in range(10):
            started = time.perf_counter()
            list(pool.map(numpy.bitwise_xor.reduce, parts))
            best = max(best, (1 << 30) / (time.perf_counter() - started) / 1e9)
    return best


def decode(jigsaw):
    model = jigsaw.work / "model-cut"
    if not (model / "config.json").exists():
        jigsaw("model", "init", "--preset", "qwen2.5-vl-3b-cut", "--random", "--out", model)
    raw = open(model / "model.safetensors", "rb")
    header = json.loads(raw.read(int.from_bytes(raw.read(8), "little")))
    # The embeddings are the output matrix, too.
    elements = sum((e["data_offsets"][1] - e["data_offsets"][0]) // 2 for n, e in header.items() if n != "__metadata__" and not n.startswith("visual."))
    data, short, long = jigsaw.data("3x3", 28, 400), 4, 36
    found = {"machine": machine(), "decoder_parameters": elements, "rounds": []}
    for _ in range(ROUNDS):
        bandwidth, steps = read_bandwidth(), {}
        for dtype in DTYPES:
            for responses in (1, 16):
                took = [evaluate(jigsaw, model, data, dtype, responses, 1, new)["seconds"] for new in (short, long)]
                steps[f"{dtype} {responses}"] = (took[1] - took[0]) / (long - short)
        found["rounds"].append({"read_gb_per_second": bandwidth, "step_seconds": steps})
    bandwidth = statistics.median(r["read_gb_per_second"] for r in found["rounds"])
    for name in found["rounds"][0]["step_seconds"]:
        step = statistics.median(r["step_seconds"][name] for r in found["rounds"])
        read = elements * (2 if name.startswith("bf16") else 4) / step / 1e9
        shares = [elements * (2 if name.startswith("bf16") else 4) / r["step_seconds"][name] / 1e9 / r["read_gb_per_second"] for r in found["rounds"]]
        print(f"decode, {name} responses: {step * 1000:.0f} ms a step, weights read at {read:.1f} GB/s, {read / bandwidth:.0%} of {bandwidth:.1f} "
              f"({min(shares):.0%} to {max(shares):.0%})", flush=True)
    return found


def curves(jigsaw):
    model, data = ROOT / "data" / "base-tiny", jigsaw.data("3x3", 28, 2000)
    losses = {}
    for seed in range(1, SEEDS + 1):
        for dtype in DTYPES:
            run = jigsaw.train("sft", model, data, 300, 8, {"train.dtype": dtype, "train.seed": seed, "train.learning_rate": 1e-3})
            losses[f"{dtype} {seed}"] = [step["loss"] for step in run["metrics"]]
    apart = lambda a, b: statistics.mean(abs(x - y) for x, y in zip(losses[a], losses[b]))
    seeds = range(1, SEEDS + 1)
    same = [apart(f"f32 {s}", f"bf16 {s}") for s in seeds]
    other = [apart(f"f32 {s}", f"f32 {t}") for s in seeds for t in seeds if s < t]
    last = {name: statistics.mean(curve[-50:]) for name, curve in losses.items()}
    print("mean |difference| of the loss over 300 steps: bf16 and f32 of one seed", ", ".join(f"{x:.4f}" for x in same))
    print("                                              two seeds in f32        ", ", ".join(f"{x:.4f}" for x in other))
    for name, loss in last.items():
        print(f"mean loss of the last 50 steps, {name}: {loss:.4f}")
    return {"machine": machine(), "losses": losses, "same_seed": same, "other_seed": other, "last_50": last}


def main():
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    jigsaw = Jigsaw(os.environ.get("JIGSAW", ROOT / "target" / "release" / "jigsaw"), ROOT / "target" / "bench-peers")
    tasks = {"speed": speed, "rollouts": rollouts, "decode": decode, "curves": curves}
    for what in sys.argv[2:] or tasks:
        found = tasks[what](jigsaw)
        (out / f"{what}.json").write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
