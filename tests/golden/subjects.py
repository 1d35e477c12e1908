"""What is recorded: the runs, studies and attacks, made by the package. The only file that knows its names.

Two worlds: ``DYADIC``, for records that hold on any machine, and ``ORDINARY``, for records that are compared to the
byte in one environment. The dyadic network's weights and inputs are dyadic rationals and it works in float64, so that
its logits are exact whatever the order of the sums.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor, nn

from golden.values import Attacked, AuditOutput, Kept, StudyOutput
from support.made_runs import made_run
from support.toy_photos import MEAN, SIZE, STD
from support.toys import CLASSES, SMALL_FIT, images, relu_net
from underfire.api import rebuild
from underfire.attacks import ADV2, L2, PGD, AuthorsADV2, Flow, Linf, Square, StAdv
from underfire.attacks.control import MINIMAX, NORMALIZED, SUM, Balance, Weighting
from underfire.auditing.plan import AuditPlan, ModelSettings
from underfire.auditing.rows import read_rows, table_of
from underfire.auditing.run import Run, read_run
from underfire.auditing.runner import run_audit
from underfire.defenses import EnsembleDetector
from underfire.defenses.adaptive import AdaptiveADV2
from underfire.defenses.score_based import ScoreSearch
from underfire.defenses.squeezing import FeatureSqueezing
from underfire.evaluation.options import DefenseOptions
from underfire.evaluation.study import defense_study
from underfire.images import PhotoSet, find_photos, save_png
from underfire.images.dataset import Photos, read_sources
from underfire.images.png import from_8bit
from underfire.interpreters import (
    CAM,
    GRAD,
    IG,
    MASK,
    RTS,
    GradCAM,
    GuidedBackprop,
    InputXGradient,
    Interpreter,
    MaskingNetwork,
    SmoothGrad,
)
from underfire.models.classifier import Classifier
from underfire.studies.bound import bound_study
from underfire.studies.frontier import frontier_study
from underfire.studies.gap import gap_study
from underfire.studies.source import decide
from underfire.studies.study import Study, save
from underfire.studies.transfer import transfer_study

STEPS = 12
_WEIGHTINGS: dict[str, Weighting] = {"even": NORMALIZED, "fixed": SUM, "worst": MINIMAX}
"""By the names that the records have for them."""
EPS = 1 / 32
"""Of the attacks on the dyadic network; an eighth of it, the length of a step, is a dyadic rational too."""
SPEC = "golden:net"
KEYS = ("first", "second")


class _Dyadic(nn.Module):
    """Two convolutions, ReLU, max pooling, global average pooling and a linear layer, for pictures of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.second = nn.Conv2d(8, 16, 3, padding=1)
        self.grid = nn.MaxPool2d(2)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(16, CLASSES)

    def pooled(self, x: Tensor) -> Tensor:
        features = self.grid(self.relu(self.second(self.relu(self.first(x)))))
        return torch.flatten(self.pool(features), 1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.pooled(x))
        return logits


def dyadic_pictures(n: int, size: int, *, seed: int) -> Tensor:
    """``n`` pictures (n, 3, size, size) of whole grey levels, int64: coarse squares and fine noise."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.randint(256, (n, 3, 8, 8), generator=draw)
    coarse = coarse.repeat_interleave(size // 8, dim=2).repeat_interleave(size // 8, dim=3)
    return 13 + (12 * coarse + 2 * torch.randint(256, coarse.shape, generator=draw)) // 16


def dyadic_net(size: int, *, seed: int = 0) -> nn.Module:
    """A network in float64 whose weights are multiples of 1/64 or coarser, and whose classes are spread."""
    draw = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        net = _Dyadic().double().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randint(-8, 9, parameter.shape, generator=draw) / 16)
        for conv in (net.first, net.second):
            assert conv.bias is not None
            # Off the lattice of the weights, away from the kink at 0.
            conv.bias.copy_((2 * torch.randint(-64, 64, conv.bias.shape, generator=draw) + 1) / 512)
        pooled = net.pooled((dyadic_pictures(64, size, seed=7).double() / 256 - 0.5) / 0.25)
        net.head.weight.copy_(torch.round(64 * 2 * net.head.weight / (pooled.std(dim=0) + 1e-3)) / 64)
        net.head.bias.copy_(torch.round(-64 * net.head.weight @ pooled.mean(dim=0)) / 64)
    return net


@dataclass(frozen=True)
class World:
    """Networks and pictures.

    Attributes:
        net: a network for pictures of a size, by seed.
        pictures: n, size, seed → (n, 3, size, size) in [0, 1], float32, whole grey levels.
        inputs: the same for attacks on tensors, in the type of the network.
        eps: L∞ budget of these attacks.
    """

    name: str
    net: Callable[[int, int], nn.Module]
    pictures: Callable[[int, int, int], Tensor]
    inputs: Callable[[int, int, int], Tensor]
    eps: float

    def classifier(self, *, size: int = SIZE, seed: int = 0, name: str = SPEC) -> Classifier:
        """The toy under audit."""
        return Classifier(self.net(size, seed), mean=MEAN, std=STD, input_size=size, name=name)


DYADIC = World(
    "dyadic",
    lambda size, seed: dyadic_net(size, seed=seed),
    lambda n, size, seed: dyadic_pictures(n, size, seed=seed).float() / 255,
    lambda n, size, seed: dyadic_pictures(n, size, seed=seed).double() / 256,
    EPS,
)
ORDINARY = World(
    "ordinary",
    lambda size, seed: relu_net(seed),
    lambda n, size, seed: images(n, size, seed=seed),
    lambda n, size, seed: images(n, size, seed=seed),
    8 / 255,
)


def attacked(world: World) -> Iterator[tuple[str, Attacked]]:
    """The images of a short attack of every kind, by its name."""
    size = 16 if world is DYADIC else 32
    classifier = world.classifier(size=size)
    x = world.inputs(2, size, 1)
    label = classifier.probabilities(x).argmax(dim=1)
    target = (label + torch.tensor([2, 5])) % CLASSES
    eps: dict[str, Any] = {"eps": world.eps}
    wide: dict[str, Any] = {"eps": 4 * world.eps, "queries": 150}  # enough for a label, and so for maps
    steps: dict[str, Any] = {"steps": STEPS}
    every = _interpreters(classifier)
    cam, grad, ig = every["cam"], every["grad"], every["ig"]
    grey_map = torch.arange(cam.grid[0] * cam.grid[1]).reshape(1, *cam.grid).expand(2, -1, -1).to(x) / 64

    def on(attack: Any, kept: Kept = "close", **more: Any) -> Attacked:
        made = attack(x, target, keys=KEYS, **more)
        return Attacked(made.x_adv, tuple(made.passes.tolist()), kept)

    yield "pgd", on(PGD(classifier, **eps, **steps), "exact")
    yield "pgd keep last", on(PGD(classifier, **eps, **steps, keep="last"), "exact")
    yield "pgd passes", on(PGD(classifier, **eps, passes=8), "exact")
    yield "pgd l2", on(PGD(classifier, perturbation=L2(0.5), **steps))
    yield "pgd flow", on(PGD(classifier, perturbation=Flow(1.0), **steps))
    yield "stadv", on(StAdv(classifier, eps=1.0, **steps))
    yield "square", on(Square(classifier, **wide))
    for name, interpreter in every.items():
        yield f"adv2 {name}", on(ADV2(interpreter, **eps, **steps))
    yield "adv2 cam of given maps", on(ADV2(cam, **eps, **steps), target_map=grey_map)
    yield "adv2 cam of another label", on(ADV2(cam, **eps, **steps), label=(label + 1) % CLASSES)
    yield "adv2 grad passes", on(ADV2(grad, **eps, passes=20))
    for name, interpreter in (("cam", cam), ("grad", grad)):
        yield f"adv2 {name} l2", on(ADV2(interpreter, perturbation=L2(0.5), **steps))
        yield f"adv2 {name} flow", on(ADV2(interpreter, perturbation=Flow(1.0), **steps))
        yield f"stadv {name}", on(StAdv(interpreter, eps=1.0, **steps))
        yield f"square {name}", on(Square(interpreter, **wide))
    for recorded, sharing in _WEIGHTINGS.items():
        several = ADV2([cam, grad, ig], **eps, **steps)
        several.setting = replace(several.setting, mix=Balance(weighting=sharing))
        yield f"adv2 cam+grad+ig {recorded}", on(several)
    for name in ("cam", "gradcam", "grad", "ig"):
        yield f"authors {name}", on(AuthorsADV2(every[name], **eps, **steps))
    yield from _against_detectors(world, classifier, target)


def _interpreters(classifier: Classifier) -> dict[str, Interpreter]:
    made = (
        GRAD(classifier),
        IG(classifier, points=8, strata=4),
        CAM(classifier),
        GradCAM(classifier),
        RTS(classifier, network=MaskingNetwork.untrained(classifier)),
        MASK(classifier, fit=SMALL_FIT),
        SmoothGrad(classifier, samples=4),
        InputXGradient(classifier),
        GuidedBackprop(classifier),
    )
    return {interpreter.name: interpreter for interpreter in made}


def _against_detectors(world: World, classifier: Classifier, target: Tensor) -> Iterator[tuple[str, Attacked]]:
    """Adaptive attacks, and the search by a detector's score; these work on whole grey levels."""
    size = classifier.input_size[0]
    dtype = classifier.dtype

    def levels(n: int, seed: int) -> Tensor:
        return from_8bit((255 * world.pictures(n, size, seed)).round().to(torch.uint8), dtype)

    x, clean = levels(2, 1), levels(12, 9)
    both = EnsembleDetector([CAM(classifier), GRAD(classifier)], fpr=0.5).fit(clean)
    for recorded, sharing in _WEIGHTINGS.items():
        made = AdaptiveADV2(both, passes=60, weighting=sharing)(x, target, keys=KEYS)
        yield f"adaptive cam+grad {recorded}", Attacked(made.x_adv, tuple(made.passes.tolist()), "levels")
    squeezing = FeatureSqueezing(classifier, fpr=0.2).fit(clean)
    made = AdaptiveADV2(squeezing, passes=60)(x, target, keys=KEYS)
    yield "adaptive squeezing", Attacked(made.x_adv, tuple(made.passes.tolist()), "levels")
    start = PGD(classifier, passes=30)(x, target, keys=KEYS).x_adv
    start = from_8bit(Linf().rounded(x, start), dtype)
    found = ScoreSearch(both, passes=300, start=start)(x, target, keys=KEYS)
    yield "score search", Attacked(found.x_adv, tuple(found.passes.tolist()), "levels")


class Toy:
    """The audits of a world's toy photos, and the studies of them, made in a folder when they are asked for."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world, self.folder = world, folder
        self.classifier = world.classifier()
        written = (folder / "photos").is_dir()
        self._photos = self._found() if written else self._written()

    def resumed(self, name: str) -> Run:
        """The audit in the folder ``name``, brought to its end."""
        return self._audit(name)

    def audited(self) -> AuditOutput:
        """An audit with every attack, and two studies in its report."""
        run = self._audit("every", attacks=("pgd", "adv2", "stadv", "square"), steps=STEPS)
        for study in (self._transfer(run), self._gap()):
            save(study, run.path / "studies", command=f"underfire study {study.name} run", seed=0)
        _without_time_and_place(run.path)
        rebuild(run.path)
        order = [(name, "ascending") for name in ("image_id", "attack", "source", "interpreter")]
        return AuditOutput(
            table_of(read_rows(run.path)).sort_by(order).replace_schema_metadata(None),
            json.loads((run.path / "summary.json").read_text(encoding="utf-8")),
            (run.path / "report.html").read_text(encoding="utf-8"),
            pixels(run.path),
        )

    def studies(self) -> Iterator[tuple[str, StudyOutput]]:
        """Every study, by a name of its own."""
        run = self._audit("run")
        three = ("cam", "grad", "ig")
        own = frozenset((name, name) for name in three)
        yield (
            "transfer-planted",
            _output(
                transfer_study(made_run(interpreters=three, near=own | {("cam", "ig")}), [], work=self.folder / "none")
            ),
        )
        yield "transfer", _output(self._transfer(run))
        yield "bound", _output(self._bound(run))
        for along, grid in (("weight", (0.5, 0.9)), ("eps", (4 / 255, 8 / 255))):
            yield f"frontier-{along}", _output(self._frontier(along, grid))
        yield "gap", _output(self._gap())
        yield "defence-budget", _output(self._defence(run, budget=15))
        self._audit("weak", eps=2 / 255)
        extra = (("weak", self.folder / "weak"), ("patch", self.folder / "gap" / "random-patch" / "cam"))
        grids = {"eps_grid": (2 / 255, 8 / 255), "passes_grid": (40,)}
        more = {"weighting": (NORMALIZED.name, MINIMAX.name), "score_search": 60, "extra_attacks": extra}
        yield "defence", _output(self._defence(run, **grids, **more))

    def _written(self) -> PhotoSet:
        """Five photos, of which one is labelled wrongly, and a file that is none."""
        folder = self.folder / "photos"
        folder.mkdir(parents=True)
        pictures = self.world.pictures(5, SIZE, 1)
        for index, picture in enumerate(pictures):
            save_png(picture, folder / f"photo-{index}.png")
        (folder / "broken.png").write_bytes(b"not an image")
        seen = torch.round(pictures * 255).to(self.classifier.dtype) / 255
        labels = self.classifier.probabilities(seen).argmax(dim=1).tolist()
        labels[3] = (labels[3] + 1) % CLASSES
        lines = [f"photo-{index}.png,{label},{(label + 2) % CLASSES}" for index, label in enumerate(labels)]
        text = "\n".join(["file_name,label,target", lines[0], "broken.png,0,1", *lines[1:], ""])
        (folder / "manifest.csv").write_text(text, encoding="utf-8")
        return self._found()

    def _found(self) -> PhotoSet:
        return find_photos([self.folder / "photos"], class_names=self.classifier.class_names)

    def _plan(self, **changes: Any) -> AuditPlan:
        model = ModelSettings(SPEC, mean=MEAN, std=STD, input_size=(SIZE, SIZE))
        return replace(AuditPlan(model=model, interpreters=("grad", "cam"), steps=16, batch_size=2), **changes)

    def _audit(self, name: str, **changes: Any) -> Run:
        run_audit(self._plan(**changes), self._photos, self.classifier, self.folder / name, command="underfire audit")
        return read_run(self.folder / name)

    def _transfer(self, run: Run) -> Study:
        """Onto a classifier that is nearly the toy."""
        net = self.world.net(SIZE, 0)
        draw = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for weight in net.parameters():
                weight.add_(torch.randint(-2, 3, weight.shape, generator=draw) / 64 * weight)
        other = Classifier(net, mean=MEAN, std=STD, input_size=SIZE, name="other")
        return transfer_study(run, [other], work=self.folder / "transfer" / run.path.name)

    def _bound(self, run: Run) -> Study:
        work = self.folder / "bound" / run.path.name
        return bound_study(run, self.classifier, work=work, limit=2, tolerance=0.02, logit_tolerance=0.5)

    def _frontier(self, along: Any, grid: tuple[float, ...]) -> Study:
        plan = self._plan(steps=8)
        photos = decide(plan, self._photos, self.classifier).photos
        return frontier_study(
            plan, photos, self.classifier, work=self.folder / f"frontier-{along}", along=along, grid=grid
        )

    def _gap(self) -> Study:
        plan = self._plan(steps=12, eps=24 / 255)
        photos = decide(plan, self._photos, self.classifier).photos
        return gap_study(plan, photos, self.classifier, work=self.folder / "gap")

    def _defence(self, run: Run, **more: Any) -> Study:
        folder = self.folder / "clean"
        if not folder.is_dir():
            folder.mkdir()
            for index, picture in enumerate(self.world.pictures(12, SIZE, 9)):
                save_png(picture, folder / f"{index:02}.png")
        sources, _ = read_sources(
            find_photos([folder], class_names=self.classifier.class_names).photos, self.classifier
        )
        settings: dict[str, Any] = {"fpr": 0.2, "sets": (("cam",), ("cam", "grad"))}
        options = DefenseOptions(**(settings | more))
        clean = Photos(sources, self.classifier)
        work = self.folder / "defence"
        return defense_study(run, clean, self.classifier, options, work=work, passes=60)

    def pictures(self) -> tuple[str, ...]:
        """Those of all that was audited and attacked so far."""
        return pixels(self.folder)


def here_and_now(facts: dict[str, Any]) -> dict[str, Any]:
    """The content of a run.json with the torch and the threads of this process, which alone may finish a run."""
    threads = {"threads": torch.get_num_threads()}
    return facts | threads | {"versions": facts["versions"] | {"torch": torch.__version__}}


def _without_time_and_place(run: Path) -> None:
    """Write into the run directory ``run`` that every photo took a second, on no machine in particular."""
    for part in (run / "rows").glob("*.parquet"):
        with part.open("rb") as file:
            table = pq.ParquetFile(file).read()
        place = table.schema.get_field_index("seconds")
        seconds = pa.array([1.0] * len(table), pa.float64())
        table = table.set_column(place, table.schema.field(place), seconds)
        pq.write_table(table, part, write_page_checksum=True)
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    facts |= {
        "created": "2031-05-06T07:08:09+00:00",
        "platform": "toy",
        "versions": dict.fromkeys(facts["versions"], "1"),
    }
    (run / "run.json").write_text(json.dumps(facts), encoding="utf-8")


def pixels(folder: Path) -> tuple[str, ...]:
    """SHA-256 of the pixels of every PNG below ``folder``, sorted; what the files are called plays no part."""
    found = []
    for path in folder.rglob("*.png"):
        if path.name != "broken.png":
            with Image.open(path) as image:
                found.append(hashlib.sha256(image.convert("RGB").tobytes()).hexdigest())
    return tuple(sorted(found))


def _output(study: Study) -> StudyOutput:
    return StudyOutput(study.table, study.figure, study.words)
