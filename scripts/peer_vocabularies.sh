#!/usr/bin/env bash
# Fetches real vocabularies for comparisons into .venv-peers/vocabularies: gpt2.tiktoken and cl100k_base.tiktoken, which come with Python packages and are told by
# the hashes that tiktoken itself asks for. VOCABULARIES=FOLDER takes these two files from there instead. Does nothing the second time.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
scripts/peers.sh
folder=.venv-peers/vocabularies
hashes="306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930  gpt2.tiktoken
223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7  cl100k_base.tiktoken"
whole() { (cd "$folder" 2>/dev/null && sha256sum --check --status <<<"$hashes" 2>/dev/null); }
if whole; then exit 0; fi
mkdir -p "$folder"

if [ -n "${VOCABULARIES:-}" ]; then
  cp "$VOCABULARIES"/{gpt2,cl100k_base}.tiktoken "$folder"
else
  packages=(openai-whisper==20250625 litellm==1.109.1)
  say "Vocabularies out of the Python packages ${packages[*]}"
  fetched=$folder/packages
  .venv-peers/bin/python -m pip download --quiet --disable-pip-version-check --no-deps --dest "$fetched" "${packages[@]}"
  tar -xzOf "$fetched"/openai_whisper-*.tar.gz --wildcards '*/whisper/assets/gpt2.tiktoken' >"$folder/gpt2.tiktoken"
  # There under the SHA-1 of its address, as tiktoken's cache names files.
  .venv-peers/bin/python -c 'import sys, zipfile
package = zipfile.ZipFile(sys.argv[1])
sys.stdout.buffer.write(package.read("litellm/litellm_core_utils/tokenizers/9b5ad71b2ce5302211f9c61530b329a4922fc6a4"))' \
    "$fetched"/litellm-*.whl >"$folder/cl100k_base.tiktoken"
  rm -r "$fetched"
fi
whole || { echo "$folder: the vocabularies are not those that tiktoken asks for" >&2; exit 66; }
