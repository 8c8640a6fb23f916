"""Competitions whose folders `check` must read without a word, each in the layout that it is handed out in."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from competition.config.loading import load_config, task_names
from competition.files.image_folder import test_image as file_of_test
from competition.files.image_folder import train_image
from competition.tasks.contract import Task
from tests.checking.test_recognise_folder import draw, printed, write

pytestmark = pytest.mark.skipif("classification" not in task_names(), reason="labels are read")
Made = tuple[str, dict[str, Any]]  # the metric, and the answer of each test image as the sample wants it


def dump(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def dogs_vs_cats(folder: Path) -> None:
    """The label is a part of the file's name, and the sample asks for the probability of a dog."""
    draw(folder, *(f"train/{kind}.{number}.jpg" for kind in ("cat", "dog") for number in range(4)))
    draw(folder, "test/1.jpg", "test/2.jpg")
    write(folder / "sample_submission.csv", "id,label", "1,0.5", "2,0.5")


def state_farm(folder: Path) -> None:
    """A table beside folders of labels, a column a class in the sample."""
    kinds = [f"c{number}" for number in range(3)]
    draw(
        folder,
        *(f"imgs/train/{kinds[k % 3]}/img_{k}.jpg" for k in range(9)),
        "imgs/test/img_10.jpg",
        "imgs/test/img_11.jpg",
    )
    rows = [f"p{k // 3},{kinds[k % 3]},img_{k}.jpg" for k in range(9)]
    write(folder / "driver_imgs_list.csv", "subject,classname,img", *rows)
    write(folder / "sample_submission.csv", f"img,{','.join(kinds)}", "img_10.jpg,.3,.3,.4", "img_11.jpg,.3,.3,.4")


def herbarium(folder: Path, train: str, test: str, images: str, wrap: Callable[[list[Any]], Any], named: bool) -> None:
    """COCO's json, whose images lie in folders by parts of their numbers."""
    files = [f"{images.format('train')}/00{k % 2}/0{k}/{k}.jpg" for k in range(8)]
    asked = [f"{images.format('test')}/000/{'test-0' * named}{k}.jpg" for k in (8, 9)]
    draw(folder, *files, *asked)
    key = "image_id" if named else "id"
    cut = len(images.format("train")) + 1 if named else len("train/")
    known = [{key: str(k), "file_name": name[cut:], "license": 0} for k, name in enumerate(files)]
    notes = [{"id": k, "image_id": str(k), "category_id": 3 * (k % 4), "institution_id": 5} for k in range(8)]
    kinds = [
        {"category_id" if named else "id": 3 * k, "scientificName" if named else "name": f"n {k}"} for k in range(4)
    ]
    dump(folder / train, {"annotations": notes, "images": known, "categories": kinds, "institutions": [], "info": {}})
    cut = len(images.format("test")) + 1 if named else len("test/")
    dump(folder / test, wrap([{key: str(k), "file_name": name[cut:]} for k, name in enumerate(asked, 8)]))
    write(folder / "sample_submission.csv", "Id,Predicted", "8,0", "9,0")


def herbarium2021(folder: Path) -> None:
    herbarium(
        folder,
        "train/metadata.json",
        "test/metadata.json",
        "{}/images",
        lambda rows: {"images": rows, "info": {}},
        False,
    )


def herbarium2022(folder: Path) -> None:
    herbarium(folder, "train_metadata.json", "test_metadata.json", "{}_images", lambda rows: rows, True)


def imet2020(folder: Path) -> None:
    """Numbers of labels with blanks between them."""
    draw(folder, *(f"train/a{k}.png" for k in range(8)), "test/b0.png", "test/b1.png")
    write(folder / "train.csv", "id,attribute_ids", *(f"a{k},{k % 3 + 10} {k % 2 + 20}" for k in range(8)))
    write(folder / "labels.csv", "attribute_id,attribute_name", "10,country::x", "20,tags::y")
    write(folder / "sample_submission.csv", "id,attribute_ids", "b0,10 20", "b1,10 20")


def iwildcam2019(folder: Path) -> None:
    """Many columns, ids that the sample has under another name."""
    draw(folder, *(f"train_images/a{k}.jpg" for k in range(8)), "test_images/b0.jpg", "test_images/b1.jpg")
    header = (
        "category_id,date_captured,file_name,frame_num,id,location,rights_holder,seq_id,seq_num_frames,width,height"
    )
    rows = [f"{k % 3 * 7},2011-05-13 23:43:18,a{k}.jpg,1,a{k},{k % 4},Justin Brown,s{k},3,1024,747" for k in range(8)]
    write(folder / "train.csv", header, *rows)
    asked = [f"2011-05-14 23:43:18,b{k}.jpg,1,b{k},9,Justin Brown,t{k},3,1024,747" for k in range(2)]
    write(folder / "test.csv", header.partition(",")[2], *asked)
    write(folder / "sample_submission.csv", "Id,Predicted", "b0,0", "b1,0")


def iwildcam2020(folder: Path) -> None:
    """COCO's json under names of its own, beside another one of what a detector said."""
    draw(folder, *(f"train/a{k}.jpg" for k in range(8)), "test/b0.jpg", "test/b1.jpg")
    about = {"seq_num_frames": 3, "location": 5, "seq_id": "s", "width": 24, "height": 24, "frame_num": 0}
    images = [{"id": f"a{k}", "file_name": f"a{k}.jpg", "datetime": "2013-10-04", **about} for k in range(8)]
    notes = [{"id": f"n{k}", "image_id": f"a{k}", "category_id": k % 3 * 70, "count": 1} for k in range(8)]
    kinds = [{"id": 70 * k, "name": name, "count": 3} for k, name in enumerate(("empty", "zebra", "lion"))]
    info = {"info": {"version": "3.0"}}
    dump(
        folder / "iwildcam2020_train_annotations.json",
        {"annotations": notes, "images": images, "categories": kinds, **info},
    )
    asked = [{"id": f"b{k}", "file_name": f"b{k}.jpg", "datetime": "2013-10-04", **about} for k in range(2)]
    dump(folder / "iwildcam2020_test_information.json", {"images": asked, "categories": kinds, **info})
    found = [{"category": "1", "bbox": [0.6, 0, 0.4, 0.2], "conf": 0.9}]
    boxes = [{"detections": found, "id": f"{a}{k}", "max_detection_conf": 0.9} for a in "ab" for k in range(2)]
    dump(
        folder / "iwildcam2020_megadetector_results.json",
        {"images": boxes, "detection_categories": {"1": "animal"}, **info},
    )
    write(folder / "sample_submission.csv", "Id,Category", "b0,0", "b1,0")


def whales(folder: Path) -> None:
    """The best five in one cell, a new one among them."""
    draw(folder, *(f"train/a{k}.jpg" for k in range(8)), "test/b0.jpg", "test/b1.jpg")
    write(folder / "train.csv", "Image,Id", *(f"a{k}.jpg,{('new_whale', f'w_{k % 3}')[k % 2]}" for k in range(8)))
    write(
        folder / "sample_submission.csv",
        "Image,Id",
        "b0.jpg,new_whale w_0 w_1 w_2 w_3",
        "b1.jpg,new_whale w_0 w_1 w_2 w_3",
    )


def cdiscount(folder: Path) -> None:
    """What `competition unpack` makes of bson: every product has some images, and is answered as one."""
    draw(folder, *(f"train_images/{k}/{n}.jpg" for k in range(8) for n in range(1 + k % 3)))
    draw(folder, *(f"test_images/{k}/{n}.jpg" for k in (10, 11) for n in range(2)))
    write(folder / "train.csv", "_id,category_id", *(f"{k},{1000010653 + k % 2}" for k in range(8)))
    write(folder / "test.csv", "_id", "10", "11")
    write(folder / "sample_submission.csv", "_id,category_id", "10,1000010653", "11,1000010653")


LAYOUTS: dict[Callable[[Path], None], list[str]] = {
    dogs_vs_cats: ["dog"],
    state_farm: ["c0", "c1", "c2"],
    herbarium2021: ["0", "3", "6", "9"],
    herbarium2022: ["0", "3", "6", "9"],
    imet2020: ["10", "11", "12", "20", "21"],
    iwildcam2019: ["0", "7", "14"],
    iwildcam2020: ["0", "70", "140"],
    cdiscount: ["1000010653", "1000010654"],
    whales: ["new_whale", "w_0", "w_1", "w_2"],
}


@pytest.mark.parametrize("make", LAYOUTS, ids=lambda make: make.__name__)
def test_a_folder_is_read_by_what_is_printed_in_few_lines(
    make: Callable[[Path], None], tmp_path: Path, project: Path
) -> None:
    make(tmp_path)
    lines, _ = printed(tmp_path, project, "data.num_folds=2")
    assert len([line for line in lines if line.strip() and not line.startswith("#")]) <= 15
    config = load_config([tmp_path / "mine.yaml"], [])
    task = Task(config.task)
    table = task.table.read_table(config)
    assert list(table.classes) == LAYOUTS[make]
    tests = task.submission.read_test_ids(config, table.classes)
    files = [*(train_image(config, one) for one in table.image_ids), *(file_of_test(config, one) for one in tests)]
    assert len(set(files)) == len(list(tmp_path.rglob("*.jpg"))) + len(list(tmp_path.rglob("*.png")))
