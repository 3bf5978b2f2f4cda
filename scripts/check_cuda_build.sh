#!/usr/bin/env bash
# Build with the `cuda` feature on a machine without a GPU and without a CUDA installation. NVIDIA's compiler comes from PyPI.
#
#   scripts/check_cuda_build.sh [--types] [--link] [DIR]
#
#   --types   minutes instead of most of an hour on 2 cores: candle's CUDA kernels are left out, and what is Rust is checked
#   --link    link the program and its model tests, and put them into DIR/kit: jigsaw, model-tests, kit.json. This needs none of CUDA's libraries
#             (see cuda_stubs.py), and neither does the program to start: it loads them when --device cuda asks for it. Without a GPU it
#             says so and exits with 2. scripts/gpu_check.sh takes the kit to a machine with a GPU. With --types, the program has
#             no kernels and is good for nothing but that.
#
# The compiler goes to DIR (default target/cuda-compiler, about 1.2 GB unpacked); compiled kernels are kept in DIR/kernels, so that a check that was
# broken off continues where it stopped.
#
# CUDA_VERSION       of compiler and libraries, default 13.0: a driver refuses the code of a compiler that is newer than itself
# CUDA_COMPUTE_CAP   the GPU's compute capability that kernels are compiled for; default 80 (A100)
# PROFILE            of --link: dev (default) or release
# FEATURES           of a check: cuda (default), or nccl, which needs an MPI library with its headers, and libclang
set -euo pipefail
cd "$(dirname "$0")/.."
kernels=all link=
while [[ ${1:-} == --* ]]; do
    case $1 in
    --types) kernels=none ;;
    --link) link=yes ;;
    *) echo "$1: give --types, --link or a folder" >&2 && exit 2 ;;
    esac
    shift
done
version=${CUDA_VERSION:-13.0} features=${FEATURES:-cuda}
dir=$(realpath -m "${1:-target/cuda-compiler}")
python=${PYTHON:-python3}
if [ ! -e "$dir/.complete" ]; then
    rm -rf "$dir"
    "$python" -m venv "$dir"
    "$dir/bin/pip" install --quiet "nvidia-cuda-nvcc==$version.*" "nvidia-nvvm==$version.*" "nvidia-cuda-crt==$version.*" \
        "nvidia-cuda-runtime==$version.*" "nvidia-cuda-cccl==$version.*"
    touch "$dir/.complete"
fi
home=$(echo "$dir"/lib/python3.*/site-packages/nvidia/cu13)
[ -x "$home/bin/nvcc" ] || { echo "no nvcc in $home" >&2; exit 1; }
# The wheels have no lib64, which some build scripts ask for.
[ -e "$home/lib64" ] || ln -s lib "$home/lib64"

# Stands before the compiler: keeps what it has made, by the command and the sources' contents, or makes nothing.
front=$dir/front-$kernels
mkdir -p "$front/bin" "$dir/kernels"
for part in include nvvm; do ln -sfn "$home/$part" "$front/$part"; done
# What is linked in place of CUDA's libraries; the small runtime, which the kernels' own starters need, is linked itself.
cargo fetch --locked --quiet
sources=$(cargo metadata --locked --offline --format-version 1 --features cuda |
    "$python" -c 'import json, os, sys
found = {p["name"]: os.path.dirname(p["manifest_path"]) for p in json.load(sys.stdin)["packages"]}
print(found["cudarc"], found["candle-kernels"])')
read -r cudarc candle_kernels <<<"$sources"
rm -rf "$front/lib"
"$python" scripts/cuda_stubs.py "$cudarc" "$front/lib" "$candle_kernels/src/ffi.rs"
mv "$front/lib/libmoe.a" "$front/no-kernels.a"
cp "$home/lib/libcudart_static.a" "$front/lib/libcudart.a"
ln -sfn lib "$front/lib64"
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
if [ $kernels = none ]; then
    case \$out in
    *.a) cp "$front/no-kernels.a" "\$out" ;;
    *) : >"\$out" ;;
    esac
    exit 0
fi
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
export CUDARC_CUDA_VERSION=${CUDARC_CUDA_VERSION:-${version/./0}0}
# A place of its own for each: the build of the kernels would take empty ones for made.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/cuda-$kernels
"$home/bin/nvcc" --version | tail -2
case $kernels in
none) about="without kernels" ;;
all) about="with $(find "$dir/kernels" -type f ! -name compiled | wc -l) files of kernels (compute capability $CUDA_COMPUTE_CAP)" ;;
esac
if [ -z "$link" ]; then
    cargo check --locked --all-targets --features "$features"
    echo "the feature $features compiles, $about; nothing has been linked or run"
    exit 0
fi
profile=${PROFILE:-dev}
built=$(cargo build --locked --profile "$profile" --features cuda --bin jigsaw --test model --message-format json |
    "$python" -c 'import json, sys
for line in sys.stdin:
    made = json.loads(line)
    if made.get("executable"): print(made["target"]["name"], made["executable"])')
mkdir -p "$dir/kit"
while read -r name file; do
    case $name in
    jigsaw) strip "$file" -o "$dir/kit/jigsaw" ;;
    model) strip "$file" -o "$dir/kit/model-tests" ;;
    esac
done <<<"$built"
cat >"$dir/kit/kit.json" <<KIT
{"commit": "$(git rev-parse HEAD 2>/dev/null)", "profile": "$profile", "kernels": "$kernels", "compute_cap": "$CUDA_COMPUTE_CAP", "cuda": "$version"}
KIT
echo "linked, $about: $dir/kit"

# Without a GPU: the program must start, work on the CPU, and say plainly that there is none.
if ! ls /dev/nvidia* >/dev/null 2>&1; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    "$dir/kit/jigsaw" gen --task countdown --count 4 --split 0,0,1 --out "$work/data" >/dev/null
    "$dir/kit/jigsaw" model init --preset tiny --out "$work/tiny" >/dev/null
    "$dir/kit/jigsaw" score --model "$work/tiny" --data "$work/data" --split test --out "$work/scores.jsonl" >/dev/null
    code=0
    said=$("$dir/kit/jigsaw" score --model "$work/tiny" --data "$work/data" --split test --device cuda --out "$work/gpu.jsonl" 2>&1) || code=$?
    echo "without a GPU: exit code $code: $said"
    [ "$code" = 2 ] && [[ $said == *"--device cuda"* ]]
fi
