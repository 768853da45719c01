#!/usr/bin/env python3
"""Writes tests/golden/hf/: tiny random models as other libraries keep them, each a folder with config.json, weights and io.safetensors (tokens, logits).

Llama and GPT-NeoX come out of `transformers`, which computes the logits. fla's YOCO needs a GPU to run, so that its logits come out of the plain
PyTorch reference below, written from the format's description and not from our code. Run by scripts/hf_peers.sh's Python:
    scripts/hf_peers.sh && .venv-peers/bin/python scripts/make_hf_goldens.py
"""
import json
import math
import pathlib
import shutil

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests/golden/hf"
VOCAB = 64


def draw(name, shape, generator):
    """Values large enough that every tensor matters."""
    noise = torch.randn(shape, generator=generator)
    if name.endswith("bias"):
        return 0.3 * noise
    return 1 + 0.3 * noise if len(shape) == 1 else noise / math.sqrt(shape[-1])


def tokens_of(seed):
    return torch.randint(VOCAB, (2, 23), generator=torch.Generator().manual_seed(seed))


def rewrite_config(folder, change):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config, indent=2) + "\n")


def save(name, model, seed, **how):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.copy_(draw(key, parameter.shape, generator))
    model.eval()
    model.tie_weights()
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, **how)
    tokens = tokens_of(seed)
    with torch.no_grad():
        logits = model(tokens).logits.float().contiguous()
    save_file({"tokens": tokens, "logits": logits}, folder / "io.safetensors")
    return folder


def llama():
    shape = dict(vocab_size=VOCAB, hidden_size=24, num_hidden_layers=2, max_position_embeddings=96)
    save("llama_gqa", LlamaForCausalLM(LlamaConfig(**shape, intermediate_size=29, num_attention_heads=4, num_key_value_heads=2, head_dim=10,
                                                   rms_norm_eps=1e-3, rope_parameters={"rope_type": "default", "rope_theta": 500.0})), 1)

    def as_transformers_4_wrote_it(config):
        rope = config.pop("rope_parameters")
        config.update(rope_theta=rope["rope_theta"], rope_scaling=None, torch_dtype=config.pop("dtype"))
        del config["head_dim"]
    folder = save("llama_tied", LlamaForCausalLM(LlamaConfig(**shape, intermediate_size=29, num_attention_heads=3, num_key_value_heads=1,
                                                             tie_word_embeddings=True)), 2, max_shard_size="12KB")
    rewrite_config(folder, as_transformers_4_wrote_it)
    model = LlamaForCausalLM.from_pretrained(folder)
    io = load_file(folder / "io.safetensors")
    with torch.no_grad():
        assert torch.equal(model(io["tokens"]).logits, io["logits"]), "the older keys give other logits"


def gpt_neox():
    shape = dict(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, intermediate_size=37, num_attention_heads=2, max_position_embeddings=96)
    save("neox_parallel", GPTNeoXForCausalLM(GPTNeoXConfig(**shape, rope_parameters={
        "rope_type": "default", "rope_theta": 700.0, "partial_rotary_factor": 0.25})), 3)

    def as_transformers_4_wrote_it(config):
        rope = config.pop("rope_parameters")
        config.update(rotary_pct=rope["partial_rotary_factor"], rotary_emb_base=rope["rope_theta"], torch_dtype=config.pop("dtype"))
    folder = save("neox_serial", GPTNeoXForCausalLM(GPTNeoXConfig(**shape, use_parallel_residual=False, layer_norm_eps=1e-3, hidden_act="gelu_new", rope_parameters={
        "rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5})), 4)
    rewrite_config(folder, as_transformers_4_wrote_it)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    for layer in range(2):  # what older files keep beside the weights
        attention = f"gpt_neox.layers.{layer}.attention."
        tensors[attention + "bias"] = torch.ones(1, 1, 8, 8, dtype=torch.uint8)
        tensors[attention + "masked_bias"] = torch.tensor(-1e9)
        tensors[attention + "rotary_emb.inv_freq"] = torch.ones(4)
    save_file(tensors, path, metadata={"format": "pt"})
    model = GPTNeoXForCausalLM.from_pretrained(folder)
    io = load_file(folder / "io.safetensors")
    with torch.no_grad():
        assert torch.equal(model(io["tokens"]).logits, io["logits"]), "the older keys give other logits"


# ---- fla's YOCO

def rms(x, weight, eps):
    y = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
    return y if weight is None else y * weight


def angles(t, head, theta, convention):
    pairs = head // 2
    exponents = torch.arange(pairs) / pairs if convention == "fla" else torch.arange(pairs) / max(pairs - 1, 1)
    return torch.arange(t)[:, None] * theta ** -exponents[None]  # [T, head/2]


def rotate(x, phases, interleaved):  # x: [B, T, H, head]
    cos, sin = phases.cos()[None, :, None], phases.sin()[None, :, None]
    if interleaved:
        a, b = x[..., 0::2], x[..., 1::2]
        return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), -1)


def attend(q, k, v, window=None):  # [B, T, H, head], heads of k and v shared by groups
    t, group = q.shape[1], q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(group, 2), v.repeat_interleave(group, 2)
    scores = torch.einsum("bihd,bjhd->bhij", q, k) / math.sqrt(q.shape[-1])
    i, j = torch.arange(t)[:, None], torch.arange(t)[None]
    seen = (j <= i) if window is None else (j <= i) & (j > i - window)
    return torch.einsum("bhij,bjhd->bihd", scores.masked_fill(~seen, -math.inf).softmax(-1), v).flatten(-2)


def fla_logits(config, w, tokens):
    eps, hidden = config["norm_eps"], config["hidden_size"]
    own, cross = config["self_decoder_attn"], config["cross_decoder_attn"]
    x = w["model.embeddings.weight"][tokens] * math.sqrt(hidden)
    t = tokens.shape[1]

    def linear(h, name):
        return F.linear(h, w[name + ".weight"], w.get(name + ".bias"))

    def mlp(h, layer):
        return linear(F.silu(linear(h, layer + ".mlp.gate_proj")) * linear(h, layer + ".mlp.up_proj"), layer + ".mlp.down_proj")

    for i in range(config["num_self_decoder_layers"]):
        layer = f"model.self_layers.{i}"
        h = rms(x, w[layer + ".attn_norm.weight"], eps)
        q, k, v = (linear(h, f"{layer}.attn.{p}_proj") for p in "qkv")
        head = hidden // own["num_heads"]
        q, k, v = (y.unflatten(-1, (-1, head)) for y in (q, k, v))
        if own["type"] == "swa":
            phases = angles(t, head, own["rope_theta"], "fla")
            mixed = attend(rotate(q, phases, False), rotate(k, phases, False), v, own["window_size"])
        else:
            phases = angles(t, head, own["rope_theta"], own["rope_inv_freq"])
            q, k = rotate(q, phases, True), rotate(k, phases, True) * head ** -0.5
            decay = (F.logsigmoid(linear(h, layer + ".attn.gk_proj")) / own["gate_logit_normalizer"]).exp()  # [B, T, H]
            state, outs = torch.zeros(x.shape[0], own["num_heads"], head, head), []
            for step in range(t):
                state = state * decay[:, step, :, None, None] + k[:, step, :, :, None] * v[:, step, :, None, :]
                outs.append(torch.einsum("bhk,bhkv->bhv", q[:, step], state))
            mixed = F.silu(linear(h, layer + ".attn.g_proj")) * rms(torch.stack(outs, 1), None, eps).flatten(-2)
        x = x + linear(mixed, layer + ".attn.o_proj")
        x = x + mlp(rms(x, w[layer + ".mlp_norm.weight"], eps), layer)

    head = hidden // cross["num_heads"]
    phases = angles(t, head, cross["rope_theta"], cross["rope_inv_freq"])
    h = rms(x, w["model.shared_kv_builder.kv_norm.weight"], eps)
    keys = rotate(linear(h, "model.shared_kv_builder.k_proj").unflatten(-1, (-1, head)), phases, True)
    values = linear(h, "model.shared_kv_builder.v_proj").unflatten(-1, (-1, head))
    for i in range(config["num_hidden_layers"] - config["num_self_decoder_layers"]):
        layer = f"model.cross_layers.{i}"
        q = linear(rms(x, w[layer + ".attn_norm.weight"], eps), layer + ".attn.q_proj").unflatten(-1, (-1, head))
        if cross["qk_norm"]:  # of queries alone, with an epsilon of its own
            q = rms(q, w[layer + ".attn.q_norm.weight"], 1e-5)
        x = x + linear(attend(rotate(q, phases, True), keys, values), layer + ".attn.o_proj")
        x = x + mlp(rms(x, w[layer + ".mlp_norm.weight"], eps), layer)
    x = rms(x, w["model.norm.weight"], eps)
    return F.linear(x, w["model.embeddings.weight" if config["tie_word_embeddings"] else "lm_head.weight"])


def fla_shapes(config):
    d, ffn, own, cross = config["hidden_size"], config["intermediate_size"], config["self_decoder_attn"], config["cross_decoder_attn"]
    shapes = {"model.embeddings.weight": (VOCAB, d), "model.norm.weight": (d,)}
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (VOCAB, d)

    def add_layer(layer, mixer):
        shapes.update({f"{layer}.attn_norm.weight": (d,), f"{layer}.mlp_norm.weight": (d,), f"{layer}.mlp.gate_proj.weight": (ffn, d),
                       f"{layer}.mlp.up_proj.weight": (ffn, d), f"{layer}.mlp.down_proj.weight": (d, ffn)})
        shapes.update({f"{layer}.attn.{name}_proj.weight": shape for name, shape in mixer.items()})
    kv = d // own["num_heads"] * own.get("num_v_heads", own["num_heads"])
    retention = {"q": (d, d), "k": (d, d), "v": (d, d), "g": (d, d), "gk": (own["num_heads"], d), "o": (d, d)}
    for i in range(config["num_self_decoder_layers"]):
        add_layer(f"model.self_layers.{i}", {"q": (d, d), "k": (kv, d), "v": (kv, d), "o": (d, d)} if own["type"] == "swa" else retention)
    kv = d // cross["num_heads"] * cross["num_kv_heads"]
    shapes.update({"model.shared_kv_builder.kv_norm.weight": (d,), "model.shared_kv_builder.k_proj.weight": (kv, d),
                   "model.shared_kv_builder.v_proj.weight": (kv, d)})
    for i in range(config["num_hidden_layers"] - config["num_self_decoder_layers"]):
        add_layer(f"model.cross_layers.{i}", {"q": (d, d), "o": (d, d)})
        if cross["qk_norm"]:
            shapes[f"model.cross_layers.{i}.attn.q_norm.weight"] = (d // cross["num_heads"],)
    biased = []  # never retention, never an output
    if own["type"] == "swa" and own["qkv_bias"]:
        biased += [f"model.self_layers.{i}.attn.{p}_proj" for i in range(config["num_self_decoder_layers"]) for p in "qkv"]
    if cross["qkv_bias"]:
        biased += ["model.shared_kv_builder.k_proj", "model.shared_kv_builder.v_proj"]
        biased += [f"model.cross_layers.{i}.attn.q_proj" for i in range(config["num_hidden_layers"] - config["num_self_decoder_layers"])]
    shapes.update({name + ".bias": shapes[name + ".weight"][:1] for name in biased})
    return shapes


def fla():
    common = dict(model_type="yoco", architectures=["YOCOForCausalLM"], hidden_size=24, intermediate_size=29, hidden_ratio=4, hidden_act="swish", vocab_size=VOCAB,
                  max_position_embeddings=96, bos_token_id=1, eos_token_id=2, initializer_range=0.02, attnres_block_size=None, fuse_norm=True,
                  fuse_swiglu=True, fuse_cross_entropy=True, use_l2warp=False, use_cache=True, dtype="float32")
    unread = dict(mode="chunk", use_gate=True, expand_v=2.0, use_short_conv=True, allow_neg_eigval=False, conv_size=4, head_dim=256)
    cases = {
        "fla_retention": (5, dict(common, num_self_decoder_layers=2, num_hidden_layers=3, norm_eps=1e-3, tie_word_embeddings=False,
                                  self_decoder_attn=dict(unread, type="gated_retention", num_heads=3, num_v_heads=3, window_size=None, qkv_bias=False,
                                                         rope_theta=10000.0, rope_inv_freq="yoco", gate_logit_normalizer=16.0),
                                  cross_decoder_attn=dict(num_heads=4, num_kv_heads=2, qkv_bias=False, qk_norm=False, rope_theta=10000.0, rope_inv_freq="yoco"))),
        "fla_retention_tied": (6, dict(common, num_self_decoder_layers=1, num_hidden_layers=2, norm_eps=1e-6, tie_word_embeddings=True,
                                       self_decoder_attn=dict(unread, type="gated_retention", num_heads=2, num_v_heads=2, window_size=None, qkv_bias=False,
                                                              rope_theta=500.0, rope_inv_freq="fla", gate_logit_normalizer=8.0),
                                       cross_decoder_attn=dict(num_heads=2, num_kv_heads=2, qkv_bias=False, qk_norm=False, rope_theta=700.0, rope_inv_freq="fla"))),
        "fla_swa": (7, dict(common, num_self_decoder_layers=2, num_hidden_layers=3, norm_eps=1e-6, tie_word_embeddings=False,
                            self_decoder_attn=dict(unread, type="swa", num_heads=4, num_v_heads=2, window_size=5, qkv_bias=False,
                                                   rope_theta=10000.0, rope_inv_freq="yoco", gate_logit_normalizer=16.0),
                            cross_decoder_attn=dict(num_heads=3, num_kv_heads=1, qkv_bias=False, qk_norm=False, rope_theta=10000.0, rope_inv_freq="yoco"))),
        "fla_qk_norm": (8, dict(common, num_self_decoder_layers=1, num_hidden_layers=3, norm_eps=1e-3, tie_word_embeddings=False,
                                self_decoder_attn=dict(unread, type="gated_retention", num_heads=3, num_v_heads=3, window_size=None, qkv_bias=True,
                                                       rope_theta=10000.0, rope_inv_freq="fla", gate_logit_normalizer=16.0),
                                cross_decoder_attn=dict(num_heads=3, num_kv_heads=1, qkv_bias=False, qk_norm=True, window_size=None, rope_theta=10000.0,
                                                        rope_inv_freq="fla"))),
        "fla_bias": (9, dict(common, num_self_decoder_layers=1, num_hidden_layers=2, norm_eps=1e-6, tie_word_embeddings=False,
                             self_decoder_attn=dict(unread, type="swa", num_heads=4, num_v_heads=2, window_size=5, qkv_bias=True,
                                                    rope_theta=10000.0, rope_inv_freq="fla", gate_logit_normalizer=16.0),
                             cross_decoder_attn=dict(num_heads=4, num_kv_heads=2, qkv_bias=True, qk_norm=False, window_size=None, rope_theta=10000.0,
                                                     rope_inv_freq="fla"))),
        "fla_qk_norm_bias_tied": (10, dict(common, num_self_decoder_layers=1, num_hidden_layers=2, norm_eps=1e-6, tie_word_embeddings=True,
                                           self_decoder_attn=dict(unread, type="swa", num_heads=2, num_v_heads=1, window_size=7, qkv_bias=True,
                                                                  rope_theta=500.0, rope_inv_freq="yoco", gate_logit_normalizer=16.0),
                                           cross_decoder_attn=dict(num_heads=3, num_kv_heads=3, qkv_bias=True, qk_norm=True, window_size=None,
                                                                   rope_theta=700.0, rope_inv_freq="yoco"))),
    }
    for name, (seed, config) in cases.items():
        generator = torch.Generator().manual_seed(seed)
        weights = {key: draw(key, shape, generator) for key, shape in fla_shapes(config).items()}
        if config["cross_decoder_attn"]["qk_norm"]:  # queries so small that the epsilon of their norm matters
            weights.update({key: weights[key] / 64 for key in weights if "cross_layers" in key and ".q_proj." in key})
        folder = OUT / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        tokens = tokens_of(seed)
        save_file({"tokens": tokens, "logits": fla_logits(config, weights, tokens).contiguous()}, folder / "io.safetensors")


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    llama()
    gpt_neox()
    fla()
    for folder in sorted(OUT.iterdir()):
        if folder.is_dir():
            print(folder.name, sum(file.stat().st_size for file in folder.iterdir()), "bytes")
