"""The application: its commands, its messages, its exit status."""

import logging
import sys
import warnings
from typing import Annotated

import typer

from napari_sam import __version__
from napari_sam.cli.cache import cache
from napari_sam.cli.embed import embed
from napari_sam.cli.export import export
from napari_sam.cli.models import models
from napari_sam.cli.predict import predict
from napari_sam.cli.segment import run, segment
from napari_sam.cli.show import demo
from napari_sam.cli.stacks import link, propagate
from napari_sam.cli.training import evaluate, train
from napari_sam.errors import (
    FormatError,
    InputError,
    MissingFileError,
    NapariSamError,
    NapariSamWarning,
)
from napari_sam.threads import spin_briefly

_INPUT_ERRORS = (InputError, FormatError, MissingFileError)

app = typer.Typer(
    name="napari-sam",
    help="Segment Anything for microscopy.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    segment,
    run,
    embed,
    predict,
    propagate,
    link,
    export,
    train,
    evaluate,
    demo,
):
    app.command()(command)
app.add_typer(models, name="models")
app.add_typer(cache, name="cache")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit.

    Parameters
    ----------
    arguments : list of str, optional
        Instead of those the process was started with.
    """
    spin_briefly()  # no import above has loaded torch
    with warnings.catch_warnings():
        warnings.simplefilter("always", NapariSamWarning)
        warnings.showwarning = _show_warning
        try:
            app(arguments)
        except (NapariSamError, OSError) as error:
            typer.echo(f"napari-sam: {error}", err=True)
            sys.exit(2 if isinstance(error, _INPUT_ERRORS) else 1)


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say less.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit
    level = logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("napari_sam")
    logger.handlers = [handler]
    logger.setLevel(level)


def _show_warning(
    message: Warning | str, category: type[Warning], *_: object, **__: object
) -> None:
    if issubclass(category, NapariSamWarning):
        typer.echo(f"napari-sam: warning: {message}", err=True)
