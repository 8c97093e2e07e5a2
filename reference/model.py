"""synfer-mini: SynFER's anatomy in diffusers' classes, small; and how it is saved and read.

Text encoder (CLIP), UNet with cross-attention, AU adapter with one token (decoupled
cross-attention, arXiv 2410.09865 after IP-Adapter, arXiv 2308.06721) and VAE. Beside the adapter's
path, pooled text and AUs also enter the time embedding through the UNet's class embedding.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.models.resnet import ResnetBlock2D
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from reference import tokenizer as words
from synfer_rt.vocabulary.facs import OPENGRAPHAU_41

TEXT_WIDTH = 128
LATENT = (4, 16, 16)
"""Channels, height, width of the latents of a 64-pixel image."""


class AuAttention(nn.Module):
    """Attention processor that adds the AU token's value at every position.

    Attention over a single key is that key's value, so the adapter's second attention,
    `Attn(q, k_au, v_au)`, is `to_v_ip(token)` whatever the query. Self-attention layers
    (`width` None) ignore the token.
    """

    def __init__(self, width: int | None) -> None:
        super().__init__()
        self.to_v_ip: nn.Linear | None = nn.Linear(TEXT_WIDTH, width, bias=False) if width else None

    def __call__(
        self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, au_token=None
    ):
        b = hidden_states.shape[0]
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = (
            layer(x).view(b, -1, attn.heads, layer.out_features // attn.heads).transpose(1, 2)
            for layer, x in (
                (attn.to_q, hidden_states),
                (attn.to_k, context),
                (attn.to_v, context),
            )
        )
        out = nn.functional.scaled_dot_product_attention(q, k, v)
        out = out.transpose(1, 2).reshape(b, -1, attn.to_v.out_features)
        if self.to_v_ip is not None and au_token is not None:
            out = out + self.to_v_ip(au_token)[:, None]
        return attn.to_out[0](out)


class Denoiser(nn.Module):
    """Text encoder, UNet and AU adapter: everything that diffusion training trains."""

    def __init__(self, text_encoder: CLIPTextModel, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        self.unet = unet
        self.project = nn.Linear(len(OPENGRAPHAU_41), TEXT_WIDTH)
        processors = {}
        for name in unet.attn_processors:
            layer = unet.get_submodule(name.removesuffix(".processor"))
            assert isinstance(layer, Attention)
            processors[name] = AuAttention(layer.inner_kv_dim if "attn2" in name else None)
        unet.set_attn_processor(processors)

    def forward(self, latents, timesteps, tokens, aus):
        """Prediction [B, C, h, w] for latents at timesteps [B], tokens [B, L], aus [B, 41]."""
        text = self.text_encoder(tokens)
        return self.unet(
            latents,
            timesteps,
            text.last_hidden_state,
            class_labels=torch.cat([text.pooler_output, aus], 1),
            cross_attention_kwargs={"au_token": self.project(aus)},
            return_dict=False,
        )[0]

    def adapter_state(self) -> dict[str, torch.Tensor]:
        """The AU adapter in SynFER's layout; `to_k_ip` is inert with one token and saved as 0."""
        state = {
            "image_proj.proj.weight": self.project.weight,
            "image_proj.proj.bias": self.project.bias,
        }
        for i, layer in self._au_layers():
            weight = layer.weight
            state[f"ip_adapter.{i}.to_v_ip.weight"] = weight
            state[f"ip_adapter.{i}.to_k_ip.weight"] = torch.zeros_like(weight)
        return state

    def load_adapter(self, state: dict[str, torch.Tensor]) -> None:
        """Read what `adapter_state` wrote."""
        with torch.no_grad():
            self.project.weight.copy_(state["image_proj.proj.weight"])
            self.project.bias.copy_(state["image_proj.proj.bias"])
            for i, layer in self._au_layers():
                layer.weight.copy_(state[f"ip_adapter.{i}.to_v_ip.weight"])

    def _au_layers(self) -> Iterator[tuple[int, nn.Linear]]:
        """The value projections of the AU token, by the place of their processor."""
        for i, processor in enumerate(self.unet.attn_processors.values()):
            if isinstance(processor, AuAttention) and processor.to_v_ip is not None:
                yield i, processor.to_v_ip


def posterior(vae: AutoencoderKL, images: torch.Tensor) -> DiagonalGaussianDistribution:
    """The latents' distribution [n, C, h, w] that the VAE gives images [n, 3, H, W] in [-1, 1]."""
    return vae.encode(images, return_dict=False)[0]


def decoded(vae: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    """Images [n, 3, H, W], about [-1, 1], of latents [n, C, h, w]."""
    decode: Any = vae.decode  # annotated with the former type FloatTensor
    return decode(latents, return_dict=False)[0]


def channels_last(network: nn.Module) -> None:
    """Lay out the weights of `network` with the channels last, in place."""
    to: Any = network.to  # annotated without a memory format alone
    to(memory_format=torch.channels_last)


def new_vae() -> AutoencoderKL:
    """Stride 4, 4 latent channels; every residual branch starts at zero."""
    kind: Any = AutoencoderKL  # its annotations allow one level only
    vae = kind(
        in_channels=3,
        out_channels=3,
        latent_channels=LATENT[0],
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=8,
        sample_size=64,
        scaling_factor=1.0,
    )
    for module in vae.modules():
        if isinstance(module, ResnetBlock2D):
            nn.init.zeros_(module.conv2.weight)
        elif isinstance(module, Attention):
            assert module.to_out is not None
            layer = module.to_out[0]
            assert isinstance(layer, nn.Linear)
            nn.init.zeros_(layer.weight)
    return vae


def new_denoiser() -> Denoiser:
    """About 12 million parameters; no attention at the finest of the three levels."""
    tokenizer = words.build()
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=words.MAX_LENGTH,
            pad_token_id=tokenizer.token_to_id(words.PAD),
            bos_token_id=tokenizer.token_to_id(words.BOS),
            eos_token_id=tokenizer.token_to_id(words.EOS),
        )
    )
    unet = UNet2DConditionModel(
        sample_size=LATENT[1],
        in_channels=LATENT[0],
        out_channels=LATENT[0],
        block_out_channels=(64, 128, 192),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
        norm_num_groups=16,
        cross_attention_dim=TEXT_WIDTH,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=TEXT_WIDTH + len(OPENGRAPHAU_41),
    )
    nn.init.zeros_(unet.conv_out.weight)
    assert unet.conv_out.bias is not None
    nn.init.zeros_(unet.conv_out.bias)
    return Denoiser(text_encoder, unet)


def new_scheduler() -> DDIMScheduler:
    """Cosine schedule with zero terminal SNR (arXiv 2305.08891), v-prediction."""
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )


def save(directory: Path, denoiser: Denoiser, vae: AutoencoderKL, settings: dict) -> None:
    """Write a diffusers directory, `au_adapter.safetensors` and `synfer.json` (`settings`)."""
    directory.mkdir(parents=True, exist_ok=True)
    unet_state = {k: v for k, v in denoiser.unet.state_dict().items() if "to_v_ip" not in k}
    bare = UNet2DConditionModel.from_config(denoiser.unet.config)
    assert isinstance(bare, UNet2DConditionModel)
    bare.load_state_dict(unet_state)
    bare.half().save_pretrained(directory / "unet")
    # A new model is saved, because a loaded one's configuration names the directory it came from.
    clean = AutoencoderKL.from_config(vae.config)
    assert isinstance(clean, AutoencoderKL)
    clean.load_state_dict(vae.state_dict())
    clean.register_to_config(_name_or_path="")
    clean.save_pretrained(directory / "vae")
    denoiser.text_encoder.save_pretrained(directory / "text_encoder")
    new_scheduler().save_pretrained(directory / "scheduler")
    PreTrainedTokenizerFast(
        tokenizer_object=words.build(),
        pad_token=words.PAD,
        bos_token=words.BOS,
        eos_token=words.EOS,
        unk_token=words.UNKNOWN,
        model_max_length=words.MAX_LENGTH,
    ).save_pretrained(directory / "tokenizer")
    adapter = {k: v.detach().half().contiguous() for k, v in denoiser.adapter_state().items()}
    save_file(adapter, directory / "au_adapter.safetensors")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
    }
    (directory / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    (directory / "synfer.json").write_text(json.dumps(settings, indent=2) + "\n")


def load(directory: Path) -> tuple[Denoiser, AutoencoderKL]:
    """Read what `save` wrote, in float32."""
    denoiser = Denoiser(
        CLIPTextModel.from_pretrained(directory / "text_encoder"),
        UNet2DConditionModel.from_pretrained(directory / "unet", torch_dtype=torch.float32),
    )
    denoiser.load_adapter(load_file(directory / "au_adapter.safetensors"))
    return denoiser.float(), AutoencoderKL.from_pretrained(directory / "vae")
