"""Compares tandem's token files with megatron-core's, both ways; see check_megatron.sh.

Prints one line of counts and writes them to --result; stops at the first difference.
"""

import argparse
import base64
import importlib.metadata
import json
import pathlib
import random
import subprocess

import numpy
import tiktoken
import torch
from megatron.core.datasets.indexed_dataset import DType, IndexedDataset, IndexedDatasetBuilder

BYTES_EOS = 257
# As OpenAI first published it with cl100k_base.
CL100K_PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
PIECES = ["a", "the ", "river", "'s", " 1234567", "\n", "\r\n", "   ", "\t", "é", "ß", "中文", "한국", "🙂", "👩‍👩‍👧", "\u0000", "<|endoftext|>", "."]


def require(holds, what):
    if not holds:
        raise SystemExit(f"check_megatron: {what}")


def run(words, expected_code=0):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    require(done.returncode == expected_code, f"{words} ended with {done.returncode}: {done.stderr}")
    return done


def crc32c(data):
    """Bit by bit, from the polynomial: the sets are small."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def documents_of(prefix):
    """The documents of an indexed dataset as Megatron reads them."""
    data = IndexedDataset(str(prefix), mmap=True)
    bounds = data.document_indices
    return data.index.dtype, [[int(token) for sequence in range(bounds[d], bounds[d + 1]) for token in data[sequence]]
                              for d in range(len(bounds) - 1)]


def random_texts(rng, n):
    texts = ["".join(rng.choices(PIECES, k=rng.randrange(60))) for _ in range(n)]
    texts[n // 2] = ""  # gives no document
    return texts


def pair_ranks():
    """A vocabulary that needs more than 16 bits: every byte, and every pair of bytes."""
    singles = [bytes([a]) for a in range(256)]
    return {token: rank for rank, token in enumerate(singles + [a + b for a in singles for b in singles])}


def tandem_to_megatron(args, rng):
    """What `tandem data tokenize` wrote, against texts that are encoded here once more. Returns the number of documents and tokens."""
    ranks = pair_ranks()
    model = args.folder / "pairs.tiktoken"
    model.write_text("".join(f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in ranks.items()), encoding="ascii")
    pairs = tiktoken.Encoding("pairs", pat_str=CL100K_PATTERN, mergeable_ranks=ranks, special_tokens={})
    tokenizers = [("bytes", numpy.uint16, lambda text: [*text.encode(), BYTES_EOS]),
                  (f"cl100k_ranks:{model}", numpy.int32, lambda text: [*pairs.encode_ordinary(text), len(ranks)])]
    n_documents = n_tokens = 0
    texts = random_texts(rng, args.documents)
    source = args.folder / "texts.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    for name, dtype, encode in tokenizers:
        expected = [encode(text) for text in texts if text]
        prefix = args.folder / f"tokenized_{dtype.__name__}"
        run([args.tandem, "data", "tokenize", "--tokenizer", name, "--input", source, "--output", prefix])
        read_dtype, read = documents_of(prefix)
        require(read_dtype is dtype, f"{name}: written as {read_dtype}, expected {dtype}")
        require(read == expected, f"{name}: Megatron reads other documents from {prefix}")
        n_documents += len(read)
        n_tokens += sum(map(len, read))
    require(max(map(max, read)) > 65535, "no id needed more than 16 bits")
    return n_documents, n_tokens


def random_set(rng, dtype, n_documents, prefix):
    """Written with Megatron's builder: documents of no, one or several sequences, of which some are empty."""
    most = int(numpy.iinfo(dtype).max)
    builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=dtype)
    documents = []
    for _ in range(n_documents):
        lengths = [rng.choice([0, 1, rng.randrange(2, 40)]) for _ in range(rng.choice([0, 1, 1, 2, 5]))]
        tokens = [rng.choice([0, most, rng.randrange(most)]) for _ in range(sum(lengths))]
        builder.add_document(numpy.array(tokens, dtype=dtype), lengths)
        documents.append(tokens)
    if not any(documents):  # Megatron itself cannot map an empty .bin
        builder.add_document(numpy.array([most], dtype=dtype), [1])
        documents.append([most])
    builder.finalize(f"{prefix}.idx")
    return documents


def megatron_to_tandem(args, rng):
    """What Megatron's builder wrote, as `tandem data verify` and `inspect` read it. Returns the numbers of sets, documents and tokens."""
    dtypes = [getattr(numpy, code.name) for code in DType if not code.name.startswith("float")]
    n_documents = n_tokens = 0
    for i in range(args.sets):
        dtype = dtypes[i % len(dtypes)]
        prefix = args.folder / f"built_{i}"
        expected = random_set(rng, dtype, args.documents, prefix)
        tokens = [token for document in expected for token in document]

        verified = json.loads(run([args.tandem, "data", "verify", prefix, "--json"]).stdout)
        found = {name: verified[name] for name in ("documents", "tokens", "largest_token", "content_hash")}
        both = pathlib.Path(f"{prefix}.idx").read_bytes() + pathlib.Path(f"{prefix}.bin").read_bytes()
        require(found == {"documents": len(expected), "tokens": len(tokens), "largest_token": max(tokens),
                          "content_hash": f"{crc32c(both):08x}"}, f"verify says {found} of {prefix}")

        longest = max(map(len, expected))
        shown = json.loads(run([args.tandem, "data", "inspect", prefix, "--json", "--documents", len(expected),
                                "--tokens", longest]).stdout)
        require(shown["dtype"] == dtype.__name__, f"inspect says {shown['dtype']} of {prefix}, expected {dtype.__name__}")
        require([entry["tokens"] for entry in shown["first_documents"]] == expected, f"inspect shows other documents of {prefix}")
        n_documents += len(expected)
        n_tokens += len(tokens)
    return args.sets, n_documents, n_tokens


def floats_are_refused(args):
    refused = 0
    for code in DType:
        if not code.name.startswith("float"):
            continue
        prefix = args.folder / code.name
        builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=getattr(numpy, code.name))
        builder.add_document(torch.ones(3), [3])
        builder.finalize(f"{prefix}.idx")
        message = run([args.tandem, "data", "verify", prefix], expected_code=66).stderr
        require(f"dtype code {code.value} is a float" in message, f"verify says {message} of {prefix}")
        refused += 1
    return refused


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tandem", required=True)
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--result", type=pathlib.Path, required=True)
    parser.add_argument("--sets", type=int, default=40)
    parser.add_argument("--documents", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    written_documents, written_tokens = tandem_to_megatron(args, rng)
    sets, read_documents, read_tokens = megatron_to_tandem(args, rng)
    refused = floats_are_refused(args)
    result = {
        "command": f"SETS={args.sets} DOCUMENTS={args.documents} SEED={args.seed} scripts/check_megatron.sh",
        "versions": {name: importlib.metadata.version(name) for name in ("megatron-core", "numpy", "tiktoken")},
        "seed": args.seed,
        "megatron_reads_tandem": {"sets": 2, "documents": written_documents, "tokens": written_tokens},
        "tandem_reads_megatron": {"sets": sets, "documents": read_documents, "tokens": read_tokens},
        "float_sets_refused": refused,
    }
    args.result.parent.mkdir(parents=True, exist_ok=True)
    args.result.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"Megatron reads {written_documents:,} documents ({written_tokens:,} tokens) of tandem, tandem reads {sets} sets of Megatron with "
          f"{read_documents:,} documents ({read_tokens:,} tokens), {refused} sets of floats refused: all as they should be")


if __name__ == "__main__":
    main()
