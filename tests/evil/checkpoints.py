"""Files of a checkpoint."""
import hashlib
import json
import struct

from cases import case

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


def split(**keys):
    """Of 3 x 5 elements, the columns that `keys` say; the piece holds all of them."""
    return lambda files: exp_avg(files).update({"split_dim": 1, "split_begin": 1, "split_end": 3, "end": 6} | keys)


IN_PIECE = "{path}: optimizer-00001-of-00001.safetensors: tensor exp_avg.w: "
mf("split_dim_past_the_shape", signed(manifest(change=[split(split_dim=2)])), IN_PIECE + "split_dim = 2, expected an integer in [0, 1]")
mf("split_dim_negative", signed(manifest(change=[split(split_dim=-1)])), IN_PIECE + "split_dim = -1, expected an integer in [0, 1]")
mf("split_dim_missing", signed(manifest(change=[split(), lambda f: exp_avg(f).pop("split_dim")])), IN_PIECE + "split_dim is missing, expected an integer in [0, 1]")
mf("split_of_a_number", signed(manifest(change=[split(global_shape=[])])), IN_PIECE + "split_dim = 1, expected an integer in [0, -1]")
mf("split_of_nothing", signed(manifest(change=[split(global_shape=[3, 0])])), IN_PIECE + "split_dim divides a tensor without elements")
mf("split_past_the_end", signed(manifest(change=[split(split_end=6)])), IN_PIECE + "split_end = 6, expected an integer in [2, 5]")
mf("split_empty", signed(manifest(change=[split(split_end=1)])), IN_PIECE + "split_end = 1, expected an integer in [2, 5]")
mf("split_huge", signed(manifest(change=[split(split_begin=1 << 62)])), IN_PIECE + "split_begin = 4611686018427387904, expected an integer in [0, 4]")
mf("piece_past_its_slice", signed(manifest(change=[split(end=7)])), IN_PIECE + "end = 7, expected an integer in [0, 6]")
