#!/usr/bin/env python3
"""Measures the memory that `tandem convert` needs: a Llama-shaped folder of sparse files (holes, which take no disk) goes in and out again.

    scripts/convert_memory.py                1.4B: about 9 GB of disk for the checkpoint and what is written back
    scripts/convert_memory.py --shape 13b    13B: about 80 GB, with --steps import 54; 13b-8-layers and 13b-16-layers have tensors of that size and need 18 and 33 GB
Fails where the peak of a process is above a fixed part for the program and four times the largest tensor in float32.
"""
import argparse
import json
import os
import pathlib
import shutil
import struct
import sys
import tempfile
import time

SHAPES = {  # d_model, ffn_dim, n_layers, n_heads, vocab_size
    "160m": (768, 2048, 12, 12, 32000),
    "1.4b": (2048, 5632, 26, 16, 32000),
    "13b-8-layers": (5120, 13824, 8, 40, 32000),  # tensors as large as those of 13B
    "13b-16-layers": (5120, 13824, 16, 40, 32000),
    "13b": (5120, 13824, 40, 40, 32000),
}
PROGRAM_BYTES = 700 << 20  # LibTorch and the program, before any weight
SHARD_BYTES = 5_000_000_000


def tensors_of(d, ffn, layers, vocab):
    yield "model.embed_tokens.weight", (vocab, d)
    for i in range(layers):
        layer = f"model.layers.{i}."
        for name, shape in {"input_layernorm": (d,), "post_attention_layernorm": (d,), "self_attn.q_proj": (d, d), "self_attn.k_proj": (d, d),
                            "self_attn.v_proj": (d, d), "self_attn.o_proj": (d, d), "mlp.gate_proj": (ffn, d), "mlp.up_proj": (ffn, d),
                            "mlp.down_proj": (d, ffn)}.items():
            yield f"{layer}{name}.weight", shape
    yield "model.norm.weight", (d,)
    yield "lm_head.weight", (vocab, d)


def numel(shape):
    return shape[0] * (shape[1] if len(shape) > 1 else 1)


def make_folder(folder, shape):
    """Returns the number of weights and the largest tensor's."""
    d, ffn, layers, heads, vocab = shape
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(dict(
        model_type="llama", architectures=["LlamaForCausalLM"], hidden_size=d, intermediate_size=ffn, num_hidden_layers=layers, num_attention_heads=heads,
        vocab_size=vocab, rms_norm_eps=1e-5, rope_theta=10000.0, max_position_embeddings=2048, hidden_act="silu", tie_word_embeddings=False)))
    shards, size = [{}], 0
    for name, tensor in tensors_of(d, ffn, layers, vocab):
        if size + 2 * numel(tensor) > SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += 2 * numel(tensor)
    weight_map = {}
    for i, shard in enumerate(shards):
        file, header, end = f"model-{i + 1:05}-of-{len(shards):05}.safetensors", {"__metadata__": {"format": "pt"}}, 0
        for name, tensor in shard.items():
            begin, end = end, end + 2 * numel(tensor)
            header[name] = {"dtype": "BF16", "shape": tensor, "data_offsets": [begin, end]}
            weight_map[name] = file
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with open(folder / file, "wb") as out:
            out.write(struct.pack("<Q", len(text)) + text)
            out.truncate(8 + len(text) + end)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    sizes = [numel(tensor) for shard in shards for tensor in shard.values()]
    return sum(sizes), max(sizes)


def measure(command):
    """Peak resident bytes and seconds of a process."""
    start = time.monotonic()
    pid = os.spawnv(os.P_NOWAIT, command[0], command)
    _, status, usage = os.wait4(pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(command)}: failed with status {status}")
    return usage.ru_maxrss * 1024, time.monotonic() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tandem", default="build/release/tandem")
    parser.add_argument("--shape", choices=SHAPES, default="1.4b")
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="where there is room")
    parser.add_argument("--steps", choices=["import", "both"], default="both", help="import alone needs less room")
    parser.add_argument("--out", help="JSON file to write")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
        scratch = pathlib.Path(scratch)
        n, largest = make_folder(scratch / "theirs", SHAPES[arguments.shape])
        needed, free = int((6.2 if arguments.steps == "both" else 4.1) * n), shutil.disk_usage(scratch).free
        if free < needed:
            sys.exit(f"{arguments.folder}: {free / 1e9:.1f} GB are free, {needed / 1e9:.1f} GB are needed; give another --folder or a smaller --shape")
        limit = PROGRAM_BYTES + 4 * 4 * largest
        record = {"shape": arguments.shape, "parameters": n, "float32_bytes": 4 * n, "largest_tensor_bytes": 4 * largest, "limit_bytes": limit}
        command = [arguments.tandem, "convert"]
        for step, words in {"import": ["import", "--format", "hf-llama", f"{scratch}/theirs", f"{scratch}/ours"],
                            "export": ["export", "--format", "hf-llama", "--dtype", "bfloat16", f"{scratch}/ours", f"{scratch}/back"]}.items():
            if arguments.steps not in (step, "both"):
                continue
            peak, seconds = measure(command + words)
            record[step] = {"peak_bytes": peak, "seconds": round(seconds, 1)}
            print(f"{arguments.shape} {step}: peak {peak / 1e9:.2f} GB of memory, {4 * n / 1e9:.1f} GB of float32 weights, largest tensor "
                  f"{4 * largest / 1e9:.2f} GB, {seconds:.0f} s")
            if peak > limit:
                sys.exit(f"{step} took {peak} bytes, more than {limit}")
    if arguments.out:
        path = pathlib.Path(arguments.out)
        kept = json.loads(path.read_text()) if path.exists() else {}
        kept.setdefault("memory", {})[arguments.shape] = record
        path.write_text(json.dumps(kept, indent=2) + "\n")


if __name__ == "__main__":
    main()
