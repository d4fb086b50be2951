"""The WSInfer zoo, played by a server on this computer."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from test_manifest import CONFIG

from napari_histomil.errors import ModelError
from napari_histomil.manifest import find_model, load_manifest, verify_model
from napari_histomil.manifest.zoo import REGISTRY, fetch, registry
from napari_histomil.resources import user_data_dir

NAME = "tumor-resnet34.tcga"
WEIGHTS = b"no real weights, but 40 bytes of something"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n"


class Hub:
    """What the server answers; tests change it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.asked: list[str] = []
        self.cut: set[str] = set()
        entry = {"description": "Tumour.", "hf_repo_id": "someone/tumor", "hf_revision": "main"}
        digest = hashlib.sha256(WEIGHTS).hexdigest()
        self.files = {
            f"/{REGISTRY}": json.dumps({"models": {NAME: entry}}).encode(),
            "/someone/tumor/resolve/main/config.json": json.dumps(CONFIG).encode(),
            "/someone/tumor/resolve/main/torchscript_model.pt": WEIGHTS,
            "/someone/tumor/raw/main/torchscript_model.pt": POINTER.format(
                digest, len(WEIGHTS)
            ).encode(),
        }


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append(self.path)
            data = made.files.get(self.path)
            self.send_response(404 if data is None else 200)
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write((data or b"")[: 5 if self.path in made.cut else None])

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = Hub(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", made.address)
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_model_is_downloaded_once_and_found_by_its_name(hub: Hub) -> None:
    folder = fetch(NAME)
    assert folder == user_data_dir() / "models" / NAME
    model = find_model(NAME)
    verify_model(model)
    assert model.class_names == ("Other", "Lymphocytes")
    assert model.weights.read_bytes() == WEIGHTS
    hub.asked.clear()
    assert fetch(NAME) == folder
    assert not [path for path in hub.asked if "/resolve/" in path]


def test_weights_that_change_on_disk_are_noticed(hub: Hub) -> None:
    folder = fetch(NAME)
    (folder / "torchscript_model.pt").write_bytes(WEIGHTS[::-1])
    with pytest.raises(ModelError, match="get the model again"):
        verify_model(load_manifest(folder))


def test_a_file_with_another_hash_is_not_kept(hub: Hub) -> None:
    hub.files["/someone/tumor/resolve/main/torchscript_model.pt"] = WEIGHTS[::-1]
    with pytest.raises(ModelError, match="is not the file that the hub states"):
        fetch(NAME)
    assert not list((user_data_dir() / "models").iterdir())


def test_another_file_under_the_same_name_is_refused(hub: Hub) -> None:
    folder = fetch(NAME)
    hub.files["/someone/tumor/raw/main/torchscript_model.pt"] = POINTER.format(
        "0" * 64, 1
    ).encode()
    with pytest.raises(ModelError, match=f"now has another file.*delete {folder}"):
        fetch(NAME)
    assert (folder / "torchscript_model.pt").read_bytes() == WEIGHTS


def test_a_hub_that_states_no_hash_has_it_recorded(hub: Hub) -> None:
    hub.files["/someone/tumor/raw/main/torchscript_model.pt"] = WEIGHTS
    model = load_manifest(fetch(NAME))
    assert model.weights_sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    (model.path / "torchscript_model.pt").write_bytes(b"other")
    with pytest.raises(ModelError, match="get the model again"):
        verify_model(load_manifest(model.path))


@pytest.mark.parametrize("file", ["config.json", "torchscript_model.pt"])
@pytest.mark.parametrize("how", ["cut", "missing"])
def test_a_broken_download_leaves_nothing(hub: Hub, file: str, how: str) -> None:
    path = f"/someone/tumor/resolve/main/{file}"
    if how == "cut":
        hub.cut.add(path)
    else:
        del hub.files[path]
    with pytest.raises(ModelError, match="could not be downloaded") as caught:
        fetch(NAME)
    assert "\n" not in str(caught.value)
    assert not list((user_data_dir() / "models").iterdir())


def test_a_configuration_that_is_none_is_told(hub: Hub) -> None:
    hub.files["/someone/tumor/resolve/main/config.json"] = b"<html>Please sign in</html>"
    with pytest.raises(ModelError, match="cannot be read as JSON"):
        fetch(NAME)
    assert not list((user_data_dir() / "models").iterdir())


def test_without_a_network_what_was_seen_is_known(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(registry()) == [NAME]
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert list(registry()) == [NAME]
    with pytest.raises(ModelError, match="check the network"):
        fetch(NAME)


def test_without_a_network_and_a_registry_it_says_so() -> None:
    with pytest.raises(ModelError, match="check the network, or take the model from a folder"):
        registry()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"<html>", "is no registry of models"),
        (b'{"models": {"x": {"description": "x"}}}', "'hf_repo_id' is a required property"),
        (
            b'{"models": {"x": {"description": "x", "hf_repo_id": "../x", "hf_revision": "m"}}}',
            "owner/name on the Hugging Face hub",
        ),
    ],
)
def test_a_registry_that_is_none_is_told(hub: Hub, data: bytes, problem: str) -> None:
    hub.files[f"/{REGISTRY}"] = data
    with pytest.raises(ModelError, match=problem):
        registry()


def test_a_name_that_would_leave_the_folder_is_no_model(hub: Hub) -> None:
    entry = {"description": "x", "hf_repo_id": "a/b", "hf_revision": "main"}
    hub.files[f"/{REGISTRY}"] = json.dumps({"models": {"../evil": entry}}).encode()
    assert registry() == {}
    with pytest.raises(ModelError, match="has no model"):
        fetch("../evil")


@pytest.mark.parametrize("layout", ["", NAME, f"kaczmarj/{NAME}/main"])
def test_a_model_is_taken_from_a_folder(tmp_path: Path, layout: str) -> None:
    """Its own, one above it, and QuPath's."""
    folder = tmp_path / "stick" / layout
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "torchscript_model.pt").write_bytes(WEIGHTS)
    kept = fetch(NAME, source=tmp_path / "stick")
    shutil.rmtree(tmp_path / "stick")
    assert find_model(NAME).path == kept
    (folder).mkdir(parents=True)
    with pytest.raises(ModelError, match="holds no"):
        fetch(NAME, source=tmp_path / "stick")


def test_the_command_line_fetches_and_lists(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    from napari_histomil.cli import main

    assert main(["models", "fetch"]) == 0
    assert capsys.readouterr().out == f"{NAME}  Tumour.\n"
    assert main(["models", "fetch", NAME]) == 0
    assert Path(capsys.readouterr().out.strip()) == user_data_dir() / "models" / NAME
    assert main(["models", "fetch", "qqq"]) == 2
    assert "has no model 'qqq'" in capsys.readouterr().err


def test_run_takes_a_model_of_the_zoo_by_name(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is downloaded before the slide is looked at, which is missing here."""
    from napari_histomil.cli import main

    assert main(["run", NAME, str(tmp_path / "none.svs")]) == 2
    assert "downloading it" in capsys.readouterr().err
    assert (user_data_dir() / "models" / NAME / "torchscript_model.pt").read_bytes() == WEIGHTS
