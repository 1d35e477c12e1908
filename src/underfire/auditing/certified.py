"""Certificates of photos, kept photo by photo: what is finished is not made again, and processes may share the work.

A folder has ``certify.json``, the settings; ``photos/``, one part for each photo, which is what was counted; and the
tables made of all parts: ``certificates.parquet``, one row per photo, interpreter, goal and σ, and
``certificates.json``.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from underfire.attacks.goals import OTHER_FREE, Goal
from underfire.auditing.cache import Cache, facts_key
from underfire.auditing.engines import anywhere, readable
from underfire.auditing.look import calling
from underfire.auditing.names import make_interpreters
from underfire.auditing.plan import WHOLE, AuditPlan, PlannedPhoto, Shard
from underfire.auditing.ray_pool import RayPool, as_actor
from underfire.auditing.store import write_json
from underfire.certificates import CellCertificate, Certificate, certify_cells
from underfire.certificates.certification import (
    ALPHA,
    IOU,
    RADII,
    SAMPLES,
    SHIFT,
    SIGMA,
    certify_together,
    check_numbers,
)
from underfire.certificates.events import goals_of
from underfire.certificates.noise import check_sigma
from underfire.certificates.system import BATCH, NoisySystem
from underfire.decoding import decoded, plain_json
from underfire.defenses.ensemble import settings_of
from underfire.errors import InputError
from underfire.files import check_tree, quoted, read_regular_file, write_whole
from underfire.images import PhotoLoader
from underfire.images.png import from_8bit
from underfire.interpreters.base import Interpreter
from underfire.models.classifier import Classifier

GOALS = ("other/free", "other/kept", "target/kept", "kept/topk")
"""What is certified where nobody says: a wrong label, and ADV² and Ghorbani's attack on the map."""

CELL_SAMPLES = 100
"""Draws for a picture of cells, beside those that choose; fewer if certificates have fewer."""

SETTINGS, PARTS = "certify.json", "photos"
MOST_BYTES = 2**22
"""Of the settings, or of one part."""


@dataclass(frozen=True)
class CertifySettings:
    """What decides certificates, apart from photos, labels and the model; all as `certify` takes it.

    ``alpha`` is the chance, for each photo, that any of its figures is wrong, or any cell of its picture; its
    interpreters and σ share it evenly.
    """

    sigmas: tuple[float, ...] = (SIGMA,)
    samples: int = SAMPLES
    alpha: float = ALPHA
    radii: tuple[float, ...] = RADII
    goals: tuple[str, ...] = GOALS

    def __post_init__(self) -> None:
        """Check the numbers and the goals."""
        check_numbers(self.samples, self.alpha, self.radii)
        for sigma in self.sigmas:
            check_sigma(sigma)
        if not self.sigmas or len(set(self.sigmas)) < len(self.sigmas):
            shown = ",".join(f"{sigma:g}" for sigma in self.sigmas)
            raise InputError(f"sigma '{shown}' is no list of different numbers; give each once")
        led = next((goal for goal in map(Goal.parse, self.goals) if goal.map == "led"), None)
        if led is not None:
            raise InputError(f"goal '{led}' needs a map to lead to, which uf.certify takes; leave it out")


@dataclass(frozen=True)
class CountedGoals:
    """What the draws of one photo showed of one interpreter at one σ.

    Attributes:
        counts: by goal, how many draws met it.
        cells: how many cells of the label's map are surely in its top, surely out, and free, in this order.
        cells_radius: the L2 distance up to which that is so.
        cells_iou: the least IoU with the benign top cells up to there.
    """

    interpreter: str
    sigma: float
    counts: Mapping[str, int]
    cells: tuple[int, int, int]
    cells_radius: float
    cells_iou: float


@dataclass(frozen=True)
class CountedPhoto:
    """One photo's part."""

    image_id: str
    label: int
    target: int
    found: tuple[CountedGoals, ...]


@dataclass(frozen=True)
class CertifiedPhotos:
    """What a folder holds of the photos that were asked for.

    Attributes:
        rows: of all finished photos, one per photo, interpreter, σ and goal.
        missing: how many photos other processes have still to do.
    """

    rows: tuple[Mapping[str, Any], ...]
    missing: int


Drawn = Callable[[PlannedPhoto, Tensor, Mapping[str, CellCertificate]], None]
"""Is given a photo, its pixels (C, H, W) in 8 bits, and the cells by interpreter and σ, before its part is kept."""


def certify_photos(
    settings: CertifySettings,
    plan: AuditPlan,
    photos: Sequence[PlannedPhoto],
    interpreters: Sequence[Interpreter],
    out: Path,
    *,
    drawn: Drawn,
    complete: Callable[[PlannedPhoto], bool],
    shard: Shard = WHOLE,
    pool: RayPool | None = None,
    batch_size: int = BATCH,
    made: Callable[[int], None] = lambda _: None,
) -> CertifiedPhotos:
    """Certify ``photos`` into the folder ``out``, and make its tables of all that is there.

    Args:
        settings: of the certificates.
        plan: the seed is taken from it, and by a pool the names of ``interpreters``.
        photos: with their labels and targets.
        interpreters: of one classifier.
        out: a new folder, or one of the same settings.
        drawn: draws a photo's cells.
        complete: whether that picture is there.
        shard: every which of the photos.
        pool: works on the photos, one each; by default this process does.
        batch_size: draws that go through the model together.
        made: a callback after each photo, with the number of the shard's photos that are finished.

    Raises:
        InputError: the folder holds something else or other settings, a setting is out of range, or a photo changed.
    """
    classifier = interpreters[0].classifier
    for sigma in settings.sigmas:
        for g in interpreters:
            NoisySystem(g, sigma)  # refuses what makes none, before a folder is claimed
    _claim(out, settings, plan, interpreters)
    asked = {(g.name, sigma) for g in interpreters for sigma in settings.sigmas}
    cache = Cache(out / PARTS, encode=asdict, decode=partial(counted_part, settings, asked))
    share = [photo for place, photo in enumerate(photos) if shard.has(place)]
    lacking = [photo for photo in share if cache.get(part_key(photo)) is None or not complete(photo)]
    if pool is None:
        certifier = _Certifier(settings, plan.seed, interpreters, batch_size)
        found: Iterator[tuple[PlannedPhoto, _Certified]] = ((photo, certifier.run(photo)) for photo in lacking)
    else:
        facts = settings, anywhere(plan), batch_size
        found = pool.run(
            lacking, _CertifyWorker, classifier, *facts,
            named=lambda photo: quoted(photo.image_id), files=lambda photo: [photo.file],
        )  # fmt: skip
    for count, (photo, certified) in enumerate(found, start=1 + len(share) - len(lacking)):
        drawn(photo, certified.pixels, certified.cells)
        cache.put(part_key(photo), certified.part)
        made(count)
    there = [(photo, kept) for photo in photos if (kept := cache.get(part_key(photo))) is not None]
    rows = tuple(row for photo, kept in there for row in _rows(settings, photo, kept, classifier))
    _write_tables(out, rows)
    return CertifiedPhotos(rows, len(photos) - len(there))


def part_key(photo: PlannedPhoto) -> str:
    """The name of a photo's part, by all that decides it beside the settings."""
    return facts_key(photo.image_id, photo.sha256, photo.label, photo.target)


def counted_part(settings: CertifySettings, asked: set[tuple[str, float]], value: object) -> CountedPhoto:
    """A part as its file has it, which draws of these settings can have counted.

    Args:
        settings: of the folder.
        asked: interpreters and σ.
        value: plain values.

    Raises:
        ValueError: it is none; the message is a clause.
    """
    part = decoded(CountedPhoto, value)
    if len(part.found) != len(asked) or {(one.interpreter, one.sigma) for one in part.found} != asked:
        raise ValueError("it is of other interpreters or σ")
    for one in part.found:
        _check_counts(one, settings)
    for sigma in settings.sigmas:
        if len({one.counts[str(OTHER_FREE)] for one in part.found if one.sigma == sigma}) > 1:
            raise ValueError(f"at σ = {sigma:g} its interpreters saw different labels in the same draws")
    return part


def counted_goals(settings: CertifySettings) -> tuple[str, ...]:
    """The goals that draws are counted for."""
    return tuple(map(str, goals_of(settings.goals, target=True, led=False)))


def _check_counts(one: CountedGoals, settings: CertifySettings) -> None:
    n, wrong = settings.samples, one.counts.get(str(OTHER_FREE), 0)
    most = {goal: n - wrong if goal.startswith("kept/") else wrong for goal in one.counts} | {str(OTHER_FREE): n}
    known = set(one.counts) == set(counted_goals(settings))
    if not known or not all(0 <= count <= most[goal] for goal, count in one.counts.items()):
        raise ValueError(f"its counts of {quoted(one.interpreter)} are none of {n} draws")
    if min(one.cells) < 0 or one.cells_radius < 0 or not 0 <= one.cells_iou <= 1:
        raise ValueError(f"its cells of {quoted(one.interpreter)} are out of range")


def _claim(out: Path, settings: CertifySettings, plan: AuditPlan, interpreters: Sequence[Interpreter]) -> None:
    """Writes down whose folder ``out`` is, or checks that it is ours."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{quoted(out)} is a file; give a folder for the certificates")
    check_tree(out)
    wanted = {
        "version": Certificate.version,
        "model": interpreters[0].classifier.fingerprint(),
        "interpreters": {g.name: settings_of(g) for g in interpreters},
        "seed": plan.seed,
        **asdict(settings),
        "share": share_of_alpha(settings, interpreters),  # of α, that decides cells
    }
    wanted = json.loads(json.dumps(wanted))  # tuples are lists there
    path = out / SETTINGS
    if not path.is_file():
        entries = out.iterdir() if out.is_dir() else ()
        stranger = next((entry for entry in entries if not entry.name.startswith(".")), None)
        if stranger is not None:
            raise InputError(f"{quoted(out)} holds {quoted(stranger.name)} but no certificates; give a new folder")
        write_json(path, wanted)
        return
    try:
        found = plain_json(read_regular_file(path, limit=MOST_BYTES))
    except ValueError as error:
        raise InputError(f"{quoted(path)} cannot be read ({error}); give a new folder") from error
    if found != wanted:
        kept = found if isinstance(found, dict) else {}
        other = next((name for name in wanted if kept.get(name) != wanted[name]), "settings")
        raise InputError(
            f"{quoted(out)} holds certificates made with other settings: {other} is {kept.get(other)!r} there and "
            f"{wanted.get(other)!r} here; give the same settings, or a new folder"
        )


@dataclass(frozen=True)
class _Certified:
    """One photo's part, its pixels (C, H, W) in 8 bits, and its cells by interpreter and σ."""

    part: CountedPhoto
    pixels: Tensor
    cells: Mapping[str, CellCertificate]


class _Certifier:
    """Certifies photos, one at a time."""

    def __init__(
        self, settings: CertifySettings, seed: int, interpreters: Sequence[Interpreter], batch_size: int
    ) -> None:
        self._settings, self._seed, self._interpreters, self._batch_size = settings, seed, interpreters, batch_size
        self._classifier = interpreters[0].classifier
        self._loader = PhotoLoader(self._classifier.preprocessing)

    def run(self, photo: PlannedPhoto) -> _Certified:
        """All certificates of ``photo``."""
        loaded = self._loader.load(Path(photo.file))
        if loaded.sha256 != photo.sha256:
            raise InputError(f"photo {quoted(photo.file)} is another one than before; put it back")
        x = from_8bit(loaded.pixels[None], self._classifier.dtype).to(self._classifier.device)
        found, pictures = [], {}
        with calling([photo.image_id]):
            for sigma in self._settings.sigmas:
                for certificate, cells in self._at(sigma, photo, x):
                    pictures[f"{certificate.interpreter}, σ = {sigma:g}"] = cells
                    found.append(_counts_of(certificate, cells))
        return _Certified(
            CountedPhoto(photo.image_id, photo.label, photo.target, tuple(found)), loaded.pixels, pictures
        )

    def _at(self, sigma: float, photo: PlannedPhoto, x: Tensor) -> Iterator[tuple[Certificate, CellCertificate]]:
        settings, names = self._settings, [photo.image_id]
        y, target = (torch.tensor([label], device=x.device) for label in (photo.label, photo.target))
        share = share_of_alpha(settings, self._interpreters)
        certificates = certify_together(
            self._interpreters, x, y, sigma=sigma, samples=settings.samples, radii=settings.radii, alpha=share,
            goals=settings.goals, target=None if photo.target == photo.label else target, seed=self._seed, keys=names,
            batch_size=self._batch_size,
        )  # fmt: skip
        for g, certificate in zip(self._interpreters, certificates, strict=True):
            cells = certify_cells(
                g, x, y, sigma=sigma, samples=min(CELL_SAMPLES, settings.samples), alpha=share, seed=self._seed,
                keys=names, batch_size=self._batch_size,
            )  # fmt: skip
            yield certificate, cells


class _CertifyWorker:
    """A certifier in a process of its own, with interpreters by their names."""

    def __init__(self, classifier: Classifier, settings: CertifySettings, plan: AuditPlan, batch_size: int) -> None:
        as_actor()
        interpreters = make_interpreters(plan.interpreters, classifier, rts=plan.rts)
        self._certifier = _Certifier(settings, plan.seed, interpreters, batch_size)

    def run(self, photo: PlannedPhoto, contents: Sequence[bytes] | None) -> _Certified:
        """All certificates of ``photo``, of whose file ``contents`` may be sent."""
        with readable([photo], contents) as (here,):
            return self._certifier.run(here)


def share_of_alpha(settings: CertifySettings, interpreters: Sequence[object]) -> float:
    """Of α for one interpreter at one σ: its goals have one half of it, and its picture of cells the other."""
    return settings.alpha / (2 * len(settings.sigmas) * len(interpreters))


def _counts_of(certificate: Certificate, cells: CellCertificate) -> CountedGoals:
    counts = {goal: int(count) for goal, count in certificate.counts.items()}
    numbers = (int(cells.sure_in.sum()), int(cells.sure_out.sum()), int(cells.free.sum()))
    return CountedGoals(certificate.interpreter, certificate.sigma, counts, numbers, cells.radius, float(cells.iou[0]))


def _rows(
    settings: CertifySettings, photo: PlannedPhoto, kept: CountedPhoto, classifier: Classifier
) -> Iterator[Mapping[str, Any]]:
    """The rows of one photo, made of what was counted."""
    interpreters = {counted.interpreter for counted in kept.found}
    for counted in kept.found:
        counts = {goal: torch.tensor([count]) for goal, count in counted.counts.items()}
        whole = Certificate(
            counted.interpreter, (photo.image_id,), counted.sigma, settings.samples,
            share_of_alpha(settings, tuple(interpreters)), settings.radii, IOU, SHIFT, counts,
        )  # fmt: skip
        for row in whole.rows():
            goal = str(row["goal"])
            del row["key"]
            yield {
                "image_id": photo.image_id,
                **row,
                "alpha": settings.alpha,
                "label": classifier.class_names[photo.label],
                "target": classifier.class_names[photo.target] if goal.startswith("target") else None,
                "label_radius": float(whole.label_radius[0]),
                "abstained": bool(whole.abstained[0]),
                "radii": list(settings.radii),
                "rates": whole.rate[goal][0].tolist(),
                "cells_in": counted.cells[0],
                "cells_out": counted.cells[1],
                "cells_free": counted.cells[2],
                "cells_radius": counted.cells_radius,
                "cells_iou": counted.cells_iou,
            }


_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("image_id", "label", "interpreter", "goal", "target")),
        *((name, pa.float64()) for name in ("sigma", "alpha")),
        *((name, pa.int64()) for name in ("samples", "count")),
        ("limit", pa.float64()),
        *((name, pa.float64()) for name in ("radius_1", "radius_10", "radius_100", "cap", "label_radius")),
        *((name, pa.bool_()) for name in ("censored", "abstained")),
        *((name, pa.list_(pa.float64())) for name in ("radii", "rates")),
        *((name, pa.int64()) for name in ("cells_in", "cells_out", "cells_free")),
        *((name, pa.float64()) for name in ("cells_radius", "cells_iou")),
    ]
)


def _write_tables(out: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema=_SCHEMA), sink, write_page_checksum=True)
    write_whole(out / "certificates.parquet", sink.getvalue().to_pybytes())
    write_json(out / "certificates.json", {"certificates": [{n: row[n] for n in _SCHEMA.names} for row in rows]})
