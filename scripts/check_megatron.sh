#!/usr/bin/env bash
# Token files against megatron-core: what `tandem data tokenize` writes is read with Megatron's IndexedDataset, and what Megatron's
# IndexedDatasetBuilder writes is read with `tandem data verify` and `tandem data inspect`; every document must be the same on both sides.
#   scripts/check_megatron.sh               writes results/data/megatron.json
#   SETS=40 DOCUMENTS=200 SEED=1 ...        how many random data sets, of how many documents; another seed
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
scripts/peers.sh
build_tandem release
say "Token files against megatron-core"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
.venv-peers/bin/python scripts/check_megatron.py --tandem "$tandem" --folder "$folder" --result results/data/megatron.json \
  --sets "${SETS:-40}" --documents "${DOCUMENTS:-200}" --seed "${SEED:-1}" 2>"$folder/stderr" ||
  { cat "$folder/stderr" >&2; exit 1; }
