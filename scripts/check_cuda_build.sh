#!/usr/bin/env bash
# Type-check and compile the `cuda` feature on a machine without a GPU and without a CUDA installation, as far as that goes: candle's CUDA
# kernels are compiled to PTX by NVIDIA's compiler, which comes from PyPI, and all of jigsaw is checked against the CUDA half of candle.
# Nothing is linked (that needs the driver's libraries) and nothing runs.
#
#   scripts/check_cuda_build.sh [DIR]      the compiler goes to DIR (default target/cuda-compiler, about 1.2 GB unpacked)
#
# CUDA_COMPUTE_CAP   the GPU's compute capability that kernels are compiled for; default 80 (A100)
set -euo pipefail
cd "$(dirname "$0")/.."
dir=${1:-target/cuda-compiler}
python=${PYTHON:-python3}
if [ ! -e "$dir/.complete" ]; then
    rm -rf "$dir"
    "$python" -m venv "$dir"
    "$dir/bin/pip" install --quiet 'nvidia-cuda-nvcc>=13,<14' 'nvidia-nvvm>=13,<14' 'nvidia-cuda-crt>=13,<14' 'nvidia-cuda-runtime>=13,<14' \
        'nvidia-cuda-cccl>=13,<14' 'nvidia-cuda-nvrtc>=13,<14'
    touch "$dir/.complete"
fi
home=$(echo "$PWD/$dir"/lib/python3.*/site-packages/nvidia/cu13)
[ -x "$home/bin/nvcc" ] || { echo "no nvcc in $home" >&2; exit 1; }
# The wheels have no lib64, which some build scripts ask for.
[ -e "$home/lib64" ] || ln -s lib "$home/lib64"
export CUDA_HOME=$home CUDA_PATH=$home CUDA_ROOT=$home CUDA_TOOLKIT_ROOT_DIR=$home NVCC=$home/bin/nvcc
export PATH=$home/bin:$PATH CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-80}
# The newest that the bindings know, which may be older than the compiler.
export CUDARC_CUDA_VERSION=${CUDARC_CUDA_VERSION:-13000}
nvcc --version | tail -2
cargo check --locked --all-targets --features cuda
echo "the cuda feature compiles (compute capability $CUDA_COMPUTE_CAP); nothing has been linked or run"
