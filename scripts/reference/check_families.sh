#!/usr/bin/env bash
# A tiny model of every family is trained for two steps, and transformers must read what jigsaw wrote: no missing or unexpected key, the same
# token ids, the same log-probabilities; peft must read its adapter.
# usage: scripts/reference/check_families.sh [PRESET...]     JIGSAW: the program; REFERENCE_PYTHON: the interpreter of setup.sh
set -euo pipefail
cd "$(dirname "$0")"
jigsaw=$(realpath "${JIGSAW:-../../target/release/jigsaw}")
python=${REFERENCE_PYTHON:-.venv/bin/python}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" - "$work" <<'PYTHON'
import json, sys
from pathlib import Path
from PIL import Image
work = Path(sys.argv[1])
for name, size in (("a.png", (100, 70)), ("b.png", (61, 130))):
    image = Image.effect_noise(size, 60).convert("RGB")
    image.save(work / name)
for kind, mark in (("text", ""), ("images", "<image>")):
    lines = []
    for i in range(4):
        line = {"messages": [{"role": "user", "content": f"{mark}Which number has {i}?"},
                             {"role": "assistant", "content": f"It is {i}, naïve\n or <b>{i * 7}</b>."}]}
        lines.append(json.dumps(line | ({"images": [("a.png", "b.png")[i % 2]]} if mark else {})))
    (work / f"{kind}.jsonl").write_text("\n".join(lines) + "\n")
PYTHON
presets=("$@")
[ $# -gt 0 ] || presets=(tiny tiny-qwen2-vl tiny-qwen3-vl tiny-text tiny-qwen3 tiny-llama)
for preset in "${presets[@]}"; do
  data=$work/text.jsonl
  case $preset in tiny | *-vl) data=$work/images.jsonl ;; esac
  run=$work/$preset
  "$jigsaw" model init --preset "$preset" --out "$run/base" --seed 1 > /dev/null 2>&1
  for kind in full lora; do
    extra=()
    [ $kind = full ] || extra=(--set lora.rank=2 --set lora.alpha=8)
    "$jigsaw" train --method sft --model "$run/base" --data "$data" --set train.steps=2 --set train.batch_size=4 \
      --set train.learning_rate=1e-2 --set train.save_steps=2 "${extra[@]}" --out "$run/$kind" > /dev/null 2>&1
    "$jigsaw" score --model "$run/$kind/model" --data "$data" --out "$run/$kind.jsonl" > /dev/null 2>&1
  done
  "$python" check_checkpoint.py "$run/full/model" --data "$data" --scores "$run/full.jsonl"
  "$python" check_checkpoint.py "$run/base" --adapter "$run/lora/model" --data "$data" --scores "$run/lora.jsonl"
done
