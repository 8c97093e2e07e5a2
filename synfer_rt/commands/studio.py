"""The command `synfer-rt studio`: a page on which the action units of a face are moved."""

from __future__ import annotations

from pathlib import Path

import click

from synfer_rt.commands import options
from synfer_rt.commands.notes import note


@click.command()
@options.bundle
@options.running
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Where to listen. Anything but this machine's own address opens the page to others: "
    "without password or encryption, they use its processor and model, and what is uploaded can "
    "be read on the way.",
)
@click.option(
    "--name",
    "names",
    multiple=True,
    metavar="NAME",
    help="A name under which others reach this machine; repeatable. Addresses need none.",
)
@click.option(
    "--port", type=int, default=7860, show_default=True, help="Where to listen; 0 is any free one."
)
@click.option("--open", "opens", is_flag=True, help="Open the page in a browser.")
def studio(
    bundle: Path | None,
    backend: str,
    threads: int | None,
    host: str,
    names: tuple[str, ...],
    port: int,
    opens: bool,
) -> None:
    """Open a local page on which a face follows sliders: action units, guidance, prompt, seed.

    Beside the image stand the vote of the classifiers and what the AU reader sees. A state can be
    copied as the command, the Python or the plan that makes the same image. The page asks for
    nothing from any network, and only this machine reaches it unless --host says otherwise. Ctrl-C
    ends it.
    """
    from synfer_rt.studio.origins import is_loopback
    from synfer_rt.studio.server import open_studio

    with open_studio(bundle, backend, threads, host, port, names) as opened:
        if not is_loopback(host):
            note(
                "Warning: whoever reaches this machine can use the studio, without a password, and "
                "photos are sent unencrypted. Leave out --host to keep it to this machine."
            )
        opened.warm()
        click.echo(f"The studio is at {opened.address} (Ctrl-C ends it)")
        if opens:
            import webbrowser

            webbrowser.open(opened.address)
        opened.run()
