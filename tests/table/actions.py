"""What may happen next, for `tests.table.machine`: an action is the name of a method of the machine, and arguments.

They are drawn by one rule, since Hypothesis turns off some of a machine's rules in each example, and most of what can
go wrong takes all of them. Shares and short cuts are chosen so that mistakes put in on purpose are found soon.
"""

from __future__ import annotations

from hypothesis import strategies as st

from tests.memory_store import Fate
from tests.table.actors import SOURCES

#: Writers alive at once, at most; more make schedules longer and find nothing more.
MOST_WRITERS = 4
_FOLDERS = ("plans", "rejects", "data", "manifests")
#: Which sources take part: most of what can go wrong needs one.
TOGETHER = [("folder",), ("folder",), ("tar",), ("folder", "manifest"), tuple(SOURCES)]
BEGINNINGS = ("nothing", "bound", "done", "done, changed", "done, changed, bound")
_WHICH = st.integers(0, MOST_WRITERS - 1)
#: A name of a source by its number, and one of its members where it is a container.
_IMAGE = st.tuples(st.sampled_from([0, 0, 1, 1, 2]), st.integers(0, 2))
_FATES = [fate for fate in Fate if fate is not Fate.HAPPENS]
_START = st.tuples(
    st.just("start"),
    _WHICH,
    st.sampled_from(["run", "run", "run", "prune", "retry"]),
    st.sampled_from([None, None, 0, 0, 1, 2]),
)
_TASK = st.tuples(st.just("start_task"), _WHICH, st.integers(0, 3), _IMAGE)
_TURN = st.tuples(
    st.just("turn"), st.sampled_from(["change", "change", "mend or break", "list or drop"]), _WHICH, _IMAGE
)
_GO = st.tuples(st.just("go"), _WHICH, st.integers(1, 3))
_GO_TO = st.tuples(st.just("go_to"), _WHICH, st.sampled_from(_FOLDERS), st.sampled_from([0, 0, 0, 1]), st.booleans())
_FINISH = st.tuples(st.just("finish"), _WHICH)
_TROUBLE = st.tuples(st.just("trouble"), _WHICH, st.sampled_from(_FATES))
#: Each as often as it is of use.
ACTIONS = st.sampled_from(
    [_START] * 3 + [_TASK] + [_TURN] * 2 + [_GO] + [_GO_TO] * 4 + [_FINISH] * 2 + [_TROUBLE]
).flatmap(lambda strategy: strategy)
