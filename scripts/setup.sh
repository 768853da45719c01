#!/usr/bin/env bash
# Installs what tandem is built with: Debian packages, LibTorch and CMake into .venv, sentencepiece into .deps. Does nothing the second time.
# Written for Debian 12 (x86-64), as root or with sudo; other distributions are untested.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

packages=(g++ python3-venv ccache mold libyaml-cpp-dev nlohmann-json3-dev libcli11-dev libgtest-dev libgmock-dev
  libbenchmark-dev libzstd-dev zlib1g-dev libgloo-dev libpcre2-dev libutf8proc-dev bible-kjv)
python_packages=(torch==2.11.0 cmake==4.4.4 ninja==1.13.2 matplotlib==3.11.2)
stamp=.venv/tandem-setup.done
wanted="${packages[*]} ${python_packages[*]} sentencepiece==0.2.1"
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then exit 0; fi

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  say "Debian packages: ${missing[*]}"
  as_root=()
  [ "$(id -u)" = 0 ] || as_root=(sudo)
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

say "Python packages into .venv: ${python_packages[*]} (LibTorch is about 5 GB)"
[ -x .venv/bin/python ] || python3 -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check "${python_packages[@]}"

say "sentencepiece into .deps"
PYTHON=.venv/bin/python scripts/build_sentencepiece.sh .deps

printf '%s' "$wanted" >"$stamp"
echo "Set-up is complete."
