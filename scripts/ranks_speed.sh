#!/usr/bin/env bash
# Two ranks of one thread against one process with two threads: SFT steps of a preset, on a quiet machine of two cores.
#
#   scripts/ranks_speed.sh [PRESET] [OUT] [BATCH] [BUFFERS]
#
# PRESET: small (default) or tiny; everything goes under OUT (default runs/ranks-speed). BATCH: examples of a step (default 16). BUFFERS:
# `train.gradient_buffers` of both (default 1).
#
# JIGSAW names the program, built with `cargo build --release --features mpi`. 8 steps, five times in turns; the first two
# steps of a run do not count. The last line is the ratio of the speeds: above 1, two ranks are faster.
set -euo pipefail
cd "$(dirname "$0")/.."
preset=${1:-small}
batch=${3:-16}
buffers=${4:-1}
out=${2:-runs/ranks-speed}/$preset-batch-$batch-buffers-$buffers
jigsaw=${JIGSAW:-target/release/jigsaw}
mkdir -p "$out"
[ -d "$out/model" ] || "$jigsaw" model init --preset "$preset" --out "$out/model" >/dev/null
[ -d "$out/data" ] || "$jigsaw" gen --images scenes --grid 2x2 --count 200 --split 1,0,0 --out "$out/data" >/dev/null
train() { # NAME COMMAND...
    local run=$out/$1
    rm -rf "$run"
    "${@:2}" train --method sft --model "$out/model" --data "$out/data" --out "$run" \
        --set train.steps=8 --set train.batch_size="$batch" --set train.gradient_buffers="$buffers" --set eval.steps=0 --set train.save_steps=0 >/dev/null 2>&1
}
for round in 1 2 3 4 5; do
    RAYON_NUM_THREADS=2 train "threads-$round" "$jigsaw"
    RAYON_NUM_THREADS=1 train "ranks-$round" mpirun --allow-run-as-root --bind-to core -n 2 "$jigsaw"
done
cmp "$out/threads-1/model/model.safetensors" "$out/ranks-1/model/model.safetensors" && echo "the same model, to the byte"
python3 - "$out" <<'PY'
import json, pathlib, statistics, sys
speeds = {}
for kind in ("threads", "ranks"):
    steps = []
    for run in sorted(pathlib.Path(sys.argv[1]).glob(f"{kind}-*")):
        steps += [json.loads(line) for line in open(run / "metrics.jsonl")][2:]
    speeds[kind] = statistics.median(step["samples_per_second"] for step in steps)
    waits = sum(step.get("communication_seconds", 0) for step in steps) / sum(step["step_seconds"] for step in steps)
    print(f"{kind}: {speeds[kind]:.2f} samples/s (median of {len(steps)} steps), {100 * waits:.0f} % of the time in exchanges")
print(f"ranks / threads: {speeds['ranks'] / speeds['threads']:.3f}")
PY
