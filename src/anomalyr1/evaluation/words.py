"""Do the words fit? The kinds of defect that labels name, and the places that the reasoning names.

Owns what counts as a right word. Words are compared under the one name of `reasoning.name_kind`
and in the nine places of `geometry.grid_words`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from anomalyr1.evaluation.localisation import BOX_THRESHOLDS
from anomalyr1.geometry import grid_words, match_boxes
from anomalyr1.reasoning import find_places, name_kind
from anomalyr1.types import Finding, Record

MEETING_IOU = BOX_THRESHOLDS[0]
"""From here on a predicted box meets a true one, as in `box_accuracy_iou10`."""


@dataclass(frozen=True, slots=True)
class WordTally:
    """What is true and what is said of one anomalous picture whose true boxes are known.

    `kinds` are (true, said) of each true box of known kind that a predicted box meets, of
    `num_known` true boxes of known kind. Places are `geometry.grid_words`.
    """

    num_known: int
    kinds: tuple[tuple[str, str], ...]
    true_places: frozenset[str]
    said_places: frozenset[str]

    @property
    def is_placed(self) -> bool:
        """Whether the reasoning names a place, and no place without a true box.

        >>> WordTally(0, (), frozenset(("top", "left")), frozenset(("left",))).is_placed
        True
        """
        return bool(self.said_places) and self.said_places <= self.true_places


def tally_words(record: Record, read: Finding | None, size_wh: tuple[int, int] | None) -> WordTally:
    """Compare the words of one picture's finding, None if unread, with the record's regions.

    Label: true and predicted boxes are matched one to one, as for box accuracy, and meet from IoU
    0.1 on; the label of the predicted box is then right if it names the kind of the true one. A
    region without `defect_type` takes the record's; one of a vague kind ("defect", "combined") has
    no part, nor has one that no box meets: box accuracy counts those, so an unread finding adds
    nothing here.

    Place: the places that the reasoning names and does not deny (`find_places`), whatever the
    verdict and the boxes, beside those that hold the middle of a true box. `size_wh` is the
    picture's (width, height); None where it is not known, which leaves no place to be right.
    """
    kinds = [name_kind(region.defect_type or record.defect_type) for region in record.regions]
    boxes = [region.box_xyxy for region in record.regions]
    defects = read.defects if read else ()
    pairs = match_boxes([defect.box_xyxy for defect in defects], boxes)
    return WordTally(
        num_known=sum(kind != "" for kind in kinds),
        kinds=tuple(
            (kinds[true], name_kind(defects[predicted].label))
            for predicted, true, iou in pairs
            if iou >= MEETING_IOU and kinds[true]
        ),
        true_places=frozenset(grid_words(box, size_wh) for box in boxes if size_wh),
        said_places=find_places(read.reasoning) if read else frozenset(),
    )


def find_commonest(words: Iterable[str]) -> str:
    """The word that comes most often, the first in the alphabet of several; "" of none.

    >>> find_commonest(["dent", "crack", "crack", "dent"])
    'crack'
    """
    counts = Counter(words)
    return min(counts, key=lambda word: (-counts[word], word), default="")
