#!/usr/bin/env bash
# Time jigsaw against PyTorch, transformers, TRL and Pillow on this machine. See docs/speed.md.
#
#   scripts/bench_peers.sh                   every section
#   scripts/bench_peers.sh sft-tiny memory   some
#   scripts/bench_peers.sh --help            sections and settings
#
# BENCH_PYTHON   an interpreter that has bench/requirements.txt already (else scripts/bench/.venv is made)
# JIGSAW         the binary (else target/release/jigsaw, built when it is not there)
set -euo pipefail
cd "$(dirname "$0")/.."

python="${BENCH_PYTHON:-}"
if [ -z "$python" ]; then
  venv=scripts/bench/.venv
  if ! cmp -s scripts/bench/requirements.txt "$venv/.complete"; then
    rm -rf "$venv"
    "${PYTHON:-python3}" -m venv "$venv"
    "$venv/bin/pip" install --quiet --requirement scripts/bench/requirements.txt
    cp scripts/bench/requirements.txt "$venv/.complete"
  fi
  python="$venv/bin/python"
fi
if [ -z "${JIGSAW:-}" ]; then
  cargo build --release --quiet
  JIGSAW="${CARGO_TARGET_DIR:-target}/release/jigsaw"
fi
JIGSAW="$(realpath "$JIGSAW")" exec "$python" scripts/bench/run.py "$@"
