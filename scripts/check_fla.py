#!/usr/bin/env python3
"""Opens every golden of flash-linear-attention with that library's own classes and compares logits with those kept, which came out of make_hf_goldens.py.

The kernels need a GPU, so that plain operators stand in for them; modules, names of parameters, biases, norms and their places are the library's.
Not part of any test. Run by scripts/hf_peers.sh's Python, with the library beside:
    scripts/hf_peers.sh && .venv-peers/bin/python -m pip install einops==0.8.2
    .venv-peers/bin/python -m pip install --no-deps flash-linear-attention==0.6.0 fla-core==0.6.0
    .venv-peers/bin/python scripts/check_fla.py
"""
import importlib.machinery
import json
import pathlib
import sys
import types

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from make_hf_goldens import OUT, attend, rms, rotate  # noqa: E402

ALLOWED = 1e-4  # of the largest logit


def attend_heads(q, k, v, window_size=None, cu_seqlens=None):
    return attend(q, k, v, window_size).unflatten(-1, q.shape[2:])


def flash_attn_func(q, k, v, causal, window_size):
    return attend_heads(q, k, v, window_size[0] + 1 if window_size[0] >= 0 else None)


# The library refuses to make attention layers without flash-attn.
flash_attn = types.ModuleType("flash_attn")
flash_attn.__spec__ = importlib.machinery.ModuleSpec("flash_attn", None)
flash_attn.flash_attn_func, flash_attn.flash_attn_varlen_func = flash_attn_func, None
sys.modules["flash_attn"] = flash_attn

import fla  # noqa: E402
import fla.layers.yoco as layers  # noqa: E402
import fla.modules.mlp as mlp  # noqa: E402
import fla.modules.rotary.ops as rotary  # noqa: E402
from fla.models.yoco import YOCOConfig, YOCOForCausalLM  # noqa: E402


def retain(q, k, v, g, **ignored):  # [B, T, H, head], g [B, T, H]
    state, outs = 0, []
    for t in range(q.shape[1]):
        state = state * g[:, t].exp()[:, :, None, None] + k[:, t, :, :, None] * v[:, t, :, None, :]
        outs.append(torch.einsum("bhk,bhkv->bhv", q[:, t] * q.shape[-1] ** -0.5, state))
    return torch.stack(outs, 1), None


def rotate_by(x, cos, sin, interleaved=False, seqlen_offsets=0, cu_seqlens=None, **ignored):
    assert seqlen_offsets == 0
    return rotate(x, torch.atan2(sin, cos)[:x.shape[1]], interleaved)


def main():
    layers.parallel_attn = attend_heads
    layers.chunk_simple_gla = layers.fused_recurrent_simple_gla = retain
    layers.rotary_embedding = rotary.rotary_embedding = rotate_by
    layers.swiglu = mlp.swiglu = lambda gate, up: F.silu(gate) * up
    layers.RMSNorm.forward = lambda norm, x: rms(x, norm.weight, norm.eps)
    for folder in sorted(OUT.glob("fla_*")):
        config = json.loads((folder / "config.json").read_text())
        config.update(fuse_norm=False, fuse_swiglu=False, fuse_cross_entropy=False)  # other kernels for the same
        model = YOCOForCausalLM(YOCOConfig(**config)).float().eval()
        found = model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
        model.tie_weights()
        if found.unexpected_keys or set(found.missing_keys) - ({"lm_head.weight"} if config["tie_word_embeddings"] else set()):
            sys.exit(f"{folder.name}: {found}")
        io = load_file(folder / "io.safetensors")
        with torch.no_grad():
            difference = (model(io["tokens"], use_cache=False).logits - io["logits"]).abs().max().item()
        largest = io["logits"].abs().max().item()
        print(f"{folder.name:24} difference {difference:.2e}, largest logit {largest:.3f}")
        if not difference <= ALLOWED * largest:
            sys.exit(f"{folder.name}: logits differ from those of flash-linear-attention {fla.__version__}")


if __name__ == "__main__":
    main()
