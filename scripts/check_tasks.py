"""Compares `tandem eval tasks` with lm-evaluation-harness on the same weights and files; see check_tasks.sh.

Prints one line for each number and writes all of them to --result; fails at the end where any differs.
"""

import argparse
import importlib.metadata
import json
import math
import os
import pathlib
import random
import subprocess

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

WORDS = ("the a river stone light over under small old blue quickly runs falls dog house because never water open "
         "Élan naïve 中文 한국 🙂 two 1234 don't it's (so) \"quoted\" x=y; end. Why? ok,").split(" ")
END = "<|endoftext|>"
MAX_LENGTH = 96
TOLERANCE = 1e-4
# ours: (the harness's folder and file, its splits: ours to theirs, our metrics to theirs)
CHOICE = {"acc": "acc", "acc_norm": "acc_norm"}
TASKS = {
    "arc_easy": ("arc/arc_easy.yaml", {"": "test", "train": "train"}, CHOICE),
    "arc_challenge": ("arc/arc_challenge.yaml", {"": "test", "train": "train"}, CHOICE),
    "boolq": ("super_glue/boolq/default.yaml", {"": "validation", "train": "train"}, {"acc": "acc"}),
    "hellaswag": ("hellaswag/hellaswag.yaml", {"": "validation", "train": "train"}, CHOICE),
    "openbookqa": ("openbookqa/openbookqa.yaml", {"": "test", "train": "train"}, CHOICE),
    "piqa": ("piqa/piqa.yaml", {"": "validation", "train": "train"}, CHOICE),
    "winogrande": ("winogrande/default.yaml", {"": "validation", "train": "train"}, {"acc": "acc"}),
    "sciq": ("sciq/sciq.yaml", {"": "test", "train": "train"}, CHOICE),
    "lambada_openai": ("lambada/lambada_openai.yaml", {"": "test"}, {"acc": "acc", "ppl": "perplexity"}),
    "lambada_standard": ("lambada/lambada_standard.yaml", {"": "test", "validation": "validation"},
                         {"acc": "acc", "ppl": "perplexity"}),
    "wikitext": ("wikitext/wikitext.yaml", {"": "test"},
                 {"word_ppl": "word_perplexity", "byte_ppl": "byte_perplexity", "bpb": "bits_per_byte"}),
}


def words(rng, low, high):
    return " ".join(rng.choices(WORDS, k=rng.randint(low, high)))


def choices_document(rng, key):
    n = rng.choice([3, 4, 4, 5])
    labels = rng.choice(["ABCDE", "12345"])[:n]
    return {key: words(rng, 3, 12) + rng.choice(["", " ", "?"]),
            "choices": {"text": [words(rng, 1, 6) for _ in range(n)], "label": list(labels)}, "answerKey": rng.choice(labels)}


def document(rng, task, greedy):
    if task.startswith("arc"):
        return choices_document(rng, "question")
    if task == "openbookqa":
        return choices_document(rng, "question_stem")
    if task == "boolq":
        return {"question": words(rng, 3, 8), "passage": words(rng, 10, 120), "idx": 0, "label": rng.randrange(2)}
    if task == "hellaswag":
        return {"activity_label": words(rng, 1, 3), "ctx_a": words(rng, 3, 9) + rng.choice(["", " [title] ok", " [step]"]) + ".",
                "ctx_b": rng.choice(["", words(rng, 1, 4)]), "label": str(rng.randrange(4)),
                "endings": [words(rng, 2, 9) + rng.choice(["", " [sub] done. ", "  "]) for _ in range(4)]}
    if task == "piqa":
        return {"goal": words(rng, 2, 9), "sol1": words(rng, 1, 9), "sol2": words(rng, 1, 9), "label": rng.randrange(2)}
    if task == "winogrande":
        return {"sentence": words(rng, 2, 6) + " _ " + words(rng, 2, 6) + rng.choice(["", "."]), "option1": words(rng, 1, 2),
                "option2": words(rng, 1, 2), "answer": rng.choice("12")}
    if task == "sciq":
        return {"question": words(rng, 3, 9), "support": rng.choice(["", "  ", " \n"]) + words(rng, 0, 30), "correct_answer": words(rng, 1, 3),
                **{f"distractor{i}": words(rng, 1, 3) for i in (1, 2, 3)}}
    if task.startswith("lambada"):
        return {"text": greedy(rng) if rng.random() < 0.5 else words(rng, 4, 90)}
    page = " ".join(words(rng, 5, 40) + rng.choice([" . \n", " ( x ) ; ", " 1 @,@ 000 ", " = = = "]) for _ in range(rng.randint(1, 6)))
    return {"page": " = " + words(rng, 1, 3) + " = \n \n " + page}


def make_model(folder, seed):
    """A Llama with random weights large enough for likelihoods to differ, and a byte-level BPE tokenizer whose merges cross spaces' edges."""
    import tokenizers
    import torch
    import transformers
    rng = random.Random(seed)
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=420, special_tokens=[END], show_progress=False,
                                             initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet())
    bpe.train_from_iterator([words(rng, 20, 40) + "\n\nQuestion: Answer:" for _ in range(200)], trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=END, eos_token=END,
                                                     clean_up_tokenization_spaces=False)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=MAX_LENGTH, initializer_range=0.3, bos_token_id=0, eos_token_id=0))
    model.save_pretrained(folder)
    return model.double().eval(), tokenizer


def greedy_text(model, tokenizer):
    """Gives texts whose last word is what greedy decoding adds, where one is found."""
    import torch

    def text(rng):
        for _ in range(400):
            start = words(rng, 4, 40)
            ids = tokenizer.encode(start)
            with torch.no_grad():
                following = int(model(torch.tensor([ids])).logits[0, -1].argmax())
            word = tokenizer.decode([following])
            if word.startswith(" ") and word.strip() and "\ufffd" not in word and tokenizer.encode(start + word) == ids + [following]:
                return start + word
        return words(rng, 4, 40)
    return text


def write_data(args, data, greedy):
    data.mkdir()
    rng = random.Random(args.seed + 1)
    for task, (_, splits, _) in TASKS.items():
        for split in splits:
            documents = [document(rng, task, greedy) for _ in range(args.documents)]
            if split:
                documents[1] = documents[0]  # one that comes twice
            if task == "hellaswag":
                documents[0]["ctx_b"] = "ÉCOLE İs open"
            path = data / (f"{task}.{split}.jsonl" if split else f"{task}.jsonl")
            path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in documents), encoding="utf-8")


def harness(args, data, model_folder, num_fewshot, names):
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    root = pathlib.Path(lm_eval.__file__).parent / "tasks"
    folder = args.folder / f"harness_{num_fewshot}"
    folder.mkdir()
    for name in names:
        definition, splits, _ = TASKS[name]
        files = {theirs: str(data / (f"{name}.{ours}.jsonl" if ours else f"{name}.jsonl")) for ours, theirs in splits.items()}
        unused = {f"{split}_split": None for split in ("training", "validation", "test")
                  if {"training": "train"}.get(split, split) not in files}
        (folder / f"{name}.yaml").write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in {
            "include": str(root / definition), "task": f"check_{name}", "tag": [], "dataset_path": "json", "dataset_name": None,
            "dataset_kwargs": {"data_files": files, "cache_dir": str(args.folder / "cache")}, **unused}.items()), encoding="utf-8")
    model = HFLM(pretrained=str(model_folder), dtype="float64", device="cpu", max_length=MAX_LENGTH, batch_size=8)
    results = lm_eval.simple_evaluate(model=model, tasks=[f"check_{name}" for name in names], num_fewshot=num_fewshot,
                                      task_manager=TaskManager(include_path=str(folder), include_defaults=False),
                                      bootstrap_iters=1000)["results"]
    return {name: results[f"check_{name}"] for name in names}


def tandem(args, data, checkpoint, num_fewshot, names):
    done = subprocess.run([args.tandem, "eval", "tasks", checkpoint, "--data", data, "--tasks", ",".join(names), "--num-fewshot",
                           str(num_fewshot), "--max-length", str(MAX_LENGTH), "--dtype", "float64", "--device", "cpu", "--json"],
                          capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"check_tasks: tandem ended with {done.returncode}: {done.stderr}")
    return {record["task"]: record for record in map(json.loads, done.stdout.splitlines())}


def compare(name, num_fewshot, ours, theirs):
    rows = []
    for our_name, their_name in TASKS[name][2].items():
        metric = ours["metrics"][our_name]
        pairs = [(our_name, metric["value"], theirs[f"{their_name},none"])]
        if our_name.startswith("acc"):  # perplexity's is a bootstrap there
            pairs.append((f"{our_name} stderr", metric["stderr"], theirs[f"{their_name}_stderr,none"]))
        for label, a, b in pairs:
            rows.append({"task": name, "num_fewshot": num_fewshot, "metric": label, "tandem": a, "lm_eval": b,
                         "difference": abs(a - b) / max(1.0, abs(b)), "truncated": ours["truncated"]})
    return rows


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tandem", required=True)
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--result", type=pathlib.Path, required=True)
    parser.add_argument("--documents", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    model_folder, checkpoint, data = args.folder / "llama", args.folder / "imported", args.folder / "data"
    write_data(args, data, greedy_text(*make_model(model_folder, args.seed)))
    subprocess.run([args.tandem, "convert", "import", "--format", "hf-llama", model_folder, checkpoint], check=True)
    rows = []
    for num_fewshot in (0, 2):
        names = [name for name in TASKS if num_fewshot == 0 or name != "wikitext"]
        ours, theirs = (run(args, data, where, num_fewshot, names)
                        for run, where in ((tandem, checkpoint), (harness, model_folder)))
        for name in names:
            rows += compare(name, num_fewshot, ours[name], theirs[name])
    for row in rows:
        print(f"{row['task']:18} {row['num_fewshot']} shots  {row['metric']:16} tandem {row['tandem']:.6f}  lm_eval {row['lm_eval']:.6f}  "
              f"difference {row['difference']:.1e}")
    worst = max(rows, key=lambda row: row["difference"])
    args.result.parent.mkdir(parents=True, exist_ok=True)
    versions = {name: importlib.metadata.version(name) for name in ("lm_eval", "transformers", "torch", "tokenizers", "datasets")}
    args.result.write_text(json.dumps({"check": "tasks", "documents": args.documents, "seed": args.seed, "max_length": MAX_LENGTH,
                                       "versions": versions, "largest_difference": worst["difference"], "tolerance": TOLERANCE,
                                       "numbers": rows}, indent=1) + "\n", encoding="utf-8")
    if not worst["difference"] <= TOLERANCE or math.isnan(worst["difference"]):
        raise SystemExit(f"check_tasks: {worst} differs by more than {TOLERANCE}")


if __name__ == "__main__":
    main()
