"""Every `format: NAME` reads the competition it is called after: files and folders of the names they have there."""

from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import tifffile
from dicom_files import write_dicom
from PIL import Image
from tiny import PROJECT, tiny_words

from competition.checking.readings import STAGES, try_config
from competition.checking.recognise_format import recognise_folder
from competition.config.loading import complete, format_presets, load_config, task_names
from competition.files.csv_file import read_header
from competition.runs.folder import Run
from competition.scoring.out_of_fold import score_predictions
from competition.tasks.contract import Task

SIDE = 24
IDS = [f"i{number}" for number in range(6)]
TESTS = ["t0", "t1"]
RUN = "1 30"


def picture(path: Path) -> None:
    rng = np.random.default_rng(len(path.parts))
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = rng.integers(1, 250, (SIDE, SIDE, 3)).astype(np.uint8)
    if path.suffix in (".dcm", ".dicom"):
        write_dicom(path, pixels[..., 0])
    elif path.suffix in (".tif", ".tiff"):
        tifffile.imwrite(path, pixels)
    else:
        Image.fromarray(pixels).save(path)


def arrays(*names: str, shape: tuple[int, ...]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for number, name in enumerate(names):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            np.save(folder / name, np.random.default_rng(number).random(shape).astype(np.float32))

    return write


def masks(*names: str, shape: tuple[int, ...] = (SIDE, SIDE)) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for name in names:
            mask = np.zeros(shape, np.uint8)
            mask[4:12, 3:9] = 1
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            np.save(folder / name, mask) if name.endswith(".npy") else Image.fromarray(mask * 255).save(folder / name)

    return write


def layers(*folders: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for name in folders:
            (folder / name).mkdir(parents=True)
            for layer in range(65):
                tifffile.imwrite(folder / name / f"{layer:02d}.tif", np.full((SIDE, SIDE), layer * 500, np.uint16))

    return write


def rows(header: str, ids: list[str], *answers: str) -> list[str]:
    """Return a csv file's lines: `answers` in turn, with {} for the id."""
    return [header, *(answers[k % len(answers)].replace("{}", one) for k, one in enumerate(ids))]


def both(train: str, test: str = "") -> list[str]:
    """Return the names of training and test images, {} being the id."""
    return [train.replace("{}", one) for one in IDS] + [(test or train).replace("{}", one) for one in TESTS]


def split(ids: list[str], *classes: str) -> list[str]:
    return [f"{one}_{name}" for one in ids for name in classes]


Case = tuple[dict[str, list[str]], Sequence[str | Callable[[Path], None]]]
SAMPLE = "sample_submission.csv"
PLAIN = both("train_images/{}.jpg", "test_images/{}.jpg")
PNG, DCM = (both(f"train/{{}}.{suffix}", f"test/{{}}.{suffix}") for suffix in ("png", "dcm"))
JPG = both("train/{}.jpg", "test/{}.jpg")
STAINS = ("red", "green", "blue", "yellow")
PARTS = ["epidural", "subdural", "any"]
LUMBAR = [
    f"{condition}_{level}"
    for condition in (
        *("spinal_canal_stenosis", "left_neural_foraminal_narrowing", "right_neural_foraminal_narrowing"),
        *("left_subarticular_stenosis", "right_subarticular_stenosis"),
    )
    for level in ("l1_l2", "l2_l3", "l3_l4", "l4_l5", "l5_s1")
]
SPINE = ["patient_overall", *(f"C{number}" for number in range(1, 8))]
COVID = ["Negative for Pneumonia", "Typical Appearance", "Indeterminate Appearance", "Atypical Appearance"]
COVID_IMAGES = {
    "train_image_level.csv": rows(
        "id,boxes,label,StudyInstanceUID",
        IDS,
        "{}_image,,none 1 0 0 1 1,{}",
        "{}_image,\"[{'x': 2.5, 'y': 3, 'width': 8, 'height': 9.5}]\",opacity 1 2.5 3 10.5 12.5,{}",
    ),
    SAMPLE: rows(
        "id,PredictionString",
        split(TESTS, "study") + split(TESTS, "image"),
        *["{},negative 1 0 0 1 1"] * len(TESTS),
        *["{},none 1 0 0 1 1"] * len(TESTS),
    ),
}
CASES: dict[str, dict[str, Case]] = {
    "classification": {
        "sample": (
            {
                "train.csv": rows("image_id,label", IDS, "{}.png,a", "{}.png,b"),
                SAMPLE: rows("image_id,a,b", TESTS, "{}.png,0.5,0.5"),
            },
            both("train_images/{}.png", "test_images/{}.png"),
        ),
        "hpa": (
            {
                "train.csv": rows("Id,Target", IDS, "{},16 0", "{},0"),
                SAMPLE: rows("Id,Predicted", TESTS, "{},0"),
            },
            [name for colour in STAINS for name in both(f"train/{{}}_{colour}.png", f"test/{{}}_{colour}.png")],
        ),
        "cassava": (
            {
                "train.csv": rows("image_id,label", IDS, "{}.jpg,0", "{}.jpg,1"),
                SAMPLE: rows("image_id,label", TESTS, "{}.jpg,0"),
            },
            PLAIN,
        ),
        "melanoma": (
            {
                "train.csv": rows("image_name,patient_id,sex,target", IDS, "{},p{},male,0", "{},p{},male,1"),
                SAMPLE: rows("image_name,target", TESTS, "{},0"),
            },
            both("jpeg/train/{}.jpg", "jpeg/test/{}.jpg") + DCM,
        ),
        "rsna_breast": (
            {
                "train.csv": rows(
                    "site_id,patient_id,image_id,laterality,view,cancer", IDS, "1,p{},{},L,CC,0", "1,p{},{},R,CC,1"
                ),
                "test.csv": rows(
                    "site_id,patient_id,image_id,laterality,view,prediction_id", TESTS, "1,p{},{},L,CC,p{}_L"
                ),
                SAMPLE: rows("prediction_id,cancer", TESTS, "p{}_L,0.02"),
            },
            both("train_images/p{}/{}.dcm", "test_images/p{}/{}.dcm"),
        ),
        "plant2020": (
            {
                "train.csv": rows("image_id,healthy,multiple_diseases,rust,scab", IDS, "{},1,0,0,0", "{},0,0,1,0"),
                SAMPLE: rows("image_id,healthy,multiple_diseases,rust,scab", TESTS, "{},.25,.25,.25,.25"),
            },
            both("images/{}.jpg"),
        ),
        "rsna_hemorrhage": (
            {
                "stage_2_train.csv": rows("ID,Label", split(IDS, *PARTS), "{},0", "{},1"),
                "stage_2_sample_submission.csv": rows("ID,Label", split(TESTS, *PARTS), "{},0.5"),
            },
            both("stage_2_train/{}.dcm", "stage_2_test/{}.dcm"),
        ),
        "plant2021": (
            {
                "train.csv": rows("image,labels", IDS, "{}.jpg,scab rust", "{}.jpg,rust"),
                SAMPLE: rows("image,labels", TESTS, "{}.jpg,rust"),
            },
            PLAIN,
        ),
        "happywhale": (
            {
                "train.csv": rows("image,species,individual_id", IDS, "{}.jpg,beluga,a1", "{}.jpg,beluga,a2"),
                SAMPLE: rows("image,predictions", TESTS, "{}.jpg,a1 a2"),
            },
            PLAIN,
        ),
        "bengali": (
            {
                "train.csv": rows(
                    "image_id,grapheme_root,vowel_diacritic,consonant_diacritic,grapheme",
                    IDS,
                    "{},15,9,5,x",
                    "{},9,0,0,y",
                ),
                SAMPLE: rows(
                    "row_id,target", split(TESTS, "consonant_diacritic", "grapheme_root", "vowel_diacritic"), "{},0"
                ),
            },
            both("train_images/{}.png", "test_images/{}.png"),
        ),
        "petfinder": (
            {
                "train.csv": rows("Id,Eyes,Pawpularity", IDS, "{},1,20", "{},0,90"),
                SAMPLE: rows("Id,Pawpularity", TESTS, "{},50.5"),
            },
            JPG,
        ),
        "alaska2": (
            {SAMPLE: rows("Id,Label", ["0001", "0002"], "{}.jpg,0")},
            [f"{kind}/0000{k}.jpg" for kind in ("Cover", "JMiPOD", "JUNIWARD", "UERD") for k in "123"]
            + ["Test/0001.jpg", "Test/0002.jpg"],
        ),
        "aptos2019": (
            {
                "train.csv": rows("id_code,diagnosis", IDS, "{},0", "{},4"),
                SAMPLE: rows("id_code,diagnosis", TESTS, "{},0"),
            },
            both("train_images/{}.png", "test_images/{}.png"),
        ),
        "cactus": (
            {
                "train.csv": rows("id,has_cactus", IDS, "{}.jpg,0", "{}.jpg,1"),
                SAMPLE: rows("id,has_cactus", TESTS, "{}.jpg,0.5"),
            },
            JPG,
        ),
        "dog_breed": (
            {
                "labels.csv": rows("id,breed", IDS, "{},pug", "{},boxer"),
                SAMPLE: rows("id,boxer,pug", TESTS, "{},0.5,0.5"),
            },
            JPG,
        ),
        "histopathologic": (
            {"train_labels.csv": rows("id,label", IDS, "{},0", "{},1"), SAMPLE: rows("id,label", TESTS, "{},0")},
            both("train/{}.tif", "test/{}.tif"),
        ),
        "hotel2021": (
            {
                "train.csv": rows("image,chain,hotel_id,timestamp", IDS, "{}.jpg,7,18,x", "{}.jpg,7,19,x"),
                SAMPLE: rows("image,hotel_id", TESTS, "{}.jpg,18 19 18 19 18"),
            },
            both("train_images/7/{}.jpg", "test_images/{}.jpg"),
        ),
        "humpback": (
            {
                "train.csv": rows("Image,Id", IDS, "{}.jpg,w_1", "{}.jpg,new_whale"),
                SAMPLE: rows("Image,Id", TESTS, "{}.jpg,new_whale w_1"),
            },
            JPG,
        ),
        "leaf": (
            {
                "train.csv": rows("id,species,margin1", IDS, "{},Acer,0.1", "{},Tilia,0.2"),
                SAMPLE: rows("id,Acer,Tilia", TESTS, "{},0.5,0.5"),
            },
            both("images/{}.jpg"),
        ),
        "paddy": (
            {
                "train.csv": rows("image_id,label,variety,age", IDS, "{}.jpg,blast,x,45"),
                SAMPLE: rows("image_id,label", TESTS, "{}.jpg,"),
            },
            both("train_images/blast/{}.jpg", "test_images/{}.jpg"),
        ),
        "plant_seedlings": (
            {SAMPLE: rows("file,species", TESTS, "{}.png,Sugar beet")},
            both("train/Sugar beet/{}.png", "test/{}.png"),
        ),
        "ranzcr": (
            {
                "train.csv": rows(
                    "StudyInstanceUID,ETT - Normal,CVC - Normal,PatientID", IDS, "{},1,0,p1", "{},1,1,p2"
                ),
                SAMPLE: rows("StudyInstanceUID,ETT - Normal,CVC - Normal", TESTS, "{},0,0"),
            },
            JPG,
        ),
        "rsna2022": (
            {
                "train.csv": rows(
                    ",".join(["StudyInstanceUID", *SPINE]), IDS, "{},0,0,0,0,0,0,0,0", "{},1,1,0,0,0,0,0,0"
                ),
                SAMPLE: rows("row_id,fractured", split(TESTS, *SPINE), "{},0.5"),
            },
            both("train_images/{}/1.dcm", "test_images/{}/1.dcm")
            + both("train_images/{}/2.dcm", "test_images/{}/2.dcm"),
        ),
        "rsna2024": (
            {
                "train.csv": rows(
                    ",".join(["study_id", *LUMBAR]),
                    IDS,
                    "{}" + ",Normal/Mild" * 25,
                    "{},Moderate,,Severe" + ",Moderate" * 22,
                    "{}" + ",Severe" * 25,
                ),
                "train_series_descriptions.csv": rows("study_id,series_id,series_description", IDS, "{},7,Axial T2"),
                SAMPLE: rows("row_id,normal_mild,moderate,severe", split(TESTS, *sorted(LUMBAR)), "{},0.3,0.3,0.4"),
            },
            both("train_images/{}/7/1.dcm", "test_images/{}/7/1.dcm")
            + both("train_images/{}/9/12.dcm", "test_images/{}/9/12.dcm"),
        ),
        "rsna_miccai": (
            {
                "train_labels.csv": rows("BraTS21ID,MGMT_value", IDS, "{},0", "{},1"),
                SAMPLE: rows("BraTS21ID,MGMT_value", TESTS, "{},0.5"),
            },
            both("train/{}/FLAIR/Image-1.dcm", "test/{}/FLAIR/Image-1.dcm")
            + both("train/{}/T1w/Image-1.dcm", "test/{}/T1w/Image-1.dcm"),
        ),
        "siim_covid": (
            {
                "train_study_level.csv": rows(
                    ",".join(["id", *COVID]),
                    IDS,
                    "{}_study,1,0,0,0",
                    "{}_study,0,1,0,0",
                    "{}_study,0,0,1,0",
                    "{}_study,0,0,0,1",
                ),
                **COVID_IMAGES,
            },
            both("train/{}/s/{}.dcm", "test/{}/s/{}.dcm"),
        ),
        "seti": (
            {"train_labels.csv": rows("id,target", IDS, "{},0", "{},1"), SAMPLE: rows("id,target", TESTS, "{},0.5")},
            [arrays(*both("train/i/{}.npy", "test/t/{}.npy"), shape=(6, 27, 25))],
        ),
        "iceberg": (
            {
                "train.json": [
                    "["
                    + ", ".join(
                        f'{{"id": "{one}", "inc_angle": "na", "is_iceberg": {k % 2}}}' for k, one in enumerate(IDS)
                    )
                    + "]"
                ],
                SAMPLE: rows("id,is_iceberg", TESTS, "{},0.5"),
            },
            [arrays(*both("train_images/{}.npy", "test_images/{}.npy"), shape=(75, 75, 2))],
        ),
    },
    "detection": {
        "wheat": (
            {
                "train.csv": rows(
                    "image_id,width,height,bbox,source", IDS, f'{{}},{SIDE},{SIDE},"[2.0, 3.0, 8.0, 9.0]",u'
                ),
                SAMPLE: rows("image_id,PredictionString", TESTS, "{},1.0 0 0 5 5"),
            },
            JPG,
        ),
        "rsna": (
            {
                "stage_2_train_labels.csv": rows(
                    "patientId,x,y,width,height,Target", IDS, "{},2.0,3.0,8.0,9.0,1", "{},,,,,0"
                ),
                "stage_2_sample_submission.csv": rows("patientId,PredictionString", TESTS, "{},0.5 0 0 10 10"),
            },
            both("stage_2_train_images/{}.dcm", "stage_2_test_images/{}.dcm"),
        ),
        "siim_covid": (COVID_IMAGES, both("train/{}/s/{}.dcm", "test/{}/s/{}.dcm")),
        "vinbigdata": (
            {
                "train.csv": rows(
                    "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max",
                    IDS,
                    "{},Nodule,3,R1,2,3,9,9",
                    "{},No finding,14,R1,,,,",
                ),
                SAMPLE: rows("image_id,PredictionString", TESTS, "{},14 1 0 0 1 1"),
            },
            both("train/{}.dicom", "test/{}.dicom"),
        ),
    },
    "points": {
        "kuzushiji": (
            {
                "train.csv": rows("image_id,labels", IDS, "{},U+306F 1 2 8 9 U+304C 5 6 4 4", "{},"),
                SAMPLE: rows("image_id,labels", TESTS, "{},U+003F 1 1 U+FF2F 2 2"),
            },
            PLAIN,
        ),
        "xview3": (
            {
                "train.csv": rows(
                    "detect_lat,detect_lon,scene_id,detect_scene_row,detect_scene_column,is_vessel,is_fishing",
                    IDS,
                    "4.5,6.7,{},3,12,True,False",
                ),
                SAMPLE: rows(
                    "detect_scene_row,detect_scene_column,scene_id,is_vessel,is_fishing,vessel_length_m",
                    TESTS,
                    "0,0,{},True,False,10",
                ),
            },
            both("scenes/{}/VH_dB.tif"),
        ),
    },
    "segmentation": {
        "clouds": (
            {
                "train.csv": rows(
                    "Image_Label,EncodedPixels",
                    [f"{one}.jpg_{kind}" for one in IDS for kind in ("Fish", "Sugar")],
                    f"{{}},{RUN}",
                    "{},",
                ),
                SAMPLE: rows(
                    "Image_Label,EncodedPixels",
                    [f"{one}.jpg_{kind}" for one in TESTS for kind in ("Fish", "Sugar")],
                    "{},1 1",
                ),
            },
            PLAIN,
        ),
        "severstal": (
            {
                "train.csv": rows("ImageId,ClassId,EncodedPixels", IDS[:5], f"{{}}.jpg,1,{RUN}", f"{{}}.jpg,2,{RUN}"),
                SAMPLE: rows(
                    "ImageId_ClassId,EncodedPixels", split([f"{one}.jpg" for one in TESTS], "1", "2"), "{},1 1"
                ),
            },
            PLAIN,
        ),
        "hubmap": (
            {"train.csv": rows("id,encoding", IDS, f"{{}},{RUN}"), SAMPLE: rows("id,predicted", TESTS, "{},")},
            both("train/{}.tiff", "test/{}.tiff"),
        ),
        "contrails": (
            {SAMPLE: rows("record_id,encoded_pixels", TESTS, "{},-")},
            [
                arrays(
                    *(
                        f"{part}/{one}/band_{band:02d}.npy"
                        for part, ids in (("train", IDS), ("test", TESTS))
                        for one in ids
                        for band in range(8, 17)
                    ),
                    shape=(SIDE, SIDE, 8),
                ),
                masks(*(f"train/{one}/human_pixel_masks.npy" for one in IDS), shape=(SIDE, SIDE, 1)),
            ],
        ),
        "siim": (
            {
                "stage_2_train.csv": rows("ImageId, EncodedPixels", IDS, "{}, 1 30", "{}, -1"),
                "stage_2_sample_submission.csv": rows("ImageId,EncodedPixels", TESTS, "{},-1"),
            },
            both("dicom-images-train/s{}/r{}/{}.dcm", "stage_2_images/{}.dcm"),
        ),
        "uw_madison": (
            {
                "train.csv": rows(
                    "id,class,segmentation",
                    [f"case1_day{k}_slice_000{k}" for k in "123456"],
                    f"{{}},stomach,{RUN}",
                    "{},stomach,",
                ),
                SAMPLE: rows("id,class,predicted", ["case2_day1_slice_0001"], "{},stomach,"),
            },
            [f"train/case1/case1_day{k}/scans/slice_000{k}_24_24_1.50_1.50.png" for k in "123456"]
            + ["test/case2/case2_day1/scans/slice_0001_24_24_1.50_1.50.png"],
        ),
        "sennet": (
            {
                "train_rles.csv": rows("id,rle", [f"kidney_1_dense_000{k}" for k in "1234"], f"{{}},{RUN}", "{},1 0"),
                SAMPLE: rows("id,rle", ["kidney_5_0001"], "{},1 0"),
            },
            [f"train/kidney_1_dense/images/000{k}.tif" for k in "1234"] + ["test/kidney_5/images/0001.tif"],
        ),
        "dsb2018": (
            {
                "stage1_train_labels.csv": rows("ImageId,EncodedPixels", IDS, f"{{}},{RUN}"),
                "stage1_sample_submission.csv": rows("ImageId,EncodedPixels", TESTS, "{},"),
            },
            both("stage1_train/{}/images/{}.png", "stage1_test/{}/images/{}.png"),
        ),
        "airbus": (
            {
                "train_ship_segmentations_v2.csv": rows("ImageId,EncodedPixels", IDS, f"{{}}.jpg,{RUN}", "{}.jpg,"),
                "sample_submission_v2.csv": rows("ImageId,EncodedPixels", TESTS, "{}.jpg,1 2"),
            },
            both("train_v2/{}.jpg", "test_v2/{}.jpg"),
        ),
        "sartorius": (
            {
                "train.csv": rows("id,annotation,width,height,cell_type", IDS, f"{{}},{RUN},{SIDE},{SIDE},cort"),
                SAMPLE: rows("id,predicted", TESTS, "{},"),
            },
            PNG,
        ),
        "tgs": (
            {"train.csv": rows("id,rle_mask", IDS, f"{{}},{RUN}", "{},"), SAMPLE: rows("id,rle_mask", TESTS, "{},1 1")},
            both("train/images/{}.png", "test/images/{}.png"),
        ),
        "vesuvius": (
            {SAMPLE: rows("Id,Predicted", ["a"], "{},1 1 5 1")},
            [
                layers("train/1/surface_volume", "train/2/surface_volume", "test/a/surface_volume"),
                masks("train/1/inklabels.png", "train/2/inklabels.png"),
            ],
        ),
    },
}
KNOWN = [(task, name) for task in task_names() for name in CASES.get(task, {})]
# What these hand out is more than an image a row: masks are made by another's network (hpa), test images come one by
# one (barrier_reef), objects are polygons (hubmap2023, tests of instances), masks are cut out of larger images.
ELSEWHERE = {"hpa", "barrier_reef", "hubmap2023", "sample"}


# The tests of a task's formats train by these.
TRAINED_BESIDE = {
    *(
        "cassava",
        "melanoma",
        "rsna_breast",
        "plant2020",
        "rsna_hemorrhage",
        "plant2021",
        "hpa",
        "happywhale",
        "bengali",
    ),
    *(
        "petfinder",
        "clouds",
        "severstal",
        "hubmap",
        "contrails",
        "siim",
        "uw_madison",
        "sennet",
        "hubmap2023",
        "dsb2018",
    ),
    *("tgs", "airbus", "sartorius", "sample", "wheat", "rsna", "barrier_reef", "vinbigdata", "siim_covid"),
}
ONE_STEP = (
    *("model.pretrained=false", "data.num_folds=2", "data.near_duplicates=false", "trainer.limit_train_batches=1"),
    *("tta=[]", "data.cache=null", "trainer.precision=32-true", "trainer.enable_progress_bar=false"),
)


def lay_out(folder: Path, case: Case) -> None:
    tables, images = case
    for name, lines in tables.items():
        (folder / name).write_text("\n".join([*lines, ""]))
    for image in images:
        picture(folder / image) if isinstance(image, str) else image(folder)


@pytest.mark.parametrize(("task", "name"), KNOWN, ids=[name for _, name in KNOWN])
def test_a_known_competition_is_read_as_it_is_handed_out(task: str, name: str, tmp_path: Path) -> None:
    lay_out(tmp_path, CASES[task][name])
    stage, fault = try_config(complete(task, {"format": name, "data": {"dir": str(tmp_path)}}))
    assert fault == ""
    assert stage == len(STAGES)


@pytest.mark.skipif("classification" not in task_names(), reason="grades are classes")
def test_series_of_one_kind_are_those_that_the_table_beside_train_csv_names(tmp_path: Path) -> None:
    lay_out(tmp_path, CASES["classification"]["rsna2024"])
    kind = "train_series_descriptions.csv where series_description=Axial T2"
    train_csv = f"train.csv & {kind} & train_images/{{study_id}}/{{series_id}}/*.dcm"
    config = complete("classification", {"format": "rsna2024", "data": {"dir": str(tmp_path), "train_csv": train_csv}})
    assert try_config(config) == (len(STAGES), "")
    table = Task("classification").table.read_table(config)
    assert {str(name).split("/")[1] for name in table.image_ids} == {"7"}
    assert len(table.image_ids) == len(IDS)


LARGER = {"vesuvius": ["data.image_size=64"]}  # of fewer pixels its last features are one value, which has no variance
WHOLE_WAY = [(task, name) for task, name in KNOWN if name not in TRAINED_BESIDE]


@pytest.mark.slow
@pytest.mark.parametrize(("task", "name"), WHOLE_WAY, ids=[name for _, name in WHOLE_WAY])
def test_a_known_competition_goes_from_check_to_a_submission_and_the_hosts_score(
    task: str, name: str, tmp_path: Path, command: Callable[..., CompletedProcess[str]]
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    lay_out(data, CASES[task][name])
    config = PROJECT / "configs" / f"{task}_{name}.yaml"
    words = [config, *tiny_words(task), *ONE_STEP, *LARGER.get(name, ()), f"data.dir={data}", "name=known"]
    train = ["train", *words]
    for verb in (["check", "--no-page", *words], ["folds", *words], train, ["predict", "known"], ["submit", "known"]):
        done = command(*verb)
        assert done.returncode == 0, (verb[0], done.stderr)
    made = load_config([config], [str(word) for word in words[1:]])
    written, sample = (read_header(path) for path in (Path("outputs/known/submission.csv"), made.sample_submission))
    assert written == sample
    table, of_folds = Task(task).table.read_table(made), Run.open("known").out_of_fold_files()
    scores = score_predictions(made, table, of_folds)
    assert all(np.isfinite(scores[metric]) for metric in made.metrics)


@pytest.mark.parametrize("task", task_names())
def test_a_name_alone_brings_the_metrics_of_the_shipped_config(task: str) -> None:
    """`check` prints the name alone: the host's own metric must not be one that only the config has."""
    for name in set(format_presets(task)) - {"sample"}:
        shipped = load_config([PROJECT / "configs" / f"{task}_{name}.yaml"])
        assert complete(task, {"format": {"like": name}}).metrics == shipped.metrics, name


@pytest.mark.parametrize("task", task_names())
def test_every_known_competition_is_tried(task: str) -> None:
    assert set(format_presets(task)) - ELSEWHERE == set(CASES.get(task, {})) - ELSEWHERE


def test_tables_of_one_competition_have_folds_of_their_own() -> None:
    """Two runs of which each answers some rows of a submission read the same folder."""
    presets = [(task, name) for task in task_names() for name in format_presets(task)]
    for task, name in presets:
        for other in {other for other, one in presets if one == name} - {task}:
            ours, theirs = (complete(one, {"format": {"like": name}}).data for one in (task, other))
            assert ours.sample_submission.partition(" ")[2] == "" or ours.folds != theirs.folds


@pytest.mark.parametrize("name", [name for _, name in KNOWN if name in ("alaska2", "contrails", "vesuvius")])
def test_what_no_column_tells_is_recognised_by_the_names_of_files(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (task,) = [task for task, one in KNOWN if one == name]
    lay_out(tmp_path, CASES[task][name])
    Path("configs").symlink_to(PROJECT / "configs")
    lines = recognise_folder([f"data.dir={tmp_path}"])
    assert f"format: {name}" in lines
    assert f"# configs/{task}_{name}.yaml is a whole config for it, with a network and a course of its own" in lines


@pytest.mark.skipif("detection" not in task_names(), reason="boxes are found")
def test_a_known_competition_is_recognised_with_its_dicom_turned_into_png(tmp_path: Path) -> None:
    ids = [f"scan{number}" for number in range(8)]
    box = "\"[{'x': 2.5, 'y': 3, 'width': 8, 'height': 9.5}]\",opacity 1 2.5 3 10.5 12.5"
    images = [f"{one}_image,{box if number % 2 else ',none 1 0 0 1 1'},s{number}" for number, one in enumerate(ids[:6])]
    tables = {
        "train_image_level.csv": ["id,boxes,label,StudyInstanceUID", *images],
        SAMPLE: rows("id,PredictionString", ids[6:], "{}_image,none 1 0 0 1 1"),
    }
    for folders in (("train", "test"), ("train_images", "test_images")):
        data = tmp_path / folders[0]
        data.mkdir()
        lay_out(data, (tables, [f"{folders[number > 5]}/{one}.png" for number, one in enumerate(ids)]))
        printed = "\n".join(recognise_folder([f"data.dir={data}"]))
        assert all(key in printed for key in ("\nformat: siim_covid", "'{name}.png'", "id_parts: '{name}_image'"))
