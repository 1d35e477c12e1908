"""The kinds of input. Another is a function and its line in `KINDS`."""

from fuzz.case import Kinds
from fuzz.kinds.detectors import detector
from fuzz.kinds.entries import entry
from fuzz.kinds.folders import folder, manifest
from fuzz.kinds.images import image
from fuzz.kinds.models import checkpoint, class_names
from fuzz.kinds.options import gate, options
from fuzz.kinds.originals import prepare as prepare
from fuzz.kinds.resumes import resumes
from fuzz.kinds.runs import evidence, run, study
from fuzz.kinds.sources import SOURCES
from fuzz.kinds.studio import request

KINDS: Kinds = {
    "images": image,
    "folders": folder,
    "manifests": manifest,
    "class-names": class_names,
    "checkpoints": checkpoint,
    "runs": run,
    "resumes": resumes,
    "studies": study,
    "evidence": evidence,
    "entries": entry,
    "detectors": detector,
    "options": options,
    "gates": gate,
    "studio": request,
    **SOURCES,
}
