#!/usr/bin/env python3
"""Makes the small damaged files of this folder and expected.json, which says for each what its reader must answer; tests/data/evil_test.cpp asks them.
  python3 tests/evil/make.py
In messages {path} is the file's path and {folder} that of its folder. Exit code 66 (a bad file) unless another is given.
Only Python's standard library is used. The files are kept beside it, since another zlib may pack the same text into other bytes."""
import base64
import gzip
import hashlib
import json
import pathlib
import shutil
import struct
import zlib

HERE = pathlib.Path(__file__).resolve().parent
EXPECTED = []
for old in HERE.iterdir():
    if old.is_dir():
        shutil.rmtree(old)


def put(name, data):
    """A file that belongs to a case."""
    path = HERE / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def case(name, data, message, reader=None, exit_code=66, **options):
    """A file, the reader it is for (by default its folder's name) and the message it must give. `options` say how the reader is called."""
    put(name, data)
    EXPECTED.append({"file": name, "reader": reader or name.split("/")[0], "exit_code": exit_code, "message": message} | options)


# ---- token_index: Megatron's .idx alone

MAGIC = b"MMIDIDX\0\0"


def index(lengths=(3, 4), offsets=None, entries=(0, 1, 2), dtype=8, item=2, version=1, sequences=None, n_entries=None):
    if offsets is None:
        offsets = [item * sum(lengths[:i]) for i in range(len(lengths))]
    sequences = len(lengths) if sequences is None else sequences
    n_entries = len(entries) if n_entries is None else n_entries
    return (MAGIC + struct.pack("<QBQQ", version, dtype, sequences, n_entries) + struct.pack(f"<{len(lengths)}i", *lengths)
            + struct.pack(f"<{len(offsets)}q", *offsets) + struct.pack(f"<{len(entries)}q", *entries))


case("token_index/empty.idx", b"", "{path}: has 0 bytes, a token index begins with 34")
case("token_index/short.idx", index()[:33], "{path}: has 33 bytes, a token index begins with 34")
case("token_index/magic.idx", b"MMIDIDX\0\1" + index()[9:], "{path}: not a token index (does not begin with MMIDIDX)")
case("token_index/gzip.idx", gzip.compress(index(), mtime=0), "{path}: not a token index (does not begin with MMIDIDX)")
case("token_index/version.idx", index(version=2), "{path}: version 2, expected 1")
case("token_index/version_of_other_endian.idx", index(version=1 << 56), "{path}: version 72057594037927936, expected 1")
case("token_index/dtype_0.idx", index(dtype=0), "{path}: dtype code 0, expected 1, 2, 3, 4, 5 or 8 (an integer type)")
case("token_index/dtype_6.idx", index(dtype=6), "{path}: dtype code 6 is a float (float64 in Megatron, float32 in GPT-NeoX), expected 1, 2, 3, 4, 5 or 8 (an integer type)")
case("token_index/dtype_7.idx", index(dtype=7), "{path}: dtype code 7 is a float (float32 in Megatron, float64 in GPT-NeoX), expected 1, 2, 3, 4, 5 or 8 (an integer type)")
case("token_index/dtype_255.idx", index(dtype=255), "{path}: dtype code 255, expected 1, 2, 3, 4, 5 or 8 (an integer type)")
case("token_index/too_many_sequences.idx", index(sequences=3), "{path}: has 82 bytes, not what 3 sequences and 3 document entries take")
case("token_index/sequences_overflow.idx", index(sequences=(1 << 64) - 1), "{path}: has 82 bytes, not what 18446744073709551615 sequences and 3 document entries take")
case("token_index/sequences_wrap.idx", index(sequences=(1 << 64) // 12 + 1), "{path}: has 82 bytes, not what 1537228672809129302 sequences and 3 document entries take")
case("token_index/entries_overflow.idx", index(n_entries=1 << 63), "{path}: has 82 bytes, not what 2 sequences and 9223372036854775808 document entries take")
case("token_index/truncated.idx", index()[:-1], "{path}: has 81 bytes, not what 2 sequences and 3 document entries take")
case("token_index/trailing.idx", index() + b"\0", "{path}: has 83 bytes, not what 2 sequences and 3 document entries take")
case("token_index/multimodal.idx", index() + b"\0\1", "{path}: index of a multimodal set (it holds modes), expected text")
case("token_index/no_entries.idx", index(lengths=(), entries=()), "{path}: document index is empty, expected 0 at its start")
case("token_index/negative_length.idx", index(lengths=(3, -4), offsets=(0, 6)), "{path}: sequence 1 has length -4")
case("token_index/offset_unaligned.idx", index(offsets=(0, 7)), "{path}: sequence 1 begins at byte 7, expected 6 (sequences lie back to back)")
case("token_index/offset_past_the_end.idx", index(offsets=(0, 1 << 40)), "{path}: sequence 1 begins at byte 1099511627776, expected 6 (sequences lie back to back)")
case("token_index/offset_negative.idx", index(offsets=(0, -6)), "{path}: sequence 1 begins at byte -6, expected 6 (sequences lie back to back)")
case("token_index/offsets_swapped.idx", index(offsets=(6, 0)), "{path}: sequence 0 begins at byte 6, expected 0 (sequences lie back to back)")
case("token_index/overlap.idx", index(offsets=(0, 4)), "{path}: sequence 1 begins at byte 4, expected 6 (sequences lie back to back)")
case("token_index/first_entry.idx", index(entries=(1, 2)), "{path}: document entry 0 is 1, expected 0")
case("token_index/entries_unsorted.idx", index(entries=(0, 2, 1, 2)), "{path}: document entry 2 is 1, less than the one before (2)")
case("token_index/entry_past_the_end.idx", index(entries=(0, 1, 3)), "{path}: document entry 2 is 3, more than the 2 sequences")
case("token_index/entry_negative.idx", index(entries=(0, -1, 2)), "{path}: document entry 1 is -1, less than the one before (0)")
case("token_index/entries_end_early.idx", index(entries=(0, 1)), "{path}: document index ends at 1, expected 2, the number of sequences")

# ---- token_file: an .idx with its .bin


def pair(name, idx, bin_, message, **options):
    put(f"token_file/{name}.bin", bin_)
    case(f"token_file/{name}.idx", idx, message, **options)


TOKENS = struct.pack("<7H", 1, 2, 3, 4, 5, 6, 7)
case("token_file/no_bin.idx", index(), "{folder}/no_bin.bin: cannot open: No such file or directory")
pair("bin_short", index(), TOKENS[:-2], "{path}: promises 7 tokens, bin_short.bin holds 6; run `tandem data tokenize` again")
pair("bin_short_by_1", index(), TOKENS[:-1], "{path}: promises 7 tokens, bin_short_by_1.bin holds 13 bytes; run `tandem data tokenize` again")
pair("bin_long", index(), TOKENS + b"\0\0", "{path}: promises 7 tokens, bin_long.bin holds 8; run `tandem data tokenize` again")
pair("bin_empty", index(), b"", "{path}: promises 7 tokens, bin_empty.bin holds 0; run `tandem data tokenize` again")
pair("index_empty", b"", TOKENS, "{path}: has 0 bytes, a token index begins with 34")
pair("negative_token", index(dtype=4, item=4), struct.pack("<7i", 1, 2, 3, -4, 5, 6, 7), "{folder}/negative_token.bin: token 3 is -4, expected 0 or more")
pair("dtype_given", index(), TOKENS, "{path}: an indexed dataset knows its type and documents; remove dtype", dtype="uint16", exit_code=2)
pair("eos_id_given", index(), TOKENS, "{path}: an indexed dataset knows its type and documents; remove eos_id", eos_id=2, exit_code=2)

# ---- weights: beside an .idx and its .bin


def weights(name, data, message):
    put(f"weights/{name}.bin", TOKENS)
    put(f"weights/{name}.weights", data)
    case(f"weights/{name}.idx", index(), message, reader="token_file", weights=True)


put("weights/missing.bin", TOKENS)
case("weights/missing.idx", index(), "{folder}/missing.weights: cannot open: No such file or directory", reader="token_file", weights=True)
weights("short", struct.pack("<6f", *[1] * 6), "{folder}/short.weights: has 24 bytes, expected 28, a float32 for each token of short.bin")
weights("not_whole", struct.pack("<7f", *[1] * 7)[:-1], "{folder}/not_whole.weights: has 27 bytes, expected 28, a float32 for each token of not_whole.bin")
weights("of_doubles", struct.pack("<7d", *[1] * 7), "{folder}/of_doubles.weights: has 56 bytes, expected 28, a float32 for each token of of_doubles.bin")
weights("nan", struct.pack("<7f", 1, 1, float("nan"), 1, 1, 1, 1), "{folder}/nan.weights: weight 2 is nan, expected a finite number >= 0")
weights("infinite", struct.pack("<7f", 1, 1, 1, 1, 1, 1, float("inf")), "{folder}/infinite.weights: weight 6 is inf, expected a finite number >= 0")
weights("negative", struct.pack("<7f", -0.5, 1, 1, 1, 1, 1, 1), "{folder}/negative.weights: weight 0 is -0.5, expected a finite number >= 0")

# ---- packed: LITPKDS chunks


def chunk(tokens=(1, 2, 3), dtype=8, form="H", version=1, promised=None, magic=b"LITPKDS"):
    promised = len(tokens) if promised is None else promised
    return magic + struct.pack("<QBQ", version, dtype, promised) + struct.pack(f"<{len(tokens)}{form}", *tokens)


def packed(name, data, message, **options):
    case(f"packed/{name}_0000000000.bin", data, message, reader="token_file", **options)


packed("magic", chunk(magic=b"LITPKDT"), "{path}: has no magic_0000000000.idx beside it and does not begin with LITPKDS; a headerless file needs its dtype, uint16 or uint32")
packed("short", chunk()[:23], "{path}: has 23 bytes, a packed chunk begins with 24")
packed("version", chunk(version=2), "{path}: version 2, expected 1")
packed("dtype_9", chunk(dtype=9), "{path}: dtype code 9, expected 1, 2, 3, 4, 5 or 8 (an integer type)")
packed("float", chunk(dtype=6), "{path}: dtype code 6 is a float (float64 in Megatron, float32 in GPT-NeoX), expected 1, 2, 3, 4, 5 or 8 (an integer type)")
packed("promises_more", chunk(promised=4), "{path}: promises 4 tokens of uint16, holds 6 bytes of them")
packed("promises_less", chunk(promised=2), "{path}: promises 2 tokens of uint16, holds 6 bytes of them")
packed("promises_overflow", chunk(promised=(1 << 63) + 3), "{path}: promises 9223372036854775811 tokens of uint16, holds 6 bytes of them")
packed("not_whole", chunk() + b"\0", "{path}: promises 3 tokens of uint16, holds 7 bytes of them")
packed("negative", chunk((1, -2, 3), dtype=4, form="i"), "{path}: token 1 is -2, expected 0 or more")
packed("dtype_given", chunk(), "{path}: packed chunks know their type; remove dtype", dtype="uint16", exit_code=2)
packed("eos_too_large", chunk(), "{path}: eos_id 65536, uint16 holds 0 to 65535", eos_id=65536, exit_code=2)
put("packed_gap/books_0000000000.bin", chunk())
case("packed_gap/books_0000000002.bin", chunk(), "{folder}/books_0000000001.bin: is missing, books_0000000002.bin is there", reader="token_file", open="{folder}")
put("packed_mixed/books_0000000000.bin", chunk())
case("packed_mixed/books_0000000001.bin", chunk(dtype=4, form="i"), "{path}: holds int32, books_0000000000.bin holds uint16", reader="token_file", open="{folder}")
put("packed_sets/books_0000000000.bin", chunk())
case("packed_sets/songs_0000000000.bin", chunk(), "{folder}: holds packed chunks of several sets, name one of them: books, songs", reader="token_file", open="{folder}")

# ---- headerless


def headerless(name, data, message, **options):
    case(f"headerless/{name}", data, message, reader="token_file", **({"dtype": "uint16"} | options))


headerless("odd.bin", b"\1\0\2", "{path}: has 3 bytes, not a multiple of 2 (uint16)")
headerless("not_whole_uint32.bin", b"\1\0\0\0\2\0", "{path}: has 6 bytes, not a multiple of 4 (uint32)", dtype="uint32")
headerless("numpy.bin", b"\x93NUMPY\1\0" + bytes(8), "{path}: begins with a header of NumPy: write the tokens alone, with numpy.ndarray.tofile")
headerless("llm_c_gpt2.bin", struct.pack("<iii", 20240520, 1, 7) + bytes(1012 + 14), "{path}: begins with a header of llm.c: cut off its 1024 bytes")
headerless("llm_c_llama3.bin", struct.pack("<iii", 20240801, 7, 7) + bytes(1012 + 28), "{path}: begins with a header of llm.c: cut off its 1024 bytes", dtype="uint32")
headerless("index_as_tokens", index(), "{path}: begins with MMIDIDX: it is the index of an indexed dataset; name it .idx beside its .bin and give their prefix, without dtype")
headerless("no_dtype.bin", TOKENS, "{path}: has no no_dtype.idx beside it and does not begin with LITPKDS; a headerless file needs its dtype, uint16 or uint32", dtype=None)
headerless("unknown_dtype.bin", TOKENS, "{path}: dtype float16, expected uint16 or uint32", dtype="float16", exit_code=2)
headerless("eos_too_large.bin", TOKENS, "{path}: eos_id 70000, uint16 holds 0 to 65535", eos_id=70000, exit_code=2)
headerless("eos_negative.bin", TOKENS, "{path}: eos_id -1, uint16 holds 0 to 65535", eos_id=-1, exit_code=2)

# ---- documents: .jsonl, alone and packed


def lines(name, text, message):
    case(f"documents/{name}.jsonl", text, message)


lines("cut", '{"text": "one"}\n{"text": "tw', "{path}: 1 of 2 lines are bad, and none is allowed; the first: {path}:2: byte 12: syntax error while parsing value - invalid string: missing closing quote")
lines("no_text", '{"text": "one"}\n{"txt": "two"}\n', "{path}: 1 of 2 lines are bad, and none is allowed; the first: {path}:2: no key \"text\"")
lines("number", '{"text": 3}\n', "{path}: 1 of 1 lines are bad, and none is allowed; the first: {path}:1: \"text\" is not a string")
lines("null", '{"text": null}\n', "{path}: 1 of 1 lines are bad, and none is allowed; the first: {path}:1: \"text\" is not a string")
lines("list", '["one"]\n', "{path}: 1 of 1 lines are bad, and none is allowed; the first: {path}:1: expected a JSON object")
lines("string", '"one"\n', "{path}: 1 of 1 lines are bad, and none is allowed; the first: {path}:1: expected a JSON object")
lines("two_values", '{"text": "one"}{"text": "two"}\n', "{path}: 1 of 1 lines are bad, and none is allowed; the first: {path}:1: byte 16: syntax error while parsing value - unexpected '{'; expected end of input")
lines("duplicate_key", '{"text": "one", "text": "two"}\n', "{path}: 1 of 1 lines are bad, and none is allowed; the first: {path}:1: byte 22: duplicate key \"text\"")
lines("trailing_comma", '{"text": "one",}\n', "{path}: 1 of 1 lines are bad, and none is allowed; the first: {path}:1: byte 16: syntax error while parsing object key - unexpected '}'; expected string literal")
lines("single_quotes", "{'text': 'one'}\n", "{path}: 1 of 1 lines are bad, and none is allowed; the first: {path}:1: byte 2: syntax error while parsing object key - invalid literal")
lines("nan", '{"text": "one", "score": NaN}\n', "{path}: 1 of 1 lines are bad, and none is allowed; the first: {path}:1: byte 26: syntax error while parsing value - invalid literal")
lines("control_character", '{"text": "o\1ne"}\n', "{path}: 1 of 1 lines are bad, and none is allowed; the first: {path}:1: byte 12: syntax error while parsing value - invalid string: control character U+0001 (SOH) must be escaped to \\u0001")
lines("nul", '{"text": "o\0ne"}\n', "{path}: 1 of 1 lines are bad, and none is allowed; the first: {path}:1: byte 12: a NUL character")
lines("lone_surrogate", r'{"text": "\ud800"}' + "\n", "{path}: 1 of 1 lines are bad, and none is allowed; the first: {path}:1: byte 17: syntax error while parsing value - invalid string: surrogate U+D800..U+DBFF must be followed by U+DC00..U+DFFF")
lines("swapped_surrogates", r'{"text": "\udc00\ud800"}' + "\n", "{path}: 1 of 1 lines are bad, and none is allowed; the first: {path}:1: byte 16: syntax error while parsing value - invalid string: surrogate U+DC00..U+DFFF must follow U+D800..U+DBFF")
lines("bad_escape", r'{"text": "\x41"}' + "\n", "{path}: 1 of 1 lines are bad, and none is allowed; the first: {path}:1: byte 12: syntax error while parsing value - invalid string: forbidden character after backslash")
lines("deep", '{"a": ' + "[" * 70 + "]" * 70 + ', "text": "one"}\n', "{path}: 1 of 1 lines are bad, and none is allowed; the first: {path}:1: byte 70: nested deeper than 64")
lines("deeper", '{"text": ' + "[" * 3000 + "\n", "{path}: 1 of 1 lines are bad, and none is allowed; the first: {path}:1: byte 73: nested deeper than 64")
lines("large_exponent", '{"text": "one", "n": 1e999}\n', "{path}: 1 of 1 lines are bad, and none is allowed; the first: {path}:1: byte 27: number overflow parsing '1e999'")
lines("utf16", '{"text": "one"}\n'.encode("utf-16"), "{path}: 2 of 2 lines are bad, and none is allowed; the first: {path}:1: byte 8: a NUL character")

TEXT = b'{"text": "one"}\n{"text": "two"}\n' * 6
GZ = gzip.compress(TEXT, mtime=0)
# The same by libzstd 1.5 at level 3, with a checksum at its end.
ZST = bytes.fromhex("28b52ffd24c0fd0000987b2274657874223a20226f6e65227d0a74776f030093a12800ce30db5c02794ce2a9")


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]


case("documents/empty.jsonl.gz", b"", "{path}: gzip data ends in the middle of a member")
case("documents/plain.jsonl.gz", TEXT, "{path}: damaged gzip data: incorrect header check")
case("documents/cut.jsonl.gz", GZ[:-9], "{path}: gzip data ends in the middle of a member")
case("documents/no_trailer.jsonl.gz", GZ[:-8], "{path}: gzip data ends in the middle of a member")
case("documents/wrong_sum.jsonl.gz", flipped(GZ, len(GZ) - 8), "{path}: damaged gzip data: incorrect data check")
case("documents/wrong_length.jsonl.gz", flipped(GZ, len(GZ) - 4), "{path}: damaged gzip data: incorrect length check")
case("documents/flipped.jsonl.gz", flipped(GZ, 10), "{path}: damaged gzip data: invalid stored block lengths")
case("documents/trailing.jsonl.gz", GZ + b"more", "{path}: damaged gzip data: incorrect header check")
case("documents/zlib.jsonl.gz", zlib.compress(TEXT), "{path}: damaged gzip data: incorrect header check")
case("documents/second_member_cut.jsonl.gz", GZ + GZ[:12], "{path}: gzip data ends in the middle of a member")
case("documents/bad_line.jsonl.gz", gzip.compress(TEXT + b"{}\n", mtime=0), "{path}: 1 of 13 lines are bad, and none is allowed; the first: {path}:13: no key \"text\"")
case("documents/plain.jsonl.zst", TEXT, "{path}: damaged zstd data: Unknown frame descriptor")
case("documents/cut.jsonl.zst", ZST[:-5], "{path}: zstd data ends in the middle of a frame")
case("documents/no_sum.jsonl.zst", ZST[:-4], "{path}: zstd data ends in the middle of a frame")
case("documents/wrong_sum.jsonl.zst", flipped(ZST, len(ZST) - 1), "{path}: damaged zstd data: Restored data doesn't match checksum")
case("documents/flipped.jsonl.zst", flipped(ZST, 12), "{path}: damaged zstd data: Restored data doesn't match checksum")
case("documents/trailing.jsonl.zst", ZST + b"more", "{path}: damaged zstd data: Unknown frame descriptor")
case("documents/window.jsonl.zst", b"\x28\xb5\x2f\xfd\x00\xff" + bytes(8), "{path}: damaged zstd data: Frame requires too much memory for decoding")

# ---- tokenizer_json: Hugging Face


def tokenizer(**changes):
    """One that would be accepted if it had tokens for all bytes, which is asked last."""
    vocab = {"t": 0, "h": 1, "e": 2, "th": 3, "the": 4}
    whole = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": 5, "content": "<|endoftext|>", "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": True}],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False, "vocab": vocab, "merges": ["t h", "th e"]},
    }
    for place, value in changes.items():
        inner = whole
        *outer, last = [int(key) if key.isdigit() else key for key in place.split("__")]
        for key in outer:
            inner = inner[key]
        if value is ...:
            del inner[last]
        else:
            inner[last] = value
    return json.dumps(whole, ensure_ascii=False, separators=(",", ":"))


def hf(name, text, message):
    case(f"tokenizer_json/{name}.json", text, message, reader="tokenizer")


SPLIT = {"type": "Split", "pattern": {"Regex": "\\s+"}, "behavior": "Isolated", "invert": False}
AFTER = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
hf("empty", "", "{path}: byte 0: syntax error while parsing value - unexpected end of input; expected '[', '{', or a literal")
hf("cut", tokenizer()[:500], "{path}: byte 500: syntax error while parsing value - invalid literal")
hf("list", "[]", "{path}: the file is array, expected an object")
hf("other_json", '{"name": "gpt2"}', "{path}: the file has the unknown key \"name\"")
hf("duplicate_key", '{"version": "1.0", "version": "1.0"}', "{path}: byte 28: duplicate key \"version\"")
hf("deep", "[" * 100 + "]" * 100, "{path}: byte 65: nested deeper than 64")
hf("truncation", tokenizer(truncation={"max_length": 5}), "{path}: truncation is set, expected null")
hf("nfkc", tokenizer(normalizer={"type": "NFKC"}), "{path}: normalizer NFKC, expected NFC or none")
hf("lowercase", tokenizer(normalizer={"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]}), "{path}: normalizer Lowercase, expected NFC or none")
hf("whitespace", tokenizer(pre_tokenizer={"type": "Whitespace"}), "{path}: pre_tokenizer Whitespace, expected ByteLevel, or Split and ByteLevel")
hf("no_pre_tokenizer", tokenizer(pre_tokenizer=None), "{path}: pre_tokenizer null, expected ByteLevel, or Split and ByteLevel")
hf("unknown_regex", tokenizer(pre_tokenizer={"type": "Sequence", "pretokenizers": [SPLIT, AFTER]}), "{path}: pre_tokenizer pattern \"\\\\s+\" is not known, expected that of GPT-2, cl100k (Llama-3) or Qwen2")
hf("split_removed", tokenizer(pre_tokenizer={"type": "Sequence", "pretokenizers": [
    SPLIT | {"pattern": {"Regex": "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
             "behavior": "MergedWithNext"}, AFTER]}), "{path}: pre_tokenizer Split with behavior \"MergedWithNext\" and invert false, expected \"Isolated\" and false")
hf("metaspace_decoder", tokenizer(decoder={"type": "Metaspace"}), "{path}: decoder Metaspace, expected ByteLevel")
hf("wordpiece", tokenizer(model__type="WordPiece"), "{path}: model WordPiece, expected BPE")
hf("unigram", tokenizer(model={"type": "Unigram", "vocab": [["<unk>", 0]]}), "{path}: model Unigram, expected BPE")
hf("dropout", tokenizer(model__dropout=0.1), "{path}: model.dropout = 0.1, expected null")
hf("byte_fallback", tokenizer(model__byte_fallback=True), "{path}: model.byte_fallback = true, expected false: bytes have tokens of their own")
hf("word_suffix", tokenizer(model__end_of_word_suffix="</w>"), "{path}: model.end_of_word_suffix = \"</w>\", expected null")
hf("unknown_model_key", tokenizer(model__fuse_all=True), "{path}: model has the unknown key \"fuse_all\"")
hf("no_vocab", tokenizer(model__vocab=...), "{path}: model.vocab is missing, expected an object")
hf("no_merges", tokenizer(model__merges=...), "{path}: model.merges is missing, expected a list")
hf("byte_missing", tokenizer(), "{path}: no token stands for the byte 0")
hf("negative_id", tokenizer(model__vocab__the=-1), "{path}: model.vocab: \"the\" has the id -1, expected an integer in [0, 1048575]")
hf("huge_id", tokenizer(model__vocab__the=1 << 40), "{path}: model.vocab: \"the\" has the id 1099511627776, expected an integer in [0, 1048575]")
hf("fraction_id", tokenizer(model__vocab__the=4.5), "{path}: model.vocab: \"the\" has the id 4.5, expected an integer in [0, 1048575]")
hf("id_twice", tokenizer(model__vocab__the=3), "{path}: model.vocab: id 3 is there twice")
hf("not_byte_level", tokenizer(model__merges=["t h"]).replace('"the":4', '"\u4e2d":4'), "{path}: model.vocab: \"中\" is not spelled in byte-level characters")
hf("merge_unknown", tokenizer(model__merges=["t h", "th x"]), "{path}: model.merges[1]: \"x\" is not in the vocabulary")
hf("merge_twice", tokenizer(model__merges=["t h", "t h"]), "{path}: model.merges[1] is there twice")
hf("merge_of_three", tokenizer(model__merges=["t h e"]), "{path}: model.merges[0] is \"t h e\", expected \"a b\" or [\"a\", \"b\"]")
hf("merge_number", tokenizer(model__merges=[7]), "{path}: model.merges[0] is 7, expected \"a b\" or [\"a\", \"b\"]")
hf("added_id", tokenizer(added_tokens__0__id=300), "{path}: added token \"<|endoftext|>\" has the id 300, expected 5, the next one")
hf("added_negative", tokenizer(added_tokens__0__id=-1), "{path}: added_tokens[0]: id = -1, expected an integer in [0, 1048575]")
hf("added_stripped", tokenizer(added_tokens__0__lstrip=True), "{path}: added token \"<|endoftext|>\" has lstrip, expected false")
hf("added_single_word", tokenizer(added_tokens__0__single_word=True), "{path}: added token \"<|endoftext|>\" has single_word, expected false")
hf("added_empty", tokenizer(added_tokens__0__content=""), "{path}: added_tokens[0] has 0 bytes, expected 1 to 4096")
hf("added_long", tokenizer(added_tokens__0__content="x" * 4097), "{path}: added_tokens[0] has 4097 bytes, expected 1 to 4096")

# ---- tiktoken


def ranks(tokens):
    return b"".join(base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(tokens))


BYTES = [bytes([b]) for b in range(256)]


def tik(name, data, message, tokenizer="gpt2", **options):
    case(f"tiktoken/{name}.tiktoken", data, message, reader="tokenizer", open=tokenizer + ":{path}", **options)


tik("empty", b"", "{path}: empty, expected lines of BASE64 RANK")
tik("unknown_name", ranks(BYTES), "{path}: unknown tokenizer name gpt5; known are gpt2, r50k_base, p50k_base, cl100k_base, yoco_cl100k_base, llama3, qwen", tokenizer="gpt5", exit_code=2)
case("tiktoken/nameless.tiktoken", ranks(BYTES), "{path}: unknown tokenizer name nameless; known are gpt2, r50k_base, p50k_base, cl100k_base, yoco_cl100k_base, llama3, qwen", reader="tokenizer", exit_code=2)
tik("no_rank", b"IQ==\n", "{path}: line 1: found IQ==, expected BASE64 RANK")
tik("rank_not_a_number", b"IQ== one\n", "{path}: line 1: found IQ== one, expected BASE64 RANK")
tik("negative_rank", b"IQ== -1\n", "{path}: line 1: found IQ== -1, expected BASE64 RANK")
tik("huge_rank", b"IQ== 99999999999999999999\n", "{path}: line 1: found IQ== 99999999999999999999, expected BASE64 RANK")
tik("rank_too_large", b"IQ== 2000000\n", "{path}: line 1: rank 2000000, expected at most 1048575")
tik("not_base64", b"IQ== 0\n!!!! 1\n", "{path}: line 2: found !!!! 1, expected BASE64 RANK")
tik("no_padding", b"IQ 0\n", "{path}: line 1: found IQ 0, expected BASE64 RANK")
tik("left_over_bits", b"IR== 0\n", "{path}: line 1: found IR== 0, expected BASE64 RANK")
tik("empty_token", b" 0\n", "{path}: line 1: found  0, expected BASE64 RANK")
tik("two_spaces", b"IQ==  0\n", "{path}: line 1: found IQ==  0, expected BASE64 RANK")
tik("crlf", ranks(BYTES).replace(b"\n", b"\r\n"), "{path}: line 1: found AA== 0\\x0d, expected BASE64 RANK")
tik("rank_twice", ranks(BYTES) + b"YWI= 255\n", "{path}: line 257: rank 255 is there twice")
tik("token_twice", ranks(BYTES + [b"ab", b"ab"]), "{path}: ids 256 and 257 stand for the same bytes")
tik("byte_missing", ranks(BYTES[1:]), "{path}: no token stands for the byte 0")
tik("long_token", ranks(BYTES + [b"a" * 4097]), "{path}: line 257: a token of 4097 bytes, expected at most 4096")
tik("another_vocabulary", ranks(BYTES) + b"YWI= 50256\n", "{path}: rank 50256 is <|endoftext|> in gpt2; these are another tokenizer's ranks")
tik("binary", bytes(range(256)), "{path}: line 1: found \\x00\\x01\\x02\\x03\\x04\\x05\\x06\\x07\\x08\\x09, expected BASE64 RANK")

# ---- sentencepiece: a protocol buffer


def varint(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def field(number, value):
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def piece(text, score=-1.0, kind=1):
    return field(1, field(1, text) + field(2, score) + field(3, kind))


def charsmap(units=None, texts=b"x\0", size=None):
    units = units or trie()
    data = struct.pack(f"<{len(units)}I", *units)
    return field(2, struct.pack("<I", len(data) if size is None else size) + data + texts)


def trie(*changes):
    """A double array with the one key "a", which leads to the text at 0. Units that nothing leads to hold a label that no byte has there."""
    units = [(i & 255) ^ 1 for i in range(256)]
    units[0] = 128 << 10            # the root: those after it are at 128 ^ byte
    units[128 ^ 0x61] = 0x61 | 1 << 8 | 64 << 10  # "a", a key ends: its value is at (128 ^ 0x61) ^ 64
    units[128 ^ 0x61 ^ 64] = 1 << 31
    for at, unit in changes:
        units[at] = unit
    return units


def chain(n):
    """A double array with the keys "a", "aa", ... of up to n letters."""
    bases = [base for base in range(2, 256) if not base & 64][:n + 1]  # of the root and the n nodes
    changes = [(0, bases[0] << 10)]
    for base, after in zip(bases, bases[1:]):
        node = base ^ 0x61
        changes += [(node, 0x61 | 1 << 8 | (node ^ after) << 10), (after, 1 << 31)]
    return trie(*changes)


UNK, A, B = piece(b"<unk>", 0.0, 2), piece(b"a"), piece(b"b")
UNIGRAM = field(2, field(3, 1))


def spm(name, data, message):
    case(f"sentencepiece/{name}.model", data, message, reader="tokenizer")


spm("empty", b"", "{path}: empty, expected a sentencepiece model")
spm("text", "some text, no model\n", "{path}: not a sentencepiece model (byte 0: a field of wire type 3, expected 0, 1, 2 or 5)")
spm("cut", (UNIGRAM + UNK + A + B)[:-2], "{path}: not a sentencepiece model (byte 32: a field that ends behind its message)")
spm("long_varint", b"\xff" * 11, "{path}: not a sentencepiece model (byte 0: a number of more than 10 bytes)")
spm("group", b"\x0b\x0c", "{path}: not a sentencepiece model (byte 0: a field of wire type 3, expected 0, 1, 2 or 5)")
spm("field_0", b"\x02\x00", "{path}: not a sentencepiece model (byte 0: field number 0)")
spm("pieces_as_number", field(1, 7), "{path}: not a sentencepiece model (byte 0: field 1 has wire type 0, expected 2)")
spm("no_pieces", UNIGRAM, "{path}: not a sentencepiece model: unk is not defined.")
spm("no_unk", UNIGRAM + A + B, "{path}: not a sentencepiece model: unk is not defined.")
spm("two_unk", UNIGRAM + UNK + piece(b"<unk2>", 0.0, 2) + A, "{path}: not a sentencepiece model: unk is already defined.")
spm("unk_alone", UNIGRAM + UNK, "{path}: not a sentencepiece model: no pieces are loaded.")
spm("empty_piece", UNIGRAM + UNK + A + piece(b""), "{path}: not a sentencepiece model: piece must not be empty.")
spm("duplicate_piece", UNIGRAM + UNK + A + A, "{path}: not a sentencepiece model: a is already defined.")
spm("long_piece", UNIGRAM + UNK + A + piece(b"x" * 1025), "{path}: piece 2 has 1025 bytes, expected at most 1024")
spm("nul_piece", UNIGRAM + UNK + A + piece(b"a\0b"), "{path}: piece 2 holds a NUL")
spm("not_utf8", UNIGRAM + UNK + A + piece(b"\xe4\xb8"), "{path}: piece 2 is not UTF-8")
spm("nan_score", UNIGRAM + UNK + A + piece(b"b", float("nan")), "{path}: piece 2 has score nan, expected a finite number")
spm("infinite_score", UNIGRAM + UNK + A + piece(b"b", float("-inf")), "{path}: piece 2 has score -inf, expected a finite number")
spm("score_as_bytes", UNIGRAM + UNK + field(1, field(1, b"a") + field(2, b"1.0")), "{path}: not a sentencepiece model (byte 25: field 2 has wire type 2, expected 5)")
spm("piece_type", UNIGRAM + UNK + piece(b"a", -1.0, 9), "{path}: piece 1 is of type 9, expected 1 to 6")
spm("model_type", field(2, field(3, 7)) + UNK + A, "{path}: model type 7, expected 1 (unigram), 2 (bpe), 3 (word) or 4 (char)")
spm("byte_without_fallback", UNIGRAM + UNK + A + piece(b"<0x41>", 0.0, 6), "{path}: not a sentencepiece model: byte piece <0x41> is found although `byte_fallback` is false.")
spm("bytes_missing", field(2, field(3, 2) + field(35, 1)) + UNK + A + piece(b"<0x41>", 0.0, 6), "{path}: not a sentencepiece model: there are not 256 byte pieces although `byte_fallback` is true.")
spm("nested_symbols", UNIGRAM + UNK + b"".join(piece(b"s" * n, 0.0, 4) for n in range(1, 66)), "{path}: user-defined piece \"sssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssss\" begins with 64 others, expected fewer than 64")
spm("charsmap_short", UNIGRAM + UNK + A + field(3, field(2, b"\0\0")), "{path}: normalizer_spec.precompiled_charsmap: has 2 bytes, expected at least 4")
spm("charsmap_size", UNIGRAM + UNK + A + field(3, charsmap(size=1 << 30)), "{path}: normalizer_spec.precompiled_charsmap: promises a trie of 1073741824 bytes, expected a multiple of 1024 with texts behind it in 1026 bytes")
spm("charsmap_not_1024", UNIGRAM + UNK + A + field(3, charsmap(size=1000)), "{path}: normalizer_spec.precompiled_charsmap: promises a trie of 1000 bytes, expected a multiple of 1024 with texts behind it in 1026 bytes")
spm("charsmap_no_text", UNIGRAM + UNK + A + field(3, charsmap(texts=b"")), "{path}: normalizer_spec.precompiled_charsmap: promises a trie of 1024 bytes, expected a multiple of 1024 with texts behind it in 1024 bytes")
spm("charsmap_text_open", UNIGRAM + UNK + A + field(3, charsmap(texts=b"x")), "{path}: normalizer_spec.precompiled_charsmap: its last text does not end")
spm("charsmap_text_long", UNIGRAM + UNK + A + field(3, charsmap(texts=b"x" * 257 + b"\0")), "{path}: normalizer_spec.precompiled_charsmap: a text of 257 bytes, expected at most 256")
spm("charsmap_root_outside", UNIGRAM + UNK + A + field(3, charsmap(trie((0, 5000 << 10)))), "{path}: normalizer_spec.precompiled_charsmap: unit 0 leads to unit 5000 of 256")
spm("charsmap_node_outside", UNIGRAM + UNK + A + field(3, charsmap(trie((128 ^ 0x61, 0x61 | 0x1fffff << 10)))), "{path}: normalizer_spec.precompiled_charsmap: unit 225 leads to unit 2096926 of 256")
spm("charsmap_text_outside", UNIGRAM + UNK + A + field(3, charsmap(trie((128 ^ 0x61 ^ 64, 1 << 31 | 99)))), "{path}: normalizer_spec.precompiled_charsmap: unit 161 has the text at byte 99 of 2")
spm("charsmap_loop", UNIGRAM + UNK + A + field(3, charsmap(trie((128 ^ 0x61, 0x61 | 0x61 << 10)))), "{path}: normalizer_spec.precompiled_charsmap: a key of more than 256 bytes")
spm("charsmap_keys", UNIGRAM + UNK + A + field(3, charsmap(chain(33))), "{path}: normalizer_spec.precompiled_charsmap: more than 32 keys that begin each other")
spm("denormalizer", UNIGRAM + UNK + A + field(5, charsmap(trie((0, 5000 << 10)))), "{path}: denormalizer_spec.precompiled_charsmap: unit 0 leads to unit 5000 of 256")

# ---- safetensors


def safetensors(header, data=bytes(16), length=None):
    header = header if isinstance(header, bytes) else (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def tensor(shape=(4,), begin=0, end=16, dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def st(name, data, message):
    case(f"safetensors/{name}.safetensors", data, message)


st("empty", b"", "{path}: holds 0 bytes, a safetensors file at least 8")
st("short", b"\2\0\0\0\0\0\0", "{path}: holds 7 bytes, a safetensors file at least 8")
st("length_0", safetensors({}, length=0), "{path}: header length 0, expected 2 to 100000000")
st("length_1", safetensors({}, length=1), "{path}: header length 1, expected 2 to 100000000")
st("length_past_the_end", safetensors({"a": tensor()}, length=1000), "{path}: header length 1000 goes past the end of the file (86 bytes)")
st("length_100000001", safetensors({"a": tensor()}, length=100000001), "{path}: header length 100000001, expected 2 to 100000000")
st("length_2_63", safetensors({"a": tensor()}, length=1 << 63), "{path}: header length 9223372036854775808, expected 2 to 100000000")
st("no_brace", safetensors('["a"]'), "{path}: the header does not begin with '{'")
st("space_first", safetensors(" " + json.dumps({"a": tensor()})), "{path}: the header does not begin with '{'")
st("cut_header", safetensors('{"a": {"dtype": "F32"'), "{path}: header: byte 21: syntax error while parsing object - unexpected end of input; expected '}'")
st("trailing_header", safetensors(json.dumps({"a": tensor()}) + "{}"), "{path}: header: byte 63: syntax error while parsing value - unexpected '{'; expected end of input")
st("not_utf8", safetensors(b'{"\xff": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}'), "{path}: header: byte 3: syntax error while parsing object key - invalid string: ill-formed UTF-8 byte")
st("duplicate_name", safetensors('{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}, "a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}'), "{path}: header: byte 66: duplicate key \"a\"")
st("duplicate_key", safetensors('{"a": {"dtype": "F32", "dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}'), "{path}: header: byte 30: duplicate key \"dtype\"")
st("unknown_dtype", safetensors({"a": tensor(dtype="F128")}), "{path}: header: byte 22: tensor \"a\": unknown dtype \"F128\"")
st("dtype_number", safetensors({"a": tensor() | {"dtype": 7}}), "{path}: header: byte 18: tensor \"a\": dtype is an integer, expected a string")
st("no_shape", safetensors({"a": {"dtype": "F32", "data_offsets": [0, 16]}}), "{path}: header: byte 47: tensor \"a\": shape is missing")
st("negative_size", safetensors({"a": tensor((-4,))}), "{path}: header: byte 36: tensor \"a\": shape holds a negative number, expected integers >= 0")
st("fraction_size", safetensors({"a": tensor((4.0,))}), "{path}: header: byte 37: tensor \"a\": shape holds a number that is no 64-bit integer, expected integers >= 0")
st("huge_size", safetensors({"a": tensor((1 << 64,))}), "{path}: header: byte 54: tensor \"a\": shape holds a number that is no 64-bit integer, expected integers >= 0")
st("product_wraps", safetensors({"a": tensor((4194305, 4194305, 211106198978564))}), "{path}: tensor \"a\": its shape needs more than 2^64 bytes")
st("rank_65", safetensors({"a": tensor([1] * 65, 0, 4)}, bytes(4)), "{path}: header: byte 83: tensor \"a\": shape has more than 16 dimensions")
st("offsets_backwards", safetensors({"a": tensor((4,), 16, 0)}), "{path}: tensor \"a\": data_offsets [16, 0] run backwards")
st("offset_negative", safetensors({"a": tensor((4,), -16, 0)}), "{path}: header: byte 58: tensor \"a\": data_offsets holds a negative number, expected integers >= 0")
st("offset_huge", safetensors({"a": tensor((4,), 0, 1 << 64)}), "{path}: header: byte 78: tensor \"a\": data_offsets holds a number that is no 64-bit integer, expected integers >= 0")
st("three_offsets", safetensors({"a": tensor() | {"data_offsets": [0, 8, 16]}}), "{path}: header: byte 63: tensor \"a\": data_offsets holds more than 2 numbers")
st("wrong_bytes", safetensors({"a": tensor((3,))}), "{path}: tensor \"a\": data_offsets [0, 16] hold 16 bytes, its shape and dtype need 12")
st("overlap", safetensors({"a": tensor(), "b": tensor((4,), 8, 24)}, bytes(24)), "{path}: tensor \"b\": data_offsets [8, 24] overlap the tensor that ends at byte 16")
st("hole", safetensors({"a": tensor(), "b": tensor((4,), 20, 36)}, bytes(36)), "{path}: tensor \"b\": data_offsets [20, 36] leave a hole after byte 16")
st("begins_late", safetensors({"a": tensor((4,), 4, 20)}, bytes(20)), "{path}: tensor \"a\": data_offsets [4, 20] leave a hole after byte 0")
st("data_short", safetensors({"a": tensor()}, bytes(15)), "{path}: its tensors need 16 bytes of data, the file holds 15")
st("data_long", safetensors({"a": tensor()}, bytes(17)), "{path}: its tensors need 16 bytes of data, the file holds 17")
st("metadata_list", safetensors({"__metadata__": ["pt"], "a": tensor()}), "{path}: header: byte 18: \"__metadata__\" is an array, expected an object")
st("metadata_number", safetensors({"__metadata__": {"format": 1}, "a": tensor()}), "{path}: header: byte 30: __metadata__ \"format\" is an integer, expected a string")
st("deep", safetensors('{"a": ' + "[" * 3000), "{path}: header: byte 7: \"a\" is an array, expected an object")
st("tensor_list", safetensors({"a": [1, 2]}), "{path}: header: byte 7: \"a\" is an array, expected an object")

# ---- manifest: manifest.json of a checkpoint


def signed(text):
    """Ends as manifests do, with the SHA-256 over all but its digits."""
    head, tail = text + ',\n  "sha256": "', '"\n}\n'
    return head + hashlib.sha256((head + tail).encode()).hexdigest() + tail


def manifest(**changes):
    whole = {"format": "tandem checkpoint", "version": 1, "step": 3,
             "files": {"config.yaml": {"bytes": 1, "crc32c": "00000001"}, "state.json": {"bytes": 2, "crc32c": "00000002"},
                       "model.safetensors": {"bytes": 3, "crc32c": "00000003", "tensors": {"w": {"crc32c": "00000004"}}},
                       "optimizer-00001-of-00001.safetensors": {"bytes": 4, "crc32c": "00000005", "tensors": {
                           "exp_avg.w": {"crc32c": "00000006", "parameter": "w", "global_shape": [3, 5], "begin": 0, "end": 15}}}}}
    files = whole["files"]
    for change in changes.pop("change", []):
        change(files)
    whole |= changes
    return json.dumps(whole, indent=2).removesuffix("\n}")


def mf(name, text, message):
    case(f"manifest/{name}.json", text, message)


def model(files):
    return files["model.safetensors"]


def exp_avg(files):
    return files["optimizer-00001-of-00001.safetensors"]["tensors"]["exp_avg.w"]


GOOD = signed(manifest())
mf("empty", "", "{path}: does not end with its sha256, it is damaged or cut short")
mf("cut", GOOD[:-1], "{path}: does not end with its sha256, it is damaged or cut short")
mf("no_sha", manifest() + "\n}\n", "{path}: does not end with its sha256, it is damaged or cut short")
mf("flipped", GOOD.replace('"step": 3', '"step": 4'), "{path}: is damaged: its SHA-256 is bf5db5c0c2bff5e7da36183fd353fd87cba5a671eacf840d97806d7d8fe5df67, it records b03c0781baa78d275032cac360bb549b46567b3fc7c95fbcbe62b89400f2b767")
mf("sha_with_newline", GOOD[:-60] + "\n" + GOOD[-59:], "{path}: is damaged: its SHA-256 is b03c0781baa78d275032cac360bb549b46567b3fc7c95fbcbe62b89400f2b767, it records b03c0781\\naa78d275032cac360bb549b46567b3fc7c95fbcbe62b89400f2b767")
mf("not_json", signed("{"), "{path}: byte 2: syntax error while parsing object key - unexpected ','; expected string literal")
mf("duplicate_key", signed('{\n  "step": 1,\n  "step": 2'), "{path}: byte 23: duplicate key \"step\"")
mf("format", signed(manifest(format="tandem run")), "{path}: format is not \"tandem checkpoint\"")
mf("version", signed(manifest(version=2)), "{path}: version = 2, expected an integer in [1, 1]")
mf("negative_step", signed(manifest(step=-1)), "{path}: step = -1, expected an integer in [0, 9007199254740992]")
mf("files_list", signed(manifest(files=[])), "{path}: files is array, expected an object")
mf("no_config", signed(manifest(change=[lambda f: f.pop("config.yaml")])), "{path}: lists no config.yaml")
mf("no_tensors", signed(manifest(change=[lambda f: model(f).pop("tensors")])), "{path}: lists no tensors of model.safetensors")
mf("other_folder", signed(manifest(change=[lambda f: f.update({"../../etc/passwd": {"bytes": 1, "crc32c": "00000001"}})])), "{path}: lists \"../../etc/passwd\", expected files of this folder")
mf("parent", signed(manifest(change=[lambda f: f.update({"..": {"bytes": 1, "crc32c": "00000001"}})])), "{path}: lists \"..\", expected files of this folder")
mf("negative_bytes", signed(manifest(change=[lambda f: model(f).update(bytes=-3)])), "{path}: model.safetensors: bytes = -3, expected an integer in [0, 9007199254740992]")
mf("huge_bytes", signed(manifest(change=[lambda f: model(f).update(bytes=1 << 64)])), "{path}: model.safetensors: bytes = 18446744073709551616, expected an integer in [0, 9007199254740992]")
mf("short_crc", signed(manifest(change=[lambda f: model(f).update(crc32c="123")])), "{path}: model.safetensors: crc32c = \"123\", expected 8 hex digits (0-9, a-f)")
mf("crc_number", signed(manifest(change=[lambda f: model(f).update(crc32c=3)])), "{path}: model.safetensors: crc32c = 3, expected a string")
mf("tensors_list", signed(manifest(change=[lambda f: model(f).update(tensors=["w"])])), "{path}: model.safetensors: tensors is array, expected an object")
mf("tensor_string", signed(manifest(change=[lambda f: model(f).update(tensors={"w": "00000004"})])), "{path}: model.safetensors: tensor w: found string, expected an object with crc32c")
mf("piece_without_parameter", signed(manifest(change=[lambda f: exp_avg(f).pop("parameter")])), "{path}: optimizer-00001-of-00001.safetensors: tensor exp_avg.w: parameter is missing, expected a string")
mf("piece_past_the_end", signed(manifest(change=[lambda f: exp_avg(f).update(end=16)])), "{path}: optimizer-00001-of-00001.safetensors: tensor exp_avg.w: end = 16, expected an integer in [0, 15]")
mf("piece_backwards", signed(manifest(change=[lambda f: exp_avg(f).update(begin=9, end=8)])), "{path}: optimizer-00001-of-00001.safetensors: tensor exp_avg.w: end = 8, expected an integer in [9, 15]")
mf("shape_wraps", signed(manifest(change=[lambda f: exp_avg(f).update(global_shape=[1 << 40, 1 << 40])])), "{path}: optimizer-00001-of-00001.safetensors: tensor exp_avg.w: global_shape holds more than 2^53 elements")

# ---- yaml: any config


def yaml(name, text, message, **options):
    case(f"yaml/{name}.yaml", text, message, exit_code=2, **options)


yaml("tab", "a:\n\tb: 1\n", "{path}:2: a tab in the indentation, expected spaces")
yaml("nul", "a: 1\0\n", "{path}:1: holds the control character \\x00")
yaml("control_character", "a: \7\n", "{path}:1: holds the control character \\x07")
yaml("not_utf8", b"a: \xff\n", "{path}:1: not UTF-8 text")
yaml("duplicate_key", "learning_rate: 0.1\nlearning_rate: 0.2\n", "{path}:2: duplicate key learning_rate; first on line 1")
yaml("anchor", "a: &x 1\nb: 2\n", "{path}:1: anchors are not allowed: &x")
yaml("alias_bomb", "a: &a [1, 1]\nb: &b [*a, *a]\nc: [*b, *b]\n", "{path}:1: anchors are not allowed: &a")
yaml("tag", "a: !!python/object:os.system x\n", "{path}:1: tags are not allowed")
yaml("two_documents", "a: 1\n---\nb: 2\n", "{path}:2: a second document starts here, expected one; is the indentation right?")
yaml("open_bracket", "a: [1, 2\nb: 3\n", "{path}:2: not valid YAML: end of sequence flow not found")
yaml("open_quote", 'a: "x\nb: 3\n', "{path}:1: a quote that opens here or below is not closed")
yaml("empty_key", ": 1\n", "{path}:1: a key is empty or null, expected a name")
yaml("list_as_key", "[a, b]: 1\n", "{path}:1: a list or a map stands as a key; is a bracket not closed?")
yaml("deep", "[" * 65 + "]" * 65 + "\n", "{path}:1: nesting over 64 levels")
yaml("deeper", "[" * 3000, "{path}:1: a list or a map stands as a key; is a bracket not closed?")
yaml("mixed", "a: 1\n- b\n", "{path}:2: not valid YAML: end of map not found")
# Read as {threads: an integer in [1, 64] = 1, rate: a number > 0 = 0.5, kind: linear | cosine = linear, sizes: integers >= 1 = []}.
yaml("list", "- a\n", "{path}:1: [a], expected a map", reader="config")
yaml("unknown_key", "treads: 3\n", "{path}:1: unknown key treads; did you mean threads? known here: kind, rate, sizes, threads", reader="config")
yaml("word_for_number", "threads: many\n", "{path}:1: threads = many, expected an integer from 1 to 64", reader="config")
yaml("quoted_number", 'threads: "3"\n', "{path}:1: threads = \"3\", expected an integer from 1 to 64", reader="config")
yaml("fraction", "threads: 1.5\n", "{path}:1: threads = 1.5, expected an integer from 1 to 64", reader="config")
yaml("negative", "threads: -5\n", "{path}:1: threads = -5, expected an integer from 1 to 64", reader="config")
yaml("overflow", "threads: 99999999999999999999\n", "{path}:1: threads = 99999999999999999999, expected an integer from 1 to 64", reader="config")
yaml("huge", "rate: 1e400\n", "{path}:1: rate = 1e400, expected a number > 0", reader="config")
yaml("not_a_number", "rate: .nan\n", "{path}:1: rate = .nan, expected a number > 0", reader="config")
yaml("zero", "rate: 0\n", "{path}:1: rate = 0, expected a number > 0", reader="config")
yaml("other_word", "kind: cosin\n", "{path}:1: kind = cosin, expected one of: linear, cosine", reader="config")
yaml("map_for_number", "threads: {a: 1}\n", "{path}:1: threads = {a: 1}, expected an integer from 1 to 64", reader="config")
yaml("list_element", "sizes: [4, 0]\n", "{path}:1: sizes[1] = 0, expected an integer >= 1", reader="config")

# ---- token_manifest: PREFIX.manifest.json of tokenized data


def tm(name, text, message):
    case(f"token_manifest/{name}.manifest.json", text, message)


tm("empty", "", "{path}: byte 0: syntax error while parsing value - unexpected end of input; expected '[', '{', or a literal")
tm("cut", '{"format": "tandem tokens", "ver', "{path}: byte 32: syntax error while parsing object key - invalid string: missing closing quote")
tm("list", "[]", "{path}: found array, expected an object with format")
tm("other_format", '{"format": "tandem checkpoint", "version": 1}', "{path}: format = \"tandem checkpoint\", expected \"tandem tokens\"")
tm("no_format", '{"version": 1}', "{path}: format is missing, expected a string")
tm("version", '{"format": "tandem tokens", "version": 2}', "{path}: version = 2, expected an integer in [1, 1]")

(HERE / "expected.json").write_text(json.dumps(EXPECTED, indent=1, ensure_ascii=False) + "\n")
