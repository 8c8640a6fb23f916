"""What tests of all tasks must know of detection."""

from task_facts import Facts

FACTS = Facts(
    other_decode={"min_score": 0.9},
    more_decode={"iou": 0.3},
    thresholds="min_score",
    losses="1 classification + 7.5 box",
    anew="pyramid and head",
    malformed={
        "format.image_id='{a}{'": "format.image_id: found ",
        "format.image_id='{a.b}'": "format.image_id: found ",
    },
    untrained=("model.architecture=fcos",),
    mixing=("mix.mosaic=0.5", "mix.mixup=0.5"),
    encoder_size=(160, 160),  # what maxvit and coatnet are made for
    plain_encoder=r"model.encoder: \w+ has .*levels at strides",
    is_fitted=False,
)
