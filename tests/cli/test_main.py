"""The frame: help, exit codes, what goes to stdout and stderr, what is not loaded."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys

import pytest

from napari_histomil.cli import exit_code
from napari_histomil.errors import OutputError, SlideError, TileError

VERBS = (
    ("info",),
    ("tissue",),
    ("view",),
    ("run",),
    ("export",),
    ("annotations", "convert"),
    ("annotations", "info"),
    ("annotations", "validate"),
    ("annotations", "mask"),
    ("annotations", "regions"),
    ("annotations", "tiles"),
    ("annotations", "compare"),
    *(
        ("review", verb)
        for verb in ("setup", "list", "verdicts", "agreement", "changes", "viewing", "form")
    ),
    ("models", "list"),
    ("models", "show"),
    ("models", "chain"),
    ("models", "verify"),
    ("sidecars",),
    ("train",),
    ("bench",),
    ("bench", "run"),
    ("bench", "slides"),
    ("bench", "annotations"),
    ("demo",),
)


def fresh(
    *words: object, code: str | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Call the command line, or `code`, in a fresh interpreter."""
    start = ["-c", code] if code else ["-m", "napari_histomil"]
    return subprocess.run(
        [sys.executable, *start, *map(str, words)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONUTF8": "1", **environment},
        timeout=120,
    )


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_verb_teaches(histomil, verb):
    said = histomil(*verb, "--help")
    assert said.code == 0
    assert said.err == ""
    assert "examples:\n  histomil " in said.out


@pytest.mark.parametrize("verb", [(), ("models",), ("annotations",), *VERBS])
def test_help_fits_a_terminal_of_80_columns(histomil, verb, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    said = histomil(*verb, "--help")
    assert [line for line in said.out.splitlines() if len(line) > 80] == []


def test_without_a_verb_the_help_is_shown(histomil):
    said = histomil()
    assert (said.code, said.out) == (2, "")
    assert said.err == histomil("--help").out


def test_help_names_every_verb(histomil):
    said = histomil("--help")
    assert said.code == 0
    for verb, *_ in VERBS:
        assert re.search(rf"\n    {verb}[ \n]", said.out)


def test_version(histomil):
    said = histomil("--version")
    assert said.code == 0
    assert said.out.startswith("napari-histomil 0.")


@pytest.mark.parametrize("words", [(), ("no-such-verb",), ("info",), ("models",), ("run", "m")])
def test_wrong_words_are_2_and_leave_stdout_alone(histomil, words):
    said = histomil(*words)
    assert said.code == 2
    assert said.out == ""
    assert "usage: histomil" in said.err


def no_space() -> OutputError:
    error = OutputError("x")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [(SlideError("x"), 2), (OutputError("x"), 2), (TileError("x"), 1), (no_space(), 1)],
)
def test_2_is_for_what_was_asked_and_1_for_what_failed(error, code):
    assert exit_code(error) == code


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KeyboardInterrupt(), "Cancelled: run the same command again to go on.\n"),
        (OSError(errno.EIO, "Input/output error", "x.svs"), "histomil: [Errno 5]"),
    ],
)
def test_what_stops_the_work_is_1_and_one_line(histomil, monkeypatch, error, words):
    def fail(*_args, **_options):
        raise error

    monkeypatch.setattr("napari_histomil.manifest.list_models", fail)
    said = histomil("models", "list")
    assert said.code == 1
    assert said.err.startswith(words)
    assert said.err.count("\n") == 1


def test_a_reader_that_has_enough_is_no_error(models):
    process = subprocess.Popen(
        [sys.executable, "-m", "napari_histomil", "models", "list", "--models", models],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()
    with process.stderr as stderr:
        assert "Traceback" not in stderr.read()
    assert process.wait(60) == 1


def test_as_a_module_and_with_names_in_any_script(slide, tmp_path):
    done = fresh("info", slide)
    assert (done.returncode, done.stderr) == (0, "")
    assert "слайд [1] 50%.tif" in done.stdout
    failed = fresh("info", tmp_path / "нема.svs")
    assert failed.returncode == 2
    assert failed.stdout == ""
    assert failed.stderr.startswith("histomil: ")
    assert "нема.svs" in failed.stderr
    assert failed.stderr.count("\n") == 1


def test_a_terminal_that_knows_ascii_only(slide):
    done = fresh("info", slide, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    assert "\\u0441" in done.stdout
    done = fresh("info", slide, "--json", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert json.loads(done.stdout)["path"] == str(slide)


@pytest.mark.skipif(sys.platform != "linux", reason="names are text elsewhere")
def test_a_name_that_is_no_text(slide):
    odd = os.fsdecode(os.fsencode(slide.parent) + b"/\xff.tif")
    os.rename(slide, odd)
    done = subprocess.run(
        [sys.executable, "-m", "napari_histomil", "info", odd], capture_output=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"slide       \xff.tif\n" in done.stdout


HEAVY = ("torch", "torchvision", "timm", "napari", "qtpy", "vispy", "magicgui", "matplotlib")


def test_what_needs_no_torch_napari_or_qt_loads_none(slide, models, run_path, tmp_path):
    code = (
        "import sys\n"
        "from napari_histomil.cli import main\n"
        f"assert main(['--help']) == 0 and main(['run', '--help']) == 0\n"
        f"assert main(['info', {str(slide)!r}]) == 0\n"
        f"assert main(['models', 'list', '--models', {str(models)!r}]) == 0\n"
        f"assert main(['tissue', {str(slide)!r}, '-o', {str(tmp_path / 'a.geojson')!r}]) == 0\n"
        f"for name in ('a.csv', 'b.geojson', 'a.h5', 'a.ome.tif'):\n"
        f"    path = {str(tmp_path)!r} + '/' + name\n"
        f"    assert main(['export', {str(run_path)!r}, '-o', path]) == 0\n"
        f"print('loaded:', [name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    done = fresh(code=code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded: []"


def test_help_loads_next_to_nothing():
    code = (
        "import sys\n"
        "from napari_histomil.cli import build_parser\n"
        "build_parser()\n"
        "heavy = ('numpy', 'scipy', 'zarr', 'shapely', 'skimage', 'h5py', 'tifffile', 'rich')\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    assert fresh(code=code).stdout.strip() == "[]"
