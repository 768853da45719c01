#!/usr/bin/env bash
# What a narrower cache of keys and values costs and saves: loss, needles, state and time with float32, bfloat16 and int8, of the same weights.
#   scripts/cache_types.sh                  runs/quickstart/yoco and runs/quickstart/transformer on the quickstart's held-out text; needles with runs/retrieval/yoco
#   RUNS="A B" DATA=PREFIX NEEDLES=RUN OUT=FOLDER ...    other runs, data and folder of results; NEEDLES= leaves needles out
#   LENGTH=2048 NEEDLE_LENGTHS=256,65536 BENCH_LENGTHS=4096,16384 ...
# Records that are there are not made again, times are measured each time.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
read -ra runs <<<"${RUNS:-runs/quickstart/yoco runs/quickstart/transformer}"
data=${DATA:-runs/quickstart/data/valid}
needles=${NEEDLES-runs/retrieval/yoco}
out=${OUT:-results/cache_types}
for run in "${runs[@]}" $needles; do
  if [ ! -d "$run" ]; then
    echo "$run is not there: scripts/quickstart.sh trains runs/quickstart, scripts/retrieval.sh runs/retrieval" >&2
    exit 2
  fi
done
build_tandem release
mkdir -p "$out"
types=(float32 bfloat16 int8)

for type in "${types[@]}"; do
  say "Loss, keys and values in $type"
  "$tandem" eval nll "${runs[@]}" --data "$data" --context-length "${LENGTH:-2048}" --chunk 256 --cache-dtype "$type" --cost true --out "$out/nll.jsonl"
  if [ -n "$needles" ]; then
    say "Needles, keys and values in $type"
    "$tandem" eval needle "$needles" --protocol yoco --tasks single --lengths "${NEEDLE_LENGTHS:-256,4096,65536}" --samples 3 --haystack runs/retrieval/data/text.txt \
      --cache runs/retrieval/sets --cache-dtype "$type" --out "$out/needle.jsonl"
  fi
done

rm -f "$out/bench.jsonl"
for type in "${types[@]}"; do
  say "State and time, keys and values in $type"
  "$tandem" bench inference "${runs[@]}" --protocol yoco --batch 1 --decode 32 --lengths "${BENCH_LENGTHS:-4096,16384}" --prefill-chunk 4096 --cache-dtype "$type" \
    --repeats 3 --max-seconds 60 --out "$out/bench.jsonl"
done
.venv/bin/python scripts/report.py cache-types "$out"
