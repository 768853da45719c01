#!/usr/bin/env bash
# Builds the cuda preset, tests included, without running it.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
if ! command -v nvcc >/dev/null; then
  echo "CUDA build skipped: no nvcc on the PATH"
  exit 0
fi
scripts/setup.sh
say "Build (cuda)"
build cuda
