"""The studies: one line for each, read by the command line, by what saves them and by the report. Imports none."""

from dataclasses import dataclass
from typing import Literal

_ABOUT = {
    "audit": "RUN is the directory of an audit. Photos are audited first, into DIR/run, with the options of an audit.",
    "settings": "RUN is the directory of an audit; its photos and settings are taken, the attacks are the study's own.",
}


@dataclass(frozen=True)
class StudyEntry:
    """A study as the command line knows it.

    Attributes:
        question: what it answers, one line.
        run: the function that makes it, as ``package.module:function``, see `underfire.studies.options`.
        needs: "audit", the images of a finished one; "settings", those of an audit and the photos.
        more: what help says beside that.
        beside_run: the audit's options that may be given beside the directory of an audit, which has its own settings.
        old_names: what it was called once, on the command line and on disk.
    """

    question: str
    run: str
    needs: Literal["audit", "settings"] = "audit"
    more: str = ""
    beside_run: tuple[str, ...] = ("limit",)
    old_names: tuple[str, ...] = ()

    @property
    def help(self) -> str:
        """The command's help."""
        return f"{self.question}\n\n{_ABOUT[self.needs]} {self.more}".strip()


STUDIES: dict[str, StudyEntry] = {
    # A verdict on the first photos of a finished audit would hide the others, and saves nothing.
    "transfer": StudyEntry(
        "Does an attack on one interpreter fool another? And another classifier?",
        "underfire.studies.transfer:study",
        beside_run=(),
    ),
    "bound": StudyEntry(
        "Does a change of the prediction force a change of the explanation (Proposition 1)?",
        "underfire.studies.bound:study",
    ),
    "frontier": StudyEntry(
        "How much of the prediction must be given up to keep the explanation?",
        "underfire.studies.frontier:study",
        "settings",
    ),
    "gap": StudyEntry(
        "Can the explanation be led anywhere, whatever the prediction?", "underfire.studies.gap:study", "settings"
    ),
    "curve": StudyEntry(
        "How small a change is enough to choose the label and keep the explanation?",
        "underfire.studies.curve:study",
        "settings",
        more="--passes is for the search, 600 if it is not given.",
        beside_run=("limit", "passes"),
    ),
    "goals": StudyEntry(
        "What can an attacker do to each explanation, by goal on label and map?",
        "underfire.studies.goals:study",
        more="Give the audit --goals, such as target/kept,other/kept,kept/topk.",
    ),
    "sensitivity": StudyEntry(
        "How much further does an attack move a map than random points, by which its sensitivity is measured?",
        "underfire.studies.sensitivity:study",
        "settings",
    ),
    "sandwich": StudyEntry(
        "What can no attack do to label and map shown through noise, and how near comes the best one found?",
        "underfire.studies.sandwich:study",
        "settings",
        more="Name the interpreters, such as --interpreters cam,gradcam,rts,grad: each is taken of every draw.",
    ),
    "defense": StudyEntry(
        "Which interpreters detect best within a budget of passes, against an adaptive attacker?",
        "underfire.evaluation.study:study",
        more="--passes is for the adaptive attack, 300 if it is not given; where photos are audited first, for the "
        "audit's attacks too.",
        beside_run=("limit", "passes"),
        old_names=("defence",),
    ),
}
"""By name, in the order in which they are shown."""
