#!/usr/bin/env bash
# The webdataset loader of Hugging Face datasets 5.2.0 takes the type of a number in a sample's .json
# from the first samples of the first shard. If these say 0 and a later one says 0.8, the later
# value is read as 0: fractions are cut off, without an error or a warning. It hurts whoever keeps
# intensities of action units, ages or scores in a tar, and whose first faces have whole numbers.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
python3 -m venv env
env/bin/pip install --quiet datasets==5.2.0 pyarrow==26.0.1
HF_HOME=$scratch/cache env/bin/python - <<'PYTHON'
import io
import json
import sys
import tarfile

import datasets
import pyarrow

given = [0] * 10 + [0.8, 0.25, 2.9]
with tarfile.open("faces.tar", "w") as tar:
    for number, value in enumerate(given):
        content = json.dumps({"AU12": value}).encode()
        member = tarfile.TarInfo(f"{number:04d}.json")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))

print(f"datasets {datasets.__version__}, pyarrow {pyarrow.__version__}")
cut = [int(value) for value in given]
surprises = []
for streaming in (False, True):
    rows = datasets.load_dataset(
        "webdataset", data_files="faces.tar", split="train", streaming=streaming
    )
    read = [row["json"]["AU12"] for row in rows]
    print(f"streaming={streaming}: written {given[-4:]}, read {read[-4:]}")
    surprises.append(read == cut)
sys.exit(0 if all(surprises) else "The loader no longer cuts fractions off: update this finding.")
PYTHON
