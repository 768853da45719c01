#!/usr/bin/env bash
# Tokenizers against tiktoken, Hugging Face's tokenizers and sentencepiece: MB/s on one thread on the same documents, in turns, the ids the same; and on all
# cores. Vocabularies of GPT-2 and cl100k (scripts/peer_vocabularies.sh) and 4,096 pieces learnt here; texts: the King James Bible, the sources of this
# project, and a mixture of scripts, numbers and emoji. About 15 minutes on two cores, which nothing else should use.
#   scripts/bench_tokenizers.sh
#   TEXT=FILE ...                              another text (.jsonl, or cut at blank lines) for the Bible
#   VOCABULARIES=FOLDER ...                    with gpt2.tiktoken and cl100k_base.tiktoken, else they are fetched
#   ROUNDS=5 REPEATS=3 OUT=FOLDER RESULTS=FOLDER   how often; folders for what is made on the way and for tokenizers.json
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
source scripts/text.sh
measure_load
build_tandem release
scripts/peer_vocabularies.sh
out=${OUT:-runs/bench_tokenizers}
results=${RESULTS:-results/data}
rounds=${ROUNDS:-5} repeats=${REPEATS:-3}
command="${TEXT:+TEXT=$(basename "${TEXT:-}") }ROUNDS=$rounds REPEATS=$repeats scripts/bench_tokenizers.sh"
made_from "$out" "TEXT=${TEXT:-}"
prepare_text "$tandem" "$out"

say "Tokenizers in turns"
.venv-peers/bin/python scripts/bench_tokenizers.py --tandem "$tandem" --text "${TEXT:-$out/bible.txt}" --vocabularies .venv-peers/vocabularies \
  --sentencepiece "$out/data/tokenizer.model" --rounds "$rounds" --repeats "$repeats" --command "$command" --load-before "$load_before" --work "$out/texts" \
  --out "$results/tokenizers.json"

say "Results"
.venv/bin/python scripts/report.py tokenizers "$results/tokenizers.json" | tee "$out/tokenizers.md"
echo "$results/tokenizers.json"
