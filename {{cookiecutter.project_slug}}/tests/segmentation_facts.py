"""What tests of all tasks must know of segmentation."""

from task_facts import Facts

FACTS = Facts(
    other_decode={"threshold": 0.25},
    more_decode={"bottom_threshold": 0.125},
    thresholds="threshold",
    losses="1 bce + 1 dice",
    anew="decoder",
    malformed={
        "format.train.files='{image_id}{0}'": "format.train.files: found ",
        "format.train.keys={a: '{image_id}{'}": "format.train.keys: found ",
        "format.size=1048576": "format.size",
    },
    small={"decoder_channels": 32},
    plain_encoder={"architecture": "dpt"},
    takes_prefix=True,
)
