"""A studio of the toy model, and how a page asks it."""

import io
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from support.pictures import photo_bytes
from support.toy_photos import SPEC, toy_classifier
from support.toys import images
from underfire.studio.server import studio_app
from underfire.studio.session import StudioSession
from underfire.studio.shelf import OfferedModel

TOKEN, PORT = "a-token", 8750
ORIGIN = f"http://127.0.0.1:{PORT}"
ENDED = ("done", "stopped", "failed")


def toy_session() -> StudioSession:
    """Of the toy model alone."""
    return StudioSession([OfferedModel(SPEC, toy_classifier)])


def asking(session: StudioSession, token: str = TOKEN, **headers: str) -> TestClient:
    """A client that asks as the page does, or with other ``headers``."""
    app = studio_app(session, token=TOKEN, port=PORT)
    return TestClient(app, base_url=f"{ORIGIN}/{token}/", headers={"origin": ORIGIN} | headers)


def wish(**changes: Any) -> dict[str, Any]:
    """An attack on the first built-in photo, as the page asks for one."""
    plain: dict[str, Any] = {
        "model": 0, "photo": 0, "interpreters": ["cam"], "goal": "target/kept", "eps": "8/255", "passes": 24,
        "target": "class 3",
    }  # fmt: skip
    return plain | changes


def photo(seed: int = 0) -> bytes:
    """The bytes of a small PNG."""
    pixels = (images(1, 40, seed=seed)[0] * 255).byte().permute(1, 2, 0).numpy()
    return photo_bytes(Image.fromarray(np.ascontiguousarray(pixels)), "PNG")


def wait(session: StudioSession, phases: Iterable[str] = ENDED, seconds: float = 60) -> dict[str, Any]:
    """What a page that is opened then is told, once the attack is in one of ``phases``."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        told = session.news(0, 0, -1)
        if told is not None and told[0]["phase"] in phases:
            return told[0]
        time.sleep(0.01)
    raise AssertionError(f"the attack is not {phases} after {seconds} s")


def unpacked(content: bytes) -> Any:
    """An array in the bytes of an NPY file."""
    return np.load(io.BytesIO(content), allow_pickle=False)
