"""What a study leaves: a table, a figure and one paragraph of words made from the numbers."""

from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True)
class Study:
    """One claim, tested.

    Attributes:
        name: what command lines and files call it.
        title: a heading.
        claim: the paper's claim in our own words, with its place.
        table: the numbers, one row per cell; every mean with its n and interval.
        figure: one SVG, with the report's colours.
        words: made from the table, paragraphs with an empty line between them: where the claim holds, where not, and
            how sure we are.
    """

    name: str
    title: str
    claim: str
    table: pa.Table
    figure: str
    words: str
