"""Writes the indexed datasets in this folder with megatron-core's own builder, and expected.json with what they hold.

    scripts/peers.sh && .venv-peers/bin/python tests/golden/megatron/make.py
"""

import json
import pathlib

import numpy
import torch
from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

HERE = pathlib.Path(__file__).parent

# Documents of sequences: several in one, an empty one among them, documents without any, of which one at the end.
SETS = {
    "small_ids": (numpy.uint16, [[[5, 6, 65499]], [[7], [], [8, 9, 10], [11]], [], [[0, 65535]], []]),
    "large_ids": (numpy.int32, [[[70000, 1], [2147483647]], [], [[65536, 0, 128255, 3, 4]]]),
}


def main():
    expected = {}
    for name, (dtype, documents) in SETS.items():
        builder = IndexedDatasetBuilder(str(HERE / f"{name}.bin"), dtype=dtype)
        for sequences in documents:
            tokens = [token for sequence in sequences for token in sequence]
            builder.add_document(torch.tensor(tokens, dtype=torch.int64), [len(sequence) for sequence in sequences])
        builder.finalize(str(HERE / f"{name}.idx"))
        joined = [[token for sequence in sequences for token in sequence] for sequences in documents]
        expected[name] = {"dtype": dtype.__name__, "documents": joined}
    (HERE / "expected.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
