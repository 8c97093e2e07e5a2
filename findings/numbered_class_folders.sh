#!/usr/bin/env bash
# Class folders named by numbers of one and two digits, as in AffectNet's image tree (0 to 10) or
# RAF-DB's compound expressions (1 to 11): timm 1.0.31 sorts them as numbers, the imagefolder loader
# of datasets 5.2.0 (and torchvision, by its documented rule) as text, so "10" comes third. Both
# number the classes by that order and read the same folder with other labels. It hurts whoever
# trains with the one and evaluates with the other.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
python3 -m venv env
env/bin/pip install --quiet datasets==5.2.0 pyarrow==26.0.1 pillow==13.0.0
env/bin/pip install --quiet --no-deps timm==1.0.31
HF_HOME=$scratch/cache env/bin/python - <<'PYTHON'
import os
import sys
from importlib import metadata, util
from types import ModuleType

import datasets
from PIL import Image

# timm as a whole needs torch and torchvision; its reader of folders needs neither.
root = os.path.dirname(str(util.find_spec("timm").origin))
for package in ("timm", "timm.utils", "timm.data", "timm.data.readers"):
    module = ModuleType(package)
    module.__path__ = [os.path.join(root, *package.split(".")[1:])]
    sys.modules[package] = module
from timm.data.readers.reader_image_folder import find_images_and_targets

datasets.disable_progress_bars()
print(f"datasets {datasets.__version__}, timm {metadata.version('timm')}")
for name in range(11):
    os.makedirs(f"faces/{name}")
    Image.new("RGB", (8, 8)).save(f"faces/{name}/face.png")

by_datasets = datasets.load_dataset("imagefolder", data_dir="faces", split="train").features["label"].names
by_timm = sorted(numbers := find_images_and_targets("faces")[1], key=numbers.get)
print(f"datasets: {by_datasets}")
print(f"timm:     {by_timm}")
text = sorted(map(str, range(11)))
number = list(map(str, range(11)))
sys.exit(0 if (by_datasets, by_timm) == (text, number) else "The orders changed: update this finding.")
PYTHON
