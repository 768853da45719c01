#!/usr/bin/env bash
# Proves in numbers that checkpoints survive kills, damage and failing system calls, and that readers survive mutated files; writes
# results/soak.json. About 5 minutes on two CPU cores after set-up and build.
#   scripts/soak.sh               200 kills, 100,000 flipped bits, every system call failing, 61 sizes of a full disk, 10,000 histories, then
#                                 100,000 mutated inputs for each reader under AddressSanitizer and UndefinedBehaviorSanitizer
#   SEED=2 OUT=FILE ...           other random choices (default 1); another result file
#   FUZZ_INPUTS=1000000 ...       another number of mutated inputs
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
out=${OUT:-results/soak.json}
seed=${SEED:-1}
inputs=${FUZZ_INPUTS:-100000}
scripts/setup.sh
say "Build (release)"
build release --target tandem soak
begin=$SECONDS
lines="$ROOT/build/soak.jsonl"
rm -f "$lines"
failed=()

# Every part runs, whatever the one before it found.
for part in kills flips syscalls disk-full sequences; do
  say "Soak: $part"
  build/release/tests/soak "$part" --seed "$seed" --out "$lines" || failed+=("$part")
done

say "Build (sanitize)"
build sanitize
while read -r command; do
  eval "words=($command)"  # the target, its usual number of inputs, its seed files
  name=$(basename "${words[0]}")
  say "Fuzz: $name"
  started=$SECONDS
  findings=0
  "${words[0]}" "$inputs" "${words[@]:2}" || { findings=1; failed+=("$name"); }
  printf '{"part": "%s", "inputs": %s, "violations": %s, "seconds": %s}\n' "$name" "$inputs" "$findings" "$((SECONDS - started))" >>"$lines"
done < <(.venv/bin/ctest --test-dir build/sanitize -N -V -R '_fuzz$' | sed -n 's/^[0-9]*: Test command: //p')

mkdir -p "$(dirname "$out")"
.venv/bin/python - "$lines" "$out" "${failed[@]}" <<'PYTHON'
import json, sys
parts = [json.loads(line) for line in open(sys.argv[1])]
whole = {"command": "scripts/soak.sh", "parts": {part.pop("part"): part for part in parts}}
whole["violations"] = sum(part["violations"] for part in parts)
whole["failed"] = sys.argv[3:]  # with a part that ended before it could report
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
