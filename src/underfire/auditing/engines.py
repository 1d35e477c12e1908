"""Where units are worked on: in this process, or on the processes and machines of a Ray cluster."""

import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import torch

from underfire.auditing.given import NOTHING_GIVEN, GivenParts
from underfire.auditing.plan import AuditPlan, Unit
from underfire.auditing.store import RunDirectory
from underfire.auditing.unit import Auditor, Event
from underfire.errors import InputError
from underfire.files import quoted, shortened
from underfire.models.classifier import Classifier

_LOSSES = 3
"""With so many workers lost over one unit, it is given up."""

_PATIENCE = 10
"""Seconds until a machine that does not answer is given up."""


class Engine(Protocol):
    """Works on units in any order and tells what is done."""

    def run(self, units: Sequence[Unit]) -> Iterator[Event]:
        """Works on all ``units``; stops at the first error, which is raised."""
        ...


class LocalEngine:
    """One unit after the other, in this process."""

    def __init__(self, auditor: Auditor) -> None:
        self._auditor = auditor

    def run(self, units: Sequence[Unit]) -> Iterator[Event]:
        """Works on all ``units`` in order."""
        for unit in units:
            yield from self._auditor.run(unit)


class RayEngine:
    """One actor with one thread per CPU of the cluster (on CUDA: per GPU), each with a copy of the model.

    ``address`` is that of a cluster which is running already, as `ray.init` takes it; None for the one that the
    environment names, or a new one on this machine.

    Raises `InputError` where Ray is not installed, or nothing answers at ``address``.
    """

    def __init__(
        self,
        plan: AuditPlan,
        classifier: Classifier,
        directory: RunDirectory,
        *,
        given: GivenParts = NOTHING_GIVEN,
        address: str | None = None,
    ) -> None:
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
        given.check_portable()
        self._given = given
        # Actors have their own current directory.
        self._plan = plan if plan.rts is None else replace(plan, rts=str(Path(plan.rts).resolve()))
        self._classifier = classifier
        self._directory = replace(directory, path=directory.path.resolve())

    def run(self, units: Sequence[Unit]) -> Iterator[Event]:
        """Works on all ``units``, each by the actor that is free first."""
        ray = self._ray
        started_here = not ray.is_initialized()
        if started_here:
            self._start()
        try:
            yield from self._run(units)
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

    def _run(self, units: Sequence[Unit]) -> Iterator[Event]:
        ray = self._ray
        on_gpu = self._classifier.device.type == "cuda"
        resource = "GPU" if on_gpu else "CPU"
        count = max(1, min(len(units), int(ray.cluster_resources().get(resource, 1))))
        worker = ray.remote(num_cpus=0 if on_gpu else 1, num_gpus=1 if on_gpu else 0)(_Worker)
        model = ray.put(self._classifier)

        def start() -> Any:
            return worker.remote(self._plan, model, self._directory, self._given)

        idle = [start() for _ in range(count)]
        waiting, working = list(reversed(units)), dict[Any, tuple[Any, Unit]]()
        lost = Counter[int]()
        known = ray.exceptions
        losses = (known.RayActorError, known.NodeDiedError, known.OutOfMemoryError, known.ObjectLostError)
        while waiting or working:
            while waiting and idle:
                actor, unit = idle.pop(), waiting.pop()
                working[actor.run.remote(unit)] = actor, unit
            (done,), _ = ray.wait(list(working))
            actor, unit = working.pop(done)
            try:
                events = ray.get(done)
            except losses as error:
                ray.kill(actor)  # one that cannot be reached may be at work still
                lost[unit.number] += 1
                if lost[unit.number] == _LOSSES:
                    raise InputError(_lost(unit)) from error
                self._directory.sweep(unit)
                waiting.append(unit)
                idle.append(start())
            else:
                idle.append(actor)
                yield from events


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


def _lost(unit: Unit) -> str:
    photos = ", ".join(quoted(photo.image_id) for photo in unit.photos)
    return (
        f"{_LOSSES} workers of Ray were lost over part {unit.number} ({photos}): they may have run out "
        "of memory, or the model may end its process; finished parts are kept, and the same command goes on from there"
    )


class _Worker:
    """An actor: an `Auditor` in a process of its own."""

    def __init__(self, plan: AuditPlan, classifier: Classifier, directory: RunDirectory, given: GivenParts) -> None:
        torch.set_num_threads(1)  # as many processes as cores: more threads would only wait for one another
        self._auditor = Auditor(plan, classifier, directory, given=given)

    def run(self, unit: Unit) -> list[Event]:
        """Works on ``unit`` to its end."""
        return list(self._auditor.run(unit))
