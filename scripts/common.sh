# Sourced by the other scripts: where things are, and how a preset is built.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
ROOT=$PWD

say() { printf '\n== %s\n' "$*"; }

# build PRESET [cmake build arguments]: configures and builds with ccache and the fastest linker there is.
build() {
  local preset=$1
  shift
  local options=()
  if command -v ccache >/dev/null; then
    # Objects are shared by all presets and clones: paths count from the build folder, and the precompiled header, which differs from folder
    # to folder by its own path, is known by what it was made from (cmake_pch.hxx.gch.sum, see cmake/tandem.cmake).
    export CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
    export CCACHE_BASEDIR=$ROOT CCACHE_NOHASHDIR=true CCACHE_PCH_EXTSUM=true
    options+=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache -DCMAKE_CXX_FLAGS=-fpch-preprocess)
  fi
  if command -v mold >/dev/null; then options+=(-DCMAKE_LINKER_TYPE=MOLD); fi
  "$ROOT/.venv/bin/cmake" --preset "$preset" "${options[@]}" "-DCMAKE_MAKE_PROGRAM=$ROOT/.venv/bin/ninja" \
    ${TANDEM_CMAKE_OPTIONS:-} >"$ROOT/build/configure-$preset.log" 2>&1 ||
    { cat "$ROOT/build/configure-$preset.log" >&2; return 1; }
  "$ROOT/.venv/bin/cmake" --build "$ROOT/build/$preset" "$@"
}
# build_tandem PRESET: set-up and the program alone, without tests; its path is in $tandem then.
build_tandem() {
  scripts/setup.sh
  say "Build ($1)"
  build "$1" --target tandem
  tandem="$ROOT/build/$1/tandem"
}
# measure_load: the load average of the last minute in $load_before, which benchmarks record, and a warning where something else is at work.
measure_load() {
  load_before=$(cut -d ' ' -f 1 /proc/loadavg)
  if awk -v load="$load_before" 'BEGIN { exit !(load > 0.5) }'; then
    echo "warning: the load average is $load_before: other programs are at work, and speeds will come out too low. Stop them, wait until \`uptime\` shows less than 0.5, and begin again." >&2
  fi
}
mkdir -p build
