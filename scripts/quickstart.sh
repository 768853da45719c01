#!/usr/bin/env bash
# From a clean clone to trained, compared and sampled language models on two CPU cores (a GPU is used when there is one).
#   scripts/quickstart.sh               trains on the King James Bible (Debian package bible-kjv)
#   TEXT=FOLDER_OR_FILE ...             trains on your own text: plain text, or .jsonl with the text under "text"
#   STEPS=100 OUT=FOLDER ...            fewer steps for each model; another folder for everything it makes
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
source scripts/text.sh
preset=release
if nvidia-smi -L >/dev/null 2>&1; then preset=cuda; fi
build_tandem "$preset"
out=${OUT:-runs/quickstart}
begin=$SECONDS
made_from "$out" "TEXT=${TEXT:-} STEPS=${STEPS:-}"
prepare_text "$tandem" "$out"

models=(yoco yoco_swa block_transformer transformer)
runs=()
shorter=()
if [ -n "${STEPS:-}" ]; then shorter=("training.steps=$STEPS" "lr_schedule.warmup_steps=$((STEPS / 10))"); fi
for model in "${models[@]}"; do
  say "Train configs/quickstart/$model.yaml"
  "$tandem" train "configs/quickstart/$model.yaml" --out "$out/$model" "data.tokenizer=$out/data/tokenizer.model" \
    "data.train=[{path: $out/data/train}]" "data.validation=[{path: $out/data/valid}]" "${shorter[@]}"
  runs+=("$out/$model")
done

for run in "${runs[@]}"; do
  say "$run continues a text"
  "$tandem" generate "$run" --prompt "And it came to pass in those days, that" --max-new-tokens 60 --temperature 0.8 --top-p 0.95 --seed 1
  echo
done

say "Held-out loss (nats per token) of models of equal size after equal training, beside a unigram model's"
rm -f "$out/nll.jsonl"
"$tandem" eval nll "${runs[@]}" --data "$out/data/valid" --unigram "$out/data/train" --out "$out/nll.jsonl"

say "Prefill and decoding of the same"
rm -f "$out/bench.jsonl"
"$tandem" bench inference "${runs[@]}" --prompt-lengths 256,1024,4096 --batch 1 --decode 32 --repeats 3 --out "$out/bench.jsonl"

say "Plots"
.venv/bin/python scripts/plot.py --nll "$out/nll.jsonl" --bench "$out/bench.jsonl" --out "$out" "${runs[@]}"

say "Done in $(((SECONDS - begin) / 60)) min $(((SECONDS - begin) % 60)) s after set-up and build"
echo "models      $out/{$(IFS=,; echo "${models[*]}")}"
echo "data        $out/data"
echo "results     $out/nll.jsonl, $out/bench.jsonl"
echo "plots       $out/loss.png, $out/loss_by_position.png, $out/inference.png"
