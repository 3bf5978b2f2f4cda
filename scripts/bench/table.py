#!/usr/bin/env python3
"""The tables of docs/speed.md from the raw numbers of scripts/bench_peers.sh.

    scripts/bench/table.py docs/results/DATE-peers                  print them
    scripts/bench/table.py docs/results/DATE-peers docs/speed.md    put them into the page, under "## The numbers"
"""

import json
import statistics
import sys
from pathlib import Path

#: At least so many times the peer: of each side's best, and with both in f32.
BEST = {
    "sft-tiny": 2.5, "sft-small": 1.3, "lora-small": 1.5, "rollout-tiny": 8, "rollout-small": 3, "rollout-qwen": 2, "grpo-tiny": 8,
    "grpo-small": 3, "gen": 5,
}
F32 = {"sft-tiny": 2.0, "sft-small": 1.3}
#: At most this share of the peer's peak memory.
MEMORY = 0.5
#: At least this share of what the machine can do: operations of a bf16 step, and weights read while decoding one response in bf16.
PRODUCTS, READING = 0.6, 0.85
#: At most so much more time than the arithmetic asks for.
GROWTH = 1.05
NUMBERS = "## The numbers\n"
ORDER = (
    "sft-tiny", "sft-small", "lora-small", "rollout-tiny", "rollout-small", "rollout-qwen", "rollout-qwen-1", "grpo-tiny", "grpo-small",
    "gen", "first-step-tiny", "first-step-small",
)


def shown(value):
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def yes(met):
    return "yes" if met else "**no**"


class Side:
    """What one side of a row came to."""

    def __init__(self, name, stored):
        self.name, self.rounds = name, [r for r in stored["rounds"] if r["rates"]]
        self.median = statistics.median(v for r in self.rounds for v in r["rates"]) if self.rounds else None
        peaks = [r["peak_mb"] for r in self.rounds if "peak_mb" in r]
        self.peak = max(peaks) if peaks else None

    def by_round(self):
        return [statistics.median(r["rates"]) for r in self.rounds]


def named(row, *names):
    """Those of the sides that have been measured."""
    sides = (Side(name, row["sides"][name]) for name in names if name in row["sides"])
    return [side for side in sides if side.rounds]


def best(row, sides):
    return (min if row["lower"] else max)(sides, key=lambda side: side.median) if sides else None


def lines_of(row):
    """(precision, jigsaw's sides, the peer's sides, at least)."""
    if row["row"] == "gen":
        for name in row["sides"]:
            if name != "jigsaw":
                yield "", named(row, "jigsaw"), named(row, name), BEST["gen"] if "level 1" in name else None
        return
    if row["lower"]:
        yield "f32", named(row, "jigsaw"), named(row, "eager f32"), None
        return
    peers = ("eager", "compiled", "llama.cpp")
    both = {dtype: (named(row, f"jigsaw {dtype}"), named(row, *(f"{p} {dtype}" for p in peers))) for dtype in ("f32", "bf16")}
    for dtype, (ours, theirs) in both.items():
        if ours or theirs:
            yield dtype, ours, theirs, F32.get(row["row"]) if dtype == "f32" else None
    yield "**each at its best**", *(sum((both[d][i] for d in both), []) for i in (0, 1)), BEST.get(row["row"])


def lowest_memory(row, sides, precision):
    """The lowest peak of the peer at this work: of all its sides, and of the trials of settings, which were in f32."""
    peaks = [side.peak for side in sides if side.peak]
    if precision != "bf16":
        peaks += [trial["peak_mb"] for trial in row.get("trials", []) if "rate" in trial]
    return min(peaks, default=None)


def compared(row):
    """The lines of the main table that one row gives."""
    for precision, own, peers, wanted in lines_of(row):
        us, them, theirs = best(row, own), best(row, peers), peers
        ours = f"{shown(us.median)}" if us else "not measured"
        if precision.startswith("**"):
            # Which of the lines above it is.
            ours += f" ({us.name.split()[-1]})" if us else ""
            theirs = [them] if them else []
        names = ", ".join(f"{side.name.removesuffix(f' {precision}')} {shown(side.median)}" for side in theirs)
        ratio = memory = ""
        reached = low_memory = ""
        if us and them:
            over = (lambda a, b: b / a) if row["lower"] else (lambda a, b: a / b)
            value = over(us.median, them.median)
            each = [over(a, b) for a, b in zip(us.by_round(), them.by_round())]
            ratio = f"{value:.2f} ({min(each):.2f} to {max(each):.2f})"
            reached = yes(value >= wanted) if wanted else ""
            lowest = lowest_memory(row, peers, precision)
            if us.peak and lowest:
                memory = f"{us.peak:,.0f} / {lowest:,.0f} = {us.peak / lowest:.2f}"
                low_memory = yes(us.peak / lowest <= MEMORY)
        yield [row["work"], precision, row["unit"], ours, names or "not measured", ratio, f"{wanted:g} x" if wanted else "", reached, memory, low_memory]


def machine_best(row, measure):
    """The best of the machine in the row's rounds; None if it was not measured."""
    rounds = row["sides"].get("machine", {}).get("rounds", [])
    return max((s[measure] for r in rounds for s in r["steps"]), default=None)


def shares(rows):
    """What the machine can do, and what share of it two works reach: (work, its rate, the machine's, share, at least)."""
    row = rows.get("sft-small")
    for dtype in ("f32", "bf16"):
        for side in named(row, f"jigsaw {dtype}", f"eager {dtype}", f"compiled {dtype}") if row else []:
            if peak := machine_best(row, f"gflops_{dtype}"):
                seconds = statistics.median(s["seconds"] for r in side.rounds for s in r["steps"][-len(r["rates"]) :])
                rate, wanted = row["facts"]["gflop"] / seconds, PRODUCTS if side.name == "jigsaw bf16" else None
                yield f"SFT step, small: {side.name}", f"{rate:,.0f} GFLOP/s", f"{peak:,.0f} GFLOP/s (torch.mm, {dtype})", rate / peak, wanted
    row = rows.get("rollout-qwen-1")
    for dtype, size in (("f32", 4), ("bf16", 2)):
        for side in named(row, *(f"{who} {dtype}" for who in ("jigsaw", "eager", "compiled", "llama.cpp"))) if row else []:
            if peak := machine_best(row, "gigabytes"):
                # 494,032,768 parameters, each read for every token: the head is the embedding.
                rate, wanted = 494_032_768 * size * 1e-9 * side.median, READING if side.name == "jigsaw bf16" else None
                yield f"one response, Qwen2.5-0.5B: {side.name}", f"{rate:.1f} GB/s of weights", f"{peak:.1f} GB/s (torch.sum)", rate / peak, wanted


def markdown(head, lines):
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head)] + ["| " + " | ".join(line) + " |" for line in lines])


def growth(row):
    first = None
    for name, side in row["sides"].items():
        if side["rounds"]:
            r, median = side["rounds"][0], Side(name, side)
            first = median.median if name.endswith(" 1x") else first
            times = first / median.median
            met = yes(times <= GROWTH) if name.startswith("layers") else ""
            yield [name, f"{r['tokens']:,.0f}", f"{r['gflop']:.3g}", f"{1000 * r['gflop'] / median.median:.1f}", f"{times:.2f}", met, f"{median.peak:,.0f}"]


def provenance(rows):
    """The machine and the versions, of each group of rows that has the same."""
    groups = {}
    for row in rows.values():
        here, what = row["machine"], row["versions"]
        flags = [f for f in here["flags"] if f in ("avx2", "avx512f", "avx512_bf16") or f.startswith("amx")]
        text = (
            f"{here['cpu']} (family {here['family']}, model {here['model']}), {here['cores']} cores, {here['memory_kb'] / 1e6:.0f} GB, flags "
            f"{', '.join(flags)}{'' if 'avx512_bf16' in flags else '; no avx512_bf16'}{'' if 'amx_bf16' in flags else '; no amx_bf16'}. "
            + ", ".join(f"{k} {v}" for k, v in what.items() if k not in ("binary_sha256", "commit", "jigsaw", "rustc", "c++", "python"))
            + f"; {what['rustc']}; {what['c++'] or 'no C++ compiler'}; Python {what['python']}; {what['jigsaw']}, commit {what['commit']}."
        )
        groups.setdefault(text, []).append(row["row"])
    for text, names in groups.items():
        yield text if len(groups) == 1 else f"{', '.join(names)}: {text}"


def remarks(rows):
    """What is missing or was cut short."""
    for row in rows.values():
        if not row["complete"] and not row.get("failed"):
            yield f"{row['row']}: not finished; the rounds there are"
        if row.get("stopped"):
            yield f"{row['row']}: stopped {row['stopped']}"
        if row.get("busy_cores_before", 0) > 0.2:
            yield f"{row['row']}: other programs were running ({row['busy_cores_before']:.1f} cores were busy)"
        for name, side in row["sides"].items():
            if side.get("failed"):
                yield f"{row['row']}, {name}: left out, {side['failed'].strip().splitlines()[-1][:200]}"
        if row["unit"] == "tokens/s" and row["row"].startswith("rollout") and "eager bf16" in row["sides"] and "jigsaw bf16" not in row["sides"]:
            yield f"{row['row']}: this jigsaw samples in f32 alone"
    any_row = next(iter(rows.values()))
    if any_row["key"]["quick"]:
        yield "`--quick`: these figures mean nothing"
    if not any(f in ("avx512_bf16", "amx_bf16") for f in any_row["machine"]["flags"]):
        yield "bf16 is left out: this processor has neither avx512_bf16 nor amx_bf16"
    if not any_row["versions"]["c++"]:
        yield "torch.compile is left out: no C++ compiler"
    if not any_row["versions"]["llama-cpp-python"]:
        yield "llama.cpp is left out: llama-cpp-python is not installed"


def page(folder):
    stored = {path.stem: json.loads(path.read_text()) for path in Path(folder).glob("*.json")}
    rows = {name: stored[name] for name in (*ORDER, "growth") if any(s["rounds"] for s in stored.get(name, {}).get("sides", {}).values())}
    if not rows:
        return f"no numbers in {folder}\n"
    lines = [line for name in ORDER if name in rows for line in compared(rows[name])]
    head = ["work", "precision", "unit", "jigsaw", "peer", "ratio (rounds)", "at least", "reached", "peak MB, jigsaw / peer", f"at most {MEMORY:g}"]
    parts = ["\n".join(provenance(rows)), markdown(head, lines)]
    if machine := list(shares(rows)):
        text = [[w, ours, theirs, f"{share:.2f}", f"{wanted:g}" if wanted else "", yes(share >= wanted) if wanted else ""] for w, ours, theirs, share, wanted in machine]
        parts.append(markdown(["of what the machine can do", "reached", "the machine's best", "share", "at least", "reached"], text))
    if "growth" in rows:
        head = ["what grows", "tokens", "GFLOP", "ms", "time / arithmetic, against 1x", f"at most {GROWTH:g}", "peak MB"]
        parts.append(markdown(head, growth(rows["growth"])))
    absent = [name for name in ORDER if name not in rows]
    parts.append("**no**: not reached.")
    failed = [f"{name} failed: {row['failed'].strip().splitlines()[-1][:300]}" for name, row in stored.items() if row.get("failed")]
    chosen = {name: f"{row['settings']['allocator']} allocator, {row['settings']['attn']} attention" for name, row in rows.items() if row.get("trials")}
    if chosen:
        parts.insert(1, "The peer's settings, by trial: " + "; ".join(f"{name} {text}" for name, text in chosen.items()) + ".")
    notes = list(remarks(rows)) + failed + [f"not measured: {', '.join(absent)}"] * bool(absent)
    if notes:
        parts.append("Of this run:\n\n" + "\n".join(f"- {text}" for text in notes))
    return "\n\n".join(parts) + "\n"


def main():
    text = page(sys.argv[1])
    if len(sys.argv) == 2:
        print(text, end="")
        return
    target = Path(sys.argv[2])
    head = target.read_text().split(NUMBERS)[0]
    target.write_text(f"{head}{NUMBERS}\nFrom `{sys.argv[1]}`, by `scripts/bench/table.py`.\n\n{text}")


if __name__ == "__main__":
    main()
