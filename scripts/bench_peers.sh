#!/usr/bin/env bash
# Time jigsaw against PyTorch, transformers, PEFT, TRL, llama.cpp and Pillow on this machine. See docs/speed.md.
#
#   scripts/bench_peers.sh                              every row, about 40 minutes; go on with the same command after a stop
#   scripts/bench_peers.sh --rows sft-tiny,gen          some; --rows list names them
#   scripts/bench_peers.sh --quick                      one round of next to nothing: does it all run?
#   scripts/bench_peers.sh --help                       all options
#   scripts/bench/table.py docs/results/DATE-peers docs/speed.md        put the tables into the page
#
# BENCH_PYTHON   an interpreter that has bench/requirements.txt already (else scripts/bench/.venv is made)
# LLAMA_PYTHON   an interpreter that has llama-cpp-python and gguf (else scripts/bench/.venv-llama is made, which compiles for ten
#                minutes and needs g++); empty: without llama.cpp
# JIGSAW         the binary (else target/release/jigsaw, built when it is not there)
set -euo pipefail
cd "$(dirname "$0")/.."

# A virtual environment with these packages, made once; prints its interpreter.
environment() { # directory, arguments of pip install
  local venv=$1 wanted
  shift
  wanted="$*$(cat scripts/bench/requirements.txt)"
  if [ "$wanted" != "$(cat "$venv/.complete" 2>/dev/null)" ]; then
    rm -rf "$venv"
    "${PYTHON:-python3}" -m venv "$venv" && "$venv/bin/pip" install --quiet "$@" >&2 && printf '%s' "$wanted" >"$venv/.complete" || return 1
  fi
  echo "$venv/bin/python"
}

case " $* " in *" --help "* | *" -h "*) help=1 ;; esac
python="${BENCH_PYTHON:-$(environment scripts/bench/.venv --requirement scripts/bench/requirements.txt)}"
if [ -z "${LLAMA_PYTHON+set}" ] && [ -z "${help:-}" ]; then
  LLAMA_PYTHON=$(environment scripts/bench/.venv-llama llama-cpp-python gguf) || echo "llama-cpp-python could not be installed" >&2
fi
if [ -z "${JIGSAW:-}" ]; then
  cargo build --release --quiet
  JIGSAW="${CARGO_TARGET_DIR:-target}/release/jigsaw"
fi
LLAMA_PYTHON="${LLAMA_PYTHON:-}" JIGSAW="$(realpath "$JIGSAW")" exec "$python" scripts/bench/run.py "$@"
