#!/usr/bin/env python3
"""Planned against measured memory: `jigsaw train --dry-run` beside the peak resident memory of the same run, over methods, kinds of data,
adapters, gradient checkpointing and batch sizes. docs/results/memory/sweep.md is the table.

    scripts/memory_sweep.py [--jigsaw target/release/jigsaw] [--out runs/memory-sweep] [--only WORD ...] [--steps 3]

Prints a table, and writes it to OUT/sweep.md, each run's plan and peak to OUT/sweep.jsonl. A run that samples responses has two plans: for
the longest responses, and for responses as long as the references. Exit code 1 if no value between them is within LOW to HIGH times the peak."""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time

LOW, HIGH = 0.87, 1.15
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PHOTOS = os.path.join(ROOT, "data/photos")
RFT, SFT, ON_POLICY = ("configs/rft.toml", "configs/sft.toml", "configs/sft-on-policy.toml")

# Name, data, configuration, and what is set besides.
POINTS = [
    ("sft 2x2 photos", "photos-2x2", SFT, ""),
    ("sft 3x3 photos", "photos-3x3", SFT, ""),
    ("sft 3x3 photos, batch 8", "photos-3x3", SFT, "train.batch_size=8"),
    ("sft 3x3 photos, batch 128", "photos-3x3", SFT, "train.batch_size=128"),
    ("sft 3x3 photos, checkpointing", "photos-3x3", SFT, "train.gradient_checkpointing=true"),
    ("sft 3x3 photos, adapter", "photos-3x3", SFT, "lora.rank=16"),
    ("sft 3x3 photos, KL to the start", "photos-3x3", SFT, "sft.kl_coef=0.1"),
    ("sft scenes", "scenes", SFT, ""),
    ("sft conversations", "conversations", SFT, ""),
    ("sft conversations, batch 8", "conversations", SFT, "train.batch_size=8"),
    ("sft conversations, checkpointing", "conversations", SFT, "train.gradient_checkpointing=true"),
    ("sft conversations, adapter", "conversations", SFT, "lora.rank=16"),
    ("sft countdown", "countdown", SFT, 'train.freeze=["vision"]'),
    ("rft 2x2 photos", "photos-2x2", RFT, ""),
    ("rft 3x3 photos", "photos-3x3", RFT, ""),
    ("rft 3x3 photos, 8 x 8", "photos-3x3", RFT, "train.batch_size=8 rollout.num_generations=8"),
    ("rft 3x3 photos, 256 tokens", "photos-3x3", RFT, "rollout.max_new_tokens=256 rollout.num_generations=8 rollout.temperature=3"),
    ("rft 3x3 photos, checkpointing", "photos-3x3", RFT, "train.gradient_checkpointing=true"),
    ("rft 3x3 photos, adapter", "photos-3x3", RFT, "lora.rank=16"),
    ("rft 3x3 photos, KL to the start", "photos-3x3", RFT, "grpo.beta=0.04"),
    ("rft scenes", "scenes", RFT, ""),
    ("rft conversations", "conversations", RFT, ""),
    ("rft conversations, checkpointing", "conversations", RFT, "train.gradient_checkpointing=true"),
    ("rft countdown", "countdown", RFT, 'train.freeze=["vision"]'),
    ("on-policy sft 2x2 photos", "photos-2x2", ON_POLICY, "sft.resample_every=3"),
    ("on-policy sft scenes", "scenes", ON_POLICY, "sft.resample_every=3 train.gradient_checkpointing=true"),
    ("sft 3x3 photos, preset small", "photos-3x3", SFT, "train.batch_size=8 eval.limit=8 eval.max_new_tokens=16", "small"),
]


def jpeg_size(path):
    """Width and height, from the start of frame."""
    with open(path, "rb") as file:
        data = file.read()
    at = 2
    while at < len(data):
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        at += 2 + length
    raise ValueError(path)


def patches(width, height):
    return round(width / 28) * round(height / 28) * 4


def make_data(jigsaw, out):
    def gen(name, *arguments):
        if not os.path.exists(f"{out}/{name}/manifest.json"):
            subprocess.run([jigsaw, "gen", *arguments, "--overwrite", "--out", f"{out}/{name}"], check=True, capture_output=True)

    gen("photos-2x2", "--images", PHOTOS, "--grid", "2x2", "--count", "400")
    gen("photos-3x3", "--images", PHOTOS, "--grid", "3x3", "--count", "400")
    gen("scenes", "--images", "scenes", "--grid", "2x2", "--count", "400")
    gen("countdown", "--task", "countdown", "--count", "400")
    if not os.path.exists(f"{out}/small/config.json"):
        subprocess.run([jigsaw, "model", "init", "--preset", "small", "--out", f"{out}/small"], check=True, capture_output=True)
    # Photos of about one size: a plan is for the largest examples, wherever they come, and a short run may not meet them.
    photos = sorted(name for name in os.listdir(PHOTOS) if name.endswith(".jpg"))
    large = [name for name in photos if 768 <= patches(*jpeg_size(os.path.join(PHOTOS, name))) <= 864]
    with open(f"{out}/conversations.jsonl", "w") as file:
        for i, photo in enumerate(large):
            shown = photo.split("-", 1)[1].rsplit(".", 1)[0].replace("-", " ")
            turns = ["<image>\nWhat does this photo show? Answer in a few words.", f"The photo shows {shown}."]
            turns += ["Say that again, but briefly.", shown] if i % 3 == 0 else []
            messages = [{"role": ("user", "assistant")[k % 2], "content": text} for k, text in enumerate(turns)]
            file.write(json.dumps({"messages": messages, "images": [os.path.join(PHOTOS, photo)]}) + "\n")


def planned_bytes(line, before, after):
    found = re.search(f"{before}([0-9.]+) (MB|GB){after}", line)
    return found and float(found[1]) * {"MB": 1e6, "GB": 1e9}[found[2]]


def measure(jigsaw, out, steps, name, data, config, sets, model=None):
    data = f"{out}/{data}" if os.path.exists(f"{out}/{data}") else f"{out}/{data}.jsonl"
    model = f"{out}/{model}" if model else f"{ROOT}/data/base-tiny"
    every = f"train.warmup_steps=0 train.steps={steps} train.epochs=none eval.steps={steps - 1} " + sets
    chosen = [word for key in every.split() if not key.endswith("=none") for word in ("--set", key)]
    command = [jigsaw, "train", "--model", model, "--data", data, "--config", os.path.join(ROOT, config), *chosen]
    with open(os.path.join(ROOT, config)) as file:
        if "epochs" in file.read():
            own = f"{out}/{os.path.basename(config)}"
            with open(os.path.join(ROOT, config)) as source, open(own, "w") as target:
                target.writelines(line for line in source if not line.startswith("epochs"))
            command[command.index("--config") + 1] = own
    dry = subprocess.run([*command, "--dry-run"], capture_output=True, text=True)
    plan = next((line for line in dry.stdout.splitlines() if line.startswith("memory: about")), None)
    if plan is None:
        sys.exit(f"{name}: {dry.stderr}")
    run = f"{out}/run"
    shutil.rmtree(run, ignore_errors=True)
    began = time.monotonic()
    process = subprocess.Popen([*command, "--out", run], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"{name}: exit code {os.waitstatus_to_exitcode(status)}\n{said}")
    shutil.rmtree(run, ignore_errors=True)
    return {
        "name": name,
        "command": " ".join(command),
        "plan": plan,
        "planned": planned_bytes(plan, "about ", " at most"),
        "as_references": planned_bytes(plan, "", " if responses are as long"),
        "measured": 1024 * usage.ru_maxrss,
        "seconds": round(time.monotonic() - began, 1),
        "page_faults": usage.ru_minflt,
        "system_seconds": round(usage.ru_stime, 2),
        "user_seconds": round(usage.ru_utime, 2),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jigsaw", default=os.path.join(ROOT, "target/release/jigsaw"))
    parser.add_argument("--out", default="runs/memory-sweep")
    parser.add_argument("--only", nargs="*", default=[], help="points whose names have all of these words")
    parser.add_argument("--steps", type=int, default=3)
    options = parser.parse_args()
    os.makedirs(options.out, exist_ok=True)
    options.out, options.jigsaw = os.path.abspath(options.out), os.path.abspath(options.jigsaw)
    make_data(options.jigsaw, options.out)
    lines = ["| run | at most MB | as references MB | measured MB | at most / measured |", "|---|---|---|---|---|"]
    print("\n".join(lines), flush=True)
    outside = []
    with open(f"{options.out}/sweep.jsonl", "w") as raw:
        for point in POINTS:
            if not all(word in point[0] for word in options.only):
                continue
            found = measure(options.jigsaw, options.out, options.steps, *point)
            raw.write(json.dumps(found) + "\n")
            raw.flush()
            ratio = found["planned"] / found["measured"]
            cells = [f"{found[key] / 1e6:.0f}" if found[key] else "" for key in ("planned", "as_references", "measured")]
            least = (found["as_references"] or found["planned"]) / found["measured"]
            lines.append(f"| {' | '.join([found['name'], *cells])} | {ratio:.2f} |")
            print(lines[-1], flush=True)
            outside += [found["name"]] if ratio < LOW or least > HIGH else []
    with open(f"{options.out}/sweep.md", "w") as table:
        table.write("\n".join(lines) + "\n")
    if outside:
        sys.exit(f"outside {LOW} to {HIGH}: {', '.join(outside)}")


if __name__ == "__main__":
    main()
