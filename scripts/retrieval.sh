#!/usr/bin/env bash
# Retrieval from scratch on two CPU cores: tiny models that learn to find needles in minutes, and how far beyond their training length (256 tokens) they find them.
#   scripts/retrieval.sh                      trains the five models of configs/retrieval, scores them, draws the heat maps
#   MODELS="yoco" FAR= scripts/retrieval.sh   some of them; not beyond NEAR
# A million tokens takes most of the time: FAR is for the models of FAR_MODELS alone. What is there already is used again, so a stopped one goes on.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
source scripts/text.sh
source scripts/retrieval_data.sh
build_tandem release
out=runs/retrieval            # where configs/retrieval look for their data
results=${RESULTS:-results/retrieval}
near=${NEAR-256,1024,4096,16384} far=${FAR-65536,262144,1048576}
models=(${MODELS:-yoco yoco_rotary_long yoco_rotary yoco_swa transformer})
far_models=" ${FAR_MODELS-yoco yoco_rotary_long} "
begin=$SECONDS
prepare_retrieval "$tandem" "$out"

# score TASK LENGTHS SAMPLES RUN... -- OPTION...
score() {
  local task=$1 lengths=$2 samples=$3 runs=()
  shift 3
  while [ "$1" != -- ]; do runs+=("$1"); shift; done
  shift
  "$tandem" eval needle "${runs[@]}" --protocol yoco --tasks "$task" --lengths "$lengths" --samples "$samples" --haystack "$out/data/text.txt" --cache "$out/sets" \
    --memory-gib "${MEMORY_GIB:-8}" --out "$results/needle.jsonl" "$@"
}

runs=() far_runs=()
for model in "${models[@]}"; do
  say "Train configs/retrieval/$model.yaml"
  "$tandem" train "configs/retrieval/$model.yaml" --out "$out/$model"
  runs+=("$out/$model")
  case $far_models in *" $model "*) far_runs+=("$out/$model") ;; esac
done
mkdir -p "$results"
say "At training length: one needle, and one among four"
score single 256 6 "${runs[@]}" --
score multi_dot "${MULTI_LENGTHS:-512}" 6 "${runs[@]}" -- --needles 4
say "The needle removed"
score single 256,4096 3 "${runs[@]}" -- --remove-needle true
say "Beyond training length"
score single "${near#256,}" 3 "${runs[@]}" --
if [ -n "$far" ] && [ ${#far_runs[@]} -gt 0 ]; then
  say "Far beyond it"
  score single "$far" 3 "${far_runs[@]}" --
fi
.venv/bin/python scripts/plot_needle.py "$results/needle.jsonl" --out "$results"
say "Done in $(((SECONDS - begin) / 60)) min $(((SECONDS - begin) % 60)) s after set-up and build"
echo "results     $results/needle.jsonl"
