#!/usr/bin/env bash
# YOCO's inference tables: memory split into weights, cache and rest, prompt latency and throughput with 1,024 generated tokens from 32K to 1M
# tokens; KV bytes a token and tokens a GiB by model size up to 65B; decode MFU of Block Transformers. Measured on this machine for the
# quickstart's models as far as they fit MEMORY and MAX_SECONDS, computed (and marked so) for the rest: from the pace of what was measured,
# and for 3B and up as the least that an H100's data sheet allows. 3 minutes on two cores; what the file holds already is not done again.
#   scripts/profile.sh
#   MEMORY=8GiB MAX_SECONDS=300 OUT=FILE.jsonl ...   more memory; longer cases; another file for the records
#   PEAK_TFLOPS=0.2 ...                              of this machine in float32: adds MFU to what is measured
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
build_tandem release
out=${OUT:-results/profile.jsonl}
lengths=${LENGTHS:-32768,65536,131072,262144,524288,1048576}
measured=(--device cpu --memory "${MEMORY:-4GiB}" --repeats 1 --out "$out")
if [ -n "${PEAK_TFLOPS:-}" ]; then measured+=(--peak-tflops "$PEAK_TFLOPS"); fi
# Dense bfloat16 and HBM3 of an H100 SXM.
h100=(--device cpu --dtype bfloat16 --measure false --memory 80GB --peak-tflops 989 --bandwidth 3350 --out "$out")
mkdir -p "$(dirname "$out")"

say "Measured: small models, one row"
"$tandem" eval profile configs/quickstart/{yoco,transformer}.yaml "${measured[@]}" --lengths "$lengths" --max-seconds "${MAX_SECONDS:-95}"

say "Measured: decoding of blocks, one row and sixteen"
"$tandem" eval profile configs/quickstart/{block_transformer,transformer}.yaml "${measured[@]}" --lengths 2048 --generated 512 --batches 1,16 --max-seconds 30

say "Computed: 3B on an H100, one row and as many as fit"
"$tandem" eval profile configs/{yoco,transformer}_3b.yaml "${h100[@]}" --lengths "$lengths" --batches 1,0

say "Computed: KV bytes by size"
"$tandem" eval profile configs/{yoco,transformer}_{1.4b,6.8b,13b,30b,65b}.yaml "${h100[@]}" --lengths 32768

say "Computed: decoding of blocks on an H100, as many rows as fit"
"$tandem" eval profile configs/block_main_b4_{85,300,800,1.2b}.yaml configs/vanilla_{160,410}.yaml "${h100[@]}" --lengths 2176 --generated 2048 --batches 1,0 \
  --prefill-chunk 0

say "Tables"
.venv/bin/python scripts/report.py profile "$out"
echo "$out"
