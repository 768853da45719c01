#!/usr/bin/env bash
# Retrieval from scratch on two CPU cores: tiny models that learn to find needles in minutes, and how far beyond their training length they find them.
#   scripts/retrieval.sh                      trains the five models of configs/retrieval, scores them, draws the heat map
#   MODELS="yoco" LENGTHS=256,1024 scripts/retrieval.sh    some of them, at some lengths
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
source scripts/text.sh
source scripts/retrieval_data.sh
build_tandem release
out=runs/retrieval            # where configs/retrieval look for their data
begin=$SECONDS
prepare_retrieval "$tandem" "$out"
models=(${MODELS:-yoco yoco_rotary yoco_rotary_long yoco_swa transformer})
runs=()
for model in "${models[@]}"; do
  say "Train configs/retrieval/$model.yaml"
  "$tandem" train "configs/retrieval/$model.yaml" --out "$out/$model"
  runs+=("$out/$model")
done
say "One needle, and none where it should be"
"$tandem" eval needle "${runs[@]}" --protocol yoco --tasks single --lengths "${LENGTHS:-256,1024,4096}" --samples "${SAMPLES:-6}" --haystack "$out/data/text.txt" --cache "$out/sets" --out "$out/needle.jsonl"
"$tandem" eval needle "${runs[@]}" --protocol yoco --tasks single --lengths 256 --samples "${SAMPLES:-6}" --remove-needle true --haystack "$out/data/text.txt" --cache "$out/sets" --out "$out/needle.jsonl"
.venv/bin/python scripts/plot_needle.py "$out/needle.jsonl" --out "$out"
say "Done in $(((SECONDS - begin) / 60)) min $(((SECONDS - begin) % 60)) s after set-up and build"
echo "results     $out/needle.jsonl"
