#!/usr/bin/env python3
"""The work of scripts/crash_campaign.sh: kill, give the same command again, compare."""
import argparse
import collections
import concurrent.futures
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

# System calls before whose Nth call a process is killed.
CALLS = {
    "rename": ["rename", "renameat", "renameat2"],
    "fsync": ["fsync"],
    "unlink": ["unlink", "unlinkat", "rmdir"],
    "mkdir": ["mkdir", "mkdirat"],
    "write": ["write"],
}
# With --seccomp-bpf, strace 6.1 kills nothing.
STRACE = ["-f", "-qq"]
# Attempts to bring a command to its end after a kill.
ATTEMPTS = 5
# Seconds after which a command counts as hanging.
PATIENCE = 600
LEFTOVER = re.compile(r"\.tmp$|\.lock$|^\.partial-|^\.removed-|^\.jigsaw-unfinished$")

# One command a line: its name, and its arguments. It writes below out/NAME and reads what is in in/. The lines of INPUTS make that.
INPUTS = """
model init --preset tiny --seed 3 --out in/model
gen --images scenes --grid 1x2 --count 12 --split 0.5,0.25,0.25 --seed 1 --out in/data
gen --images scenes --grid 1x2 --count 12 --split 0.5,0.25,0.25 --seed 1 --style think --out in/think
gen --suite pope --count 8 --split 0.5,0,0.5 --out in/prior
train --method sft --model in/model --data in/data --set train.steps=1 --set train.batch_size=2 --set eval.steps=0 --set lora.rank=2 --out in/lora
train --method sft --model in/model --data in/data --set train.steps=1 --set train.batch_size=2 --set eval.steps=0 --out in/sft
eval --model in/sft/model --data in/data --limit 3 --max-new-tokens 4 --out in/eval
"""
TRAIN = "--data in/data --set train.steps=3 --set train.batch_size=2 --set train.save_steps=1 --set train.save_total_limit=1 --set train.warmup_steps=0"
SFT = f"train --method sft --model in/model {TRAIN} --set eval.steps=2 --set eval.limit=2 --set eval.max_new_tokens=4"
COMMANDS = f"""
gen            gen --images scenes --grid 1x2 --count 12 --split 0.5,0.25,0.25 --preview 2 --out out/gen/data
gen-suite      gen --suite pope --count 6 --split 0.5,0,0.5 --out out/gen-suite/data
gen-overwrite  gen --images scenes --grid 1x2 --count 8 --split 0.5,0.25,0.25 --overwrite --out out/gen-overwrite/data
rollout        rollout --model in/base --data in/data --limit 2 --num-generations 2 --max-new-tokens 32 --batch-size 1 --keep all --out out/rollout/data
rollout-fresh  rollout --teacher scripted --data in/think --fresh --out out/rollout-fresh/data
train-sft      {SFT} --out out/train-sft/run
train-rft      train --method rft --model in/model {TRAIN} --set eval.steps=0 --set rollout.num_generations=2 --set rollout.max_new_tokens=4 --out out/train-rft/run
train-lora     {SFT} --set lora.rank=2 --out out/train-lora/run
eval           eval --model in/sft/model --data in/data --max-new-tokens 4 --batch-size 1 --out out/eval/eval
eval-bench     eval --model in/sft/model --bench pope=in/prior/bench/pope-direct.tsv --limit 4 --max-new-tokens 4 --out out/eval-bench/eval
eval-baseline  eval --model in/sft/model --baseline in/model --data in/data --bench pope=in/prior/bench/pope-direct.tsv --limit 3 --max-new-tokens 4 --kl-prompts 2 --out out/eval-baseline/eval
dynamics       dynamics --model in/sft/model --base in/model --train sft=in/data --prior pope=in/prior/bench/pope-direct.tsv --pairs 2 --max-new-tokens 4 --out out/dynamics/dynamics
score          score --model in/model --data in/data --batch-size 1 --out out/score/scores.jsonl
model-init     model init --preset tiny --seed 4 --out out/model-init/model
convert        model convert in/model --dtype bf16 --out out/convert/model
interpolate    model interpolate in/model in/sft/model --overwrite --out out/interpolate/model
merge-lora     model merge-lora in/lora/model --out out/merge-lora/model
report         report in/sft in/eval --out out/report/report.html
study          study --config in/study.toml --out out/study/study
"""
# What is there before a command that replaces it is given.
BEFORE = {
    "gen-overwrite": "gen --images scenes --grid 1x2 --count 6 --split 0.5,0.25,0.25 --preview 1 --out out/gen-overwrite/data",
    "rollout-fresh": "rollout --teacher scripted --data in/think --limit 2 --out out/rollout-fresh/data",
    "interpolate": "model interpolate in/model in/sft/model --alpha 0.1 --out out/interpolate/model",
}
# Share of the kills, where it is not that of the others: these take longest.
WEIGHTS = {"study": 0.2, "train-sft": 0.5, "train-rft": 0.5, "train-lora": 0.8, "eval-baseline": 0.5, "dynamics": 0.5, "rollout": 0.7}
STUDY = """
[study]
title = "A study of a handful of steps"
base = "in/model"

[puzzles.bare]
images = "scenes"
grid = "1x2"
count = 8
split = "0.5,0,0.5"

[prior]
suite = "pope"
count = 8
split = "0.5,0,0.5"

[regimes.sft]
method = "sft"
data = "bare"
learning_rate = 1e-4
train = { steps = 2, batch_size = 2 }

[eval]
limit = 2
kl_prompts = 2
max_new_tokens = 4
"""


class Campaign:
    def __init__(self, jigsaw, work, seed):
        self.jigsaw, self.work, self.seed = jigsaw, work, seed
        self.environment = {**os.environ, "RAYON_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

    def start(self, arguments, wrapper=()):
        line = [*wrapper, self.jigsaw, *arguments.split()]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        return subprocess.Popen(line, cwd=self.work, env=self.environment, text=True, start_new_session=True, **pipes)

    def finish(self, process):
        """Exit code and what was said; a process that hangs is killed and has the code None."""
        try:
            said = process.communicate(timeout=PATIENCE)[1]
            return process.returncode, said
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return None, process.communicate()[1]

    def run(self, arguments, wrapper=()):
        code, said = self.finish(self.start(arguments, wrapper))
        if code != 0:
            sys.exit(f"jigsaw {arguments}: exit code {code}\n{said}")

    def prepare(self, name):
        shutil.rmtree(self.work / "out" / name, ignore_errors=True)
        if name in BEFORE:
            self.run(BEFORE[name])

    def inputs(self):
        self.work.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.work / "in", ignore_errors=True)
        (self.work / "in").mkdir()
        (self.work / "in/study.toml").write_text(STUDY)
        (self.work / "in/base").symlink_to(Path(__file__).resolve().parent.parent / "data/base-tiny")
        for line in INPUTS.strip().splitlines():
            self.run(line)

    def unbroken(self, name, arguments):
        """The content that a run leaves which was never killed, and its seconds. It is made twice, and must be the same."""
        contents = []
        for _ in range(2):
            self.prepare(name)
            begun = time.monotonic()
            self.run(arguments)
            seconds = time.monotonic() - begun
            contents.append(snapshot(self.work / "out" / name))
        if differing := differences(*contents):
            sys.exit(f"{name}: two runs differ: {differing}")
        if left := leftovers(self.work / "out" / name):
            sys.exit(f"{name}: a run that was not killed leaves {left}")
        return contents[0], seconds

    def calls(self, name, arguments):
        """How often each kind of system call is made, by the thread that makes most of them."""
        log = self.work / f"{name}.strace"
        self.prepare(name)
        every = ",".join(call for calls in CALLS.values() for call in calls)
        self.run(arguments, ["strace", *STRACE, "-o", str(log), "-e", f"trace={every}"])
        kind_of = {call: kind for kind, calls in CALLS.items() for call in calls}
        counts = collections.Counter()
        for line in log.read_text().splitlines():
            if found := re.match(r"(\d+) +(\w+)\(", line):
                counts[found[1], kind_of.get(found[2])] += 1
        most = collections.Counter()
        for (_, kind), count in counts.items():
            if kind:
                most[kind] = max(most[kind], count)
        return most

    def killed(self, name, arguments, kind, at):
        """Give the command and kill it; then give it until it ends. The record of it, or None if it ended before the kill."""
        self.prepare(name)
        if kind == "random":
            process = self.start(arguments)
            try:
                process.wait(timeout=at)
            except subprocess.TimeoutExpired:
                process.kill()
            code, said = self.finish(process)
        else:
            calls = ",".join(CALLS[kind])
            inject = ["-e", f"trace={calls}", "-e", f"inject={calls}:signal=KILL:when={at}"]
            code, said = self.finish(self.start(arguments, ["strace", *STRACE, "-o", "/dev/null", *inject]))
        if code == 0:
            return None
        record = {"command": name, "kill": kind, "at": at, "codes": [code]}
        while code != 0 and len(record["codes"]) <= ATTEMPTS:
            code, said = self.finish(self.start(arguments))
            record["codes"].append(code)
        if code != 0:
            record["said"] = said[-600:]
        return record


def snapshot(root):
    """Every file below `root` by name, with its content but for what docs/outputs.md says may differ."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            found[f"{path.relative_to(root)}/"] = b""
            continue
        name = str(path.relative_to(root))
        if path.name.startswith("events.out.tfevents."):
            continue
        found[name] = content(path, name)
    return found


def content(path, name):
    data = path.read_bytes()
    if "/logs/" in name:
        return b""  # what the tasks of a study said
    if path.name == "report.html" and name.startswith("study/"):
        return b""  # shows the times
    if path.name == "run.json":
        return without(json.loads(data), "started")
    if path.name in ("result.json", "results.json"):
        return without(json.loads(data), "seconds", "tokens_per_second")
    if path.name == "results.csv":
        return b"\n".join(line for line in data.splitlines() if b",tokens_per_second," not in line)
    if path.name == "state.json":
        return without(json.loads(data), "log")  # where metrics.jsonl ends, which holds times
    if path.name == "manifest.json" and "checkpoints" in name:
        return without(json.loads(data), "trainer/state.json")
    if path.name == "metrics.jsonl":
        return b"\n".join(without(json.loads(line), *TIMES) for line in data.splitlines())
    if "/done/" in name:
        return without(json.loads(data), "seconds", "whole", "files")
    return data


# Fields of metrics.jsonl.
TIMES = ("seconds", "tokens_per_second", "examples_per_second", "step_seconds", "time", "wall_seconds", "samples_per_second")


def without(value, *names):
    def strip(value):
        if isinstance(value, dict):
            return {key: strip(inner) for key, inner in value.items() if key not in names}
        return [strip(inner) for inner in value] if isinstance(value, list) else value

    return json.dumps(strip(value)).encode()


def differences(before, after):
    names = sorted(before.keys() | after.keys())
    return [name for name in names if before.get(name) != after.get(name)]


def leftovers(root):
    return [str(path.relative_to(root)) for path in root.rglob("*") if LEFTOVER.search(path.name)]


def spread(most, count):
    """`count` places in calls of each kind, spread over 1..most, the kinds in turn."""
    places = {kind: [] for kind in most}
    share = {kind: max(1, count // max(1, len(most))) for kind in most}
    for kind, calls in most.items():
        wanted = min(calls, share[kind])
        places[kind] = sorted({1 + round(i * (calls - 1) / max(1, wanted - 1)) for i in range(wanted)})
    left = count - sum(map(len, places.values()))
    for kind in sorted(most, key=lambda kind: len(places[kind]) - most[kind]):
        unused = [at for at in range(1, most[kind] + 1) if at not in places[kind]]
        step = max(1, len(unused) // max(1, left))
        more = unused[::step][: max(0, left)]
        places[kind] = sorted(places[kind] + more)
        left -= len(more)
    return [(kind, at) for kind, all in places.items() for at in all]


def failed(record):
    return bool(record["differs"] or record["left"] or record["codes"][-1] != 0)


def table(records):
    rows = collections.OrderedDict()
    for record in records:
        kind = "random" if record["kill"] == "random" else "injected"
        row = rows.setdefault((record["command"], kind), [0, 0, 0])
        row[0] += 1
        row[1 + failed(record)] += 1
    lines = ["| command | kind of kill | kills | resumed to the same bytes | failures |", "|---|---|--:|--:|--:|"]
    lines += [f"| {command} | {kind} | {n} | {good} | {bad} |" for (command, kind), (n, good, bad) in rows.items()]
    total = [sum(row[i] for row in rows.values()) for i in range(3)]
    return "\n".join([*lines, f"| all | | {total[0]} | {total[1]} | {total[2]} |"]) + "\n"


def of_command(campaign, name, arguments, injected, at_random, keep):
    """All kills of a command."""
    draw = random.Random(f"{campaign.seed} {name}")
    reference, seconds = campaign.unbroken(name, arguments)
    kills = spread(campaign.calls(name, arguments), injected) if injected else []
    kills += [("random", None)] * at_random
    place = campaign.work / "out" / name
    for kind, at in kills:
        record = None
        # A random time may come after the end: another is drawn.
        for _ in range(20 if kind == "random" else 1):
            when = round(draw.uniform(0, seconds), 3) if kind == "random" else at
            if record := campaign.killed(name, arguments, kind, when):
                break
        if record:
            record["differs"] = differences(reference, snapshot(place)) if place.exists() else ["everything"]
            record["left"] = leftovers(place)
            keep(record)
    print(f"{name}: {seconds:.1f} s unbroken", file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jigsaw", default="target/release/jigsaw")
    parser.add_argument("--out", type=Path, default=Path("runs/crash-campaign"))
    parser.add_argument("--injected", type=int, default=320, help="injected kills, all commands together")
    parser.add_argument("--random", type=int, default=120, help="random kills, all commands together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="commands at once")
    parser.add_argument("--only", default="", help="names of commands, separated by commas")
    args = parser.parse_args()
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    campaign = Campaign(str(Path(args.jigsaw).resolve()), out / "work", args.seed)
    commands = dict(line.split(None, 1) for line in COMMANDS.strip().splitlines())
    if args.only:
        commands = {name: commands[name] for name in args.only.split(",")}
    campaign.inputs()
    weights = [WEIGHTS.get(name, 1) for name in commands]
    part = lambda total, i: round(total * sum(weights[:i]) / sum(weights))
    share = lambda total, i: part(total, i + 1) - part(total, i)
    records = []
    with open(out / "kills.jsonl", "w") as raw, concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:

        def keep(record):
            records.append(record)
            print(json.dumps(record), file=raw, flush=True)
            if failed(record):
                print(json.dumps(record), flush=True)

        work = [(campaign, name, line, share(args.injected, i), share(args.random, i), keep) for i, (name, line) in enumerate(commands.items())]
        # The longest last.
        order = sorted(work, key=lambda one: (WEIGHTS.get(one[1], 1) < 1, one[1] == "study"))
        for done in [pool.submit(of_command, *one) for one in order]:
            done.result()
    records.sort(key=lambda record: list(commands).index(record["command"]))
    text = table(records)
    (out / "table.md").write_text(text)
    print(text, end="")
    shutil.rmtree(campaign.work, ignore_errors=True)
    sys.exit(any(map(failed, records)))


if __name__ == "__main__":
    main()
