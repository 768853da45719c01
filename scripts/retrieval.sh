#!/usr/bin/env bash
# Retrieval from scratch on two CPU cores: a tiny YOCO that learns to find needles in at most five minutes, and finds them among a million tokens.
#   scripts/retrieval.sh                     trains five models, scores them from 256 to 1,048,576 tokens, draws the heat map
#   MODELS="yoco" LONG=65536 scripts/retrieval.sh   one of them, up to so many tokens
#   OUT=FOLDER ...                           another folder than runs/retrieval
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
source scripts/retrieval_data.sh
build_tandem release
out=${OUT:-runs/retrieval}
begin=$SECONDS
prepare_retrieval "$tandem" "$out"
