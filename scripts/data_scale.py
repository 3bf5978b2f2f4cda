#!/usr/bin/env python3
"""Memory and time that a dataset of many records takes until the first training step.

    scripts/data_scale.py OUT [RECORDS]      JIGSAW names the program (target/release/jigsaw); ROUNDS (3); RECORDS: 1,000,000

The records of a few puzzles are written again and again under other ids, so that many records share a few pictures: what is measured is the records.
A run of one SFT step of the embedded base (batch 8) is made of the few and of the many, in turns: once up to the step, for its seconds, and once
to the end, for its peak memory and processor time, which other work on the machine changes less. Prints one line of JSON.
"""
import json
import os
import resource
import shutil
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts" / "bench"))
from processes import Jigsaw

ROUNDS = int(os.environ.get("ROUNDS", 3))


def repeat(few, many, records):
    """A dataset whose train split has `records` records, made of those of `few`."""
    shutil.rmtree(many, ignore_errors=True)
    shutil.copytree(few, many)
    lines = [json.loads(line) for line in (few / "train/metadata.jsonl").read_text().splitlines()]
    with open(many / "train/metadata.jsonl", "w") as file:
        for i in range(records):
            file.write(json.dumps({**lines[i % len(lines)], "id": f"train-{i:07}"}, separators=(",", ":")) + "\n")
    manifest = json.loads((few / "manifest.json").read_text())
    manifest["splits"]["train"]["records"] = records
    (many / "manifest.json").write_text(json.dumps(manifest))


def cpu_seconds():
    """Of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main():
    out, records = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
    jigsaw = Jigsaw(os.environ.get("JIGSAW", ROOT / "target/release/jigsaw"), out)
    few, many = jigsaw.data("2x2", 28, 24), out / "many"
    repeat(few, many, records)
    runs = {"few": [], "many": []}
    for _ in range(ROUNDS):
        for name, data in (("few", few), ("many", many)):
            base = ROOT / "data/base-tiny"
            first = jigsaw.train("sft", base, data, 1, 8, until=1)
            before = cpu_seconds()
            whole = jigsaw.train("sft", base, data, 1, 8)
            runs[name].append({"seconds": first["seconds"], "peak_kb": whole["peak_kb"], "cpu": cpu_seconds() - before})
    peak = {name: statistics.median(run["peak_kb"] << 10 for run in each) for name, each in runs.items()}
    print(json.dumps({
        "records": records,
        "bytes_on_disk": (many / "train/metadata.jsonl").stat().st_size,
        "load": os.getloadavg(),
        "seconds_to_first_step": {name: [round(run["seconds"], 2) for run in each] for name, each in runs.items()},
        "cpu_seconds_of_a_step": {name: [round(run["cpu"], 2) for run in each] for name, each in runs.items()},
        "peak_mb": {name: round(bytes / 1e6) for name, bytes in peak.items()},
        "peak_bytes_a_record": round((peak["many"] - peak["few"]) / records),
    }))


if __name__ == "__main__":
    main()
