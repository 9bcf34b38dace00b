"""What a reasoning text concludes: an option, a verdict, kinds of defect, places in the picture.

Only what is said counts, read by the rules stated in docs/method.md; a text that concludes nothing
gives None or an empty set, which is no error. Any string may arrive and none raises.
"""

from anomalyr1.reasoning.choice import conclude_choice
from anomalyr1.reasoning.inspection import (
    conclude_verdict,
    find_kinds,
    find_places,
    name_kind,
)

__all__ = ["conclude_choice", "conclude_verdict", "find_kinds", "find_places", "name_kind"]
