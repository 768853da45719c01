#!/usr/bin/env bash
# Proves in numbers that training sees every sample exactly once: over 3 epochs of every source, 50 kills and world sizes 1, 2, 4, 3, for masked documents, documents
# padded to blocks, length-filtered and upsampled views, and documents shuffled one by one. Writes results/data/ledger.json. About 2 minutes on two CPU cores after
# set-up and build.
#   scripts/ledger.sh
#   SEED=2 KILLS=500 EPOCHS=5 SCALE=1 OUT=FILE ...   other random choices (default 1); more kills (50), more epochs (3), less data (40); another result file
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
out=${OUT:-results/data/ledger.json}
folder="$ROOT/build/ledger"
lines="$ROOT/build/ledger.jsonl"
scripts/setup.sh
say "Build (release)"
build release --target ledger

say "Ledgers"
rm -rf "$folder" "$lines"
status=0
build/release/tests/ledger run --folder "$folder" --epochs "${EPOCHS:-3}" --kills "${KILLS:-50}" --scale "${SCALE:-40}" --seed "${SEED:-1}" --out "$lines" || status=$?
if [ ! -s "$lines" ]; then exit "$status"; fi
mkdir -p "$(dirname "$out")"
.venv/bin/python - "$lines" "$out" <<'PYTHON'
import json, sys
parts = [json.loads(line) for line in open(sys.argv[1])]
for part in parts:
    del part["part"]
whole = {"command": "scripts/ledger.sh", "configurations": {part.pop("configuration"): part for part in parts}}
for total in "samples", "kills", "resumed_steps", "violations":
    whole[total] = sum(part[total] for part in parts)
whole["seconds"] = round(sum(part["seconds"] for part in parts))
with open(sys.argv[2], "w") as file:
    json.dump(whole, file, indent=2)
    file.write("\n")
PYTHON
say "Done: $out"
if [ "$status" -ne 0 ]; then
  echo "violations; the ledgers are in $folder" >&2
  exit "$status"
fi
rm -rf "$folder"
