#!/usr/bin/env bash
# Make scripts/reference/.venv with the pinned versions of requirements.txt. Does nothing when it is already there.
set -euo pipefail
cd "$(dirname "$0")"
if [ ! -e .venv/.complete ]; then
  rm -rf .venv
  "${PYTHON:-python3}" -m venv .venv
  .venv/bin/pip install --quiet --requirement requirements.txt
  touch .venv/.complete
fi
.venv/bin/python -c 'import torch, transformers, trl; print("torch", torch.__version__, "transformers", transformers.__version__, "trl", trl.__version__)'
