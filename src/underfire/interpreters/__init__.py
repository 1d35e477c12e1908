"""Interpreters: what the map of an image is, and which way an attacker would move it."""

from underfire.interpreters.base import ForwardPass as ForwardPass
from underfire.interpreters.base import Interpreter as Interpreter
from underfire.interpreters.base import MapGradient as MapGradient
from underfire.interpreters.base import MapObjective as MapObjective
from underfire.interpreters.base import MapTarget as MapTarget
from underfire.interpreters.base import attribution_gradient as attribution_gradient
from underfire.interpreters.masking.network import MaskingNetwork as MaskingNetwork
from underfire.interpreters.masks.settings import MaskFit as MaskFit

# The table of built-in interpreters, in the order in which they are listed and run: a line for each.
# isort: off
from underfire.interpreters.grad import GRAD as GRAD
from underfire.interpreters.ig import IG as IG
from underfire.interpreters.cam import CAM as CAM
from underfire.interpreters.gradcam import GradCAM as GradCAM
from underfire.interpreters.gradcam_plus_plus import GradCAMPlusPlus as GradCAMPlusPlus
from underfire.interpreters.hirescam import HiResCAM as HiResCAM
from underfire.interpreters.layercam import LayerCAM as LayerCAM
from underfire.interpreters.eigencam import EigenCAM as EigenCAM
from underfire.interpreters.rollout import Rollout as Rollout
from underfire.interpreters.attention_relevance import AttentionRelevance as AttentionRelevance
from underfire.interpreters.input_x_gradient import InputXGradient as InputXGradient
from underfire.interpreters.smoothgrad import SmoothGrad as SmoothGrad
from underfire.interpreters.guided_backprop import GuidedBackprop as GuidedBackprop
from underfire.interpreters.lrp import LRP as LRP
from underfire.interpreters.attn_lrp import AttnLRP as AttnLRP
from underfire.interpreters.occlusion import Occlusion as Occlusion
from underfire.interpreters.rise import RISE as RISE
from underfire.interpreters.kernel_shap import KernelSHAP as KernelSHAP
from underfire.interpreters.lime import LIME as LIME
from underfire.interpreters.mask import MASK as MASK
from underfire.interpreters.rts import RTS as RTS
# isort: on

ALL: tuple[type[Interpreter], ...] = tuple(
    found
    for found in list(globals().values())
    if isinstance(found, type) and issubclass(found, Interpreter) and found is not Interpreter
)
"""The interpreters that come with the package, each made from a classifier alone; RTS has to be trained for it."""
