#!/usr/bin/env python3
"""Opens folders that `tandem convert export` wrote with the libraries they are for, and compares logits.

Every golden of tests/golden/hf goes in and out again, in float32 (one file, and several) and in bfloat16, and one more model with its tokenizer.
transformers opens Llama and GPT-NeoX as they are; fla's YOCO, whose library needs a GPU, is computed by the reference of make_hf_goldens.py out of what
safetensors reads. Fails where logits differ by more than 1e-4 of the largest (bfloat16: from those of the same rounded weights).
"""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from make_hf_goldens import OUT, fla_logits  # noqa: E402

FORMATS = {"llama": "hf-llama", "neox": "hf-gpt-neox", "fla": "fla-yoco"}
ALLOWED = 1e-4  # of the largest logit


def format_of(name):
    return FORMATS[name.split("_")[0]]


def tensors_of(folder):
    tensors = {}
    for file in sorted(folder.glob("model*.safetensors")):
        tensors.update(load_file(file))
    return tensors


def logits_of(folder, tokens):
    config = json.loads((folder / "config.json").read_text())
    with torch.no_grad():
        if config["model_type"] == "yoco":
            return fla_logits(config, {name: tensor.float() for name, tensor in tensors_of(folder).items()}, tokens)
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(tokens).logits


def rounded_logits(folder, tokens):
    """Of the original library with the weights rounded to bfloat16."""
    config = json.loads((folder / "config.json").read_text())
    with torch.no_grad():
        if config["model_type"] == "yoco":
            return fla_logits(config, {name: t.bfloat16().float() for name, t in tensors_of(folder).items()}, tokens)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        for parameter in model.parameters():  # not the buffers, whose rotary frequencies stay float32
            parameter.copy_(parameter.bfloat16())
        return model(tokens).logits


def compare(case, actual, expected, records):
    largest = expected.abs().max().item()
    difference = (actual - expected).abs().max().item()
    records.append({"case": case, "largest": largest, "difference": difference, "relative": difference / largest})
    print(f"{case:34} difference {difference:.2e}, largest logit {largest:.3f}")
    if not difference <= ALLOWED * largest:
        sys.exit(f"{case}: logits differ by {difference}, the largest is {largest}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tandem", default="build/release/tandem")
    parser.add_argument("--out", help="JSON file to write")
    arguments = parser.parse_args()
    records = []
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)

        def convert(direction, format_name, source, to, *flags):
            run = subprocess.run([arguments.tandem, "convert", direction, "--format", format_name, "--verify", *flags, str(source), str(to)],
                                 capture_output=True, text=True)
            if run.returncode != 0:
                sys.exit(run.stderr)
            return to

        for golden in sorted(folder for folder in OUT.iterdir() if folder.is_dir()):
            name, form = golden.name, format_of(golden.name)
            io = load_file(golden / "io.safetensors")
            checkpoint = convert("import", form, golden, scratch / f"{name}_ours")
            for how, flags in {"": (), " in files of 20 KB": ("--max-shard-size", "20KB"), " bfloat16": ("--dtype", "bfloat16")}.items():
                back = convert("export", form, checkpoint, scratch / (name + how.replace(" ", "_")), *flags)
                expected = rounded_logits(golden, io["tokens"]) if "bfloat16" in how else io["logits"]
                compare(name + how, logits_of(back, io["tokens"]), expected, records)

        # A model with its tokenizer.
        text = "The quick brown fox: caf\u00e9, 12345   and\n\nmore."
        with_tokenizer = scratch / "with_tokenizer"
        vocabulary = OUT.parent / "tokenizers/neox.json"
        from tokenizers import Tokenizer
        reference = Tokenizer.from_file(str(vocabulary))
        torch.manual_seed(8)
        model = LlamaForCausalLM(LlamaConfig(vocab_size=reference.get_vocab_size(), hidden_size=16, intermediate_size=24, num_hidden_layers=1,
                                             num_attention_heads=2, max_position_embeddings=64, bos_token_id=0, eos_token_id=0))
        model.save_pretrained(with_tokenizer)
        shutil.copy(vocabulary, with_tokenizer / "tokenizer.json")
        back = convert("export", "hf-llama", convert("import", "hf-llama", with_tokenizer, scratch / "ours"), scratch / "tokenizer_back")
        ids = AutoTokenizer.from_pretrained(back)(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
        if ids[0].tolist() != reference.encode(text, add_special_tokens=False).ids:
            sys.exit("the exported tokenizer gives other ids")
        with torch.no_grad():
            compare("with its tokenizer", logits_of(back, ids), model(ids).logits, records)

    import transformers
    if arguments.out:
        path = pathlib.Path(arguments.out)
        kept = json.loads(path.read_text()) if path.exists() else {}
        kept["logits"] = {"transformers": transformers.__version__, "torch": torch.__version__, "allowed_relative": ALLOWED, "cases": records}
        path.write_text(json.dumps(kept, indent=2) + "\n")
    print(f"{len(records)} cases, all within {ALLOWED} of the largest logit")


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
