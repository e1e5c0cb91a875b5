"""What is predicted with, and what is asked for."""

from pathlib import Path
from typing import NamedTuple

from busflow.inference.members import Member

NOTICE = "research use only"


class Job(NamedTuple):
    """One call of ``busflow predict``.

    Attributes:
        members: the models, of one task.
        output: folder.
        threshold: in [0, 1], of an image's probability of malignancy (classification), a box's score
            (detection), or a pixel's probability of lesion (segmentation). None: the most probable class, but
            boxes from ``detection.THRESHOLD``.
        calibrated: probabilities of calibrated classifiers, and their operating points.
        overlay: a picture of what was found in each image.
    """

    members: list[Member]
    output: Path
    threshold: float | None
    calibrated: bool
    overlay: bool

    @property
    def notice(self) -> str:
        """What every output says: what it is for, and what the studies of the members say of themselves."""
        said = (member.meta["origin"]["notice"] for member in self.members)
        return "; ".join(dict.fromkeys([NOTICE, *filter(None, said)]))
