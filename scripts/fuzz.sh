#!/usr/bin/env bash
# Changed inputs to every parser of what comes from others (tests/fuzz), as a table in docs/results/fuzz.
# usage: scripts/fuzz.sh [SECONDS PER PARSER] [INPUTS PER PARSER] [SEED] [OUTPUT]
set -euo pipefail
cd "$(dirname "$0")/.."
export JIGSAW_FUZZ_SECONDS=${1:-60} JIGSAW_FUZZ_INPUTS=${2:-1000000000} JIGSAW_FUZZ_SEED=${3:-2}
out=${4:-docs/results/fuzz/table.tsv}
mkdir -p "$(dirname "$out")"
status=0
cargo test --release --locked --test fuzz -- --ignored --exact a_minute_for_each_parser --nocapture > "$out.log" || status=$?
grep -P '\t|^# ' "$out.log" > "$out" || true
rm -f "$out.log"
cat "$out"
exit "$status"
