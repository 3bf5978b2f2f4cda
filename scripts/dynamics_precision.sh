#!/usr/bin/env bash
# How precise learning dynamics are: ten pairs of a tuned model, measured by jigsaw in f32 and differentiated by torch in f64.
#
#   scripts/dynamics_precision.sh STUDY OUT     STUDY: where configs/study-quick.toml was run (`jigsaw study ... --out STUDY`)
#
# Measures twice, with steps of chosen sizes and with --eta 0.00001, and writes OUT/NAME.md (a row a pair), OUT/NAME.pairs.jsonl and
# OUT/NAME.tables.md for each. JIGSAW names the program, REFERENCE_PYTHON an interpreter with scripts/reference/requirements.txt.
set -euo pipefail
study=$(realpath "$1"); mkdir -p "$2"; out=$(realpath "$2")
cd "$(dirname "$0")/.."
jigsaw=${JIGSAW:-target/release/jigsaw}
python=${REFERENCE_PYTHON:-scripts/reference/.venv/bin/python}
model=$(echo "$study"/runs/sft-non-rea.*/model)
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
for name in chosen 0.00001; do
  eta=(); [ "$name" = chosen ] || eta=(--eta "$name")
  "$jigsaw" dynamics --model "$model" --base data/base-tiny --train bare="$study/puzzles/bare" --prior prior="$study/prior" \
    --pairs 10 "${eta[@]}" --out "$work/$name"
  "$python" scripts/reference/check_dynamics.py "$work/$name" --model "$model" --train bare="$study/puzzles/bare" \
    --prior prior="$study/prior" > "$out/$name.md" || echo "$name: a pair differs by more than 5 %"
  cp "$work/$name/pairs.jsonl" "$out/$name.pairs.jsonl"
  sed "s|$study|STUDY|g" "$work/$name/dynamics.md" > "$out/$name.tables.md"
  tail -1 "$out/$name.md"
done
