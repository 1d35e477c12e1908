"""Where weights are downloaded from: asked for nothing unless it answers, and told to run no code."""

import contextlib
import importlib
import importlib.util
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import torch

from underfire.errors import InputError

SECONDS = 4
"""That a server has to answer. The libraries themselves try again and again, for most of a minute."""

_PORTS = {"http": 80, "https": 443}


def answers(url: str) -> bool:
    """Whether a connection to the server of ``url``, or to the proxy on the way to it, can be made in time."""
    address = urlsplit(url)
    proxy = None if proxy_bypass(address.netloc) else getproxies().get(address.scheme)
    server = address if proxy is None else urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    connected = threading.Event()

    def connect() -> None:
        with contextlib.suppress(OSError):
            place = (server.hostname or "", server.port or _PORTS.get(server.scheme, 443))
            with socket.create_connection(place, timeout=SECONDS):
                connected.set()

    attempt = threading.Thread(target=connect, daemon=True)  # looking a name up knows no timeout
    attempt.start()
    attempt.join(SECONDS)
    return connected.is_set()


@contextlib.contextmanager
def hugging_face() -> Iterator[None]:
    """Inside the block huggingface_hub may download; if its server does not answer, it works offline."""
    if importlib.util.find_spec("huggingface_hub") is None:
        yield
        return
    constants: Any = importlib.import_module("huggingface_hub.constants")
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not answers(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def check_download(url: str) -> None:
    """Refuse weights that ``torch.hub`` has not got and cannot get.

    Raises:
        InputError: the server of ``url`` does not answer. The message is a clause.
    """
    address = urlsplit(url)
    kept = Path(torch.hub.get_dir(), "checkpoints", PurePosixPath(address.path).name)
    if not kept.exists() and not answers(url):
        raise InputError(f"{address.hostname} does not answer")


@contextlib.contextmanager
def weights_only() -> Iterator[None]:
    """Make ``torch.load`` run no code from a file, whatever a library that calls it asks for."""
    variable = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(variable)
    os.environ[variable] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before
