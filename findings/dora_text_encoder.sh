#!/usr/bin/env bash
# DoRA of a text encoder: transformers 5.24.0's load_adapter, through which diffusers loads LoRAs of
# text encoders too, does not find the magnitudes of a state dict that peft 0.21.2 itself made: it
# looks for them as `lora_magnitude_vector.NAME.weight`, which PEFT writes without `.weight`. They
# keep what the layer was made with, norms that depend on random matrices, so the same file gives
# another model each time. No error; a table in the log names the keys. peft's own loader is right,
# and plain LoRA loads right in both. It hurts whoever trained DoRA with the text encoder.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
python3 -m venv env
env/bin/pip install --quiet torch==2.13.0 transformers==5.24.0 peft==0.21.2
HF_HOME=$scratch/cache env/bin/python - <<'PYTHON' 2>/dev/null
import sys

import peft
import torch
import transformers
from transformers import CLIPTextConfig, CLIPTextModel

print(f"transformers {transformers.__version__}, peft {peft.__version__}")
CONFIG = CLIPTextConfig(
    vocab_size=99, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
    max_position_embeddings=20, bos_token_id=1, eos_token_id=2,
)
TOKENS = torch.arange(20)[None]
torch.manual_seed(0)
BASE = CLIPTextModel(CONFIG).state_dict()


def fresh():
    model = CLIPTextModel(CONFIG).eval()
    model.load_state_dict(BASE)
    return model


def text_of(model):
    with torch.no_grad():
        return model(TOKENS).last_hidden_state


def errors(dora):
    """How far the loaded models are from the trained one: by peft, and twice by transformers."""
    torch.manual_seed(0)
    settings = peft.LoraConfig(
        r=4, lora_alpha=4, target_modules=["q_proj", "v_proj"], use_dora=dora, init_lora_weights=False
    )
    trained = peft.get_peft_model(fresh(), settings)
    with torch.no_grad():
        for name, parameter in trained.named_parameters():
            if "magnitude" in name:
                parameter.mul_(1.5)
    wanted, state = text_of(trained), peft.get_peft_model_state_dict(trained)
    state = {name: tensor.clone() for name, tensor in state.items()}
    by_peft = peft.get_peft_model(fresh(), settings)
    peft.set_peft_model_state_dict(by_peft, dict(state))
    found = [text_of(by_peft)]
    for seed in (1, 2):
        torch.manual_seed(seed)
        model = fresh()
        short = {name.removeprefix("base_model.model."): t for name, t in state.items()}
        model.load_adapter(peft_config=settings, adapter_state_dict=short, adapter_name="lora")
        found.append(text_of(model))
    return [float((text - wanted).abs().max()) for text in found]


plain, dora = errors(False), errors(True)
for name, found in (("LoRA", plain), ("DoRA", dora)):
    print(f"{name}: off by {found[0]:.3f} in peft, by {found[1]:.3f} and {found[2]:.3f} in transformers")
same = max(plain) < 1e-4 and dora[0] < 1e-4 and min(dora[1:]) > 0.1 and dora[1] != dora[2]
sys.exit(0 if same else "Loading changed: update this finding.")
PYTHON
