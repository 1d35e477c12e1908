"""``underfire studio``: a local page to try an attack."""

from __future__ import annotations

from contextlib import suppress

import click

from underfire.auditing.plan import ModelSettings
from underfire.cli.interrupts import sigterm_as_interrupt
from underfire.cli.options import load_model, model_options, rts_option
from underfire.errors import InputError

PORT = 8750


@click.command()
@model_options
@rts_option
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=PORT,
    show_default=True,
    help="Of this machine's own address, 127.0.0.1; 0 for any that is free.",
)
@click.option("--open/--no-open", "browser", default=True, show_default=True, help="Whether a browser is opened.")
def studio(settings: ModelSettings, device: str | None, rts: str | None, port: int, browser: bool) -> None:
    """Opens a local page to try an attack: choose a photo and a goal, and watch image, maps and figures move.

    It is for this machine and whoever has the address that is printed; nothing is kept. Ctrl-C ends it.
    """
    try:
        from underfire.studio.server import Studio, listening, new_token
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise InputError(
            f'the studio needs the package {error.name}, which is not installed: pip install "underfire[studio]"'
        ) from error
    from underfire.studio.session import StudioSession
    from underfire.studio.shelf import OfferedModel, built_in_models

    listener = listening(port)
    named = OfferedModel(settings.spec, lambda: load_model(settings, device), rts=rts)
    click.echo(f"Loading {named.classifier.name} …", err=True)
    offered = (named, *built_in_models(besides=settings.spec, device=device))
    serving = Studio(StudioSession(offered), listener, new_token())

    def ready() -> None:
        click.echo(f"underfire studio: {serving.address}\nOnly this machine can open it. Ctrl-C ends it.")
        if browser:
            click.launch(serving.address)

    with suppress(KeyboardInterrupt), sigterm_as_interrupt():  # how it is meant to end
        serving.serve(ready)
    click.echo("The studio is closed; nothing was kept.", err=True)
