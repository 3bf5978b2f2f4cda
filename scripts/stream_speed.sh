#!/usr/bin/env bash
# What puzzles made as they are needed cost training, against stored ones.
#
#   scripts/stream_speed.sh [OUT]      everything goes under OUT (default runs/stream-speed)
#
# The same 20,000 puzzles of 2x2, stored and streamed; SFT of the embedded base on each, 150 steps of 64, three times in turns.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/stream-speed}
jigsaw=${JIGSAW:-target/release/jigsaw}
mkdir -p "$out"
common=(gen --grid 2x2 --augment --min-crop 0.3 --split 1,0,0 --overwrite)
"$jigsaw" "${common[@]}" --count 20000 --out "$out/stored" >/dev/null
"$jigsaw" "${common[@]}" --stream 20000 --out "$out/streamed" >/dev/null
"$jigsaw" "${common[@]}" --stream 250000 --out "$out/long" >/dev/null
"$jigsaw" "${common[@]}" --stream 1000000 --out "$out/longer" >/dev/null
du -sb "$out"/{stored,streamed,long,longer} | sed "s|$out/||"
for round in 1 2 3; do
    for data in stored streamed; do
        run=$out/$data-$round
        rm -rf "$run"
        "$jigsaw" train --method sft --config configs/sft.toml --model data/base-tiny --data "$out/$data" --out "$run" \
            --set train.steps=150 --set train.batch_size=64 --set eval.steps=0 --set train.save_steps=0 >/dev/null 2>&1
        python3 - "$run/metrics.jsonl" "$data $round" <<'PY'
import json, statistics, sys
steps = [json.loads(line) for line in open(sys.argv[1])]
speeds = [step["samples_per_second"] for step in steps if step.get("samples_per_second")]
print(f"{sys.argv[2]}: {statistics.median(speeds[10:]):.0f} samples/s (median of {len(speeds) - 10} steps)")
PY
    done
done
cmp "$out/stored-1/model/model.safetensors" "$out/streamed-1/model/model.safetensors" && echo "the same model, to the byte"
