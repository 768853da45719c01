#!/usr/bin/env bash
# YOCO with both mixers and the Block Transformer against the Transformer at equal parameters: the quickstart's models, trained with several
# seeds, and the mean and spread of their loss on held-out text. About 35 minutes on two CPU cores.
#   scripts/compare.sh                      the King James Bible, seeds 0, 1 and 2
#   TEXT=FOLDER_OR_FILE SEEDS="0 1" ...     another text, other seeds
#   STEPS=100 OUT=FOLDER ...                fewer steps for each model; another folder for everything it makes
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
source scripts/text.sh
build_tandem release
out=${OUT:-runs/compare}
seeds=${SEEDS:-0 1 2}
made_from "$out" "TEXT=${TEXT:-} STEPS=${STEPS:-}"
prepare_text "$tandem" "$out"

shorter=()
if [ -n "${STEPS:-}" ]; then shorter=("training.steps=$STEPS" "lr_schedule.warmup_steps=$((STEPS / 10))"); fi
runs=()
for seed in $seeds; do
  for model in yoco yoco_swa block_transformer transformer; do
    run="$out/$model-seed$seed"
    say "Train configs/quickstart/$model.yaml with seed $seed"
    "$tandem" train "configs/quickstart/$model.yaml" --out "$run" "training.seed=$seed" "data.tokenizer=$out/data/tokenizer.model" \
      "data.train=[{path: $out/data/train}]" "data.validation=[{path: $out/data/valid}]" "${shorter[@]}"
    runs+=("$run")
  done
done

say "Held-out loss (nats per token)"
rm -f "$out/nll.jsonl"
"$tandem" eval nll "${runs[@]}" --data "$out/data/valid" --out "$out/nll.jsonl"
.venv/bin/python scripts/report.py compare "$out/nll.jsonl" | tee "$out/compare.md"
