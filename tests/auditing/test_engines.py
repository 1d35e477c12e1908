"""Ray's workers may be lost: their units go elsewhere, a few times. Ray itself is a fake one here, but for one test."""

import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from support.stopping import DyingCAM
from support.toy_photos import (
    MODEL_OPTIONS,
    found,
    leftovers,
    one_thread,
    rows_of,
    toy_classifier,
    toy_plan,
    write_photos,
)
from underfire.auditing.given import GivenParts
from underfire.auditing.plan import AuditPlan, PlannedPhoto, RaySettings, Unit
from underfire.auditing.ray_pool import RayPool
from underfire.auditing.runner import AuditOutcome, run_audit
from underfire.auditing.store import RunDirectory
from underfire.auditing.unit import Auditor, Event
from underfire.choices import Keep
from underfire.cli import cli
from underfire.errors import InputError

PLAN = replace(toy_plan(), steps=2, interpreters=("cam",), attacks=("pgd",), batch_size=2)


class _ActorError(Exception):
    """What Ray raises for a worker that is lost."""


class _OtherError(Exception):
    """What it raises otherwise."""


@dataclass
class FakeRay:
    """As much of Ray as a pool uses, in this process; ``losses`` says how often a worker dies over a unit or photo."""

    losses: Counter[int | str]
    made: int = 0
    dead: int = 0
    running: bool = True
    wrong: BaseException | None = None  # what Ray says of an address
    asked: list[dict[str, Any]] = field(default_factory=list)
    wanted: list[dict[str, Any]] = field(default_factory=list)  # what workers are to have
    unready: int = 0  # so many workers die before they are ready

    exceptions = SimpleNamespace(
        RayActorError=_ActorError,
        NodeDiedError=_OtherError,
        OutOfMemoryError=_OtherError,
        ObjectLostError=_OtherError,
        RayTaskError=_OtherError,
    )

    def is_initialized(self) -> bool:
        return self.running

    def init(self, **options: Any) -> None:
        self.asked.append(options)
        if self.wrong is not None:
            raise self.wrong
        self.running = True

    def shutdown(self) -> None:
        self.running = False

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0, "GPU": 1.0}

    def put(self, value: object) -> object:
        return value

    def remote(self, **wanted: object) -> Callable[[type], Any]:
        self.wanted.append(wanted)
        return lambda cls: SimpleNamespace(remote=lambda *given: self._actor(cls(*given)))

    def kill(self, actor: Any) -> None:
        self.dead += 1

    def _actor(self, worker: Any) -> Any:
        self.made += 1
        state = SimpleNamespace(alive=True)

        def ready() -> Callable[[], object]:
            def result() -> None:
                if self.unready:
                    self.unready -= 1
                    raise _ActorError("cannot import name 'mine'")

            return result

        def run(item: Unit | PlannedPhoto, contents: list[bytes] | None) -> Callable[[], object]:
            assert state.alive, "a dead worker was asked"

            def result() -> object:
                name = item.number if isinstance(item, Unit) else item.image_id
                if self.losses[name]:
                    self.losses[name] -= 1
                    state.alive = False
                    if isinstance(item, Unit):
                        directory: RunDirectory = worker._auditor.directory
                        (directory.artifacts / f".{item.photos[0].key}.12345").mkdir(parents=True)  # half of its work
                    raise _ActorError
                return worker.run(item, contents)

            return result

        parts = {"run": run, "__ray_ready__": ready}
        return SimpleNamespace(**{name: SimpleNamespace(remote=part) for name, part in parts.items()})

    def wait(self, results: Sequence[Callable[[], object]]) -> tuple[list[Any], list[Any]]:
        return list(results[:1]), list(results[1:])

    def get(self, result: Callable[[], object]) -> object:
        return result()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos") / "set")


@pytest.fixture(scope="module")
def local(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("local") / "run"
    with one_thread():
        run(photos, out, engine="local")
    return out


def run(photos: Path, out: Path, plan: AuditPlan = PLAN, **options: Any) -> AuditOutcome:
    with one_thread():
        return run_audit(plan, found(photos), toy_classifier(), out, **{"engine": "ray", **options})


@pytest.mark.parametrize("losses", [{}, {0: 1}, {0: 2, 1: 2, 2: 2}])
def test_units_of_lost_workers_are_done_by_others(
    losses: dict[int, int], photos: Path, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = FakeRay(Counter(losses))
    monkeypatch.setitem(sys.modules, "ray", ray)
    assert run(photos, tmp_path / "run").finished
    assert rows_of(tmp_path / "run") == rows_of(local)
    assert (ray.dead, ray.made) == (sum(losses.values()), 2 + sum(losses.values()))
    assert leftovers(tmp_path / "run") == []


def test_a_unit_that_every_worker_is_lost_over_is_given_up(
    photos: Path, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", FakeRay(Counter({1: 99})))
    with pytest.raises(InputError, match=r"3 workers of Ray were lost over part 1 \('photo-2.png', 'photo-3.png'\)"):
        run(photos, tmp_path / "run")
    assert RunDirectory(tmp_path / "run").has_part(0)  # what was done is kept
    monkeypatch.setitem(sys.modules, "ray", FakeRay(Counter()))
    assert run(photos, tmp_path / "run").finished
    assert rows_of(tmp_path / "run") == rows_of(local)


def test_workers_that_die_before_they_are_ready_are_replaced_a_few_times(
    photos: Path, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", FakeRay(Counter(), unready=2))
    assert run(photos, tmp_path / "run").finished
    assert rows_of(tmp_path / "run") == rows_of(local)
    monkeypatch.setitem(sys.modules, "ray", FakeRay(Counter(), unready=3))
    with pytest.raises(InputError, match=r"lost before they were ready \(cannot import name 'mine'\)"):
        run(photos, tmp_path / "other")
    assert leftovers(tmp_path / "other") == []


def files_of(folder: Path) -> dict[str, bytes]:
    """All files of a run but those that hold times."""
    files = (path for path in sorted(folder.rglob("*")) if path.suffix in (".png", ".safetensors"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("keep", ["all", "adversarial", "none"])
def test_without_a_shared_disk_photos_go_to_the_workers_and_results_come_back(
    keep: Keep, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with one_thread():
        run(photos, tmp_path / "local", engine="local", keep=keep)
    monkeypatch.setitem(sys.modules, "ray", FakeRay(Counter({1: 1})))
    used: set[Path] = set()
    work = Auditor.run

    def watched(auditor: Auditor, unit: Unit) -> Iterator[Event]:
        used.update([*(Path(photo.file) for photo in unit.photos), auditor.directory.path])
        return work(auditor, unit)

    monkeypatch.setattr(Auditor, "run", watched)
    assert run(photos, tmp_path / "run", keep=keep, ray=RaySettings(shared_disk=False)).finished
    assert rows_of(tmp_path / "run") == rows_of(tmp_path / "local")
    assert files_of(tmp_path / "run") == files_of(tmp_path / "local")
    assert bool(files_of(tmp_path / "run")) == (keep != "none")
    assert used
    assert not [path for path in used if path.is_relative_to(photos) or path.is_relative_to(tmp_path / "run")]
    assert not [path for path in used if path.exists()]
    assert leftovers(tmp_path / "run") == []


@pytest.mark.parametrize(("gpus", "room"), [(1.0, 1), (0.25, 4), (1 / 3, 3), (2.0, 1)])
def test_workers_share_a_gpu(gpus: float, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Idle:
        """Only says what it was given."""

        def __init__(self, classifier: object) -> None:
            pass

        def run(self, item: PlannedPhoto, contents: Sequence[bytes] | None) -> None:
            assert contents is None

    ray = FakeRay(Counter())
    monkeypatch.setitem(sys.modules, "ray", ray)
    on_gpu: Any = SimpleNamespace(device=torch.device("cuda"))
    items: Any = [SimpleNamespace(image_id=str(place)) for place in range(9)]
    done = RayPool(RaySettings(gpus_per_worker=gpus)).run(items, Idle, on_gpu, named=str, files=lambda _: [])
    assert [item for item, _ in done] == items
    assert (ray.made, ray.wanted) == (room, [{"num_cpus": 0, "num_gpus": gpus}])


@pytest.mark.parametrize("gpus", ["0", "-1", "1.5", "inf", "nan"])
def test_shares_that_no_gpu_has_are_refused(gpus: str, photos: Path, tmp_path: Path) -> None:
    command = ["audit", str(photos), *MODEL_OPTIONS, "--out", str(tmp_path / "run"), "--engine", "ray"]
    ended = CliRunner().invoke(cli, [*command, "--gpus-per-worker", gpus])
    assert (ended.exit_code, f"'{gpus}'" in ended.stderr) == (2, True), ended.output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("option", ["--gpus-per-worker=0.5", "--no-shared-disk"])
def test_settings_of_ray_are_refused_without_it(option: str, photos: Path, tmp_path: Path) -> None:
    ended = CliRunner().invoke(cli, ["audit", str(photos), *MODEL_OPTIONS, "--out", str(tmp_path / "run"), option])
    assert (ended.exit_code, "is for the engine 'ray'" in ended.stderr) == (2, True), ended.output
    assert not (tmp_path / "run").exists()


@pytest.fixture
def head() -> Iterator[str]:
    """The address of something that answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("auto", [False, True])
def test_a_cluster_that_is_running_is_used(
    auto: bool, head: str, photos: Path, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = "auto" if auto else head
    ray = FakeRay(Counter(), running=False)
    monkeypatch.setitem(sys.modules, "ray", ray)
    assert run(photos, tmp_path / "run", ray=RaySettings(address)).finished
    assert rows_of(tmp_path / "run") == rows_of(local)
    (asked,) = ray.asked
    assert asked["address"] == address
    assert "include_dashboard" not in asked
    assert not ray.running  # it is left, as it was found


@pytest.mark.parametrize("wrong", [ConnectionError("none"), ValueError("format"), SystemExit(15)])
def test_an_address_that_ray_refuses_is_quoted(
    wrong: BaseException, head: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", FakeRay(Counter(), running=False, wrong=wrong))
    with pytest.raises(InputError, match=f"no Ray cluster can be used at '{head}'"):
        run(photos, tmp_path / "run", ray=RaySettings(head))


def test_ray_that_does_not_start_here_is_a_shortage(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = Exception("The current node timed out during startup.")  # as Ray raises it
    monkeypatch.setitem(sys.modules, "ray", FakeRay(Counter(), running=False, wrong=late))
    command = ["audit", str(photos), *MODEL_OPTIONS, "--out", str(tmp_path / "run"), "--engine", "ray"]
    ended = CliRunner().invoke(cli, command)
    assert ended.exit_code == 2, ended.output
    assert "Ray did not start here (The current node timed out during startup.); try again" in ended.stderr


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:port", "127.0.0.1:99999999", "ray://127.0.0.1:1"])
def test_an_address_where_nothing_answers_is_refused_before_anything_is_written(
    address: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = FakeRay(Counter(), running=False)
    monkeypatch.setitem(sys.modules, "ray", ray)
    command = ["audit", str(photos), *MODEL_OPTIONS, "--out", str(tmp_path / "run"), "--ray-address", address]
    for engine, words in (("ray", "no Ray cluster can be used at"), ("local", "is for the engine 'ray'")):
        ended = CliRunner().invoke(cli, [*command, "--engine", engine])
        assert (ended.exit_code, words in ended.stderr, repr(address) in ended.stderr) == (2, True, True), ended.output
    assert (ray.asked, (tmp_path / "run").exists()) == ([], False)


@pytest.mark.slow
def test_a_real_worker_that_dies_is_replaced(photos: Path, local: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    classifier, flag = toy_classifier(), tmp_path / "died"
    given = GivenParts({"cam": DyingCAM(classifier, flag)})
    assert run_audit(PLAN, found(photos), classifier, tmp_path / "run", engine="ray", given=given).finished
    assert flag.exists()
    assert rows_of(tmp_path / "run") == rows_of(local)


@pytest.mark.slow
def test_two_machines_of_a_real_cluster_make_the_rows_of_one(photos: Path, local: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    cluster = import_module("ray.cluster_utils").Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        assert run(photos, tmp_path / "run", ray=RaySettings(cluster.address)).finished
    finally:
        cluster.shutdown()
    assert rows_of(tmp_path / "run") == rows_of(local)


@pytest.mark.slow
def test_a_node_that_is_lost_costs_no_rows(photos: Path, local: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    cluster = import_module("ray.cluster_utils").Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        node = cluster.add_node(num_cpus=1)

        class Losing:
            """Takes a machine away when the first part is there."""

            there = True

            def started(self, plan: AuditPlan, todo: Sequence[Unit], finished: int) -> None:
                pass

            def advanced(self, event: Event) -> None:
                if self.there:
                    cluster.remove_node(node, allow_graceful=False)
                    self.there = False

        assert run(photos, tmp_path / "run", ray=RaySettings(cluster.address), listener=Losing()).finished
    finally:
        cluster.shutdown()
    assert rows_of(tmp_path / "run") == rows_of(local)


@pytest.mark.slow
def test_a_driver_that_is_killed_and_started_again_makes_no_row_twice(
    photos: Path, local: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    out = tmp_path / "run"
    options = ["--interpreters", "cam", "--attacks", "pgd", "--steps", "2", "--batch-size", "2", "--engine", "ray"]
    command = [sys.executable, "-m", "underfire", "audit", str(photos), *MODEL_OPTIONS, *options, "--out", str(out)]
    where = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    driver = subprocess.Popen(command, env=where)
    try:
        while driver.poll() is None and not any(out.glob("rows/*.parquet")):
            time.sleep(0.05)
    finally:
        driver.kill()
        driver.wait()
    ended = subprocess.run(command, env=where, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert rows_of(out) == rows_of(local)
