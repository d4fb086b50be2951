"""The project as a whole: what importing costs, what the wheel carries, what the README says."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

HEAVY = ("torch", "torchvision", "napari", "qtpy", "PyQt6", "vispy", "magicgui")


def run_python(
    code: str, *, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh interpreter and return what it printed."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env={**os.environ, **environment},
        text=True,
        capture_output=True,
        check=True,
        timeout=240,
    )


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = f"import napari_histomil, sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    assert run_python(code).stdout.strip() == "[]"


def test_public_names_are_found_and_others_are_not() -> None:
    import napari_histomil

    for name in napari_histomil.__all__:
        assert getattr(napari_histomil, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = napari_histomil.nothing


def test_slides_and_results_need_no_torch() -> None:
    code = (
        "import sys, napari_histomil.slides.readers, napari_histomil.results, "
        "napari_histomil.manifest, napari_histomil.tissue, napari_histomil.heatmaps, "
        "napari_histomil.annotations.geojson, napari_histomil.exchange.rasters\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    assert run_python(code).stdout.strip() == "[]"


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy so that nothing is left in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(
        repository,
        source,
        ignore=shutil.ignore_patterns(".*cache*", ".venv", ".git", "demo-output", "dist"),
    )
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source],
        check=True,
        capture_output=True,
        timeout=240,
    )
    return next(folder.glob("*.whl"))


def test_the_wheel_carries_models_and_samples_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for needed in (
        "napari_histomil/napari.yaml",
        "napari_histomil/models/metastasis-patch-small/model.json",
        "napari_histomil/models/metastasis-patch-small/weights.safetensors",
        "napari_histomil/sample_data/synthetic-lymph-node.tiff",
        "napari_histomil/sample_data/synthetic-lymph-node.geojson",
    ):
        assert needed in names
    assert not [name for name in names if name.startswith(("tests/", "models/", "docs/"))]
    assert wheel.stat().st_size <= 80 * 2**20


def test_the_installed_wheel_finds_its_models_and_sample(
    repository: Path, wheel: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    code = (
        "import napari_histomil, json\n"
        "from napari_histomil.resources import packaged\n"
        "from napari_histomil.manifest import list_models\n"
        "models, broken = list_models()\n"
        "print(json.dumps([napari_histomil.__file__, [m.name for m in models], len(broken),\n"
        "    (packaged('sample_data') / 'synthetic-lymph-node.tiff').is_file()]))"
    )
    answer = json.loads(run_python(code, cwd=tmp_path, PYTHONPATH=str(site)).stdout)
    assert Path(answer[0]).is_relative_to(site)
    assert answer[1:] == [
        sorted(p.parent.name for p in repository.glob("models/*/model.json")),
        0,
        True,
    ]


def readme_commands(repository: Path) -> list[str]:
    """Every `histomil` line of the README's console blocks, in order."""
    text = (repository / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```console\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ histomil")]


def test_the_commands_of_the_readme_run(
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from napari_histomil.cli import main

    shutil.copytree(repository / "sample_data", tmp_path / "sample_data")
    monkeypatch.chdir(tmp_path)
    commands = readme_commands(repository)
    assert len(commands) >= 5
    for command in commands:
        words = shlex.split(command, comments=True)[1:]
        if words[0] == "view":  # opens a window and waits for the person; tests/ui opens it
            continue
        runs = sorted(tmp_path.glob("out/*.histomil/runs/*.zarr"))
        words = [str(runs[0]) if word == "RUN.zarr" else word for word in words]
        assert main(words) == 0, f"{command}\n{capsys.readouterr().err}"


def test_the_python_code_of_the_readme_runs(repository: Path, tmp_path: Path) -> None:
    text = (repository / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    assert blocks
    shutil.copytree(repository / "sample_data", tmp_path / "sample_data")
    for block in blocks:
        run_python(block, cwd=tmp_path)


def test_pictures_and_files_that_the_documents_link_to_exist(repository: Path) -> None:
    for page in [repository / "README.md", *sorted((repository / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
