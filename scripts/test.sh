#!/usr/bin/env bash
# Builds and runs the tests.
#   scripts/test.sh          the quick tests
#   scripts/test.sh --slow   the slow ones: kills and resumes, sanitizers and mutated files over core and data, a short quickstart
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
case "${1:-}" in
  "" | --slow) ;;
  *) echo "usage: scripts/test.sh [--slow]" >&2; exit 2 ;;
esac
scripts/setup.sh

say "Build (release)"
build release
ctest=("$ROOT/.venv/bin/ctest" --output-on-failure --no-tests=error --timeout 900)
if [ "${1:-}" = "" ]; then
  say "Quick tests"
  "${ctest[@]}" --test-dir build/release -LE 'slow|gpu'
  exit
fi
say "Slow tests"
"${ctest[@]}" --test-dir build/release -L slow
say "core and data under sanitizers"
build sanitize
"${ctest[@]}" --test-dir build/sanitize
say "Quickstart, 20 steps a model"
rm -rf build/quickstart-short
STEPS=20 OUT=build/quickstart-short scripts/quickstart.sh
