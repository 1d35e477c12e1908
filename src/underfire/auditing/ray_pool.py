"""Work for the processes and machines of a Ray cluster, one item at a time."""

import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from underfire.auditing.plan import ANY_RAY, RaySettings
from underfire.choices import EngineName
from underfire.errors import InputError, ShortageError
from underfire.files import quoted, shortened
from underfire.models.classifier import Classifier

_LOSSES = 3
"""With so many workers lost over one item, it is given up."""

_PATIENCE = 10
"""Seconds until a machine that does not answer is given up."""

P = TypeVar("P")
T = TypeVar("T")
Item = TypeVar("Item", contravariant=True)
Found = TypeVar("Found", covariant=True)


class Worker(Protocol[Item, Found]):
    """What an actor is made of, in a process of its own with one thread."""

    def run(self, item: Item, contents: Sequence[bytes] | None, /) -> Found:
        """Works on ``item`` to its end; ``contents`` are those of its files, None where a worker can read them."""
        ...


class RayPool:
    """One actor with one thread per CPU of the cluster (on CUDA: by GPUs), each with a copy of the classifier.

    Raises `InputError` where Ray is not installed, or nothing answers at the address of ``settings``.
    """

    def __init__(self, settings: RaySettings = ANY_RAY) -> None:
        try:
            self._ray: Any = import_module("ray")
        except ImportError as error:
            raise InputError(
                "engine 'ray' needs Ray, which is not installed; "
                "run pip install 'underfire[ray]', or use --engine local"
            ) from error
        if settings.address is not None:
            _check_answers(settings.address)
        self._settings, self._address = settings, settings.address

    def run(
        self,
        items: Sequence[P],
        worker: Callable[..., Worker[P, T]],
        classifier: Classifier,
        *facts: object,
        named: Callable[[P], str],
        files: Callable[[P], Sequence[str]],
        lost: Callable[[P], None] = lambda _: None,
    ) -> Iterator[tuple[P, T]]:
        """Each of ``items`` with what came of it, worked on by the actor that is free first.

        Args:
            items: the work.
            worker: the class of the actors, which is given ``classifier`` and ``facts``.
            classifier: sent to each machine once; where it stands decides whether actors take GPUs.
            facts: small.
            named: an item in words.
            files: what a worker reads for an item; sent with it, when it is its turn, where no disk is shared.
            lost: called with an item whose worker was lost, before another takes it.

        Raises:
            InputError: of a worker, or three of them were lost over one item.
            OSError: of a worker, or a file that is to be sent cannot be read.
        """
        ray = self._ray
        started_here = not ray.is_initialized()
        if started_here:
            self._start()
        try:
            start, room = self._actors(worker, classifier, facts)
            yield from self._run(items, start, min(len(items), room), named, files, lost)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, InputError | OSError):
                raise error.cause from None  # its sentence, without the traceback of another process
            raise
        finally:
            if started_here:
                ray.shutdown()

    def _start(self) -> None:
        """Connects to the cluster, or starts one here."""
        on_sigterm = signal.getsignal(signal.SIGTERM)
        # The user's own modules are found where this process finds them.
        places = os.pathsep.join([*filter(None, sys.path), str(Path.cwd())])
        # Of a cluster that is running Ray takes no wishes about its dashboard.
        where = {"include_dashboard": False} if self._address is None else {"address": self._address}
        try:
            self._ray.init(
                log_to_driver=False,
                logging_level="ERROR",
                runtime_env={"env_vars": {"PYTHONPATH": places}},
                **where,
            )
        except (Exception, SystemExit) as error:  # of no class of its own; it exits where a stranger answers
            if self._address is None:
                why = shortened(str(error).strip() or type(error).__name__)
                raise ShortageError(f"Ray did not start here ({why}); try again, or take --engine local.") from error
            raise InputError(_no_cluster(self._address, error)) from error
        finally:
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray takes it for itself

    def _actors(
        self, worker: Callable[..., object], classifier: Classifier, facts: tuple[object, ...]
    ) -> tuple[Callable[[], Any], int]:
        """How to start an actor, and how many there is room for, at least one."""
        ray, gpus = self._ray, self._settings.gpus_per_worker
        resource, each = ("GPU", gpus) if classifier.device.type == "cuda" else ("CPU", 1)
        room = int(ray.cluster_resources().get(resource, 1) / each + 1e-6)  # of thirds there are three in one
        wants = {"num_cpus": 0, "num_gpus": gpus} if resource == "GPU" else {"num_cpus": 1, "num_gpus": 0}
        actors, model = ray.remote(**wants)(worker), ray.put(classifier)
        return (lambda: actors.remote(model, *facts)), max(1, room)

    def _contents(self, files: Sequence[str]) -> list[bytes] | None:
        return None if self._settings.shared_disk else [Path(file).read_bytes() for file in files]

    def _run(
        self,
        items: Sequence[P],
        start: Callable[[], Any],
        count: int,
        named: Callable[[P], str],
        files: Callable[[P], Sequence[str]],
        lost: Callable[[P], None],
    ) -> Iterator[tuple[P, T]]:
        ray = self._ray
        # An actor has an item when it is ready, and not before: on a machine that is gone none ever is.
        starting = {actor.__ray_ready__.remote(): actor for actor in (start() for _ in range(count))}
        waiting, working, idle = list(reversed(range(len(items)))), dict[Any, tuple[Any, int]](), list[Any]()
        losses, unready = Counter[int](), 0
        known = ray.exceptions
        deaths = (known.RayActorError, known.NodeDiedError, known.OutOfMemoryError, known.ObjectLostError)
        while waiting or working:
            while waiting and idle:
                free, upcoming = idle.pop(), waiting.pop()
                working[free.run.remote(items[upcoming], self._contents(files(items[upcoming])))] = free, upcoming
            (done,), _ = ray.wait([*starting, *working])
            place: int | None = None
            if done in starting:
                actor = starting.pop(done)
            else:
                actor, place = working.pop(done)
            try:
                found = ray.get(done)
            except deaths as error:
                ray.kill(actor)  # one that cannot be reached may be at work still
                if place is None:
                    unready += 1
                else:
                    losses[place] += 1
                    if losses[place] == _LOSSES:
                        raise InputError(_given_up(named(items[place]))) from error
                    lost(items[place])
                    waiting.append(place)
                if unready == _LOSSES:
                    raise InputError(_never_ready(error)) from error
                new = start()
                starting[new.__ray_ready__.remote()] = new
            else:
                idle.append(actor)
                if place is None:
                    unready = 0
                else:
                    yield items[place], found


def pool_of(engine: EngineName, settings: RaySettings) -> RayPool | None:
    """The pool that ``engine`` works on, None for this process.

    Raises:
        InputError: as `RayPool`; or there are ``settings`` of Ray, which ``engine`` has no use for.
    """
    if engine == "ray":
        return RayPool(settings)
    if settings.address is not None:
        what = f"the address of Ray {quoted(settings.address)} is"
    elif settings.gpus_per_worker != ANY_RAY.gpus_per_worker:
        what = f"a worker with '{settings.gpus_per_worker:g}' GPUs is"
    elif not settings.shared_disk:
        what = "work without a shared disk is"
    else:
        return None
    raise InputError(f"{what} for the engine 'ray', not {engine!r}; give both")


def as_actor() -> None:
    """What a worker does first: as many processes as cores work, and more threads would only wait for one another."""
    torch.set_num_threads(1)


def _check_answers(address: str) -> None:
    """Refuses an address of a machine where nothing answers, for which Ray itself takes a minute."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return  # "auto", or a mistake that Ray sees at once
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE):
            pass
    except (ValueError, OverflowError, OSError) as error:  # of them UnicodeError: a host of more than 63 letters
        raise InputError(_no_cluster(address, error)) from error


def _no_cluster(address: str, error: BaseException) -> str:
    line, *_ = [*str(error).splitlines(), ""]
    why = "" if isinstance(error, SystemExit) or not line else f" ({shortened(line)})"
    return (
        f"no Ray cluster can be used at {quoted(address)}{why}; give --ray-address as HOST:PORT of its head "
        "(`ray start --head` prints it), or 'auto' on one of its machines"
    )


def _given_up(what: str) -> str:
    return (
        f"{_LOSSES} workers of Ray were lost over {what}: they may have run out of memory, or the model may end its "
        "process; finished parts are kept, and the same command goes on from there"
    )


def _never_ready(error: BaseException) -> str:
    line, *_ = [*str(error).splitlines(), ""]
    return (
        f"{_LOSSES} workers of Ray in turn were lost before they were ready ({shortened(line)}); install underfire and "
        "the model's code on each machine, and see whether the model fits into its memory"
    )
