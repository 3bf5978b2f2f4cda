#!/usr/bin/env bash
# Record every fixture under tests/fixtures again. REFERENCE_PYTHON names another interpreter with the same packages.
set -euo pipefail
cd "$(dirname "$0")"
if [ -z "${REFERENCE_PYTHON:-}" ]; then
  bash setup.sh
  REFERENCE_PYTHON=.venv/bin/python
fi
for script in record_model.py record_bf16.py record_processor.py record_training.py record_sft_losses.py record_grpo.py record_checkpoint.py record_lora.py record_dynamics.py record_scorers.py record_stats.py record_solvers.py record_outcomes.py; do
  echo "== $script"
  "$REFERENCE_PYTHON" "$script"
done
echo "== record_gguf.py"
"$REFERENCE_PYTHON" record_gguf.py
