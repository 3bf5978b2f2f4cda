#!/usr/bin/env bash
# Kills every command that writes, at random times and before its Nth rename, fsync, unlink, mkdir or write; gives the same command again until
# it ends; and compares the output with that of a run that was never killed. Prints a table; docs/outputs.md says what may differ.
#
#   scripts/crash_campaign.sh [--out DIR] [--injected N] [--random N] [--seed N] [--only NAME,...]
#
# Results in DIR (default runs/crash-campaign): kills.jsonl, a line for each kill, and table.md.
# JIGSAW   the program; default target/release/jigsaw
# Needs python3, and strace for the injected kills: apt-get install strace (Debian, Ubuntu), dnf install strace (Fedora).
set -euo pipefail
cd "$(dirname "$0")/.."
jigsaw=${JIGSAW:-target/release/jigsaw}
[ -x "$jigsaw" ] || cargo build --release
command -v strace >/dev/null || { echo "strace is not installed: apt-get install strace" >&2; exit 1; }
exec python3 scripts/crash_campaign.py --jigsaw "$jigsaw" "$@"
