#!/usr/bin/env bash
# Run a study on this machine wave by wave, several tasks at once.
#
#   scripts/sweep.sh CONFIG [OUT] [JOBS] [--set KEY=VALUE ...]
#
# Does the same as `jigsaw study --config CONFIG --out OUT --jobs JOBS`. It is a template for other machines and queues: the tasks of a
# wave depend only on earlier waves, so they can run at once. Finished tasks are not repeated.
set -euo pipefail
usage="usage: scripts/sweep.sh CONFIG [OUT] [JOBS] [--set KEY=VALUE ...]"
config=${1:?$usage}
shift
out=runs/$(basename "$config" .toml)
jobs=$(nproc)
[[ ${1:---set} == --* ]] || { out=$1 && shift; }
[[ ${1:---set} == --* ]] || { jobs=$1 && shift; }
jigsaw=${JIGSAW:-target/release/jigsaw}
[ -x "$jigsaw" ] || cargo build --release
export RAYON_NUM_THREADS=${RAYON_NUM_THREADS:-$((($(nproc) + jobs - 1) / jobs))}

tasks=$("$jigsaw" study --config "$config" --out "$out" "$@" --list)
failed=0
for wave in $(cut -f 1 <<<"$tasks" | sort -nu); do
    echo "==> wave $wave"
    # A task that depends on a failed one fails too, and says so; the others of the wave run. The report shows whatever is done.
    awk -F '\t' -v wave="$wave" '$1 == wave { print $2 }' <<<"$tasks" |
        xargs -P "$jobs" -I TASK "$jigsaw" study --config "$config" --out "$out" "$@" --only TASK || failed=1
done
[ -f "$out/report.html" ] && echo "$out/report.html"
exit "$failed"
