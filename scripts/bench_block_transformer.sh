#!/usr/bin/env bash
# The 85M Block Transformer against the vanilla model of as many parameters on a CPU, random weights, float32: decoding alone with one row and
# with the rows that 4 GiB of state hold, at three contexts, then the paper's protocol with less memory. The block decoder that is a YOCO decodes
# one row only: its bytes are the point. About 10 minutes on two cores.
# A case is repeated up to three times within MAX_SECONDS, so that large batches run once. Of the paper's cases only 2048+128 runs by itself:
# 128+2048 takes minutes more, and 8192+128 needs 640 MB of state and half a minute of prompt for each row of the vanilla model.
#   scripts/bench_block_transformer.sh
#   CASES=2048+128,128+2048,8192+128 CASES_MEMORY=1GiB scripts/bench_block_transformer.sh      all of the paper's cases
#   CONTEXTS=512,2048 MEMORY=1GiB MAX_SECONDS=60 OUT=FOLDER ...   other sizes; longer on a case; another folder for the results
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
build_tandem release
out=${OUT:-results/block_transformer}
block=configs/block_main_b4_85.yaml
vanilla=configs/vanilla_160.yaml
yoco=configs/block_yoco_b4_85.yaml
common=(--device cpu --repeats 3 --max-seconds "${MAX_SECONDS:-20}" --out "$out/bench.jsonl")
decode=(--protocol decode --lengths "${CONTEXTS:-512,2048,8192}" --decode 128)
mkdir -p "$out"
rm -f "$out/bench.jsonl" "$out/bench.csv"

say "Decoding alone"
"$tandem" bench inference "$block" "$vanilla" "${common[@]}" "${decode[@]}" --batch 1,0 --memory "${MEMORY:-4GiB}"
"$tandem" bench inference "$yoco" "${common[@]}" "${decode[@]}" --batch 1

say "The paper's protocol"
"$tandem" bench inference "$block" "$vanilla" "${common[@]}" --protocol block-transformer --cases "${CASES:-2048+128}" \
  --memory "${CASES_MEMORY:-256MiB}" --csv "$out/bench.csv"

say "Results"
.venv/bin/python scripts/report.py block-transformer "$out/bench.jsonl"
echo "$out/{bench.jsonl,bench.csv}"
