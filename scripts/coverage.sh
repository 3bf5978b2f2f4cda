#!/usr/bin/env bash
# How often the intervals of a mean over benchmarks, and of a mean over seeds, hold the true value: 5,000 draws of each kind of experiment.
# Writes docs/results/coverage/coverage.csv and seeds.csv (the same for any number of threads) and fails if a coverage lies outside its bounds.
# usage: scripts/coverage.sh
set -eu
cd "$(dirname "$0")/.."
cargo test --release --locked --lib coverage_of_5000_draws -- --ignored
