#!/usr/bin/env bash
# Inference at length on a CPU: YOCO with both mixers against the Transformer of as many parameters, random weights, batch 1. Of each
# length the last 32 tokens are generated and the rest is prompt, read in pieces with early exit. About 10 minutes on two cores.
#   scripts/bench_inference.sh                        1K to 64K tokens, caches of float32 and bfloat16
#   LENGTHS=1024,4096 CACHES=float32 OUT=FOLDER ...   other lengths and caches; another folder for the results
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
build_tandem release
out=${OUT:-runs/bench_inference}
lengths=${LENGTHS:-1024,2048,4096,8192,16384,32768,65536}
caches=${CACHES:-float32 bfloat16}
yocos=(configs/quickstart/yoco.yaml configs/quickstart/yoco_swa.yaml)
transformer=configs/quickstart/transformer.yaml
common=(--device cpu --protocol yoco --batch 1 --decode 32)
mkdir -p "$out"

rm -f "$out/bench.jsonl"
for cache in $caches; do
  say "Time, keys and values in $cache"
  "$tandem" bench inference "${yocos[@]}" "$transformer" "${common[@]}" --lengths "$lengths" --prefill-chunk 4096 --cache-dtype "$cache" \
    --repeats 3 --max-seconds 20 --out "$out/bench.jsonl"
done

# Apart from the times: an allocator that gives every large tensor back at once counts exactly what is in use, and is slow.
say "Memory of prefill, in pieces and whole"
rm -f "$out/memory.jsonl"
short=$(tr , '\n' <<<"$lengths" | awk '$1 <= 16384' | paste -sd,)
memory() {
  GLIBC_TUNABLES=glibc.malloc.mmap_threshold=1048576 "$tandem" bench inference "$@" "${common[@]}" --repeats 1 --max-seconds 1 \
    --out "$out/memory.jsonl" --json >/dev/null
}
for cache in $caches; do memory "${yocos[@]}" --lengths "$lengths" --prefill-chunk 4096 --cache-dtype "$cache"; done
if [ -n "$short" ]; then
  memory "${yocos[@]}" --lengths "$short"
  memory "$transformer" --lengths "$short" --prefill-chunk 4096
fi

say "Results"
{
  .venv/bin/python scripts/report.py inference "$out/bench.jsonl"
  echo
  .venv/bin/python scripts/report.py memory "$out/memory.jsonl"
} | tee "$out/bench_inference.md"
.venv/bin/python scripts/plot.py --bench "$out/bench.jsonl" --ratios --out "$out"
echo "$out/{bench.jsonl,memory.jsonl,bench_inference.md,inference.png}"
