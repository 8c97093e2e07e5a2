#!/usr/bin/env bash
# A Stable Diffusion checkpoint whose text encoder was saved by transformers 5.24.0: optimum-onnx
# 0.1.0, which needs transformers below 4.58, exports a text encoder of random weights. transformers
# 5 writes CLIP's tensors without the prefix `text_model.`, version 4 finds none of them under its
# own names, draws all of them anew and says so in a log line only. Every export differs, and its
# images do not follow the prompt. The same tensors with the prefix are exported rightly. It hurts
# whoever fine-tunes or resaves a checkpoint today and serves it on ONNX Runtime.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
python3 -m venv saving
python3 -m venv exporting
saving/bin/pip install --quiet torch==2.13.0 transformers==5.24.0 numpy
exporting/bin/pip install --quiet 'optimum-onnx[onnxruntime]==0.1.0' torch==2.13.0 \
    diffusers==0.39.0 transformers==4.57.6 onnxruntime==1.32.0 onnx==1.23.2
saving/bin/python - <<'PYTHON' 2> /dev/null
import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file

print(f"saved by transformers {transformers.__version__}")
torch.manual_seed(0)
config = transformers.CLIPTextConfig(
    vocab_size=194, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
    max_position_embeddings=16, bos_token_id=192, eos_token_id=193, pad_token_id=193,
)
encoder = transformers.CLIPTextModel(config).eval()
ids = torch.tensor([[192, 5, 6, 7, *[193] * 12]])
np.save("ids.npy", ids.numpy())
np.save("states.npy", encoder(ids).last_hidden_state.detach().numpy())
for name in ("saved", "prefixed"):
    encoder.save_pretrained(f"{name}/text_encoder")
file = "prefixed/text_encoder/model.safetensors"
tensors = {f"text_model.{name.removeprefix('text_model.')}": t for name, t in load_file(file).items()}
save_file(tensors, file, {"format": "pt"})
PYTHON
exporting/bin/python - <<'PYTHON' 2> /dev/null
import json
import sys
from importlib.metadata import version
from pathlib import Path

import diffusers
import numpy as np
from optimum.onnxruntime import ORTStableDiffusionPipeline

packages = ("optimum-onnx", "transformers", "diffusers", "onnxruntime", "torch")
print("exported by", ", ".join(f"{name} {version(name)}" for name in packages))
letters = [chr(c) for c in range(33, 129)]
words = letters + [f"{letter}</w>" for letter in letters] + ["<|startoftext|>", "<|endoftext|>"]


def checkpoint(folder):
    diffusers.UNet2DConditionModel(
        sample_size=8, cross_attention_dim=32, attention_head_dim=2, layers_per_block=1,
        block_out_channels=(32, 32), down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).save_pretrained(folder / "unet")
    diffusers.AutoencoderKL(block_out_channels=(32,), sample_size=8).save_pretrained(folder / "vae")
    diffusers.DDIMScheduler().save_pretrained(folder / "scheduler")
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir()
    (tokenizer / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (tokenizer / "merges.txt").write_text("#version: 0.2\n")
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 16}
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(config))
    parts = {
        "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"], "scheduler": ["diffusers", "DDIMScheduler"],
        "tokenizer": ["transformers", "CLIPTokenizer"], "safety_checker": [None, None],
        "feature_extractor": [None, None],
    }
    index = {"_class_name": "StableDiffusionPipeline", **parts}
    (folder / "model_index.json").write_text(json.dumps(index))


def error(folder):
    """The exported text encoder's largest error, relative to its largest value."""
    pipeline = ORTStableDiffusionPipeline.from_pretrained(folder, export=True)
    states = np.asarray(pipeline.text_encoder(input_ids=np.load("ids.npy"))[0])
    wanted = np.load("states.npy")
    return float(np.abs(states - wanted).max() / np.abs(wanted).max())


found = {}
for name in ("prefixed", "saved"):
    checkpoint(Path(name))
    found[name] = error(name)
    print(f"{name}: the text encoder's largest error is {found[name]:.1e} of its largest value")
sys.exit(not found["prefixed"] < 1e-3 < 0.1 < found["saved"])
PYTHON
