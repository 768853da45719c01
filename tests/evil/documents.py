"""Documents as JSON lines."""
import gzip
import zlib

from cases import case

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
case("documents/window.jsonl.zst", b"\x28\xb5\x2f\xfd\x00\xff" + bytes(8), "{path}: zstd data with a window of more than 128 MiB; pack it again without --long")
