"""The engines of a model as PyTorch modules, with example inputs of any batch and size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from synfer_rt.bundle import FERANNO
from synfer_rt.bundle.engine_specs import (
    CACHING,
    CONDITIONAL,
    DENOISER,
    DISTILLED,
    FEATURES,
    ONE_BRANCH,
    REUSING,
    STORING,
)
from synfer_rt.bundle.sizes import Size
from synfer_rt.diffusion.solvers import HISTORY_SLOTS
from synfer_rt.errors import UserError
from synfer_rt.export.checkpoint.contents import FERANNO_FOLDER, Checkpoint
from synfer_rt.export.checkpoint.distilled import DISTILLED_FOLDER
from synfer_rt.export.checkpoint.tokenizer import PROBES
from synfer_rt.export.files.model_folder import load_model
from synfer_rt.export.graphs.trained_feranno import read_feranno
from synfer_rt.export.networks.cached_unet import ReusingDenoiser, StoringDenoiser
from synfer_rt.export.networks.guide import LatentGuide, TextGuide
from synfer_rt.export.networks.guiding_classifier import (
    IMAGE_FOLDER,
    LATENT_FOLDER,
    Decoded,
    ExpressionLoss,
    class_remarks,
    classes_of,
    read_guiding,
)
from synfer_rt.export.networks.guiding_onnx import GuidingOnnx
from synfer_rt.export.networks.image_network import compose_network, reference_outputs
from synfer_rt.export.networks.modules import (
    Conditioner,
    Decoder,
    Denoiser,
    Encoder,
)
from synfer_rt.export.networks.one_branch import ConditionalDenoiser, GuidanceEmbeddingDenoiser
from synfer_rt.vocabulary import label_schemes

_TRIED = 2
"""Images that ONNX files are tried on before anything is built."""
ADDED_ENGINES = {
    DISTILLED: DISTILLED_FOLDER,
    FERANNO: FERANNO_FOLDER,
    "guide.text": IMAGE_FOLDER,
    "guide.text-latent": LATENT_FOLDER,
    "guide.latent": LATENT_FOLDER,
}
"""The engines of a checkpoint's additions, and the folder that each needs."""


class Inputs(Protocol):
    """Example inputs by name, in the order of the forward's arguments."""

    def __call__(self, batch: int, size: Size | None = None) -> Mapping[str, Tensor]:
        """Inputs for `batch` images of `size` pixels, by default the checkpoint's size."""
        ...


@dataclass(frozen=True)
class Graph:
    """A module to export.

    `static` are the inputs and outputs whose first dimension is not the batch. With `gradient`, the
    forward calls torch.autograd.grad (gradient_graph.py). `label_scheme` is that of an engine whose
    outputs are probabilities. Of the inputs that `optional` names, the engine has those that it
    reads. The engine is compared with `reference`, by default with `module` itself.
    """

    module: nn.Module
    inputs: Inputs
    outputs: tuple[str, ...]
    static: frozenset[str] = frozenset()
    gradient: bool = False
    label_scheme: str | None = None
    optional: frozenset[str] = frozenset()
    reference: Callable[..., Tensor | tuple[Tensor, ...]] | None = None


def engine_names(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The engines from PyTorch modules of `checkpoint`; those from its ONNX files are others."""
    has = {*checkpoint.additions, *([IMAGE_FOLDER] if checkpoint.guide else [])}
    added = [name for name, folder in ADDED_ENGINES.items() if folder in has]
    alone = () if checkpoint.embeds_guidance else (CONDITIONAL,)
    caching = () if checkpoint.cache_depth is None else (STORING, REUSING)
    return ("conditioner", DENOISER, *alone, *caching, "decoder", "encoder", *added)


def engine_graph(checkpoint: Checkpoint, name: str, max_length: int) -> Graph:
    """The engine `name` of engine_names; prompts have `max_length` tokens.

    Parts of the checkpoint's modules that would fix the batch are replaced in place. Raises
    UserError for an addition that cannot be read or was trained for another model.
    """
    if name == "decoder":
        return Graph(Decoder(checkpoint.vae).eval(), _latents(checkpoint), ("images",))
    if name == "encoder":
        images = images_of(checkpoint.image_size)
        return Graph(Encoder(checkpoint.vae).eval(), images, ("mean", "logvar"))
    if name == "guide.latent":
        return Graph(
            LatentGuide(_latent_loss(checkpoint)).eval(),
            _to_guide_latents(checkpoint),
            ("guided_latents", "guided_history"),
            frozenset({"clean", "coefficients"}),
            gradient=True,
        )
    conditioner = Conditioner(
        checkpoint.text_encoder,
        checkpoint.unet,
        checkpoint.adapter,
        checkpoint.settings.class_labels,
    ).eval()
    given = _to_condition(checkpoint, conditioner.takes_aus, max_length)
    if name == "conditioner":
        return Graph(conditioner, given, conditioner.outputs)
    unet = distilled_unet(checkpoint) if name == DISTILLED else checkpoint.unet
    denoiser = Denoiser(unet, conditioner.outputs, checkpoint.adapter).eval()
    if name == FERANNO:
        module, scheme = read_feranno(checkpoint, conditioner, denoiser)
        return Graph(module, _latents(checkpoint), ("probabilities",), label_scheme=scheme)
    if name in ("guide.text", "guide.text-latent"):
        loss = _image_loss(checkpoint) if name == "guide.text" else _latent_loss(checkpoint)
        return Graph(
            TextGuide(denoiser, loss).eval(),
            _to_guide_text(checkpoint, conditioner, given),
            ("guided_text",),
            frozenset({"timestep", "clean"}),
            gradient=True,
        )
    guided = name not in ONE_BRANCH
    step: nn.Module = denoiser if guided else ConditionalDenoiser(denoiser).eval()
    if denoiser.embeds_guidance:
        step = GuidanceEmbeddingDenoiser(denoiser).eval()
    graph = Graph(
        step,
        _to_denoise(checkpoint, conditioner, given, guided=guided),
        ("next_latents", "next_history", "prediction"),
        frozenset({"timestep", "coefficients"}),
    )
    return _caching(graph, name, denoiser, checkpoint.cache_depth) if name in CACHING else graph


def guide_remarks(checkpoint: Checkpoint) -> Iterator[str]:
    """Sentences on the classes that a guide and the model do not share.

    Raises UserError for a guide that shares too few, or whose classes cannot be read.
    """
    scheme = checkpoint.settings.label_scheme
    if (guide := checkpoint.guide) is not None:
        yield from class_remarks(guide.path, guide.label_scheme, scheme, guide.mapping_to(scheme))
    for part in (IMAGE_FOLDER, LATENT_FOLDER):
        if part in checkpoint.additions:
            folder = checkpoint.folder(part)
            yield from class_remarks(folder, label_schemes.listed(classes_of(folder)), scheme)


def check_networks(checkpoint: Checkpoint) -> None:
    """Raise UserError for ONNX files that are not what their descriptions say.

    It takes seconds; the engines that are made before theirs take minutes.
    """
    size = checkpoint.image_size
    for network in checkpoint.networks.values():
        compose_network(network, size)
        reference_outputs(network, images_of(size)(_TRIED)["images"])
    if checkpoint.guide is not None:
        GuidingOnnx(checkpoint.guide, size)


def _caching(graph: Graph, name: str, denoiser: Denoiser, depth: int | None) -> Graph:
    """The engine that stores or reuses features, made of the denoiser's `graph`.

    Both are compared with the denoiser, which they equal if the features are those of this step.
    """
    assert depth is not None
    storing = StoringDenoiser(denoiser, depth).eval()

    def features(*given: Tensor) -> Tensor:
        with torch.no_grad():
            return storing(*given)[-1]

    if name == STORING:
        return replace(
            graph,
            module=storing,
            outputs=(*graph.outputs, FEATURES),
            reference=lambda *given: (*denoiser(*given), features(*given)),
        )

    def inputs(batch: int, size: Size | None = None) -> dict[str, Tensor]:
        given = graph.inputs(batch, size)
        return {FEATURES: features(*given.values()), **given}

    return replace(
        graph,
        module=ReusingDenoiser(denoiser, depth).eval(),
        inputs=inputs,
        optional=frozenset(denoiser.names),
        reference=lambda features, *given: denoiser(*given),
    )


def distilled_unet(checkpoint: Checkpoint) -> Any:
    """The student in the checkpoint's folder; UserError if it cannot be read or embeds guidance."""
    folder = checkpoint.directory / DISTILLED_FOLDER
    unet = load_model(type(checkpoint.unet), folder)
    if unet.config.time_cond_proj_dim:
        raise UserError(
            f"{folder} embeds guidance (time_cond_proj_dim), but a student has one scale folded "
            "in; remove the folder, or give such a student."
        )
    return unet


def _latent_loss(checkpoint: Checkpoint) -> ExpressionLoss:
    folder = checkpoint.directory / LATENT_FOLDER
    classifier, names = _guiding(folder, checkpoint.latent_shape)
    return ExpressionLoss(classifier, names, checkpoint.settings.label_scheme)


def _image_loss(checkpoint: Checkpoint) -> ExpressionLoss:
    scheme = checkpoint.settings.label_scheme
    if (guide := checkpoint.guide) is not None:
        decoded = Decoded(checkpoint.vae, GuidingOnnx(guide, checkpoint.image_size).eval())
        names = label_schemes.scheme(guide.label_scheme)
        return ExpressionLoss(decoded, names, scheme, guide.mapping_to(scheme))
    classifier, names = _guiding(checkpoint.folder(IMAGE_FOLDER), (3, *checkpoint.image_size))
    return ExpressionLoss(Decoded(checkpoint.vae, classifier), names, scheme)


def _guiding(folder: Path, shape: tuple[int, int, int]) -> tuple[nn.Module, tuple[str, ...]]:
    """The classifier in `folder` and its classes; UserError if it does not take `shape`."""
    classifier, names = read_guiding(folder)
    try:
        with torch.no_grad():
            classifier(torch.zeros(1, *shape))
    except (RuntimeError, ValueError):  # transformers raises the latter
        raise UserError(
            f"{folder} holds a classifier that does not take {list(shape)}, the shape of this "
            "model's latents or images; train one on this model, or remove the folder."
        ) from None
    return classifier, names


def images_of(default: Size) -> Inputs:
    """Random images [B, 3, H, W] in [0, 1], of the size `default` unless another is given."""
    return lambda batch, size=None: {
        "images": torch.rand((batch, 3, *(size or default)), generator=_generator(batch))
    }


def _latents(checkpoint: Checkpoint) -> Inputs:
    return lambda batch, size=None: {
        "latents": torch.randn((batch, *checkpoint.latents_of(size)), generator=_generator(batch))
    }


def _to_condition(checkpoint: Checkpoint, takes_aus: bool, max_length: int) -> Inputs:
    def inputs(batch: int, size: Size | None = None) -> dict[str, Tensor]:
        texts = [text for i in range(batch) for text in ("", PROBES[1 + i % (len(PROBES) - 1)])]
        options = {"padding": "max_length", "truncation": True, "max_length": max_length}
        ids = checkpoint.tokenizer(texts, **options)["input_ids"]
        given = {"tokens": torch.tensor(ids).view(batch, 2, max_length)}
        if takes_aus:
            draw = _generator(batch)
            aus = torch.rand(batch, 2, checkpoint.units, generator=draw)
            aus[:, 0] = 0
            given |= {"aus": aus, "au_scale": 0.5 + torch.rand(batch, generator=draw)}
        return given

    return inputs


def _conditioned(conditioner: Conditioner, given: Inputs, batch: int) -> dict[str, Tensor]:
    with torch.no_grad():
        conditioning = conditioner(*given(batch).values())
    return dict(zip(conditioner.outputs, conditioning, strict=True))


def _to_denoise(
    checkpoint: Checkpoint, conditioner: Conditioner, given: Inputs, *, guided: bool
) -> Inputs:
    def inputs(batch: int, size: Size | None = None) -> dict[str, Tensor]:
        latents = checkpoint.latents_of(size)
        draw = _generator(batch)
        return {
            **_latents(checkpoint)(batch, size),
            "history": torch.randn(batch, HISTORY_SLOTS, *latents, generator=draw),
            "timestep": _timestep(checkpoint),
            **(_guidance(checkpoint, draw, batch) if guided else {}),
            "coefficients": torch.randn(HISTORY_SLOTS + 1, HISTORY_SLOTS + 2, generator=draw),
            **_conditioned(conditioner, given, batch),
        }

    return inputs


def _to_guide_text(checkpoint: Checkpoint, conditioner: Conditioner, given: Inputs) -> Inputs:
    def inputs(batch: int, size: Size | None = None) -> dict[str, Tensor]:
        conditioning = _conditioned(conditioner, given, batch)
        # Moves as long as the tokens, so that an error in them shows in the verification.
        length = conditioning["text"].norm(dim=-1).mean()
        return {
            **_latents(checkpoint)(batch, size),
            "timestep": _timestep(checkpoint),
            **_aim(checkpoint, batch, float(length)),
            **(
                _guidance(checkpoint, _generator(batch), batch)
                if checkpoint.embeds_guidance
                else {}
            ),
            **conditioning,
        }

    return inputs


def _to_guide_latents(checkpoint: Checkpoint) -> Inputs:
    def inputs(batch: int, size: Size | None = None) -> dict[str, Tensor]:
        draw, shape = _generator(batch), checkpoint.latents_of(size)
        return {
            "latents": torch.randn(batch, *shape, generator=draw),
            "prediction": torch.randn(batch, *shape, generator=draw),
            "next_latents": torch.randn(batch, *shape, generator=draw),
            "next_history": torch.randn(batch, HISTORY_SLOTS, *shape, generator=draw),
            "coefficients": torch.randn(HISTORY_SLOTS + 1, HISTORY_SLOTS + 2, generator=draw),
            **_aim(checkpoint, batch, 1.0),
        }

    return inputs


def _guidance(checkpoint: Checkpoint, draw: torch.Generator, batch: int) -> dict[str, Tensor]:
    most = 15 if checkpoint.embeds_guidance else 5
    return {"guidance": 1 + (most - 1) * torch.rand(batch, generator=draw)}


def _aim(checkpoint: Checkpoint, batch: int, strength: float) -> dict[str, Tensor]:
    draw, classes = _generator(batch), len(label_schemes.scheme(checkpoint.settings.label_scheme))
    return {
        "clean": torch.tensor([0.8, -0.6]),
        "target": torch.randn(batch, classes, generator=draw).softmax(-1),
        "strength": strength * (0.5 + torch.rand(batch, generator=draw)),
    }


def _timestep(checkpoint: Checkpoint) -> Tensor:
    return torch.tensor(checkpoint.schedule["num_train_timesteps"] / 2)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
