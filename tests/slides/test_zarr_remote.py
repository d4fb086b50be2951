"""OME-Zarr at addresses: fsspec's memory, and a web server on this machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import pytest

from napari_histomil.errors import SlideError
from napari_histomil.files import remote_url
from napari_histomil.resources import sidecar, user_data_dir
from napari_histomil.slides.readers import open_slide
from napari_histomil.slides.remembered import remember_mpp
from tests.slides.conftest import halves, picture
from tests.slides.test_zarr import channels_first, write_zarr

LEVELS = halves(picture(301, 207), 2)


class Server(ThreadingHTTPServer):
    """Serves a folder; `fail` are ends of names that it answers with an error."""

    daemon_threads = True
    fail: tuple[str, ...] = ()
    asked: list[str]


class Handler(SimpleHTTPRequestHandler):
    """What object stores do: parts of files, and nothing for folders."""

    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.server.asked.append(self.path)
        file = Path(self.translate_path(self.path))
        if self.path.endswith(self.server.fail or ("\0",)):
            self.send_error(HTTPStatus.FORBIDDEN)
            return
        if not file.is_file():
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        data, status = file.read_bytes(), HTTPStatus.OK
        if wanted := self.headers.get("Range", ""):
            first, last = wanted.removeprefix("bytes=").split("-")
            start = int(first) if first else len(data) - int(last)
            stop = int(last) + 1 if first and last else len(data)
            data, status = data[start:stop], HTTPStatus.PARTIAL_CONTENT
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    root = tmp_path / "served"
    root.mkdir()
    with Server(("127.0.0.1", 0), partial(Handler, directory=str(root))) as running:
        running.asked = []
        thread = threading.Thread(target=running.serve_forever, args=(0.05,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def url(server: Server, tmp_path: Path) -> str:
    write_zarr(tmp_path / "served" / "slide.zarr", channels_first(LEVELS), "cyx", shards=True)
    return f"http://127.0.0.1:{server.server_port}/slide.zarr"


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ("https://a.org/b/c.zarr", "https://a.org/b/c.zarr"),
        (Path("https://a.org/b/c.zarr"), "https://a.org/b/c.zarr"),
        (Path("s3://bucket/c.zarr"), "s3://bucket/c.zarr"),
        ("memory://c.zarr", "memory://c.zarr"),
        ("/a/b.zarr", None),
        ("C:/a/b.zarr", None),
        ("C:\\a", None),
        ("a:b.svs", None),
        ("file:///a/b.svs", None),
        (Path("here/https:"), None),
    ],
)
def test_what_is_an_address(path: str | Path, address: str | None):
    assert remote_url(path) == address


def test_all_levels_from_a_server(url: str, tmp_path: Path):
    with open_slide(url) as slide:
        info = slide.info
        assert info.reader == "zarr"
        assert info.path.name == "slide.zarr"
        assert info.mpp_xy == (0.5, 0.5)
        for index, level in enumerate(LEVELS):
            found = slide.read_region((0, 0), index, (level.shape[1], level.shape[0]))
            np.testing.assert_array_equal(found, level)
    with open_slide(tmp_path / "served" / "slide.zarr") as local:
        assert local.info.fingerprint == info.fingerprint


def test_only_the_pieces_in_view_are_asked_for(url: str, server: Server):
    with open_slide(url) as slide:
        server.asked.clear()
        slide.read_region((0, 0), 0, (10, 10))
        slide.read_region((5, 5), 0, (10, 10))  # kept
    assert {path.partition("/c/")[2] for path in server.asked} == {"0/0/0", "1/0/0", "2/0/0"}


def test_the_path_opens_it_again_and_work_lies_at_home(url: str):
    with open_slide(url) as slide:
        info = slide.info
        remember_mpp(info, 0.3)
    assert sidecar(info.path, info.fingerprint).is_relative_to(user_data_dir())
    with open_slide(info.path) as again:
        assert again.info.mpp == 0.3
        assert again.info.fingerprint == info.fingerprint


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_memory_and_what_is_not_stored(tmp_path: Path, version: str):
    folder = write_zarr(tmp_path / "a.zarr", channels_first(LEVELS), "cyx", version=version)
    missing = folder / "0" / ("0.1.2" if version == "0.4" else "c/0/1/2")
    missing.unlink()
    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/slides/a.zarr", recursive=True)
    wanted = LEVELS[0].copy()
    wanted[64:128, 128:192, 0] = 0  # zarr's fill value, in red only
    try:
        with open_slide("memory://slides/a.zarr") as slide, open_slide(folder) as local:
            assert slide.info.fingerprint == local.info.fingerprint
            np.testing.assert_array_equal(slide.read_region((0, 0), 0, (301, 207)), wanted)
            np.testing.assert_array_equal(local.read_region((0, 0), 0, (301, 207)), wanted)
    finally:
        memory.rm("/slides", recursive=True)


def sentence(address: str | Path, **options: str) -> str:
    with pytest.raises(SlideError) as caught:
        open_slide(address, **options)  # type: ignore[arg-type]
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 400
    return text


def test_brackets_in_an_address_are_no_pattern(tmp_path: Path):
    import fsspec

    folder = write_zarr(tmp_path / "a.zarr", channels_first(LEVELS), "cyx")
    fsspec.filesystem("memory").put(str(folder), "/cases/a [1] *?.zarr", recursive=True)
    try:
        with open_slide("memory://cases/a [1] *?.zarr") as slide, open_slide(folder) as local:
            assert slide.info.fingerprint == local.info.fingerprint
    finally:
        fsspec.filesystem("memory").rm("/cases", recursive=True)


def test_what_cannot_be_read_is_one_sentence(url: str, server: Server):
    base = url.removesuffix("/slide.zarr")
    assert f"There is no OME-Zarr image at {base}/other.zarr" in sentence(f"{base}/other.zarr")
    assert "only OME-Zarr" in sentence(f"{base}/slide.svs", reader="openslide")
    server.fail = ("zarr.json",)
    assert f"{url} cannot be read: " in sentence(url)


def test_a_server_that_is_gone_is_one_sentence(server: Server):
    address = f"http://127.0.0.1:{server.server_port}/slide.zarr"
    server.socket.close()
    assert f"{address} cannot be read: " in sentence(address)
    assert "cannot be read" in sentence("nonsense://a/b.zarr")


def test_a_piece_that_cannot_be_read_says_where(url: str, server: Server):
    with open_slide(url) as slide:
        server.fail = ("0/c/1/0/1",)
        slide.read_region((0, 0), 0, (64, 64))
        with pytest.raises(
            SlideError, match=r"slide\.zarr cannot be read at \(256, 0\) of level 0"
        ):
            slide.read_region((260, 0), 0, (9, 9))
        server.fail = ()
        np.testing.assert_array_equal(
            slide.read_region((260, 0), 0, (9, 9)), LEVELS[0][:9, 260:269]
        )
