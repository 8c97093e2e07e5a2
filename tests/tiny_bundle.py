"""A bundle of the real anatomy in miniature: 4x8x8 latents, 32x32 images, weights drawn at random.

Its engines keep the whole contract (guidance and solver step in the denoiser, both guidance
branches in the conditioner), so that the run side is tested without training or exporting.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper, parser
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from synfer_rt.bundle import Bundle, write_manifest
from synfer_rt.bundle.cuda import cuda_file, cuda_interface
from synfer_rt.vocabulary import prompts

OPSET, TOKENS, WIDTH, AUS = 21, 48, 8, 41
LATENT, IMAGE = (4, 8, 8), (32, 32)
CLASSIFIER_SCHEME = "hsemotion-8"

_CONDITIONER = """
conditioner (int64[B,2,48] tokens, float[B,2,41] aus, float[B] au_scale)
    => (float[B,2,8] text, float[B,2,8] au_bias) {
  words = Gather (embedding, tokens)
  axis = Constant <value_ints = [2]> ()
  mean = ReduceMean <keepdims = 0> (words, axis)
  text = Tanh (mean)
  last = Constant <value_ints = [1, 2]> ()
  scale = Unsqueeze (au_scale, last)
  token = MatMul (aus, au_weight)
  au_bias = Mul (token, scale)
}
"""

_CONDITIONER_WITHOUT_AUS = """
conditioner (int64[B,2,48] tokens) => (float[B,2,8] text) {
  words = Gather (embedding, tokens)
  axis = Constant <value_ints = [2]> ()
  mean = ReduceMean <keepdims = 0> (words, axis)
  text = Tanh (mean)
}
"""

_DENOISER = """
denoiser (float[B,4,8,8] latents, float[B,3,4,8,8] history, float timestep, float[B] guidance,
          float[4,5] coefficients, float[B,2,8] text, float[B,2,8] au_bias)
    => (float[B,4,8,8] next_latents, float[B,3,4,8,8] next_history, float[B,4,8,8] prediction) {
  one = Constant <value_ints = [1]> ()
  both = Unsqueeze (latents, one)
  twice = Concat <axis = 1> (both, both)
  area = Shape <start = -2> (latents)
  any_four = Constant <value_ints = [-1, 4]> ()
  image_shape = Concat <axis = 0> (any_four, area)
  x = Reshape (twice, image_shape)
  hidden = Conv <pads = [1, 1, 1, 1]> (x, conv_in)

  angle = Mul (timestep, frequencies)
  sine = Sin (angle)
  cosine = Cos (angle)
  time = Concat <axis = 0> (sine, cosine)
  said = MatMul (text, text_weight)
  told = Add (said, au_bias)
  known = Add (told, time)
  bias_shape = Constant <value_ints = [-1, 8, 1, 1]> ()
  bias = Reshape (known, bias_shape)
  biased = Add (hidden, bias)
  active = Tanh (biased)
  y = Conv <pads = [1, 1, 1, 1]> (active, conv_out)

  any_two_four = Constant <value_ints = [-1, 2, 4]> ()
  pair_shape = Concat <axis = 0> (any_two_four, area)
  pair = Reshape (y, pair_shape)
  first = Constant <value_int = 0> ()
  second = Constant <value_int = 1> ()
  unconditional = Gather <axis = 1> (pair, first)
  conditional = Gather <axis = 1> (pair, second)
  difference = Sub (conditional, unconditional)
  guidance_axes = Constant <value_ints = [1, 2, 3]> ()
  weight = Unsqueeze (guidance, guidance_axes)
  pushed = Mul (weight, difference)
  prediction = Add (unconditional, pushed)

  predicted = Unsqueeze (prediction, one)
  stack = Concat <axis = 1> (both, predicted, history)
  flat_shape = Constant <value_ints = [0, 0, -1]> ()
  flat = Reshape (stack, flat_shape)
  stepped = MatMul (coefficients, flat)
  four_four = Constant <value_ints = [0, 4, 4]> ()
  row_shape = Concat <axis = 0> (four_four, area)
  rows = Reshape (stepped, row_shape)
  next_latents = Gather <axis = 1> (rows, first)
  end = Constant <value_ints = [4]> ()
  next_history = Slice (rows, one, end, one)
}
"""

_DECODER = """
decoder (float[B,4,8,8] latents) => (float[B,3,32,32] images) {
  scales = Constant <value_floats = [1.0, 1.0, 4.0, 4.0]> ()
  nothing = Constant <value_floats: floats = []> ()
  large = Resize <mode = "nearest"> (latents, nothing, scales)
  colour = Conv <pads = [1, 1, 1, 1]> (large, weight)
  images = Sigmoid (colour)
}
"""

# Sound in float32; float16 ends at 65504.
_DECODER_THAT_OVERFLOWS = """
decoder (float[B,4,8,8] latents) => (float[B,3,32,32] images) {
  large = Constant <value_float = 1000000.0> ()
  amplified = Mul (latents, large)
  half = Cast <to = 10> (amplified)
  single = Cast <to = 1> (half)
  restored = Div (single, large)
  scales = Constant <value_floats = [1.0, 1.0, 4.0, 4.0]> ()
  nothing = Constant <value_floats: floats = []> ()
  wide = Resize <mode = "nearest"> (restored, nothing, scales)
  colour = Conv <pads = [1, 1, 1, 1]> (wide, weight)
  images = Sigmoid (colour)
}
"""

_ENCODER = """
encoder (float[B,3,32,32] images) => (float[B,4,8,8] mean, float[B,4,8,8] logvar) {
  small = AveragePool <kernel_shape = [4, 4], strides = [4, 4]> (images)
  mean = Conv (small, mean_weight)
  logvar = Conv (small, logvar_weight)
}
"""

_CLASSIFIER = """
classifier (float[B,3,32,32] images) => (float[B,8] probabilities) {
  small = AveragePool <kernel_shape = [8, 8], strides = [8, 8]> (images)
  features = Flatten (small)
  logits = Gemm (features, weight)
  probabilities = Softmax (logits)
}
"""


_POOLED = "small = AveragePool <kernel_shape = [8, 8], strides = [8, 8]> (images)"
_RESIZED = """batch_and_colours = Shape <end = 2> (images)
  four_by_four = Constant <value_ints = [4, 4]> ()
  size = Concat <axis = 0> (batch_and_colours, four_by_four)
  nothing = Constant <value_floats: floats = []> ()
  small = Resize <mode = "linear"> (images, nothing, nothing, size)"""


def build(
    directory: Path,
    *,
    with_aus: bool = True,
    with_classifier: bool = True,
    decoder_overflows: bool = False,
    sizes: dict[str, int] | None = None,
) -> Bundle:
    """Write the bundle into `directory` and open it; with `sizes` its height and width are free."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer()
    tokenizer.save(str(directory / "tokenizer.json"))
    draws = np.random.default_rng(7)

    def weights(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
        return {name: draws.standard_normal(s).astype(np.float32) for name, s in shapes.items()}

    embedding = weights(embedding=(tokenizer.get_vocab_size(), WIDTH))
    au_weight = weights(au_weight=(AUS, WIDTH))
    drawn = weights(conv_in=(WIDTH, 4, 3, 3), conv_out=(4, WIDTH, 3, 3), text_weight=(8, 8))
    denoiser: dict[str, np.ndarray] = {name: w * 0.3 for name, w in drawn.items()}
    denoiser["frequencies"] = (np.pi / 1000 * np.array([1, 2, 4, 8])).astype(np.float32)
    decoder = {"weight": 0.2 * weights(weight=(3, 4, 3, 3))["weight"]}
    encoder = weights(mean_weight=(4, 3, 1, 1), logvar_weight=(4, 3, 1, 1))
    classifier = weights(weight=(48, 8))

    graphs = {
        "conditioner": (_CONDITIONER, embedding | au_weight),
        "denoiser": (_DENOISER, denoiser),
        "decoder": (_DECODER_THAT_OVERFLOWS if decoder_overflows else _DECODER, decoder),
        "encoder": (_ENCODER, encoder),
        "classifier.small": (_CLASSIFIER, classifier),
    }
    if not with_aus:
        graphs["conditioner"] = (_CONDITIONER_WITHOUT_AUS, embedding)
        text = _DENOISER.replace(", float[B,2,8] au_bias", "")
        graphs["denoiser"] = (text.replace("(told, time)", "(said, time)"), denoiser)
        text = graphs["denoiser"][0].replace("  told = Add (said, au_bias)\n", "")
        graphs["denoiser"] = (text, denoiser)
    if not with_classifier:
        del graphs["classifier.small"]
    if sizes is not None:
        for name, (text, weights_) in graphs.items():
            text = text.replace(_POOLED, _RESIZED)
            text = text.replace(",8,8]", ",h,w]").replace(",32,32]", ",H,W]")
            graphs[name] = (text, weights_)
    engines = {name: _engine(directory, name, *graph) for name, graph in graphs.items()}

    layouts = {
        "latents": draws.standard_normal((6, *LATENT)).astype(np.float16),
        "age": np.array(["child", "young", "middle-aged", "elderly", "young", "young"]),
        "gender": np.array(["female", "male"] * 3),
        "ancestry": np.array(["African", "East Asian", "European"] * 2),
    }
    np.savez(directory / "layouts.npz", **layouts)
    fields = manifest(engines, with_aus=with_aus)
    return write_manifest(directory, fields if sizes is None else {**fields, "sizes": sizes})


def add_engines(
    bundle: Bundle,
    directory: Path,
    graphs: dict[str, tuple[str, dict[str, np.ndarray]]],
    schemes: dict[str, str] | None = None,
) -> Bundle:
    """A copy of a bundle in `directory` that has these engines too: text and weights of each.

    `schemes` are the label schemes of classifiers and annotators.
    """
    shutil.copytree(bundle.path, directory)
    fields = {k: v for k, v in bundle.manifest.items() if k not in ("format", "files")}
    added = {name: _engine(directory, name, *graph) for name, graph in graphs.items()}
    for name, scheme in (schemes or {}).items():
        added[name]["label_scheme"] = scheme
    return write_manifest(directory, {**fields, "engines": {**fields["engines"], **added}})


def add_plans(
    bundle: Bundle,
    target: str = "tensorrt-rtx",
    version: str = "1.7.1",
    batches: tuple[int, int, int] = (1, 4, 8),
) -> Bundle:
    """Give a bundle plans, which are its ONNX files with their weights, and open it again."""
    entries = {}
    latent = bundle.latent.height, bundle.latent.width
    axes = bundle.sizes.axes(bundle.image_size, latent) if bundle.sizes else {}
    for name, spec in bundle.engines.items():
        file = f"{target}/{name}.plan"
        (bundle.path / file).parent.mkdir(exist_ok=True)
        whole = onnx.load(bundle.path / spec.file)  # weights that lie beside it too
        (bundle.path / file).write_bytes(whole.SerializeToString())
        profiles = {
            tensor.name: {
                key: [
                    {"B": batches, **axes}[n][i] if isinstance(n, str) else n for n in tensor.shape
                ]
                for i, key in enumerate(("min", "opt", "max"))
            }
            for tensor in spec.inputs
        }
        entries[name] = {
            "file": file,
            "version": version,
            "compute_capabilities": ["sm80", "sm89"],
            "profiles": profiles,
            "precision": "fp16",
            "source_sha256": bundle.manifest["files"][spec.file]["sha256"],
        }
    fields = {k: v for k, v in bundle.manifest.items() if k not in ("format", "files")}
    plans = {**fields.get("plans", {}), target: entries}
    return write_manifest(bundle.path, {**fields, "plans": plans})


def add_cuda_engines(bundle: Bundle, precision: str = "fp16") -> Bundle:
    """Give a bundle CUDA engines by name alone, and open it again; nothing can run them."""
    entries = {}
    for name, spec in bundle.engines.items():
        file = cuda_file(spec)
        (bundle.path / file).write_bytes(name.encode())
        inputs, outputs = (list(map(asdict, side)) for side in cuda_interface(spec))
        entries[name] = {
            "file": file,
            "precision": precision,
            "inputs": inputs,
            "outputs": outputs,
            "source_sha256": bundle.manifest["files"][spec.file]["sha256"],
            "nodes": 12,
            "parity": {"tolerance": 2e-2, "max_relative_error": 1e-3, "batches": [1, 3]},
            "build_key": name,
        }
    fields = {k: v for k, v in bundle.manifest.items() if k not in ("format", "files")}
    return write_manifest(bundle.path, {**fields, "cuda": entries})


def manifest(engines: dict[str, Any], *, with_aus: bool = True) -> dict[str, Any]:
    """The fields of bundle.json for these engines."""
    return {
        "name": "synfer-tiny",
        "version": "1.0",
        "licence": "Apache-2.0",
        "description": "A bundle for tests; its images are coloured noise.",
        "image_size": list(IMAGE),
        "latent": {"channels": 4, "height": 8, "width": 8, "scaling_factor": 1.0},
        "prediction_type": "v_prediction",
        "schedule": {
            "num_train_timesteps": 1000,
            "beta_schedule": "scaled_linear",
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "rescale_zero_terminal_snr": True,
            "timestep_spacing": "trailing",
            "steps_offset": 0,
            "set_alpha_to_one": True,
        },
        "history_slots": 3,
        "au_vocabulary": "opengraphau-41" if with_aus else None,
        "label_scheme": "affectnet-8",
        "tokenizer": {"file": "tokenizer.json", "max_length": TOKENS},
        "defaults": {
            "solver": "dpmpp-2m",
            "steps": 4,
            "guidance": 2.0,
            "au_scale": 1.0,
            "layout": "bank",
            "layout_strength": 0.9,
            "negative_prompt": "",
        },
        "layouts": {"file": "layouts.npz", "count": 6},
        "engines": engines,
        "source": {},
        "exporter": {"onnx": onnx.__version__},
    }


def _engine(
    directory: Path, name: str, text: str, weights: dict[str, np.ndarray]
) -> dict[str, Any]:
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["": {OPSET}]>\n{text}')
    model.graph.initializer.extend(numpy_helper.from_array(w, n) for n, w in weights.items())
    onnx.save(model, directory / f"{name}.onnx")
    spec = {
        "file": f"{name}.onnx",
        "precision": "fp32",
        "opset": OPSET,
        "inputs": [_tensor(value) for value in model.graph.input],
        "outputs": [_tensor(value) for value in model.graph.output],
        "parity": {"tolerance": 1e-4, "max_relative_error": 0.0, "batches": [1, 3]},
        "parity_openvino": {"tolerance": 1e-3, "max_relative_error": 0.0, "batches": [1, 3, 24]},
    }
    return spec | ({"label_scheme": CLASSIFIER_SCHEME} if name.startswith("classifier.") else {})


def _tensor(value: onnx.ValueInfoProto) -> dict[str, Any]:
    tensor = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    shape = [d.dim_param or d.dim_value for d in tensor.shape.dim]
    return {"name": value.name, "dtype": dtype, "shape": shape}


def _tokenizer() -> Tokenizer:
    words = [
        "<pad>",
        "<unk>",
        "<start>",
        "<end>",
        *dict.fromkeys(w.lower() for w in prompts.words()),
    ]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(",", "isolated")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 2), ("<end>", 3)]
    )
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding(length=TOKENS, pad_id=0, pad_token="<pad>")
    return tokenizer
