#!/usr/bin/env bash
# Feeds every reader of outside bytes with mutated files under AddressSanitizer and UndefinedBehaviorSanitizer, as many readers at a time as there are cores; writes results/data/fuzz.json.
#   scripts/fuzz.sh                    10 minutes for each target
#   SECONDS_EACH=60 SEED=2 OUT=FILE ...     other times, other inputs (default seed 1), another result file
#   TARGETS='json|config' ...          only those whose name matches; their records, which name the command themselves, take the place of the older ones
#   JOBS=5 ...                         so many at a time, for less time in all and fewer inputs
# An input that breaks something is left in build/fuzz/TARGET.finding, and the results then only in OUT or build/fuzz/fuzz.json.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
seconds=${SECONDS_EACH:-600}
seed=${SEED:-1}
jobs=${JOBS:-$(nproc)}
scripts/setup.sh
say "sentencepiece with sanitizers into .deps-sanitize"
scripts/build_sentencepiece.sh .deps-sanitize "-O1 -g1 -fno-omit-frame-pointer -fsanitize=address,undefined"
say "Build (sanitize)"
TANDEM_CMAKE_OPTIONS="${TANDEM_CMAKE_OPTIONS:-} -DTANDEM_DEPS_DIR=$ROOT/.deps-sanitize" build sanitize --target fuzz
begin=$SECONDS
work="$ROOT/build/fuzz"
rm -rf "$work"
mkdir -p "$work"

# fuzz TARGET SEED_FILE ...: one target to its end; its output and exit code stay in $work.
fuzz() {
  local name
  name=$(basename "$1")
  local target=$1
  shift
  (cd "$work" && "$target" --seconds "$seconds" --seed "$seed" "$@") >"$work/$name.log" 2>&1 && echo 0 >"$work/$name.rc" || echo $? >"$work/$name.rc"
  echo "$name: $(tail -n 1 "$work/$name.log")"
}

while read -r command; do
  eval "words=($command)"  # the target, its usual number of inputs, its seed files
  [[ $(basename "${words[0]}") =~ ${TARGETS:-.} ]] || continue
  while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n || true; done
  say "Fuzz: $(basename "${words[0]}")"
  fuzz "${words[0]}" "${words[@]:2}" &
done < <(.venv/bin/ctest --test-dir build/sanitize -N -V -R '_fuzz$' | sed -n 's/^[0-9]*: Test command: //p')
wait

out=${OUT:-results/data/fuzz.json}
command="${TARGETS:+TARGETS='$TARGETS' }SECONDS_EACH=$seconds SEED=$seed JOBS=$jobs scripts/fuzz.sh"
compiler=$(sed -n 's/^CMAKE_CXX_COMPILER:[A-Z]*=//p' build/sanitize/CMakeCache.txt)
.venv/bin/python - "$work" "$out" "$("$compiler" --version | head -n 1)" "$command" "${OUT:-}" "${TARGETS:-}" <<'PYTHON'
import json, os, pathlib, re, sys
work, out, compiler, command, chosen, part = sys.argv[1:]
targets = {}
for rc in sorted(pathlib.Path(work).glob("*.rc")):
    log = rc.with_suffix(".log").read_text(errors="replace")
    done = re.search(r"^(\d+) mutated inputs in ([\d.]+) s, no finding$", log, re.M)
    clean = rc.read_text().strip() == "0" and done is not None
    targets[rc.stem] = {"inputs": int(done[1]) if done else None, "seconds": float(done[2]) if done else None, "findings": 0 if clean else 1}
if not targets:
    sys.exit("no target")
about = {
    "command": command,
    "compiler": compiler,
    "cores": os.cpu_count(),
    "sanitizers": "address, undefined (sentencepiece too)",
}
if part and pathlib.Path(out).exists():
    whole = json.loads(pathlib.Path(out).read_text())
    whole["targets"].update({name: {**target, **about} for name, target in targets.items()})
else:
    whole = {**about, "targets": targets}
findings = sum(target["findings"] for target in targets.values())
whole["inputs"] = sum(target["inputs"] or 0 for target in whole["targets"].values())
whole["findings"] = sum(target["findings"] for target in whole["targets"].values())
path = pathlib.Path(out if chosen or not findings else f"{work}/fuzz.json")
path.parent.mkdir(parents=True, exist_ok=True)
path.write_text(json.dumps(whole, indent=2) + "\n")
sys.exit(f"findings: see {work}; results in {path}" if findings else 0)
PYTHON
say "Done in $(((SECONDS - begin) / 60)) min $(((SECONDS - begin) % 60)) s: $out"
