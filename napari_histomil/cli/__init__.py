"""The command line: ``histomil VERB ...``.

One file holds a family of verbs and adds them to the parser in its ``add_parser``; a verb is a
function that takes the parsed arguments and returns an exit code. Importing these files is cheap:
whatever reads slides, models or results is imported inside the verbs, so that ``--help`` is quick
and the verbs that need no torch, napari or Qt load none.

Results go to stdout, progress and complaints to stderr. Exit codes:

0. done;
1. the work failed or was cancelled on the way (a tile cannot be read, the disk is full, one slide
   of several failed); running the same command again goes on where it stopped;
2. what was asked for cannot be done (no such file, no slide, unknown model, wrong option): one
   sentence says why, and nothing was written.
"""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from typing import TextIO

from napari_histomil.errors import HistomilError, TileError

OK, FAILED, USAGE = 0, 1, 2

FAMILIES = (
    "slides",
    "runs",
    "features",
    "mil",
    "exports",
    "segmentation",
    "annotations",
    "review",
    "models",
    "sidecars",
    "train",
    "evaluate",
    "score",
    "gallery",
    "report",
    "stain_change",
    "compare",
    "pretrain",
    "bench",
    "demo",
)
"""Modules of this folder, in the order in which ``histomil --help`` lists their verbs."""

EPILOG = """\
examples:
  histomil demo                             the whole journey on a sample slide
  histomil info slide.svs                   what is known of a slide
  histomil run metastasis-patch-small slide.svs -o out
                                            a heatmap; prints its path
  histomil export RUN.zarr -o heatmap.png   a picture of it
  histomil view slide.svs RUN.zarr          both in napari's window

Every verb explains itself: histomil VERB --help.
For research, not for diagnosis.
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with every verb."""
    parser = argparse.ArgumentParser(
        prog="histomil",
        description="Open whole-slide images, run models over them, see and export the results.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=f"napari-histomil {version('napari-histomil')}"
    )
    subparsers = parser.add_subparsers(metavar="VERB", required=True)
    for family in FAMILIES:
        import_module(f"napari_histomil.cli.{family}").add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``histomil`` and return its exit code.

    Parameters
    ----------
    argv
        Arguments without the program's name; those of the process by default.
    """
    _write_any_name(sys.stdout)
    words = sys.argv[1:] if argv is None else argv
    parser = build_parser()
    if not words:
        parser.print_help(sys.stderr)
        return USAGE
    try:
        args = parser.parse_args(words)
    except SystemExit as stop:  # argparse has said why, or has shown the help
        return int(stop.code or OK)
    try:
        code: int = args.verb(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("Cancelled: run the same command again to go on.", file=sys.stderr)
        return FAILED
    except HistomilError as error:
        print(f"histomil: {error}", file=sys.stderr)
        return exit_code(error)
    except BrokenPipeError:  # whoever read stdout (head, less) has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:  # the disk is full, a network share is gone, ...
        print(f"histomil: {error}", file=sys.stderr)
        return FAILED
    return code


def _write_any_name(stream: TextIO) -> None:
    """Let no file name stop a result from being printed.

    UTF-8 gives back the very bytes of a name that is no text; a narrower encoding (a redirected
    Windows console) writes escapes for what it lacks. stderr does so by itself.
    """
    if isinstance(stream, io.TextIOWrapper):
        wide = stream.encoding.lower().replace("-", "") == "utf8"
        stream.reconfigure(errors="surrogateescape" if wide else "backslashreplace")


def exit_code(error: HistomilError) -> int:
    """Return 1 if the work failed on the way, 2 if it cannot be done as it was asked for."""
    disk = (errno.ENOSPC, errno.EIO, getattr(errno, "EDQUOT", errno.ENOSPC))
    cause = error.__cause__
    if isinstance(error, TileError) or (isinstance(cause, OSError) and cause.errno in disk):
        return FAILED
    return USAGE
