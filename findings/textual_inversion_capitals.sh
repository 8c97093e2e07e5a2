#!/usr/bin/env bash
# A textual inversion of several vectors whose name has a capital letter, EasyNegative say: diffusers
# 0.42.1 with transformers 5.24.0 uses its first vector alone. The CLIP tokenizer now says found
# tokens in lower case, and the pipeline looks for them among the added ones as they are written, so
# the prompt is not expanded. Nothing is logged; the same vectors under a name in lower case are all
# used. It hurts whoever samples with published embeddings of such names.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
python3 -m venv env
env/bin/pip install --quiet torch==2.13.0 diffusers==0.42.1 transformers==5.24.0 numpy
env/bin/python - <<'PYTHON' 2> /dev/null
import json
import sys

import diffusers
import torch
import transformers
from diffusers.loaders import TextualInversionLoaderMixin

print(f"diffusers {diffusers.__version__}, transformers {transformers.__version__}")

letters = [chr(c) for c in range(33, 127)]
words = letters + [f"{letter}</w>" for letter in letters] + ["<|startoftext|>", "<|endoftext|>"]
with open("vocab.json", "w") as file:
    json.dump({word: i for i, word in enumerate(words)}, file)
with open("merges.txt", "w") as file:
    file.write("#version: 0.2\n")


def used(name):
    """How many of three vectors a prompt with the word gets."""
    tokenizer = transformers.CLIPTokenizer("vocab.json", "merges.txt")
    size = len(tokenizer)
    config = transformers.CLIPTextConfig(
        vocab_size=size, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
    )
    pipeline = TextualInversionLoaderMixin()
    pipeline.tokenizer = tokenizer
    pipeline.text_encoder = transformers.CLIPTextModel(config)
    pipeline.components, pipeline.hf_device_map = {}, None
    pipeline.load_textual_inversion({name: torch.randn(3, 8)})
    prompt = pipeline.maybe_convert_prompt(f"a face, {name}", tokenizer)
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    return prompt, sum(number >= size for number in ids)


seen = {name: used(name) for name in ("easynegative", "EasyNegative")}
for name, (prompt, count) in seen.items():
    print(f"{name}: {count} of 3 vectors; the prompt becomes {prompt!r}")
sys.exit([count for _, count in seen.values()] != [3, 1])
PYTHON
