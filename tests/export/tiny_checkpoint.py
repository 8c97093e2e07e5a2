"""Tiny random checkpoints: synfer-mini's kind and those of Stable Diffusion 1.5 and 2.1."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import diffusers
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from synfer_rt.errors import UserError
from synfer_rt.export.checkpoint.contents import FERANNO_FOLDER
from synfer_rt.export.checkpoint.reading import read_checkpoint
from synfer_rt.vocabulary import prompts

TEXT_WIDTH = 16
SD2_TEXT_WIDTH = 24
UNITS = 41
DISFA_UNITS, FINEFACE_HIDDEN = 12, 4  # as in the published ones, they may fill a token


def make_mini(directory: Path) -> None:
    """Word tokenizer, class projection, adapter, classifier, layouts, v-prediction, zero SNR."""
    torch.manual_seed(0)
    tokenizer = _word_tokenizer(24)
    unet = _unet(
        1, class_embed_type="projection", projection_class_embeddings_input_dim=TEXT_WIDTH + UNITS
    )
    scheduler = diffusers.DDIMScheduler(
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
    )
    text_encoder = _text_encoder(len(tokenizer), 24, bos=2, eos=3)
    _save(
        directory,
        scheduler,
        unet=unet,
        vae=_vae(shift_factor=0.1),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
    )
    save_adapter(unet, directory / "au_adapter.safetensors")
    (directory / "classifiers").mkdir()
    save_classifier(directory / "classifiers" / "small.onnx", channels=3, classes=8)
    (directory / "classifiers" / "small.json").write_text(
        json.dumps(
            {
                "label_scheme": "affectnet-8",
                "input_size": 24,
                "channels": "rgb",
                "mean": [0.5, 0.4, 0.3],
                "std": [0.2, 0.3, 0.5],
                "output": "logits",
            }
        )
    )
    np.savez(
        directory / "layouts.npz",
        latents=np.random.default_rng(1).standard_normal((5, 4, 8, 8)).astype("f2"),
        age=np.array(["young"] * 5),
        gender=np.array(["female"] * 5),
        ancestry=np.array(["European"] * 5),
    )
    settings = {
        "name": "mini",
        "version": "3",
        "licence": "Apache-2.0",
        "description": "random weights",
        "annotators_know": "coloured noise",
        "au_vocabulary": "opengraphau-41",
        "label_scheme": "affectnet-8",
        "defaults": {"solver": "ddim", "steps": 6, "guidance": 3.0, "layout": "bank"},
        "class_labels": ["pooled_text", "aus"],
    }
    (directory / "synfer.json").write_text(json.dumps(settings))


def make_sd(directory: Path, adapter: bool = True) -> None:
    """CLIP tokenizer, the scheduler of Stable Diffusion 1.5, epsilon; no files of SynFER's own."""
    torch.manual_seed(1)
    tokenizer = _clip_tokenizer(directory / "tokenizer")
    unet = _unet(2 if adapter else 1)
    scheduler = diffusers.PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    text_encoder = _text_encoder(len(tokenizer), 20, bos, eos)
    _save(directory, scheduler, unet=unet, vae=_vae(), text_encoder=text_encoder)
    index = json.loads((directory / "model_index.json").read_text())
    index["tokenizer"] = ["transformers", "CLIPTokenizer"]
    (directory / "model_index.json").write_text(json.dumps(index))
    if adapter:
        save_adapter(unet, directory / "au_adapter.safetensors")


def make_sd2(
    directory: Path, prediction_type: Literal["epsilon", "v_prediction"] = "v_prediction"
) -> None:
    """What sets Stable Diffusion 2.1 apart: linear projections, heads by level, the other CLIP.

    Its text encoder ends a layer early, with GELU, and its tokenizer pads with "!".
    """
    torch.manual_seed(2)
    tokenizer = _clip_tokenizer(directory / "tokenizer", pad_token="!")
    unet = _unet(
        2,
        cross_attention_dim=SD2_TEXT_WIDTH,
        attention_head_dim=[2, 4],
        use_linear_projection=True,
        upcast_attention=True,
    )
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
    )
    text_encoder = _text_encoder(
        len(tokenizer),
        20,
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
        hidden_act="gelu",
        hidden_size=SD2_TEXT_WIDTH,
        num_hidden_layers=2,
    )
    _save(directory, scheduler, unet=unet, vae=_vae(), text_encoder=text_encoder)
    index = json.loads((directory / "model_index.json").read_text())
    index["tokenizer"] = ["transformers", "CLIPTokenizer"]
    index |= {"safety_checker": [None, None], "requires_safety_checker": False}
    (directory / "model_index.json").write_text(json.dumps(index))


def make_lcm(directory: Path) -> None:
    """A latent consistency model as SimianLuo/LCM_Dreamshaper_v7: its UNet embeds guidance."""
    make_sd(directory, adapter=False)
    torch.manual_seed(3)
    _unet(2, time_cond_proj_dim=8).save_pretrained(directory / "unet")
    diffusers.LCMScheduler(clip_sample=False, steps_offset=0).save_pretrained(
        directory / "scheduler"
    )
    index = json.loads((directory / "model_index.json").read_text())
    index |= {
        "_class_name": "LatentConsistencyModelPipeline",
        "scheduler": ["diffusers", "LCMScheduler"],
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "safety_checker": [None, None],
        "requires_safety_checker": True,
    }
    (directory / "model_index.json").write_text(json.dumps(index))


def save_additions(directory: Path) -> None:
    """FERAnno, both guiding classifiers and an AU reader for `make_mini`'s, of random weights."""
    from synfer_rt.export.graphs import trained_feranno as feranno
    from synfer_rt.export.networks.guiding_classifier import ExpressionNet, NetConfig
    from synfer_rt.export.networks.modules import Conditioner, Denoiser

    torch.manual_seed(7)
    ExpressionNet(NetConfig(4, 8, 1, (16, 16), "affectnet-8")).save(directory / "latent_classifier")
    ExpressionNet(NetConfig(3, 16, 2, (16, 16), "raf-db")).save(directory / "image_classifier")
    save_classifier(directory / "au_reader.onnx", channels=3, classes=UNITS)
    fields = json.loads((directory / "classifiers" / "small.json").read_text())
    del fields["label_scheme"]
    (directory / "au_reader.json").write_text(
        json.dumps(fields | {"au_vocabulary": "opengraphau-41"})
    )
    read = read_checkpoint(directory)
    labels = read.settings.class_labels
    conditioner = Conditioner(read.text_encoder, read.unet, read.adapter, labels).eval()
    denoiser = Denoiser(read.unet, conditioner.outputs, read.adapter).eval()
    scheme, model = "affectnet-7", feranno.model_fingerprint(read)
    config = feranno.FERAnnoConfig(scheme, feranno.prompt_of(scheme), 16, model)
    annotator = feranno.new_feranno(read, conditioner, denoiser, config)
    with torch.no_grad():  # the normalisation sees a few latents
        annotator.head.train()(*annotator.read(torch.randn(8, *read.latent_shape)))
    feranno.save_head(directory / FERANNO_FOLDER, annotator.eval().head.state_dict(), config)


def _unet(levels: int, **options: Any) -> Any:
    """One level without a middle, or two levels with one and with up- and downsampling."""
    parts = {
        "sample_size": 8,
        "block_out_channels": (16, 32)[:levels],
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D")[:levels],
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")[-levels:],
        "mid_block_type": "UNetMidBlock2DCrossAttn" if levels > 1 else None,
        "layers_per_block": 1,
        "cross_attention_dim": TEXT_WIDTH,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    return diffusers.UNet2DConditionModel(**(parts | options))


def _vae(**options: Any) -> Any:
    kind: Any = diffusers.AutoencoderKL  # its annotations allow one level only
    return kind(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
        scaling_factor=0.4,
        **options,
    )


def _text_encoder(vocab: int, positions: int, bos: int, eos: int, **options: Any) -> Any:
    parts: dict[str, Any] = {
        "vocab_size": vocab,
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": positions,
        "bos_token_id": bos,
        "eos_token_id": eos,
    }
    return transformers.CLIPTextModel(transformers.CLIPTextConfig(**(parts | options)))


def _save(directory: Path, scheduler: Any, **parts: Any) -> None:
    index: dict[str, Any] = {"_class_name": "StableDiffusionPipeline"}
    for name, part in {**parts, "scheduler": scheduler}.items():
        part.save_pretrained(directory / name)
        library = "diffusers" if type(part).__module__.startswith("diffusers") else "transformers"
        index[name] = [library, type(part).__name__]
    (directory / "model_index.json").write_text(json.dumps(index))


def save_adapter(
    unet: Any, path: Path, units: int = UNITS, tokens: int = 1, norm: bool = False
) -> None:
    """A random adapter for `unet` in SynFER's layout, of one linear layer and a norm if wanted."""
    width = unet.config.cross_attention_dim
    tensors = {
        "image_proj.proj.weight": torch.randn(tokens * width, units) / units**0.5,
        "image_proj.proj.bias": torch.randn(tokens * width),
    }
    if norm:
        tensors["image_proj.norm.weight"] = 1 + torch.rand(width)
        tensors["image_proj.norm.bias"] = torch.randn(width)
    for i, name in enumerate(unet.attn_processors):
        if ".attn2." in name:
            inner = unet.get_submodule(name.removesuffix(".processor")).inner_dim
            for kind in "kv":
                tensors[f"ip_adapter.{i}.to_{kind}_ip.weight"] = torch.randn(inner, width)
    save_file(tensors, path)


def save_fineface(unet: Any, directory: Path) -> None:
    """A random FineFace model for `unet`, in the three files that its training code writes."""
    width = unet.config.cross_attention_dim
    directory.mkdir(parents=True)
    encoder = torch.nn.Linear(DISFA_UNITS, FINEFACE_HIDDEN)
    torch.save(
        {f"au_encoder.{name}": tensor for name, tensor in encoder.state_dict().items()},
        directory / "au_encoder.ckpt",
    )
    attention = {}
    for name in unet.attn_processors:
        if ".attn2." in name:
            inner = unet.get_submodule(name.removesuffix(".processor")).inner_dim
            for kind in "kv":
                attention[f"{name}.au_to_{kind}.weight"] = torch.randn(inner, width) / 3
    torch.save(attention, directory / "attn_processors.ckpt")
    save_lora(directory, unet=unet)


def save_lora(directory: Path, scale: float = 0.2, alpha: int = 2, **models: Any) -> Path:
    """A random LoRA of rank 2 for `models` (unet, text_encoder), with diffusers' names.

    Another alpha than the rank stands in PEFT's settings in the header, as diffusers writes them.
    """
    tensors, settings = {}, {}
    for part, model in models.items():
        ends = "to_q to_v to_out.0 ff.net.2 conv1" if part == "unet" else "q_proj fc1"
        for name, layer in model.named_modules():
            if not name.endswith(tuple(f".{end}" for end in ends.split())):
                continue
            out, into, *kernel = layer.weight.shape
            ones = [1 for _ in kernel]
            key = f"{part}.{name}"
            tensors[f"{key}.lora_A.weight"] = scale * torch.randn(2, into, *kernel)
            tensors[f"{key}.lora_B.weight"] = scale * torch.randn(out, 2, *ones)
        fields = {"r": 2, "lora_alpha": alpha, "target_modules": ends.split()}
        settings |= {f"{part}.{name}": value for name, value in fields.items()}
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "pytorch_lora_weights.safetensors"
    header = {"lora_adapter_metadata": json.dumps(settings)} if alpha != 2 else {}
    save_file(tensors, path, {"format": "pt"} | header)
    return path


def _word_tokenizer(length: int) -> Any:
    words = sorted({word.lower() for word in prompts.words()} - {","})
    vocabulary = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[BOS]", "[EOS]", ",", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(",", "isolated")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[BOS] $A [EOS]", special_tokens=[("[BOS]", 2), ("[EOS]", 3)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        bos_token="[BOS]",
        eos_token="[EOS]",
        model_max_length=length,
    )


def _clip_tokenizer(folder: Path, **special: str) -> Any:
    """A CLIP tokenizer with single letters and a few merges, from vocab.json, merges.txt."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = ["a n", "p h", "ph o", "t o</w>", "pho to</w>", "f a", "fa c", "fac e</w>"]
    symbols = [*letters, *(f"{letter}</w>" for letter in letters)]
    symbols += [merge.replace(" ", "") for merge in merges]
    symbols += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({s: i for i, s in enumerate(symbols)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 20} | special
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return transformers.CLIPTokenizer.from_pretrained(folder)


def save_classifier(path: Path, channels: int, classes: int, opset: int = 17) -> None:
    """A random ONNX classifier: 3x3 convolution of stride 4, mean over pixels, logits."""
    from onnx import TensorProto, helper, numpy_helper, save

    draw = np.random.default_rng(5)
    weights = {
        "kernel": draw.standard_normal((classes, channels, 3, 3)).astype("f4"),
        "bias": draw.standard_normal(classes).astype("f4"),
    }
    nodes = [
        helper.make_node("Conv", ["x", "kernel", "bias"], ["maps"], strides=[4, 4]),
        helper.make_node("GlobalAveragePool", ["maps"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["logits"]),
    ]
    shape = ["N", channels, 24, 24]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", classes])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


def change(path: Path, **fields: Any) -> None:
    """Other fields in a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def refusal(directory: Path) -> str:
    """What is said of a checkpoint that is wrong."""
    with pytest.raises(UserError) as error:
        read_checkpoint(directory)
    return str(error.value)
