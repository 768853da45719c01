#!/usr/bin/env bash
# Builds the pinned sentencepiece as static libraries into DEST (include/, lib/). Does nothing when that was done before.
#   scripts/build_sentencepiece.sh DEST [COMPILER FLAGS]
# With flags it is compiled with these in place of a release's: scripts/fuzz.sh takes "-O1 -g1 -fsanitize=address,undefined".
# PYTHON (default .venv/bin/python) downloads the source package; cmake and ninja stand beside it.
set -euo pipefail
version=0.2.1
if [ $# -ne 1 ] && [ $# -ne 2 ]; then
  echo "usage: scripts/build_sentencepiece.sh DEST [COMPILER FLAGS]" >&2
  exit 2
fi
mkdir -p "$1"
dest=$(cd "$1" && pwd)
flags=${2:-}
stamp="$dest/sentencepiece-$version.done"
[ -e "$stamp" ] && [ "$(cat "$stamp")" = "$flags" ] && exit 0

root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
if ! command -v "$python" > /dev/null; then
  echo "$python: not found; run scripts/setup.sh, or set PYTHON" >&2
  exit 1
fi
bin=$(cd "$(dirname "$(command -v "$python")")" && pwd)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# pip asks a source package for its metadata, for which it may fetch setuptools.
"$python" -m pip --disable-pip-version-check download --quiet --no-deps --no-binary :all: --dest "$work" "sentencepiece==$version"
tar -xzf "$work/sentencepiece-$version.tar.gz" -C "$work"
# Its own compile warnings are not ours to show; what fails is.
quietly() { "$@" >"$work/build.log" 2>&1 || { cat "$work/build.log" >&2; return 1; }; }
options=()
[ -z "$flags" ] || options=("-DCMAKE_CXX_FLAGS=$flags" -DCMAKE_CXX_FLAGS_RELEASE=)
quietly "$bin/cmake" -S "$work/sentencepiece-$version/sentencepiece" -B "$work/build" -G Ninja \
  -DCMAKE_MAKE_PROGRAM="$bin/ninja" -DCMAKE_BUILD_TYPE=Release -DCMAKE_POSITION_INDEPENDENT_CODE=ON \
  -DSPM_ENABLE_SHARED=OFF -DCMAKE_INSTALL_PREFIX="$dest" -DCMAKE_INSTALL_LIBDIR=lib "${options[@]}"
quietly "$bin/cmake" --build "$work/build" --target sentencepiece-static sentencepiece_train-static
mkdir -p "$dest/include" "$dest/lib"
cp "$work/sentencepiece-$version/sentencepiece/src/"sentencepiece_{processor,trainer}.h "$dest/include/"
cp "$work/build/src/"libsentencepiece{,_train}.a "$dest/lib/"
printf '%s' "$flags" >"$stamp"
