#!/usr/bin/env bash
# onnxruntime-gpu 1.31.1 has two extras, `cuda` and `cudnn`. Its CUDA provider is linked with cuBLAS
# and cuBLASLt, but the extra `cuda` brings every CUDA library except these: nvidia-cublas comes
# only with the extra `cudnn`, as what cuDNN itself depends on. With [cuda] alone the provider cannot
# be loaded, and a session goes on with the CPU provider; only a line on stderr names the library. It
# hurts who serves a network without convolutions (a text encoder, say), needs no cuDNN and leaves
# its 0.5 GB out: the GPU idles, and every result is right.
set -euo pipefail
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
python3 -m venv env
export PIP_DISABLE_PIP_VERSION_CHECK=1
env/bin/pip download --quiet --no-deps --dest wheel onnxruntime-gpu==1.31.1
for extra in cuda cudnn; do
    env/bin/pip install --quiet --dry-run --report "$extra.json" "onnxruntime-gpu[$extra]==1.31.1"
done
env/bin/python - <<'PYTHON'
import glob
import json
import re
import subprocess
import sys
import zipfile

(wheel,) = glob.glob("wheel/*.whl")
print(wheel)
library = "onnxruntime/capi/libonnxruntime_providers_cuda.so"
zipfile.ZipFile(wheel).extract(library)
dynamic = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True)
needed = re.findall(r"NEEDED.*\[(lib(?:cu|nv)[^\]]*)\]", dynamic.stdout)
print("the CUDA provider is linked with", ", ".join(sorted(needed)))


def brought(extra):
    with open(f"{extra}.json") as file:
        found = json.load(file)["install"]
    names = {package["metadata"]["name"] for package in found}
    return sorted(name for name in names if name.startswith("nvidia"))


cuda, cudnn = brought("cuda"), brought("cudnn")
print("[cuda] brings", ", ".join(cuda))
print("[cudnn] brings", ", ".join(cudnn))
as_seen = (
    {"libcublas.so.13", "libcublasLt.so.13"} <= set(needed)
    and "nvidia-cublas" not in cuda
    and "nvidia-cuda-runtime" in cuda
    and "nvidia-cublas" in cudnn
)
sys.exit(0 if as_seen else "The extras bring other libraries now; update this finding.")
PYTHON
