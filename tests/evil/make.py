#!/usr/bin/env python3
"""Makes the small damaged files of this folder and expected.json, which says for each what its reader must answer; tests/data/evil_test.cpp asks them.
  python3 tests/evil/make.py
In messages {path} is the file's path and {folder} that of its folder. Exit code 66 (a bad file) unless another is given.
Only Python's standard library is used. The files are kept beside it, since another zlib may pack the same text into other bytes."""
import importlib
import json
import shutil
import sys

sys.dont_write_bytecode = True  # the folders here are those of damaged files
from cases import EXPECTED, HERE

for old in HERE.iterdir():
    if old.is_dir():
        shutil.rmtree(old)
# Each makes its files when it is imported, and expected.json has them in this order.
for module in "token_files", "documents", "tokenizers", "checkpoints", "configs", "token_manifests":
    importlib.import_module(module)
(HERE / "expected.json").write_text(json.dumps(EXPECTED, indent=1, ensure_ascii=False) + "\n")
