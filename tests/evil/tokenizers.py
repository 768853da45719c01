"""Tokenizers: Hugging Face's JSON, tiktoken's ranks, sentencepiece's models."""
import base64
import json
import struct

from cases import case

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
tik("unknown_name", ranks(BYTES), "{path}: unknown tokenizer name gpt5; known are gpt2, r50k_base, p50k_base, cl100k_base, yoco_cl100k_base, llama3, qwen, gpt2_ranks, cl100k_ranks", tokenizer="gpt5", exit_code=2)
case("tiktoken/nameless.tiktoken", ranks(BYTES), "{path}: unknown tokenizer name nameless; known are gpt2, r50k_base, p50k_base, cl100k_base, yoco_cl100k_base, llama3, qwen, gpt2_ranks, cl100k_ranks", reader="tokenizer", exit_code=2)
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
tik("token_twice", ranks(BYTES + [b"ab", b"ab"]), "{path}: ids 256 and 257 stand for the same bytes", tokenizer="gpt2_ranks")
tik("byte_missing", ranks(BYTES[1:]), "{path}: no token stands for the byte 0", tokenizer="gpt2_ranks")
tik("long_token", ranks(BYTES + [b"a" * 4097]), "{path}: line 257: a token of 4097 bytes, expected at most 4096")
tik("another_vocabulary", ranks(BYTES) + b"YWI= 50256\n", "{path}: 257 ranks up to 50256, expected the 50256 up to 50255 of gpt2; these are another tokenizer's or damaged")
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
