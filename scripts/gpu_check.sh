#!/usr/bin/env bash
# Tests and measures a bundle (scripts/bundle.sh) on a machine with an NVIDIA GPU in less than nine minutes: every gpu test, inference and a
# short training of each quickstart family in bfloat16 and float32.
#   gpu_check.sh OUT_DIR              LibTorch is that of `python3 -c "import torch"`
#   LIBTORCH=FOLDER gpu_check.sh ...  or that in FOLDER, which holds lib/libtorch_cuda.so
# Leaves OUT_DIR/gpu_check.json (everything, tests by name), summary.txt, bench.jsonl and log.txt. Exit code: 0 all passed, 1 something failed,
# 2 something is missing.
set -uo pipefail
missing() { echo "gpu_check: $*" >&2; exit 2; }
[ $# = 1 ] || missing "usage: gpu_check.sh OUT_DIR"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ -f "$here/binaries.tar.gz" ] || here=$(cd "$here/.." && pwd)/build/bundle
[ -f "$here/binaries.tar.gz" ] || missing "no bundle: run scripts/bundle.sh, then the gpu_check.sh in its folder"
command -v python3 >/dev/null || missing "python3 is missing"
command -v nvidia-smi >/dev/null || missing "no nvidia-smi: this machine has no NVIDIA driver"
libtorch=${LIBTORCH:-$(python3 -c 'import os, torch; print(os.path.dirname(torch.__file__))' 2>/dev/null)}
[ -n "$libtorch" ] || missing "no LibTorch: python3 has no torch and LIBTORCH names no folder"
[ -f "$libtorch/lib/libtorch_cuda.so" ] || missing "$libtorch/lib has no libtorch_cuda.so: it is a CPU build of LibTorch"
mkdir -p "$1" || missing "$1 cannot be made"
out=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
log=$out/log.txt
: >"$log"
tar -C "$work" -xzf "$here/binaries.tar.gz" || missing "$here/binaries.tar.gz cannot be unpacked"
export LD_LIBRARY_PATH=$libtorch/lib:$work/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
tandem=$work/bin/tandem
"$tandem" --version >>"$log" 2>&1 ||
  missing "tandem does not start: $(tail -n 1 "$log"); it was built with torch $(cat "$here/torch_version"), here is $(cat "$libtorch/version.py" 2>/dev/null | sed -n "s/^__version__ = //p")"

budget=530  # seconds of all parts together
left() { echo $((budget - SECONDS)); }
# part NAME LIMIT COMMAND...: runs it for at most LIMIT seconds and what is left of the budget; how it ended goes to parts.tsv.
part() {
  local name=$1 limit=$2 begin=$SECONDS code
  shift 2
  [ "$limit" -le "$(left)" ] || limit=$(left)
  if [ "$limit" -lt 5 ]; then
    code=skipped
  else
    echo "== $name" | tee -a "$log"
    timeout -k 5 "$limit" "$@" >>"$log" 2>&1
    code=$?
  fi
  printf '%s\t%s\t%s\n' "$name" "$code" $((SECONDS - begin)) >>"$work/parts.tsv"
}

{
  nvidia-smi --query-gpu=name,driver_version,memory.total,compute_cap,clocks.max.sm,clocks.max.mem,power.limit --format=csv
  echo "commit $(cat "$here/commit"), built with torch $(cat "$here/torch_version"), LibTorch in use: $libtorch"
} | tee "$work/facts.txt" | tee -a "$log"

# Correctness first, the small parts before what is made of them.
for name in nn comm cli train eval blocktf yoco; do
  [ -x "$work/bin/${name}_test" ] || continue
  part "test $name" 120 "$work/bin/${name}_test" --gtest_filter='*GpuTest*' --gtest_brief=1 "--gtest_output=json:$work/test-$name.json"
done

cd "$here" || exit 2
families=(yoco yoco_swa block_transformer transformer)
part "tokenize" 30 "$tandem" data tokenize --tokenizer bytes --input text.txt --split blank-line --output "$work/train" \
  --validation-fraction 0.05 --validation-output "$work/valid"
for dtype in bfloat16 float32; do
  for family in "${families[@]}"; do
    part "train $family $dtype" 25 "$tandem" train "configs/quickstart/$family.yaml" --device cuda --out "$work/run-$family-$dtype" data.tokenizer=bytes \
      "data.train=[{path: $work/train}]" "data.validation=[{path: $work/valid}]" training.dtype=$dtype training.steps=80 \
      lr_schedule.warmup_steps=8 checkpoint.every=80 validation.every=40 metrics.log_every=20
  done
done
for dtype in bfloat16 float32; do
  part "bench quickstart $dtype" 60 "$tandem" bench inference $(printf 'configs/quickstart/%s.yaml ' "${families[@]}") --device cuda --dtype $dtype \
    --lengths 512,2048 --batch 1,16 --decode 64 --repeats 3 --max-seconds 4 --out "$work/bench.jsonl" --json
done
part "bench 160M bfloat16" 90 "$tandem" bench inference configs/yoco_160m.yaml configs/transformer_160m.yaml --device cuda --dtype bfloat16 \
  --lengths 2048,16384 --batch 1 --decode 64 --repeats 3 --max-seconds 8 --out "$work/bench.jsonl" --json

[ -f "$work/bench.jsonl" ] && cp "$work/bench.jsonl" "$out/bench.jsonl"
python3 "$here/gpu_report.py" "$work" "$out"
