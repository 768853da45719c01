#!/usr/bin/env bash
# What checkpoints cost a run: step time and stalls with a checkpoint every 10 steps, written beside the training (async) and in its
# way (sync), against none. The three take turns, in another order each round, so that a machine that grows slower favours nobody.
#   scripts/checkpoint_cost.sh              configs/quickstart/yoco.yaml on the King James Bible
#   TEXT=FOLDER_OR_FILE CONFIG=FILE ...     another text, another model
#   STEPS=60 EVERY=10 ROUNDS=3 OUT=FOLDER   how long, how often, how many times; another folder for everything it makes
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
source scripts/text.sh
build_tandem release
out=${OUT:-runs/checkpoint_cost}
config=${CONFIG:-configs/quickstart/yoco.yaml}
steps=${STEPS:-60} every=${EVERY:-10} rounds=${ROUNDS:-3}
made_from "$out" "TEXT=${TEXT:-}"
prepare_text "$tandem" "$out"

# train MODE ROUND: a fresh run, each step of which is timed by itself in metrics.jsonl.
train() {
  local mode=$1 run="$out/$1-round$2" saving
  case $mode in
    none) saving=(checkpoint.every=$((steps + 1))) ;;
    async) saving=("checkpoint.every=$every" checkpoint.async=true) ;;
    sync) saving=("checkpoint.every=$every" checkpoint.async=false) ;;
  esac
  say "Round $2: $mode"
  rm -rf "$run"
  "$tandem" train "$config" --out "$run" "training.steps=$steps" lr_schedule.warmup_steps=0 "data.tokenizer=$out/data/tokenizer.model" \
    "data.train=[{path: $out/data/train}]" "data.validation=[]" "${saving[@]}"
}

modes=(none async sync)
runs=()
for ((round = 0; round < rounds; ++round)); do
  for ((turn = 0; turn < 3; ++turn)); do
    mode=${modes[$(((turn + round) % 3))]}
    train "$mode" "$round"
    runs+=("$out/$mode-round$round")
  done
done

say "Cost of checkpoints"
.venv/bin/python scripts/report.py checkpoint-cost --out "$out/checkpoint_cost.jsonl" "${runs[@]}" | tee "$out/checkpoint_cost.md"
