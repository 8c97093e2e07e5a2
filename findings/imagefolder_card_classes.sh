#!/usr/bin/env bash
# A folder of class folders with a dataset card whose dataset_info lists the classes in an order of
# its own: load_dataset_builder (datasets 5.2.0) shows the card's classes, load_dataset of the same
# folder numbers them alphabetically instead, without a word. The same dataset_info is followed for
# Parquet and tar files; the folder loader follows only `features` under `configs`. It hurts whoever
# publishes class folders with a card: the labels that are loaded are not those that it declares.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
python3 -m venv env
env/bin/pip install --quiet datasets==5.2.0 pyarrow==26.0.1 pillow==13.0.0
HF_HOME=$scratch/cache env/bin/python - <<'PYTHON'
import os
import sys

import datasets
import yaml
from PIL import Image

datasets.disable_progress_bars()
print(f"datasets {datasets.__version__}")
names = ["neutral", "happy", "sad"]
for name in names:
    os.makedirs(f"faces/{name}")
    Image.new("RGB", (8, 8)).save(f"faces/{name}/face.png")
features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})


def write_card(**header):
    with open("faces/README.md", "w") as card:
        card.write(f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n")


def loaded():
    return datasets.load_dataset("faces", split="train").features["label"].names


info = {"features": features._to_yaml_list()}
write_card(dataset_info=info)
shown = datasets.load_dataset_builder("faces").info.features["label"].names
ignored = loaded()
write_card(dataset_info=info, configs=[{"config_name": "default", **info}])
followed = loaded()
print(f"the card:                  {names}")
print(f"load_dataset_builder:      {shown}")
print(f"load_dataset:              {ignored}")
print(f"... features in configs:   {followed}")
same = (shown, ignored, followed) == (names, sorted(names), names)
sys.exit(0 if same else "The loader follows the card now: update this finding.")
PYTHON
