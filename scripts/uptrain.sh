#!/usr/bin/env bash
# Uptraining (Block Transformer, sec. 3.5): a trained Transformer turned into a Block Transformer, against the same model from random weights,
# with the same data and schedule. Held-out loss right after initialisation, after a tenth of the steps and at the end. About 7 minutes on two
# CPU cores once the source is there: the quickstart's Transformer, which is trained first (3 minutes) where it is missing.
#   scripts/uptrain.sh                  after scripts/quickstart.sh, or on its own, on the King James Bible
#   TEXT=FOLDER_OR_FILE ...             another text
#   STEPS=100 OUT=FOLDER ...            fewer steps for each model (20 at least); another folder of a quickstart
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
source scripts/text.sh
build_tandem release
out=${OUT:-runs/quickstart}
made_from "$out" "TEXT=${TEXT:-} STEPS=${STEPS:-}"
prepare_text "$tandem" "$out"
data=("data.tokenizer=$out/data/tokenizer.model" "data.train=[{path: $out/data/train}]" "data.validation=[{path: $out/data/valid}]")

say "Train the source, configs/quickstart/transformer.yaml"
shorter=()
if [ -n "${STEPS:-}" ]; then shorter=("training.steps=$STEPS" "lr_schedule.warmup_steps=$((STEPS / 10))"); fi
"$tandem" train configs/quickstart/transformer.yaml --out "$out/transformer" "${data[@]}" "${shorter[@]}"

uptrain=$out/uptrain
steps=${STEPS:-500}
tenth=$((steps / 10))
declare -A init=([uptrained]="init.from=$out/transformer" [random]="init=null")
# train NAME RUN OVERRIDES...: from the weights of NAME.
train() {
  local name=$1 run=$2
  shift 2
  "$tandem" train configs/quickstart/block_transformer_uptrain.yaml --out "$run" "${data[@]}" "${init[$name]}" "$@"
}
runs=()
for name in uptrained random; do
  say "The $name model as it begins: one step with a learning rate of 0"
  train "$name" "$uptrain/${name}_start" stages=null training.steps=1 "lr_schedule={name: constant}" \
    'optimizer.groups=[{parameters: ["*"], lr_scale: 0}]'
  say "Train the $name model"
  train "$name" "$uptrain/$name" "stages=[{steps: $tenth}, {steps: $((steps - tenth))}]" "lr_schedule.warmup_steps=$((steps / 25))" \
    "checkpoint.every=$steps" "validation.every=$((steps / 20))"
  runs+=("$uptrain/${name}_start")
  for step in "$tenth" "$steps"; do runs+=("$uptrain/$name/checkpoints/step-$(printf %08d "$step")"); done
done

say "Held-out loss (nats per token): at the start, after a tenth of the steps, at the end"
rm -f "$uptrain/nll.jsonl"
"$tandem" eval nll "$out/transformer" "${runs[@]}" --data "$out/data/valid" --unigram "$out/data/train" --out "$uptrain/nll.jsonl"
.venv/bin/python scripts/plot.py --uptrain "$uptrain" --out "$uptrain"
echo "$uptrain/{nll.jsonl,loss.png}"
if [ -z "${TEXT:-}${STEPS:-}${OUT:-}" ]; then  # the README's
  mkdir -p results/uptrain
  cp "$uptrain/nll.jsonl" "$uptrain/loss.png" results/uptrain/
fi
