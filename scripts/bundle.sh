#!/usr/bin/env bash
# Builds the cuda preset and lays what a GPU machine needs to test and measure it into one folder below 64 MiB: binaries without symbols, the
# libraries that they need beside LibTorch's, configs, a text to train on and gpu_check.sh, which is then run there.
#   scripts/bundle.sh [OUT]      OUT: build/bundle by default; what is in it is replaced
#   JOBS=2 scripts/bundle.sh     compiles with so many processes
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
out=${1:-build/bundle}
most_bytes=$((64 << 20))
command -v nvcc >/dev/null || { echo "no bundle: nvcc is not on the PATH" >&2; exit 2; }

# Test binaries are named after their folders; those with suites *GpuTest are wanted.
names=$(grep -l GpuTest tests/*/*_gpu_test.cpp tests/*/*_test.cpp | cut -d / -f 2 | sort -u)
say "Build (cuda): tandem and the tests of" $names
build cuda "-j${JOBS:-$(nproc)}" --target tandem $(printf '%s_test ' $names)

say "Bundle"
rm -rf "$out"
mkdir -p "$out/lib" "$out/bin"
for program in build/cuda/tandem $(printf 'build/cuda/tests/%s_test ' $names); do
  strip -s -o "$out/bin/$(basename "$program")" "$program"
  # The C and C++ libraries and LibTorch with CUDA's are the other machine's own.
  ldd "$program" | awk '/=> \// { print $3 }' | grep -vE '/(torch|nvidia|cuda[^/]*)/|/lib(c|m|rt|dl|util|pthread|gcc_s|stdc\+\+)\.so' |
    xargs -r cp -Lu -t "$out/lib"
done
tar -C "$out" -czf "$out/binaries.tar.gz" bin lib
rm -r "$out/bin" "$out/lib"
cp -r configs "$out/configs"
cp scripts/gpu_check.sh scripts/gpu_report.py "$out"
"$ROOT/.venv/bin/python" -c 'import torch; print(torch.__version__)' >"$out/torch_version"
{ git ls-files '*.md' '*.cpp' '*.h' | xargs cat 2>/dev/null || true; } | head -c 3000000 >"$out/text.txt"
git describe --always --dirty >"$out/commit"

bytes=$(du -sb "$out" | cut -f 1)
awk -v bytes="$bytes" 'BEGIN { printf "%.1f MiB", bytes / 1048576 }'
echo " in $out; on the GPU machine: bash $(basename "$out")/gpu_check.sh OUT_DIR"
if [ "$bytes" -ge "$most_bytes" ]; then
  echo "$out is larger than $((most_bytes >> 20)) MiB" >&2
  exit 1
fi
