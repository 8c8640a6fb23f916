"""What tests of all tasks must know of classification."""

from task_facts import Facts

FACTS = Facts(
    other_decode={"thresholds": [0.9, 0.1, 0.1, 0.1]},
    more_decode={"new_threshold": 0.3},
    thresholds="thresholds",
    losses="1 cross_entropy",
    anew="classifier",
    malformed={
        "format.group='{a}{'": "format.group: found ",
        "format.group='a'": "format.group: found ",
        "format.train.keys={a: '{image_id}{}'}": "format.train.keys: found ",
    },
    decides=("format.submission.value=decision",),  # else no threshold counts
    is_drawn=False,
)
