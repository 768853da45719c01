#!/usr/bin/env bash
# Proves in numbers that Sampler, Loader and share_of, called as the trainer calls them, give every sample exactly once: over 3 epochs of every source, 50 kills and
# world sizes 1, 2, 4, 3, for masked documents, documents padded to blocks, length-filtered and upsampled views, documents shuffled one by one, and packed chunks
# beside a source with target weights. The trainer itself does not run here. Writes results/data/ledger.json, but where something failed only to OUT or build/ledger.json.
# About 2 minutes on two CPU cores after set-up and build.
#   scripts/ledger.sh
#   SEED=2 KILLS=500 EPOCHS=5 SCALE=1 OUT=FILE ...   other random choices (default 1); more kills (50), more epochs (3), less data (40); another result file
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
seed=${SEED:-1} kills=${KILLS:-50} epochs=${EPOCHS:-3} scale=${SCALE:-40}
out=${OUT:-results/data/ledger.json}
folder="$ROOT/build/ledger"
lines="$ROOT/build/ledger.jsonl"
scripts/setup.sh
say "Build (release)"
build release --target ledger

say "Ledgers"
rm -rf "$folder" "$lines"
status=0
build/release/tests/ledger run --folder "$folder" --epochs "$epochs" --kills "$kills" --scale "$scale" --seed "$seed" --out "$lines" || status=$?
if [ ! -s "$lines" ]; then exit "$status"; fi
[ "$status" -eq 0 ] || out=${OUT:-build/ledger.json}
mkdir -p "$(dirname "$out")"
.venv/bin/python - "$lines" "$out" "SEED=$seed KILLS=$kills EPOCHS=$epochs SCALE=$scale scripts/ledger.sh" "$status" <<'PYTHON'
import json, sys
parts = [json.loads(line) for line in open(sys.argv[1])]
for part in parts:
    del part["part"]
whole = {"command": sys.argv[3], "passed": sys.argv[4] == "0", "configurations": {part.pop("configuration"): part for part in parts}}
for total in "samples", "kills", "resumed_steps", "violations":
    whole[total] = sum(part[total] for part in parts)
whole["seconds"] = round(sum(part["seconds"] for part in parts))
with open(sys.argv[2], "w") as file:
    json.dump(whole, file, indent=2)
    file.write("\n")
PYTHON
say "Done: $out"
if [ "$status" -ne 0 ]; then
  echo "violations, or a configuration did not end; the ledgers are in $folder" >&2
  exit "$status"
fi
rm -rf "$folder"
