"""Tokenizers against those of others: MB (10^6 bytes of UTF-8) encoded a second on one thread, on the same documents, in turns.

    scripts/bench_tokenizers.sh      prepares all that this needs and calls it

In each round each library loads its vocabulary anew, encodes all documents once (its first pass) and then some times more; the order of libraries
changes from round to round. Every library must give the same ids. Of peers, the call that keeps the ids as they are and the one that people use are
both timed, and ratios are to the faster one. Python's garbage collector is off while peers are timed.
"""

import argparse
import collections
import functools
import gc
import hashlib
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread
os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TIKTOKEN_CACHE_DIR"] = ""  # vocabularies are files here already

import numpy
import sentencepiece
import tiktoken
import tiktoken.load
import tiktoken_ext.openai_public as openai_public
import tokenizers

import bench_common
import bpe_merges

CL100K_PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
# File: its name in tiktoken, and the pattern of a tokenizer.json (None: GPT-2's own).
VOCABULARIES = {"gpt2.tiktoken": ("r50k_base", None), "cl100k_base.tiktoken": ("cl100k_base", CL100K_PATTERN)}

# A peer has `load`, which gives what encodes a list of documents; tandem `tokenizer`, a path.
Library = collections.namedtuple("Library", "name call threads load tokenizer", defaults=[None, None])


def tiktoken_arguments(path):
    """What tiktoken makes the encoding of, with the ranks of `path`, whose hash it checks."""
    openai_public.load_tiktoken_bpe = lambda address, expected_hash: tiktoken.load.load_tiktoken_bpe(str(path), expected_hash)
    return getattr(openai_public, VOCABULARIES[path.name][0])()


def one_by_one(encode):
    return lambda documents: [encode(document) for document in documents]


def load_tiktoken(path, to_numpy):
    encoding = tiktoken.Encoding(**tiktoken_arguments(path))
    return one_by_one(functools.partial(encoding.encode_to_numpy, disallowed_special=()) if to_numpy else encoding.encode_ordinary)


def load_hf(path, batch):
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    tokenizer.encode_special_tokens = True  # their text is text
    if batch:
        return lambda documents: [encoding.ids for encoding in tokenizer.encode_batch_fast(documents, add_special_tokens=False)]
    return one_by_one(lambda document: tokenizer.encode(document, add_special_tokens=False).ids)


def load_sentencepiece(path):
    return one_by_one(sentencepiece.SentencePieceProcessor(model_file=str(path)).encode)


def libraries_of(vocabulary, hf_path, cores):
    """Those that encode with `vocabulary`, a .tiktoken file, of which hf_path is the tokenizer.json; or with a sentencepiece model."""
    tandem = [Library("tandem", "", threads, tokenizer=vocabulary) for threads in sorted({1, cores})]
    if hf_path is None:
        return [*tandem, Library("sentencepiece", "encode", 1, lambda: load_sentencepiece(vocabulary))]
    return [*tandem, Library("tandem", "tokenizer.json", 1, tokenizer=hf_path),
            Library("tiktoken", "encode_ordinary", 1, lambda: load_tiktoken(vocabulary, False)),
            Library("tiktoken", "encode_to_numpy", 1, lambda: load_tiktoken(vocabulary, True)),
            Library("tokenizers", "encode", 1, lambda: load_hf(hf_path, False)),
            Library("tokenizers", "encode_batch_fast", 1, lambda: load_hf(hf_path, True))]


def round_of_tandem(program, library, text, repeats):
    command = [program, "bench", "tokenizer", "--tokenizer", str(library.tokenizer), "--input", str(text["path"]),
               "--threads", str(library.threads), "--repeats", str(repeats), "--json"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def round_of_peer(library, text, repeats):
    def timed():
        gc.collect()
        gc.disable()
        begin = time.perf_counter()
        ids = encode(text["documents"])
        seconds = time.perf_counter() - begin
        gc.enable()
        return ids, text["bytes"] / 1e6 / seconds

    encode = library.load()
    ids, first = timed()
    digest = hashlib.sha256()
    for document in ids:
        digest.update(numpy.asarray(document, dtype="<i4").tobytes())
    tokens = sum(map(len, ids))
    del ids
    return {"tokens": tokens, "ids_sha256": digest.hexdigest(), "first_mb_per_s": first,
            "each_mb_per_s": [timed()[1] for _ in range(repeats)]}


def compare(program, libraries, text, rounds, repeats):
    """Records of all libraries on one text; stops where they do not give the same ids."""
    runs_of = {library: [] for library in libraries}
    for turn in range(rounds):
        for library in libraries[turn % len(libraries):] + libraries[:turn % len(libraries)]:
            runs_of[library].append((round_of_tandem(program, library, text, repeats) if library.tokenizer else
                                     round_of_peer(library, text, repeats)))
    records = []
    for library, runs in runs_of.items():
        each = [value for run in runs for value in run["each_mb_per_s"]]
        records.append({"library": library.name, "call": library.call, "threads": library.threads,
                        "tokens": runs[0]["tokens"], "ids_sha256": runs[0]["ids_sha256"],
                        "mb_per_s": statistics.median(each), "smallest_mb_per_s": min(each), "largest_mb_per_s": max(each),
                        "first_mb_per_s": statistics.median(run["first_mb_per_s"] for run in runs),
                        "rounds": [{key: run[key] for key in ("first_mb_per_s", "each_mb_per_s")} for run in runs]})
    different = {record["ids_sha256"]: f"{record['library']} {record['call']}: {record['tokens']} tokens" for record in records}
    if len(different) > 1:
        sys.exit(f"{text['name']}: ids differ between " + " and ".join(different.values()))
    return records


def ratios_of(records):
    """Speed of tandem on one thread over the faster call of each other library, and its other records over that one: of medians, and of
    the medians of each round for the range. Which call is the faster one is asked of the repeats and of the first passes apart."""
    tandem, *more_of_tandem = [record for record in records if record["library"] == "tandem"]
    others = sorted({record["library"] for record in records} - {"tandem"})

    def fastest(name, key):
        return max((record for record in records if record["library"] == name), key=lambda record: record[key])

    def over(one, other, other_in_first_pass):
        by_round = [statistics.median(a["each_mb_per_s"]) / statistics.median(b["each_mb_per_s"])
                    for a, b in zip(one["rounds"], other["rounds"])]
        return {"of": [one[key] for key in ("library", "call", "threads")], "to": [other[key] for key in ("library", "call", "threads")],
                "ratio": one["mb_per_s"] / other["mb_per_s"], "smallest": min(by_round), "largest": max(by_round),
                "first_pass_ratio": one["first_mb_per_s"] / other_in_first_pass["first_mb_per_s"]}

    return [*(over(tandem, fastest(name, "mb_per_s"), fastest(name, "first_mb_per_s")) for name in others),
            *(over(record, tandem, tandem) for record in more_of_tandem)]


def prepare_texts(path, folder):
    """The texts, each also as JSON lines in `folder`."""
    texts = []
    sources = {path.stem: bench_common.documents_of(path), "sources": bench_common.project_sources(), "mixed": bench_common.mixed()}
    for name, documents in sources.items():
        whole = "".join(documents).encode()
        texts.append({"name": name, "path": folder / f"{name}.jsonl", "documents": documents, "bytes": len(whole),
                      "sha256": hashlib.sha256(whole).hexdigest()})
        bench_common.write_json_lines(texts[-1]["path"], documents)
    return texts


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tandem", required=True, help="the program")
    parser.add_argument("--text", required=True, type=pathlib.Path, help="cut into documents at blank lines, or JSON lines")
    parser.add_argument("--vocabularies", required=True, type=pathlib.Path, help="folder with " + " and ".join(VOCABULARIES))
    parser.add_argument("--sentencepiece", type=pathlib.Path, help="model, also compared with its own library")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3, help="passes of a round after the first")
    parser.add_argument("--command", required=True, help="what is recorded as the way to the results")
    parser.add_argument("--load-before", required=True, type=float, help="the load average before all this, recorded too")
    parser.add_argument("--work", required=True, type=pathlib.Path, help="folder for what is made on the way")
    parser.add_argument("--out", required=True, type=pathlib.Path, help="the results, JSON")
    arguments = parser.parse_args()
    cores = bench_common.machine()["cores"]
    arguments.work.mkdir(parents=True, exist_ok=True)

    vocabularies = []
    for name, (_, pattern) in VOCABULARIES.items():
        path, hf_path = arguments.vocabularies / name, arguments.work / name.replace(".tiktoken", ".json")
        encoding = tiktoken_arguments(path)
        bpe_merges.hf_tokenizer(encoding["mergeable_ranks"], encoding["special_tokens"], pattern).save(str(hf_path))
        vocabularies.append((name.removesuffix(".tiktoken"), libraries_of(path, hf_path, cores)))
    if arguments.sentencepiece:
        vocabularies.append(("sentencepiece", libraries_of(arguments.sentencepiece, None, cores)))

    texts = prepare_texts(arguments.text, arguments.work)
    results = {"benchmark": "tokenizers", "command": arguments.command, **bench_common.machine(), "load_before": arguments.load_before,
               "versions": {"tandem": bench_common.version_of(arguments.tandem), "python": platform.python_version(),
                            **{peer.__name__: peer.__version__ for peer in (tiktoken, tokenizers, sentencepiece)}},
               "rounds": arguments.rounds, "repeats": arguments.repeats,
               "texts": [{**{key: text[key] for key in ("name", "bytes", "sha256")}, "documents": len(text["documents"])} for text in texts],
               "records": [], "ratios": []}
    for vocabulary, libraries in vocabularies:
        for text in texts:
            print(f"{vocabulary} on {text['name']}", file=sys.stderr)
            records = compare(arguments.tandem, libraries, text, arguments.rounds, arguments.repeats)
            results["records"] += [{"vocabulary": vocabulary, "text": text["name"], **record} for record in records]
            results["ratios"] += [{"vocabulary": vocabulary, "text": text["name"], **ratio} for ratio in ratios_of(records)]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
