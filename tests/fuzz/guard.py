"""What an input may do: write in its own folder. All else is noticed, by Python's audit events."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_STARTS = frozenset({"subprocess.Popen", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.system", "os.forkpty"})
_REACHES = frozenset({"socket.connect", "socket.bind", "socket.sendto", "urllib.Request"})
_CHANGES = {"os.remove": 1, "os.rmdir": 1, "os.mkdir": 2, "os.chmod": 2, "os.truncate": None, "os.symlink": None}
"""Events that change the path that comes first, and where a file descriptor of its folder stands."""

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class _Guard:
    """Hooks cannot be taken away again, so there is one, which is asleep between inputs."""

    def __init__(self) -> None:
        self.seen: list[str] | None = None
        self.home, self.secrets = "", ""
        self.installed = False

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.seen is None:
            return
        seen, self.seen = self.seen, None  # what is asked below is not asked about
        try:
            found = self._problem(event, arguments)
            if found is not None:
                seen.append(found)
        finally:
            self.seen = seen

    def _problem(self, event: str, arguments: tuple[Any, ...]) -> str | None:
        if event in _STARTS or event in _REACHES:
            return f"{event} {str(arguments)[:200]}"
        if event == "import" and str(arguments[0]).split(".")[0] == "evil":
            return "imported evil"
        if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            return self._opened(_whole(arguments[0]), arguments[2] or 0)
        if event == "os.rename":
            return next(filter(None, (self._changed(event, path, None) for path in arguments[:2])), None)
        if event in _CHANGES:
            at = _CHANGES[event]
            return self._changed(event, arguments[0], None if at is None else arguments[at])
        return None

    def _opened(self, path: str, flags: int) -> str | None:
        if path.startswith(self.secrets):
            return f"opened {path}, which nobody named"
        return self._changed("opened to write", path, None) if flags & _WRITES else None

    def _changed(self, what: str, path: Any, folder: int | None) -> str | None:
        if isinstance(path, int) or (folder is not None and folder >= 0):
            return None  # in a folder that was opened before
        whole = _whole(path)
        allowed = (self.home, f"{tempfile.gettempdir()}/{tempfile.gettempprefix()}", os.devnull)
        outside = not whole.startswith(allowed) or whole.startswith(self.secrets)
        there = what == "os.mkdir" and os.path.isdir(whole)  # noqa: PTH112 - and so nothing is changed
        return f"{what} {whole}" if outside and not there else None


def _whole(path: Any) -> str:
    return os.path.realpath(os.fsdecode(path))


_GUARD = _Guard()


@contextmanager
def guarded(home: Path, secrets: Path) -> Iterator[list[str]]:
    """What the block does beyond writing in ``home`` is in the list: processes, sockets, files elsewhere.

    Nothing in ``secrets`` may be read.
    """
    if not _GUARD.installed:
        sys.addaudithook(_GUARD.hook)
        _GUARD.installed = True
    _GUARD.home, _GUARD.secrets = f"{home.resolve()}/", f"{secrets.resolve()}/"
    seen: list[str] = []
    _GUARD.seen = seen
    try:
        yield seen
    finally:
        _GUARD.seen = None
