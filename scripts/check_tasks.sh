#!/usr/bin/env bash
# `tandem eval tasks` against lm-evaluation-harness: a small Llama with random weights, made with transformers, is imported, and both
# answer the same local files of every built-in task, without examples and with two; accuracies, perplexities and standard errors must
# agree to 1e-4. Installs the harness into build/lm-eval; not a part of the tests.
#   scripts/check_tasks.sh        writes results/tasks_check.json
#   DOCUMENTS=40 SEED=1 ...       documents of each task; another seed
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
peers=(lm_eval==0.4.13 transformers==5.24.0 accelerate==1.15.0 torch==2.15.0)
stamp=build/lm-eval/tandem-peers.done
if [ ! -f "$stamp" ] || [ "$(cat "$stamp")" != "${peers[*]}" ]; then
  say "Python packages into build/lm-eval: ${peers[*]}"
  [ -x build/lm-eval/bin/python ] || python3 -m venv build/lm-eval
  build/lm-eval/bin/python -m pip install --quiet --disable-pip-version-check "${peers[@]}"
  printf '%s' "${peers[*]}" >"$stamp"
fi
build_tandem release
say "Tasks against lm-evaluation-harness"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
build/lm-eval/bin/python scripts/check_tasks.py --tandem "$tandem" --folder "$folder" --result results/tasks_check.json \
  --documents "${DOCUMENTS:-40}" --seed "${SEED:-1}" 2>"$folder/stderr" ||
  { cat "$folder/stderr" >&2; exit 1; }
