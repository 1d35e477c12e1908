"""A hub is asked where it answers, and otherwise at once said not to."""

import importlib.util
import os
import socket
import threading
from pathlib import Path

import pytest
import torch

from underfire.errors import InputError
from underfire.models import hub

URL = "https://hub.example/net-12.pth"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> socket.socket:
    """One that listens, on a port of this machine, and no proxy before it."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return socket.create_server(("127.0.0.1", 0))


def test_a_server_that_listens_answers(server: socket.socket) -> None:
    with server:
        port = server.getsockname()[1]
        assert hub.answers(f"http://127.0.0.1:{port}/any/file")
    assert not hub.answers(f"http://127.0.0.1:{port}/any/file")


def test_a_proxy_is_asked_in_its_place(server: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", f"127.0.0.1:{server.getsockname()[1]}")
    with server:
        assert hub.answers(URL)
    assert not hub.answers(URL)


def test_a_name_that_is_looked_up_for_ever(server: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "SECONDS", 0.05)
    released, ended = threading.Event(), threading.Event()

    def look_up(*_: object, **__: object) -> None:
        released.wait()
        ended.set()
        raise OSError

    monkeypatch.setattr(socket, "create_connection", look_up)
    assert not hub.answers(URL)
    released.set()
    assert ended.wait(60)
    server.close()


def test_weights_that_torch_hub_keeps_need_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(hub, "answers", lambda url: False)
    with pytest.raises(InputError, match=r"hub\.example does not answer"):
        hub.check_download(URL)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "net-12.pth").touch()
    hub.check_download(URL)


@pytest.mark.parametrize("there", [True, False])
def test_the_library_of_hugging_face_is_offline_where_the_hub_is(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "answers", lambda url: there)
    with hub.hugging_face():
        assert constants.HF_HUB_OFFLINE is not there
    assert not constants.HF_HUB_OFFLINE


def test_without_that_library_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(hub, "answers", lambda url: pytest.fail("it was asked"))
    with hub.hugging_face():
        pass


def test_weights_only_is_for_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    for before in ("0", None):
        if before is None:
            monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)
        else:
            monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", before)
        with hub.weights_only():
            assert os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] == "1"
        assert os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD") == before
