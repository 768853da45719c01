#!/usr/bin/env bash
# `tandem data tokenize` from files to files: speed with one thread and with all cores on 100 MB and 1 GB, memory on 10 MB, 100 MB (also .zst) and 1 GB; then the
# loader at 1.5 MB of ids a second, its file in the page cache and not, with idle cores and with busy ones. About 15 minutes on two cores, which nothing else
# should use, and 3 GB of disk.
#   scripts/bench_data.sh
#   TEXT=FILE ...                              another text (.jsonl, or cut at blank lines) than the King James Bible
#   VOCABULARIES=FOLDER ...                    with gpt2.tiktoken and cl100k_base.tiktoken, else they are fetched
#   PARTS=loader ...                           only the loader, on the tokens of the largest input: 3 minutes
#   SIZES="10 100 1000" ROUNDS=3 OUT=FOLDER RESULTS=FOLDER   MB; how often; folders for what is made on the way and for tokenize.json, loader.json
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
source scripts/text.sh
measure_load
build_tandem release
scripts/peer_vocabularies.sh
out=${OUT:-runs/bench_data}
results=${RESULTS:-results/data}
made_from "$out" "TEXT=${TEXT:-}"
prepare_text "$tandem" "$out"

say "From files to files, and the loader"
read -ra sizes <<<"${SIZES:-10 100 1000}"
rounds=${ROUNDS:-3}
read -ra parts <<<"${PARTS:-tokenize loader}"
command="${TEXT:+TEXT=$(basename "${TEXT:-}") }${PARTS:+PARTS=\"$PARTS\" }SIZES=\"${sizes[*]}\" ROUNDS=$rounds scripts/bench_data.sh"
.venv/bin/python scripts/bench_data.py --tandem "$tandem" --text "${TEXT:-$out/bible.txt}" --sizes "${sizes[@]}" --rounds "$rounds" --parts "${parts[@]}" \
  --command "$command" --load-before "$load_before" \
  --tokenizers .venv-peers/vocabularies/gpt2.tiktoken "$out/data/tokenizer.model" --work "$out/work" --out "$results"

say "Results"
[ -e "$results/tokenize.json" ] && [ -e "$results/loader.json" ] || exit 0
.venv/bin/python scripts/report.py data "$results/tokenize.json" "$results/loader.json" | tee "$out/data.md"
echo "$results/{tokenize,loader}.json"
