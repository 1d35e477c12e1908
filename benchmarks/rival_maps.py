"""Maps of underfire and of other libraries, each through its own public calls."""

import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from benchmarks.subject import Subject
from underfire import GRAD, IG, LRP, GradCAM, GuidedBackprop
from underfire.interpreters.maps import min_max, saliency

POINTS = 4  # of integrated gradients, midpoint rule


def our_grad(subject: Subject) -> Tensor:
    return GRAD(subject.classifier)(subject.x, subject.label)


def captum_saliency(subject: Subject) -> Tensor:
    from captum.attr import Saliency

    method = Saliency(lambda x: -subject.plain(x).log_softmax(dim=1))
    return saliency(method.attribute(subject.x.clone().requires_grad_(), target=subject.label, abs=True))


def zennit_gradient(subject: Subject) -> Tensor:
    return _zennit(nn.Sequential(subject.plain, nn.LogSoftmax(dim=1)), None, subject.x, subject.label)


def our_ig(subject: Subject) -> Tensor:
    return IG(subject.classifier, points=POINTS, rule="midpoint")(subject.x, subject.label)


def captum_ig(subject: Subject) -> Tensor:
    return _captum_ig(subject, None)


def captum_ig_in_batches(subject: Subject) -> Tensor:
    return _captum_ig(subject, len(subject.x))


def _captum_ig(subject: Subject, internal_batch_size: int | None) -> Tensor:
    from captum.attr import IntegratedGradients

    method = IntegratedGradients(nn.Sequential(subject.plain, nn.Softmax(dim=1)))
    attributions: Tensor = method.attribute(
        subject.x,
        target=subject.label,
        n_steps=POINTS,
        method="riemann_middle",
        internal_batch_size=internal_batch_size,
    )
    return saliency(attributions.detach())


def our_gradcam(subject: Subject) -> Tensor:
    return GradCAM(subject.classifier)(subject.x, subject.label)


def captum_gradcam(subject: Subject) -> Tensor:
    from captum.attr import LayerGradCam

    layer, at_input = _layer(subject)
    maps = LayerGradCam(subject.plain, layer).attribute(
        subject.x, target=subject.label, attribute_to_layer_input=at_input
    )
    return min_max(maps.detach().squeeze(1))


def pytorch_grad_cam(subject: Subject) -> Tensor:
    """Maps (N, H, W), cut at 0."""
    from pytorch_grad_cam import GradCAM as TheirGradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    layer, at_input = _layer(subject)
    picture = GradCAM(subject.classifier).features.picture
    with TheirGradCAM(subject.plain, [_Input(layer) if at_input else layer], reshape_transform=picture) as method:
        targets = [ClassifierOutputTarget(int(label)) for label in subject.label]
        return torch.from_numpy(method(subject.x.clone().requires_grad_(), targets))


def no_grid(subject: Subject) -> str:
    """Why Captum has no Grad-CAM of the model, if so."""
    tokens = GradCAM(subject.classifier).features.layout.kind != "channels first"
    return "its Grad-CAM takes tokens for channels" if tokens else ""


def our_guided(subject: Subject) -> Tensor:
    return GuidedBackprop(subject.classifier)(subject.x, subject.label)


def captum_guided(subject: Subject) -> Tensor:
    from captum.attr import GuidedBackprop as CaptumGuidedBackprop

    method = CaptumGuidedBackprop(subject.plain)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Setting backward hooks on ReLU")
        return saliency(method.attribute(subject.x.clone().requires_grad_(), target=subject.label))


def zennit_guided(subject: Subject) -> Tensor:
    """Its rule of ReLUs for ReLU6 as well."""
    from zennit import composites, rules

    composite = composites.GuidedBackprop([((nn.ReLU6,), rules.ReLUGuidedBackprop())])
    return _zennit(subject.plain, composite, subject.x, subject.label)


def no_relu(subject: Subject) -> str:
    """Why the map of guided back-propagation is that of the gradient, if so."""
    relus = any(isinstance(module, nn.ReLU | nn.ReLU6) for module in subject.plain.modules())
    return "" if relus else "the model has no ReLU"


def relu6(subject: Subject) -> str:
    """Why Captum's guided back-propagation differs, if so."""
    found = any(isinstance(module, nn.ReLU6) for module in subject.plain.modules())
    return "it has its rule for ReLU, and none for ReLU6" if found else ""


def our_lrp(subject: Subject) -> Tensor:
    return LRP(subject.classifier)(subject.x, subject.label)


def zennit_lrp(subject: Subject) -> Tensor:
    """The rules of ours, of the normalised image, the batch norms merged."""
    from zennit import canonizers, composites, rules, types

    read = subject.classifier.preprocessing
    mean, std = (subject.x.new_tensor(values)[None, :, None, None] for values in (read.mean, read.std))
    tiny, settings = torch.finfo(subject.x.dtype).tiny, LRP(subject.classifier)
    layers = [
        *composites.layer_map_base(tiny),
        (types.Convolution, rules.Gamma(settings.gamma, stabilizer=tiny)),
        (nn.Linear, rules.Epsilon(tiny)),
    ]
    first = [(types.Convolution, rules.ZBox(-mean / std, (1 - mean) / std))]
    merged = [canonizers.SequentialMergeBatchNorm()]
    composite = composites.SpecialFirstLayerMapComposite(layers, first, canonizers=merged)
    return _zennit(subject.plain.net, composite, (subject.x - mean) / std, subject.label, times_logit=True)


def no_rules(subject: Subject) -> str:
    """Why the model has no LRP, if so."""
    return LRP.available(subject.classifier) or ""


def sums(subject: Subject) -> str:
    """Why zennit's LRP differs, if so."""
    met = LRP(subject.classifier).met
    return "both terms of a sum are given all of its relevance" if met & {"add", "iadd", "add_", "__add__"} else ""


def _zennit(model: nn.Module, composite: Any, x: Tensor, y: Tensor, *, times_logit: bool = False) -> Tensor:
    """The maps of what zennit brings back from the output of ``model`` for the classes, or from 1 in its place."""
    from zennit.attribution import Gradient

    def chosen(outputs: Tensor) -> Tensor:
        which = F.one_hot(y, outputs.shape[1]).to(outputs.dtype)
        return which * outputs.detach() if times_logit else which

    with Gradient(model=model, composite=composite) as attributor:
        return saliency(attributor(x.clone(), chosen)[1].detach())


class _Input:
    """What ``layer`` reads, for those who listen to what a layer gives."""

    def __init__(self, layer: nn.Module) -> None:
        self._layer = layer

    def register_forward_hook(self, hook: Callable[[nn.Module, Any, Tensor], None]) -> RemovableHandle:
        return self._layer.register_forward_pre_hook(lambda module, inputs: hook(module, inputs, inputs[0]))


@lru_cache(maxsize=2)
def _layer(subject: Subject) -> tuple[nn.Module, bool]:
    """The layer at which others find the activation of Grad-CAM, and whether it is that layer's input.

    It is the layer's output unless the layer is called several times in a pass, as a shared ReLU is: then the first
    layer that reads the activation serves.
    """
    plain, features = subject.plain, GradCAM(subject.classifier).features
    made_by = plain.net.get_submodule(features.module)
    calls: list[tuple[nn.Module, object, object]] = []
    handles = [
        module.register_forward_hook(lambda m, inputs, output: calls.append((m, inputs[0], output)))
        for module in plain.net.modules()
    ]
    with torch.no_grad():
        plain(subject.x[:1])
    for handle in handles:
        handle.remove()
    outputs = [output for module, _, output in calls if module is made_by]
    if len(outputs) == 1:
        return made_by, False
    return next(module for module, read, _ in calls if read is outputs[features.spot.call]), True
