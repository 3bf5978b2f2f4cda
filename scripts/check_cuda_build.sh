#!/usr/bin/env bash
# Type-check and compile the `cuda` feature on a machine without a GPU and without a CUDA installation, as far as that goes. NVIDIA's compiler
# comes from PyPI. Nothing is linked (that needs the driver's libraries) and nothing runs.
#
#   scripts/check_cuda_build.sh [DIR]           all of it: candle's CUDA kernels are compiled (most of an hour on 2 cores), and jigsaw is checked
#                                               against the CUDA half of candle
#   scripts/check_cuda_build.sh --types [DIR]   minutes: the kernels are left out, what is Rust is checked
#
# The compiler goes to DIR (default target/cuda-compiler, about 1.2 GB unpacked); compiled kernels are kept in DIR/kernels, so that a check that was
# broken off continues where it stopped.
#
# CUDA_COMPUTE_CAP   the GPU's compute capability that kernels are compiled for; default 80 (A100)
set -euo pipefail
cd "$(dirname "$0")/.."
kernels=all
if [ "${1:-}" = --types ]; then
    kernels=none
    shift
fi
dir=$(realpath -m "${1:-target/cuda-compiler}")
python=${PYTHON:-python3}
if [ ! -e "$dir/.complete" ]; then
    rm -rf "$dir"
    "$python" -m venv "$dir"
    "$dir/bin/pip" install --quiet 'nvidia-cuda-nvcc>=13,<14' 'nvidia-nvvm>=13,<14' 'nvidia-cuda-crt>=13,<14' 'nvidia-cuda-runtime>=13,<14' \
        'nvidia-cuda-cccl>=13,<14' 'nvidia-cuda-nvrtc>=13,<14'
    touch "$dir/.complete"
fi
home=$(echo "$dir"/lib/python3.*/site-packages/nvidia/cu13)
[ -x "$home/bin/nvcc" ] || { echo "no nvcc in $home" >&2; exit 1; }
# The wheels have no lib64, which some build scripts ask for.
[ -e "$home/lib64" ] || ln -s lib "$home/lib64"

# Stands before the compiler: keeps what it has made, by the command and the sources' contents, or makes nothing.
front=$dir/front-$kernels
mkdir -p "$front/bin" "$dir/kernels"
for part in include lib lib64 nvvm; do ln -sfn "$home/$part" "$front/$part"; done
cat >"$front/bin/nvcc" <<FRONT
#!/usr/bin/env bash
set -euo pipefail
out= into= source=
for ((i = 1; i <= \$#; i++)); do
    j=\$((i + 1))
    case \${!i} in
    -o) out=\${!j} ;;
    --output-directory) into=\${!j} ;;
    *.cu) source=\${!i} ;;
    esac
done
if [ -n "\$source" ] && [ -n "\$into" ]; then out=\$into/\$(basename "\$source" .cu).ptx; fi
if [ -z "\$out" ]; then exec "$home/bin/nvcc" "\$@"; fi
if [ $kernels = none ]; then : >"\$out" && exit 0; fi
if [ -z "\$source" ]; then exec "$home/bin/nvcc" "\$@"; fi
command="\$*"
command=\${command//"\$out"/}
command=\${command//"\${into:-none}"/}
key=\$({ echo "\$command" && find "\$(dirname "\$source")" -name '*.cu*' -o -name '*.h*' | sort | xargs cat; } | sha256sum | cut -c1-32)
if [ ! -e "$dir/kernels/\$key" ]; then
    "$home/bin/nvcc" "\$@"
    cp "\$out" "$dir/kernels/\$key.part" && mv "$dir/kernels/\$key.part" "$dir/kernels/\$key"
    echo "\$(date +%T) \$(basename "\$source")" >>"$dir/kernels/compiled"
fi
cp "$dir/kernels/\$key" "\$out"
FRONT
chmod +x "$front/bin/nvcc"
export CUDA_HOME=$front CUDA_PATH=$front CUDA_ROOT=$front CUDA_TOOLKIT_ROOT_DIR=$front NVCC=$front/bin/nvcc
export PATH=$front/bin:$home/bin:$PATH CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-80}
# The newest that the bindings know, which may be older than the compiler.
export CUDARC_CUDA_VERSION=${CUDARC_CUDA_VERSION:-13000}
# A place of its own for each: the build of the kernels would take empty ones for made.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/cuda-$kernels
"$home/bin/nvcc" --version | tail -2
cargo check --locked --all-targets --features cuda
case $kernels in
none) echo "the cuda feature type-checks; its kernels have not been compiled, and nothing has been linked or run" ;;
all) echo "the cuda feature compiles (compute capability $CUDA_COMPUTE_CAP), $(find "$dir/kernels" -type f ! -name compiled | wc -l) files of kernels among it; nothing has been linked or run" ;;
esac
