#!/usr/bin/env bash
# A sweep small enough for two CPU cores, from a clean clone to fits, intervals and plots: trains every run of configs/sweeps/NAME_tiny.yaml
# on the quickstart's text (the King James Bible), measures the inference of each, fits and draws. What is there already is used again, so a
# stopped one goes on.
#   scripts/sweep_tiny.sh NAME          yoco_sizes, iso_flop, block_transformer_sizes, block_length, block_split or yoco_layouts
#   scripts/sweep_tiny.sh NAME set.training.steps=20 ...    keys of the sweep, as `tandem sweep` takes them
#   OUT=FOLDER ...                      another folder than runs/sweeps/NAME
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
source scripts/text.sh
name=${1:-}
sweep=configs/sweeps/${name}_tiny.yaml
if [ -z "$name" ] || [ ! -f "$sweep" ]; then
  echo "usage: scripts/sweep_tiny.sh NAME; NAME is one of: $(cd configs/sweeps && ls -- *_tiny.yaml | sed 's/_tiny.yaml//' | paste -sd ' ')" >&2
  exit 2
fi
shift
build_tandem release
out=${OUT:-runs/sweeps/$name}
begin=$SECONDS
if [ ! -s runs/quickstart/data/valid.idx ]; then  # of a quickstart it is used as it is
  made_from runs/quickstart "TEXT=${TEXT:-} STEPS="
  prepare_text "$tandem" runs/quickstart
fi

say "Sweep $sweep"
"$tandem" sweep "$sweep" "$@" --dry-run --out "$out"
"$tandem" sweep "$sweep" "$@" --out "$out"

say "Decoding of every run"
mapfile -t runs < <(sed 's/.*"folder":"\([^"]*\)".*/\1/' "$out/sweep.jsonl")
if [ ! -s "$out/bench.jsonl" ] || [ "$out/sweep.jsonl" -nt "$out/bench.jsonl" ]; then
  rm -f "$out/bench.jsonl"
  "$tandem" bench inference "${runs[@]}" --prompt-lengths 128 --batch 16 --decode 32 --repeats 3 --out "$out/bench.jsonl"
fi

say "Fits"
"$tandem" eval scaling "$out/sweep.jsonl" "$out/bench.jsonl" --out "$out/fits.jsonl"

say "Plots and report"
.venv/bin/python scripts/plot_scaling.py --sweep "$out/sweep.jsonl" --fits "$out/fits.jsonl" --out "$out"
.venv/bin/python scripts/report.py html "$out"/{sweep,bench,fits}.jsonl --out "$out/report.html"

say "Done in $(((SECONDS - begin) / 60)) min $(((SECONDS - begin) % 60)) s after set-up and build"
echo "runs      $out/*/, what they printed in $out/logs"
echo "results   $out/sweep.jsonl, $out/bench.jsonl, $out/fits.jsonl"
echo "plots     $out/scaling.png, $out/scaling.svg"
echo "report    $out/report.html"
