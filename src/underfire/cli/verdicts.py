"""What a detector says of photos: for a person as a table, and as Parquet."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from underfire.defenses import Explanation, Reason
from underfire.files import printable, write_whole
from underfire.images.dataset import NamedPhoto

COLUMNS = ("photo", "class", "score", "flagged", "what speaks most against it")
"""Of the table that is printed."""

_COMMON = pa.schema(
    [
        ("image_id", pa.string()),
        ("image_sha256", pa.string()),
        ("prediction", pa.int64()),
        ("class", pa.string()),
        ("score", pa.float64()),
        ("threshold", pa.float64()),
        ("flagged", pa.bool_()),
        ("picture", pa.string()),
    ]
)
"""The columns of every detector's table, also where nothing is flagged; those of its signals follow."""

_SHOWN = 3  # signals told of a photo
_KEY = b"underfire.detect"


@dataclass(frozen=True)
class PhotoVerdict:
    """What is found of one photo.

    Attributes:
        source: the photo.
        prediction: the class that the model says, by index.
        class_name: its name.
        explanation: the score and its reasons.
        picture: the file with its maps, in the same folder as the table; None where there is none.
    """

    source: NamedPhoto
    prediction: int
    class_name: str
    explanation: Explanation
    picture: str | None

    def rows(self) -> list[tuple[str, ...]]:
        """Its rows of the table that is printed: one for each reason, of which the first says all else."""
        found = self.explanation
        reasons = [told(reason) for reason in found.reasons[:_SHOWN] if reason.contribution > 0] or ["-"]
        flagged = "yes" if found.flagged else "no"
        first = (self.source.image_id, self.class_name, f"{found.score:.4g}", flagged, reasons[0])
        return [first, *(("", "", "", "", reason) for reason in reasons[1:])]


def told(reason: Reason) -> str:
    """Such as ``grad~cam rank 0.02, clean photos 0.31 ± 0.12``."""
    return f"{reason.name} {reason.value:.3g}, clean photos {reason.usual:.3g} ± {reason.spread:.2g}"


def save_verdicts(verdicts: Sequence[PhotoVerdict], path: Path, *, command: str) -> None:
    """Writes a row for each of at least one photo to ``path`` as Parquet, whole or not at all.

    ``command`` goes into its metadata.

    Beside the verdict, a row has each signal's value under the signal's name, and under ``NAME: contribution`` what it
    adds to the squared distance from the clean photos, of which the score is −½.
    """
    rows = []
    for verdict in verdicts:
        found = verdict.explanation
        reasons = sorted(found.reasons, key=lambda reason: reason.name)  # the same columns in every row
        rows.append(
            {
                "image_id": verdict.source.image_id,
                "image_sha256": verdict.source.sha256,
                "prediction": verdict.prediction,
                "class": verdict.class_name,
                "score": found.score,
                "threshold": found.threshold,
                "flagged": found.flagged,
                "picture": verdict.picture,
                **{reason.name: reason.value for reason in reasons},
                **{f"{reason.name}: contribution": reason.contribution for reason in reasons},
            }
        )
    about = {_KEY: json.dumps({"command": printable(command)}).encode()}
    sink = pa.BufferOutputStream()
    signals = [pa.field(name, pa.float64()) for name in rows[0] if name not in _COMMON.names]
    schema = pa.schema([*_COMMON, *signals], metadata=about)
    pq.write_table(pa.Table.from_pylist(rows, schema), sink, write_page_checksum=True)
    write_whole(path, sink.getvalue().to_pybytes())
