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
#                minutes or more and needs g++); empty: without llama.cpp
# JIGSAW         the binary (else target/release/jigsaw, built when it is not there)
set -euo pipefail
cd "$(dirname "$0")/.."

# A virtual environment with the packages of a file, made once; prints its interpreter.
environment() { # directory, file
  local venv=scripts/bench/$1 wanted=scripts/bench/$2
  if ! cmp -s "$wanted" "$venv/.complete"; then
    rm -rf "$venv"
    "${PYTHON:-python3}" -m venv "$venv" && "$venv/bin/pip" install --quiet --requirement "$wanted" >&2 && cp "$wanted" "$venv/.complete" || return 1
  fi
  echo "$venv/bin/python"
}

python="${BENCH_PYTHON:-$(environment .venv requirements.txt)}"
case " $* " in
*" --help "* | *" -h "* | *" list "*) ;;
*)
  if [ -z "${LLAMA_PYTHON+set}" ]; then
    LLAMA_PYTHON=$(environment .venv-llama requirements-llama.txt) || echo "llama-cpp-python could not be installed; that peer is left out" >&2
  fi
  ;;
esac
if [ -z "${JIGSAW:-}" ]; then
  cargo build --release --quiet
  JIGSAW="${CARGO_TARGET_DIR:-target}/release/jigsaw"
fi
LLAMA_PYTHON="${LLAMA_PYTHON:-}" JIGSAW="$(realpath "$JIGSAW")" exec "$python" scripts/bench/run.py "$@"
