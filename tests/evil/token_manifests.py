"""What tells where a token file came from."""

import json

from cases import case

# ---- token_manifest: PREFIX.manifest.json of tokenized data


def tm(name, text, message):
    case(f"token_manifest/{name}.manifest.json", text, message)


tm("empty", "", "{path}: byte 0: syntax error while parsing value - unexpected end of input; expected '[', '{', or a literal")
tm("cut", '{"format": "tandem tokens", "ver', "{path}: byte 32: syntax error while parsing object key - invalid string: missing closing quote")
tm("list", "[]", "{path}: found array, expected an object with format")
tm("other_format", '{"format": "tandem checkpoint", "version": 1}', "{path}: format = \"tandem checkpoint\", expected \"tandem tokens\"")
tm("no_format", '{"version": 1}', "{path}: format is missing, expected a string")
tm("version", '{"format": "tandem tokens", "version": 2}', "{path}: version = 2, expected an integer in [1, 1]")
WHOLE = {
    "format": "tandem tokens", "version": 1, "tokenizer": {"name": "bytes", "sha256": "0" * 64, "vocab_size": 258}, "bos": None, "eos": 257,
    "documents": 2, "tokens": 8, "empty_documents": 0, "bin_crc32c": "00000000", "idx_crc32c": "00000000", "input": {"path": "in"},
}


def changed(name, message, **values):
    tm(name, json.dumps(WHOLE | values), "{path}: " + message)


changed("no_tokenizer", "tokenizer is null, expected an object", tokenizer=None)
changed("eos_beyond", "eos = 258, expected an integer in [0, 257]", eos=258)
changed("checksum", 'bin_crc32c = "xyz", expected 8 hex digits', bin_crc32c="xyz")
changed("input", 'input is "in", expected an object', input="in")
