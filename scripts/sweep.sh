#!/usr/bin/env bash
# Run a study on this machine, some tasks at once, wave by wave, each task by the command a user could type.
#
#   scripts/sweep.sh CONFIG [OUT] [JOBS] [--set KEY=VALUE ...]
#
# The same as `jigsaw study --config CONFIG --out OUT --jobs JOBS`, as a script to change: other machines, other queues. A wave
# needs only what earlier waves have done, so the tasks of a wave run at once. Tasks that are done are not done again.
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
    # A task whose needs failed fails too, and says so; the others of the wave are run. The report is made of what there is.
    awk -F '\t' -v wave="$wave" '$1 == wave { print $2 }' <<<"$tasks" |
        xargs -P "$jobs" -I TASK "$jigsaw" study --config "$config" --out "$out" "$@" --only TASK || failed=1
done
[ -f "$out/report.html" ] && echo "$out/report.html"
exit "$failed"
