#!/usr/bin/env bash
# The architecture of a published checkpoint, with random weights, on this machine: load, score, generate, one LoRA step of SFT and of GRPO,
# each with its time and peak memory beside the memory plan; the same scores and tokens by transformers. docs/real-checkpoints.md.
#
#   scripts/true_size.sh [PRESET] [OUT]      qwen2.5-vl-3b, runs/true-size; results in OUT/results.jsonl
#
# REFERENCE_PYTHON   a Python with the packages of scripts/reference/requirements.txt; default scripts/reference/.venv, made on first use
# Needs disk room for the weights (7.5 GB for the 3B) and nothing else running: it measures time.
set -euo pipefail
cd "$(dirname "$0")/.."
preset=${1:-qwen2.5-vl-3b} out=${2:-runs/true-size}
jigsaw=${JIGSAW:-target/release/jigsaw}
[ -x "$jigsaw" ] || cargo build --release
python=${REFERENCE_PYTHON:-scripts/reference/.venv/bin/python}
[ -x "$python" ] || bash scripts/reference/setup.sh
mkdir -p "$out"
results=$out/results.jsonl

# One line of results: what, the seconds and the peak resident bytes of the whole process.
measured() { # name, command...
    local name=$1
    shift
    echo "==> $name"
    python3 - "$name" "$results" "$@" <<'PY'
import json, resource, subprocess, sys, time
name, results, command = sys.argv[1], sys.argv[2], sys.argv[3:]
begun = time.monotonic()
done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
seconds = time.monotonic() - begun
peak = 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(done.stdout, end="")
line = {"what": name, "command": " ".join(command), "seconds": round(seconds, 2), "peak_bytes": peak, "exit": done.returncode,
        "said": [l for l in done.stdout.splitlines() if "memory" in l or "tokens/s" in l or "{" in l][-6:]}
open(results, "a").write(json.dumps(line) + "\n")
print(f"{name}: {seconds:.1f} s, {peak / 1e9:.2f} GB at most")
sys.exit(done.returncode)
PY
}

[ -f "$out/model/config.json" ] || measured init "$jigsaw" model init --preset "$preset" --random --seed 1 --out "$out/model"
[ -f "$out/data/manifest.json" ] ||
    "$jigsaw" gen --images data/photos --limit 12 --grid 3x3 --tile 112 --count 12 --split 0.5,0.25,0.25 --seed 1 --overwrite --out "$out/data"
rm -rf "$out/sft" "$out/rft" "$out/eval"
steps="--set train.steps=1 --set train.warmup_steps=0 --set train.batch_size=1 --set train.gradient_checkpointing=true --set eval.steps=0"
# shellcheck disable=SC2086
{
    sft="train --method sft --model $out/model --data $out/data --out $out/sft --set lora.rank=8 $steps"
    rft="train --method rft --model $out/model --data $out/data --out $out/rft --set lora.rank=8 $steps --set rollout.num_generations=2 \
        --set rollout.max_new_tokens=16 --set grpo.beta=0.04 --set grpo.entropy_coef=0.01"
    measured score "$jigsaw" score --model "$out/model" --data "$out/data" --split test --batch-size 1 --out "$out/scores.jsonl"
    measured generate "$jigsaw" eval --model "$out/model" --data "$out/data" --split test --limit 1 --max-new-tokens 32 --batch-size 1 --out "$out/eval"
    measured plan-sft "$jigsaw" $sft --dry-run
    measured sft-step "$jigsaw" $sft
    measured plan-rft "$jigsaw" $rft --dry-run
    measured rft-step "$jigsaw" $rft
    measured transformers-f32 "$python" scripts/reference/true_size.py "$out/model" "$out/data/test" --scores "$out/scores.jsonl" --dtype float32
    measured transformers-bf16 "$python" scripts/reference/true_size.py "$out/model" "$out/data/test" --scores "$out/scores.jsonl" --dtype bfloat16
}
