#!/usr/bin/env bash
# Installs transformers and safetensors into .venv-peers, which scripts/check_hf.py and make_hf_goldens.py need; never the build or the tests. Does
# nothing the second time.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
peers=(transformers==5.24.0 safetensors==0.8.0 tokenizers==0.23.3 sentencepiece==0.2.1 numpy==2.3.5 regex==2026.11.15)
stamp=.venv-peers/tandem-hf-peers.done
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "${peers[*]}" ]; then exit 0; fi
scripts/setup.sh
say "Python packages into .venv-peers: ${peers[*]}"
[ -x .venv-peers/bin/python ] || python3 -m venv .venv-peers
.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check "${peers[@]}"
# transformers computes with torch; the one of the build serves.
.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$(.venv-peers/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/build.pth"
printf '%s' "${peers[*]}" >"$stamp"
