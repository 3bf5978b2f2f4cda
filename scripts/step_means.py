#!/usr/bin/env python3
"""Means of a run's metrics over the 20 steps that end at each step given: the tables of docs/experiments.md.

    scripts/step_means.py docs/results/2026-11-25-rft/r22e.metrics.jsonl.gz 100 300 [last]
"""
import gzip
import json
import sys

# Each metric by its name; runs before 2026-11-30 have the older name.
KEYS = {"reward_partial_credit": "reward_hit", "reward_accuracy": "reward_acc", "entropy": "entropy"}
path, steps = sys.argv[1], sys.argv[2:]
with (gzip.open if path.endswith(".gz") else open)(path, "rt") as file:
    rows = [row for row in map(json.loads, file) if "reward" in row]
for step in steps:
    end = rows[-1]["step"] if step == "last" else int(step)
    window = [row for row in rows if end - 20 < row["step"] <= end]
    if len(window) < 20:
        sys.exit(f"{path}: there are no 20 steps up to {end}")
    print(end, *(f"{key} {sum(row.get(key, row.get(before)) for row in window) / 20:.3f}" for key, before in KEYS.items()))
