"""Compiles the fake CUDA runtime: `build.py PROVIDER HEADERS OUT`.

PROVIDER is ONNX Runtime's `libonnxruntime_providers_cuda.so`, HEADERS a folder with
`cuda_runtime_api.h` of the same major version of CUDA, OUT the folder of the libraries. What the
provider wants of CUDA's libraries is read from it; a function that no file here defines is
written, counts its calls and succeeds. Needs cc, nm and readelf.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
CUDART = "libcudart.so.13"
# cuDNN is opened when the first convolution runs, by either name, and its functions by theirs.
CUDNN = ("libcudnn.so.9", "libcudnn.so")
# What no library of CUDA opens, but synfer-rt does.
NVML = "libnvidia-ml.so.1"
# Functions that make something write a handle that is not NULL to their first argument.
STUB = "int {name}(void **made) {{ COUNT; {body}return 0; }}\n"
MADE = "static long handle; *made = &handle; "


def output(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def wanted(provider: Path) -> dict[str, set[str]]:
    """The functions that the provider takes from each library of CUDA, by the library's name."""
    needed = re.findall(r"\[(lib(?:cu|nv)\S+)\]", output("readelf", "-dW", provider))
    functions: dict[str, set[str]] = {library: set() for library in needed}
    for name, library in re.findall(
        r" U ([A-Za-z]\w+|__cuda\w+)(?:@+(\S+))?", output("nm", "-D", "-u", provider)
    ):
        # The driver's library has no versions.
        library = library or ("libcuda.so.1" if re.match(r"cu[A-Z]", name) else "")
        if library in functions:
            functions[library].add(name)
    names = re.findall(rb"\0(cudnn[A-Z][A-Za-z]+)(?=\0)", provider.read_bytes())
    functions[CUDNN[0]] = {name.decode() for name in names}
    functions[NVML] = set()
    return functions


def compile_object(source: Path, headers: Path, target: Path) -> set[str]:
    """Compile a file of C; the functions that it defines."""
    flags = ("-c", "-fPIC", "-O1", "-Wall", "-Wno-unused", "-Wno-stringop-truncation")
    subprocess.run(
        ["cc", *flags, f"-I{headers}", f"-I{HERE}", str(source), "-o", str(target)], check=True
    )
    return set(re.findall(r" T (\w+)", output("nm", target)))


def build_library(library: str, functions: set[str], headers: Path, out: Path) -> None:
    """One library: the file of its name here, if there is one, and stubs for all the rest."""
    stem = library.removeprefix("lib").split(".so")[0]
    objects, defined = [], set[str]()
    if (own := HERE / f"{stem}.c").exists():
        objects.append(out / f"{stem}.o")
        defined = compile_object(own, headers, objects[-1])
    stubs = out / f"{stem}.stubs.c"
    stubs.write_text(
        '#include "count.h"\n'
        + "".join(
            STUB.format(name=name, body=MADE if "Create" in name else "")
            for name in sorted(functions - defined)
        )
    )
    objects.append(stubs.with_suffix(".o"))
    compile_object(stubs, headers, objects[-1])
    versions = out / f"{stem}.map"
    # A version is named after its library; that of NVML could not be, for its hyphen, and is none.
    version = "" if library == NVML else library
    versions.write_text(f"{version} {{ global: *; }};\n")
    # The counters are in the fake libcudart.
    counters = () if library == CUDART else (str(out / CUDART),)
    flags = ("-shared", f"-Wl,-soname,{library}", f"-Wl,--version-script={versions}")
    subprocess.run(
        ["cc", *flags, *map(str, objects), *counters, "-o", str(out / library)], check=True
    )
    for file in (*objects, stubs, versions):
        file.unlink()


def build(provider: Path, headers: Path, out: Path) -> None:
    """Write every library of CUDA that the provider opens to `out`."""
    out.mkdir(parents=True, exist_ok=True)
    libraries = wanted(provider)
    for library, functions in [(CUDART, libraries.pop(CUDART)), *libraries.items()]:
        build_library(library, functions, headers, out)
    (out / CUDNN[1]).unlink(missing_ok=True)
    (out / CUDNN[1]).symlink_to(CUDNN[0])


if __name__ == "__main__":
    build(*map(Path, sys.argv[1:4]))
