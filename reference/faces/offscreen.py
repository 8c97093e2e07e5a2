"""OpenGL without a window, by EGL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import moderngl


def offscreen_context() -> moderngl.Context:
    """A new context that draws into textures; Mesa's llvmpipe where there is no GPU."""
    import moderngl

    options: dict[str, Any] = {"backend": "egl"}  # annotated as a dictionary in moderngl
    return moderngl.create_context(standalone=True, **options)
