"""What a command says of the annotators that judge its images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synfer_rt.commands.notes import note

if TYPE_CHECKING:
    from synfer_rt.bundle import Bundle


def warn_of_other_images(bundle: Bundle) -> None:
    """Say on stderr which images alone a bundle's annotators were trained on, if it says so.

    For commands whose images come from elsewhere and may be others.
    """
    if bundle.annotators and bundle.annotators_know:
        note(
            f"The annotators of {bundle.name} know {bundle.annotators_know} only: do not rely on "
            "what they say of other images, such as photographs."
        )
