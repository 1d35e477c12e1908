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

from underfire.choices import EngineName
from underfire.errors import InputError
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

    def run(self, item: Item, /) -> Found:
        """Works on ``item`` to its end."""
        ...


class RayPool:
    """One actor with one thread per CPU of the cluster (on CUDA: per GPU), each with a copy of the classifier.

    ``address`` is that of a cluster which is running already, as `ray.init` takes it; None for the one that the
    environment names, or a new one on this machine.

    Raises `InputError` where Ray is not installed, or nothing answers at ``address``.
    """

    def __init__(self, address: str | None = None) -> None:
        try:
            self._ray: Any = import_module("ray")
        except ImportError as error:
            raise InputError(
                "engine 'ray' needs Ray, which is not installed; "
                "run pip install 'underfire[ray]', or use --engine local"
            ) from error
        if address is not None:
            _check_answers(address)
        self._address = address

    def run(
        self,
        items: Sequence[P],
        worker: Callable[..., Worker[P, T]],
        classifier: Classifier,
        *facts: object,
        named: Callable[[P], str],
        lost: Callable[[P], None] = lambda _: None,
    ) -> Iterator[tuple[P, T]]:
        """Each of ``items`` with what came of it, worked on by the actor that is free first.

        Args:
            items: the work.
            worker: the class of the actors, which is given ``classifier`` and ``facts``.
            classifier: sent to each machine once; where it stands decides whether actors take GPUs.
            facts: small.
            named: an item in words.
            lost: called with an item whose worker was lost, before another takes it.

        Raises:
            InputError: of a worker, or three of them were lost over one item.
            OSError: of a worker.
        """
        ray = self._ray
        started_here = not ray.is_initialized()
        if started_here:
            self._start()
        try:
            yield from self._run(items, worker, classifier, facts, named, lost)
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
        except (ValueError, OSError, RuntimeError, SystemExit) as error:  # it exits where a stranger answers
            if self._address is None:
                raise
            raise InputError(_no_cluster(self._address, error)) from error
        finally:
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray takes it for itself

    def _run(
        self,
        items: Sequence[P],
        worker: Callable[..., Worker[P, T]],
        classifier: Classifier,
        facts: tuple[object, ...],
        named: Callable[[P], str],
        lost: Callable[[P], None],
    ) -> Iterator[tuple[P, T]]:
        ray = self._ray
        on_gpu = classifier.device.type == "cuda"
        resource = "GPU" if on_gpu else "CPU"
        count = max(1, min(len(items), int(ray.cluster_resources().get(resource, 1))))
        actors = ray.remote(num_cpus=0 if on_gpu else 1, num_gpus=1 if on_gpu else 0)(worker)
        model = ray.put(classifier)

        def start() -> Any:
            return actors.remote(model, *facts)

        # An actor has an item when it is ready, and not before: on a machine that is gone none ever is.
        starting = {actor.__ray_ready__.remote(): actor for actor in (start() for _ in range(count))}
        waiting, working, idle = list(reversed(range(len(items)))), dict[Any, tuple[Any, int]](), list[Any]()
        losses, unready = Counter[int](), 0
        known = ray.exceptions
        deaths = (known.RayActorError, known.NodeDiedError, known.OutOfMemoryError, known.ObjectLostError)
        while waiting or working:
            while waiting and idle:
                free, upcoming = idle.pop(), waiting.pop()
                working[free.run.remote(items[upcoming])] = free, upcoming
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


def pool_of(engine: EngineName, address: str | None) -> RayPool | None:
    """The pool that ``engine`` works on, None for this process.

    Raises:
        InputError: as `RayPool`; or there is an address, which ``engine`` has no use for.
    """
    if engine == "ray":
        return RayPool(address)
    if address is not None:
        raise InputError(f"the address of Ray {quoted(address)} is for the engine 'ray', not {engine!r}; give both")
    return None


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
