#!/usr/bin/env bash
# Builds and runs the tests.
#   scripts/test.sh          the quick tests
#   scripts/test.sh --slow   the slow ones: kills and resumes, a small soak, sanitizers and mutated files over core and data, a short quickstart
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
say "Soak, a small part of scripts/soak.sh"
build/release/tests/soak kills --count 10
build/release/tests/soak flips --count 5000
build/release/tests/soak syscalls
build/release/tests/soak disk-full
build/release/tests/soak sequences --count 1000
say "core and data under sanitizers"
build sanitize
"${ctest[@]}" --test-dir build/sanitize
say "Quickstart, 20 steps a model"
rm -rf build/quickstart-short
STEPS=20 OUT=build/quickstart-short scripts/quickstart.sh
