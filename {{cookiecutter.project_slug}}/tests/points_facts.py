"""What tests of all tasks must know of points."""

from task_facts import Facts

FACTS = Facts(
    other_decode={"min_score": 0.7},
    more_decode={"min_distance": 3.0},
    thresholds="min_score",
    losses="1 focal",
    anew="decoder",
    malformed={
        "format.points=[x]": "format.points lists 1 columns; expected those of x and y",
        "format={points: labels, point_string: x}": "format.point_string: found ",
        "metrics=[f]": "metrics.0: found ",
    },
    demanding={"matching": {"distance": 0.8}},
    more_metrics=("f4", "f0.5_mean", "precision", "recall"),
    alike="segmentation",  # a map of the image, too, which is averaged
    untrained=("decode.min_score=0.1",),
    mixing=("mix.mosaic=0.5", "mix.mixup=0.5"),
    small={"decoder_channels": 32},
    plain_encoder=r"model.architecture: unet cannot be built on",
    takes_prefix=True,
)
