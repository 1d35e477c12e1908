"""Requests to the studio: photos, wishes, addresses and headers, spoilt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from fuzz.case import Case, Ended, Originals
from fuzz.kinds.images import spoilt_photo
from fuzz.mutate import as_json, odd, spoilt_bytes, spoilt_json
from support.studio import ENDED, ORIGIN, PORT, TOKEN, asking, photo, toy_session, wait, wish
from underfire.studio.wish import DRAWN, GOALS, perturbation_choices

_STRANGERS: tuple[Mapping[str, str], ...] = (
    {"host": "evil.example"}, {"host": f"127.0.0.1:{PORT}.evil.example"}, {"host": f"127.0.0.1:{PORT}@evil.example"},
    {"origin": "http://evil.example"}, {"origin": "null"}, {"origin": f"{ORIGIN}.evil.example"},
    {"origin": f"https://127.0.0.1:{PORT}"}, {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"},
)  # fmt: skip
_TOKENS = ("", TOKEN[:-1], f"{TOKEN}x", TOKEN.upper(), "..", "%00", f"x/{TOKEN}", f"%2e%2e/{TOKEN}")
_PATHS = (
    "", "studio.js", "options/0", "options/1", "options/-1", f"options/{9**40}", "options/x", "photos/0", "photos/12",
    f"photos/{9**40}", "photos/../labels.csv", "photos/%2e%2e/labels.csv", "photos/..%2f..%2fbuiltin.py", "../../",
    "evidence.zip", "evidence.zip/../../outside/thesis", "page/studio.html", "%00", "\u202e", "studio.js%00.css",
    "//evil.example/", "stop", "attack", "look", "photo", "x" * 9000,
)  # fmt: skip
_METHODS = ("GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH")


@dataclass(frozen=True)
class _Call:
    """One request; a ``stranger`` may be told nothing but that it is one."""

    told: str
    method: str
    path: str
    body: bytes = b""
    token: str = TOKEN
    headers: Mapping[str, str] | None = None

    @property
    def stranger(self) -> bool:
        return self.token != TOKEN or self.headers is not None


def request(draw: Random, _: Path, __: Originals) -> Case:
    """One to five requests, of which one may be a stranger's; a good one must be answered after them."""
    calls = [
        draw.choice((_photo, _attack, _attack, _look, _address, _stranger))(draw)
        for _ in range(draw.choice((1, 2, 3, 5)))
    ]
    return Case("; ".join(call.told for call in calls)[:2000], (), asks=partial(_ask, calls))


def _photo(draw: Random) -> _Call:
    _, body, told = spoilt_photo(draw)
    return _Call(f"photo {told}", "POST", "photo", body)


def _wish(draw: Random) -> tuple[bytes, str]:
    choice = draw.choice(perturbation_choices())
    content: Any = wish(
        photo=draw.choice((0, 0, 5, None)),
        goal=draw.choice(GOALS),
        interpreters=draw.sample(("cam", "grad", "gradcam", "inputxgradient"), draw.choice((1, 1, 2))),
        passes=draw.choice((4, 12)),
        perturbation=choice.name,
        eps=draw.choice(choice.budgets),
        target_map=[draw.randrange(256) for _ in range(DRAWN**2)] if draw.random() < 0.5 else None,
    )
    told = "a good wish"
    if draw.random() < 0.8:
        content, told = spoilt_json(draw, content)
    if isinstance(content, dict) and isinstance(content.get("passes"), int | float):
        content["passes"] = content["passes"] if content["passes"] < 1 else min(content["passes"], 40)
    body = as_json(content)
    if draw.random() < 0.1:
        body, changed = spoilt_bytes(draw, body)
        told += f", {changed}"
    return body, told


def _attack(draw: Random) -> _Call:
    body, told = _wish(draw)
    return _Call(f"attack {told}", "POST", "attack", body)


def _look(draw: Random) -> _Call:
    body, told = _wish(draw)
    return _Call(f"look {told}", "POST", "look", body)


def _address(draw: Random) -> _Call:
    method, path = draw.choice(_METHODS), draw.choice(_PATHS)
    return _Call(f"{method} {path[:60]!r}", method, path, as_json(odd(draw)) if draw.random() < 0.5 else b"")


def _stranger(draw: Random) -> _Call:
    call = draw.choice((_photo, _attack, _address))(draw)
    if draw.random() < 0.5:
        token, headers = draw.choice(_TOKENS), None
    else:
        token, headers = TOKEN, draw.choice(_STRANGERS)
    path = call.path if ".." not in call.path else ""
    return _Call(f"as {token!r} {headers}: {call.told}", call.method, path, call.body, token, headers)


def _ask(calls: Sequence[_Call]) -> tuple[Ended, ...]:
    """Makes the requests, of a studio of their own, and a good one after them."""
    session = toy_session()
    try:
        ended = []
        for call in calls:
            client = asking(session, call.token, **(call.headers or {}))
            answer = client.request(call.method, call.path, content=call.body)
            ended.append(_ended(call, answer))
            if answer.status_code == 202:
                wait(session, ENDED, seconds=600)
        session.stop()
        good = asking(session)
        ended += [_ended(_Call("good", "POST", path), good.post(path, content=body)) for path, body in _GOOD]
        return tuple(ended)
    finally:
        session.close()


_GOOD = (("photo", photo()), ("look", as_json(wish(photo=None))))


def _ended(call: _Call, answer: Any) -> Ended:
    """The answer as if it were a command's end."""
    status, text = answer.status_code, answer.text
    if call.stranger and status != 403:
        return Ended(70, "", f"a stranger was answered with {status}: {call.told}")
    if call.told == "good" and status != 200:
        return Ended(70, "", f"a good request was answered with {status}: {text[:300]}")
    if status < 400:
        return Ended(0, "", "")
    if status in (404, 405) or (call.method == "HEAD" and status < 500):  # an answer without words
        return Ended(2, "", "Error: no such address")
    if status >= 500:
        return Ended(70, "", text)
    told = text if status == 403 else answer.json()["error"]
    return Ended(2, "", f"Error: {told}")
