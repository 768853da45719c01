#!/usr/bin/env bash
# Proves in numbers that checkpoints survive kills, damage and failing system calls; writes results/soak.json. About 4 minutes on two CPU
# cores after set-up and build. That readers survive mutated files is what scripts/fuzz.sh shows.
#   scripts/soak.sh               200 kills, 100,000 flipped bits, every system call failing, 61 sizes of a full disk, 10,000 histories
#   SEED=2 OUT=FILE ...           other random choices (default 1); another result file
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
out=${OUT:-results/soak.json}
seed=${SEED:-1}
scripts/setup.sh
say "Build (release)"
build release --target tandem soak
begin=$SECONDS
lines="$ROOT/build/soak.jsonl"
: >"$lines"
failed=()

# Every part runs, whatever the one before it found.
for part in kills flips syscalls disk-full sequences; do
  say "Soak: $part"
  build/release/tests/soak "$part" --seed "$seed" --out "$lines" || failed+=("$part")
done

mkdir -p "$(dirname "$out")"
.venv/bin/python - "$lines" "$out" "SEED=$seed scripts/soak.sh" "${failed[@]}" <<'PYTHON'
import json, sys
parts = [json.loads(line) for line in open(sys.argv[1])]
whole = {"command": sys.argv[3], "parts": {part.pop("part"): part for part in parts}}
whole["violations"] = sum(part["violations"] for part in parts)
whole["failed"] = sys.argv[4:]  # with a part that ended before it could report
whole["seconds"] = round(sum(part["seconds"] for part in parts))
with open(sys.argv[2], "w") as file:
    json.dump(whole, file, indent=2)
    file.write("\n")
PYTHON
say "Done in $(((SECONDS - begin) / 60)) min $(((SECONDS - begin) % 60)) s: $out"
if [ ${#failed[@]} -gt 0 ]; then
  echo "violations in: ${failed[*]}" >&2
  exit 1
fi
