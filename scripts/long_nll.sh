#!/usr/bin/env bash
# The loss of long text under a small YOCO: every position of the first tokens, then the last targets of a million tokens, of which the rest is
# prefilled with early exit. Records, with seconds and peak resident memory, in results/long_nll.jsonl; a record that is there is not made again.
#   scripts/long_nll.sh                 runs/quickstart/yoco (scripts/quickstart.sh trains it)
#   scripts/long_nll.sh RUN             another run or checkpoint with a tokenizer
#   POSITIONS=4096 LENGTH=16384 LAST=512 CHUNK=512 ...   shorter; WINDOWS=4 for a fit with an interval
#   TEXT=FILE OUT=FOLDER RESULTS=FILE.jsonl CACHE_DTYPE=bfloat16 ...
# The text is the King James Bible (Debian package bible-kjv), repeated until it is long enough: most of it was in the training data, so the loss
# says what it takes to score long text, not how well the model would do on another.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
source scripts/text.sh
run=${1:-runs/quickstart/yoco}
out=${OUT:-runs/long_nll}
results=${RESULTS:-results/long_nll.jsonl}
positions=${POSITIONS:-65536} windows=${WINDOWS:-1}
length=${LENGTH:-1048576} last=${LAST:-4096} chunk=${CHUNK:-4096}
if [ ! -d "$run" ]; then
  echo "$run is not there: train it with scripts/quickstart.sh, or name a run" >&2
  exit 2
fi
if [ -n "${TANDEM:-}" ]; then tandem=$TANDEM; else build_tandem release; fi

tokens_of() { "$tandem" data inspect "$1" --json | .venv/bin/python -c 'import json, sys; print(json.load(sys.stdin)["tokens"])'; }

say "A text of more than $length tokens"
needed=$((length > positions * windows ? length : positions * windows))
tokenizer=$(find "$run/" -name 'tokenizer.*' | sort | tail -n 1)
if [ -z "$tokenizer" ]; then tokenizer=bytes; fi
made_from "$out" "TEXT=${TEXT:-} TOKENIZER=$(cat "$tokenizer" 2>/dev/null | sha256sum | cut -c 1-16)"
if [ -n "${TEXT:-}" ]; then
  cp "$TEXT" "$out/once.txt"
else
  bible_text "$out/once.txt"
fi
copies=1
while [ ! -s "$out/text.idx" ] || [ "$(tokens_of "$out/text")" -le "$needed" ]; do
  rm -f "$out"/text.*
  for ((i = 0; i < copies; ++i)); do cat "$out/once.txt"; done >"$out/long.txt"
  "$tandem" data tokenize --tokenizer "$tokenizer" --input "$out/long.txt" --split file --output "$out/text"
  copies=$((copies * 2))
done

# One process for each, so that the peak of resident memory is its own.
score() {
  "$tandem" eval nll "$run" --data "$out/text" --device cpu --batch 1 --chunk "$chunk" --cache-dtype "${CACHE_DTYPE:-same}" \
    --mask-documents false --bucket-scale log --buckets 32 --cost true --out "$results" "$@"
}
mkdir -p "$(dirname "$results")"
say "Every position to $positions"
score --context-length "$positions" --max-tokens $((positions * windows)) --fit buckets
say "The last $last targets of $length tokens"
score --context-length "$length" --max-tokens "$length" --last "$last"

say "What it took"
.venv/bin/python - "$results" <<'PYTHON'
import json
import sys

for line in open(sys.argv[1], encoding="utf-8"):
    record = json.loads(line)
    cost = record["cost"]
    print(f"{record['tokens']:>9,} tokens, {record['tokens_scored']:>7,} scored: nll {record['nll']:.4f}, {cost['seconds']:.1f} s, "
          f"state {cost['state_bytes'] / 2**20:.0f} MiB, peak resident {cost['peak_resident_bytes'] / 2**20:.0f} MiB")
PYTHON
.venv/bin/python scripts/plot_nll_curve.py "$results" --out "${results%.jsonl}"
echo "records     $results"
echo "plot        ${results%.jsonl}.png, ${results%.jsonl}.svg"
