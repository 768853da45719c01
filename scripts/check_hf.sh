#!/usr/bin/env bash
# Exports models to the forms of Hugging Face's libraries, opens them there and compares logits; results/interchange.json.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
build_tandem release
scripts/hf_peers.sh
.venv-peers/bin/python scripts/check_hf.py --tandem "$tandem" --out results/interchange.json
