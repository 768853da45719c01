#!/usr/bin/env bash
# Installs the libraries that tandem is compared with into .venv-peers: tokenizers of others and Megatron's reader of token files. Only the scripts that
# compare need it, never the build or the tests. Does nothing the second time.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
peers=(tiktoken==0.14.0 tokenizers==0.23.3 sentencepiece==0.2.1 megatron-core==0.16.1 numpy==2.3.5 regex==2026.11.15)
stamp=.venv-peers/tandem-peers.done
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "${peers[*]}" ]; then exit 0; fi
scripts/setup.sh
say "Python packages into .venv-peers: ${peers[*]}"
[ -x .venv-peers/bin/python ] || python3 -m venv .venv-peers
.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check --no-deps "${peers[@]}"
# Megatron's package imports torch; the one of the build serves.
.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$(.venv-peers/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/build.pth"
printf '%s' "${peers[*]}" >"$stamp"
