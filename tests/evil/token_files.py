"""Token files and what lies beside them."""
import gzip
import struct

from cases import case, put

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
