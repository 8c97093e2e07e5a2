"""Which sizes of images a checkpoint's networks make, and the one that is built."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from synfer_rt.bundle.sizes import Size, Sizes, format_size
from synfer_rt.errors import UserError


def pixels_per_latent(vae: Any) -> int:
    """How many pixels of an image's height (or width) are one position of its latents."""
    return 2 ** (len(vae.config.block_out_channels) - 1)


def size_step(unet: Any, vae: Any) -> int:
    """The number of pixels of which height and width are multiples: the UNet halves its latents."""
    return pixels_per_latent(vae) * 2 ** (len(unet.config.block_out_channels) - 1)


def set_size(directory: Path, unet: Any, vae: Any, resolution: Size | None) -> bool:
    """Write the latents' (h, w) into the UNet's config; True if they are not the checkpoint's own.

    `resolution` is (H, W) in pixels, None for the checkpoint's own. Raises UserError for one that
    the networks cannot make.
    """
    size = unet.config.sample_size
    if isinstance(size, int):
        # Checkpoints of the first versions of diffusers say 32 where they were trained at 64.
        version = re.match(r"0\.(\d+)\.", str(unet.config.get("_diffusers_version") or ""))
        early = version is not None and int(version[1]) < 9
        size = (64, 64) if early and size == 32 else (size, size)
    height, width = native = (int(size[0]), int(size[1]))
    if resolution is not None:
        multiple = size_step(unet, vae)
        if any(pixels % multiple for pixels in resolution):
            near = (max(multiple, round(pixels / multiple) * multiple) for pixels in resolution)
            raise UserError(
                f"{directory} cannot make images of {format_size(resolution)}: height and "
                f"width must be multiples of {multiple}; the nearest is {'x'.join(map(str, near))}."
            )
        height, width = (pixels // pixels_per_latent(vae) for pixels in resolution)
    unet.register_to_config(sample_size=(height, width))
    return (height, width) != native


def free_sizes(directory: Path, unet: Any, vae: Any, least: int, most: int) -> Sizes:
    """The sizes of engines whose height and width are free, from `least` to `most` pixels.

    Raises UserError for a range that the networks cannot make, or that does not hold the size that
    `set_size` has set.
    """
    step = size_step(unet, vae)
    try:
        sizes = Sizes(least, most, step)
    except ValueError:
        low = max(round(least / step), 1) * step
        high = max(round(most / step) * step, low + step)
        raise UserError(
            f"{directory} cannot make images of {least} to {most} pixels: the smallest and the "
            f"largest edge must be different multiples of {step}; write `sizes=({low}, {high})`."
        ) from None
    height, width = (n * pixels_per_latent(vae) for n in unet.config.sample_size)
    if not sizes.allow((height, width)):
        raise UserError(
            f"The images of {directory} are {format_size((height, width))}, not of {sizes}; widen "
            "`sizes`, or give a `resolution` within them."
        )
    return sizes
