"""`competition check`: every planted fault is named, with its line of the csv file."""

import re
import shutil
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from PIL import Image
from task_facts import facts_of
from tiny import TINY

from competition.checking.check import check
from competition.checking.encoder_names import refuse_unknown_encoder
from competition.config.loading import load_config, task_names
from competition.data.folds import make_folds, read_folds
from competition.files.csv_file import MOST_LINES
from competition.files.images import read_image, read_image_size
from competition.submission.submit import try_submission
from competition.support.errors import CompetitionError
from competition.support.optional_rooms import has_room
from competition.tasks.contract import Task
from competition.tasks.made_up_images import write_sample

Command = Callable[..., CompletedProcess[str]]


def image_ids(csv_file: Path) -> list[str]:
    """Return the ids of a csv file in order of first appearance."""
    rows = csv_file.read_text().splitlines()[1:]
    return list(dict.fromkeys(row.partition(",")[0] for row in rows))


def line_of(csv_file: Path, image_id: str) -> int:
    """Return the first line, counted from 1, on which an image stands."""
    lines = csv_file.read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if line.startswith(f"{image_id},"))


def faults(command: Command, words: list[str]) -> list[str]:
    """Run check on faulty data and return the lines it prints."""
    done = command("check", "--no-page", *words)
    assert done.returncode == 1
    assert "no fault found" not in done.stdout
    return done.stderr.splitlines()


def test_data_without_fault_passes_with_a_report(words: list[str], command: Command) -> None:
    done = command("check", *words)
    assert done.returncode == 0, done.stderr
    assert "train.csv: 24 images, classes " in done.stdout
    assert "sample_submission.csv: 6 images" in done.stdout
    assert done.stdout.endswith("no fault found\n")


def test_every_broken_image_is_named_with_its_line(words: list[str], data_dir: Path, command: Command) -> None:
    train_csv, images = data_dir / "train.csv", data_dir / "train_images"
    gone, cut, text = image_ids(train_csv)[2:5]
    (images / gone).unlink()
    size = (images / cut).stat().st_size // 2
    (images / cut).write_bytes((images / cut).read_bytes()[:size])
    (images / text).write_text("not an image")
    found = faults(command, words)
    assert len(found) == 3
    assert found[0] == f"{images / gone}: no such image file (train.csv line {line_of(train_csv, gone)})"
    assert found[1].startswith(f"{images / cut}: truncated or no image ({size} bytes")
    assert found[1].endswith(f"(train.csv line {line_of(train_csv, cut)})")
    assert found[2].startswith(f"{images / text}: truncated or no image (12 bytes")
    assert found[2].endswith(f"(train.csv line {line_of(train_csv, text)})")


def test_a_folder_of_images_that_is_not_there_is_one_fault(words: list[str], data_dir: Path, command: Command) -> None:
    (data_dir / "train_images").rename(data_dir / "trian")
    assert faults(command, words) == [
        f"{data_dir / 'train_images'}: no such folder of images (data.train_images); there are test_images/, trian/"
    ]


def test_a_broken_test_image_is_named_with_its_place(words: list[str], data_dir: Path, command: Command) -> None:
    third = image_ids(data_dir / "sample_submission.csv")[2]
    (data_dir / "test_images" / third).write_bytes(b"")
    found = faults(command, words)
    assert len(found) == 1
    assert found[0].startswith(f"{data_dir / 'test_images' / third}: truncated or no image (0 bytes")
    assert found[0].endswith("(image 3 of sample_submission.csv)")


def test_every_label_that_is_not_listed_is_named_with_its_line(
    words: list[str], data_dir: Path, command: Command
) -> None:
    train_csv = data_dir / "train.csv"
    config = load_config([Path(words[0])], words[1:])
    *known, unknown = Task(config.task).table.read_table(config).classes
    lines = train_csv.read_text().splitlines()
    expected = [
        f"{train_csv}: line {number}: found {unknown!r}; expected one of data.classes: {', '.join(known)}"
        for number, line in enumerate(lines, 1)
        if unknown in line.split(",")
    ]
    found = faults(command, [*words, f"data.classes=[{','.join(known)}]"])
    assert expected
    assert found[: min(len(expected), MOST_LINES)] == expected[:MOST_LINES]


def test_a_label_with_a_typing_error_is_told_with_its_line(words: list[str], data_dir: Path, command: Command) -> None:
    path, name = data_dir / "train.csv", "square"
    lines = path.read_text().splitlines()
    number = next(number for number, line in enumerate(lines, 1) if name in line.split(",") and not line.endswith(","))
    lines[number - 1] = lines[number - 1].replace(name, f"{name}s")
    path.write_text("\n".join(lines))
    done = command("check", *words)
    (told,) = (line for line in (done.stdout + done.stderr).splitlines() if line.startswith("warning"))
    assert f"class '{name}s' (1 images, the first on line " in told
    assert "is spelt almost as 'square'" in told or "has no row in sample_submission.csv" in told
    listed = command("check", *words, f"data.classes=[disk, ring, square, {name}s, triangle]")
    assert "warning" not in listed.stdout + listed.stderr


def test_a_repeated_row_of_the_sample_submission_is_named_with_its_line(
    words: list[str], data_dir: Path, command: Command
) -> None:
    sample = data_dir / "sample_submission.csv"
    lines = sample.read_text().splitlines()
    sample.write_text("\n".join([*lines, lines[1]]) + "\n")
    found = faults(command, words)
    assert found[0].startswith(f"{sample}: line {len(lines) + 1}: found ")


def test_a_sample_submission_without_its_columns_is_named(words: list[str], data_dir: Path, command: Command) -> None:
    sample = data_dir / "sample_submission.csv"
    sample.write_text(sample.read_text().replace("image_id,", "Id,", 1))
    found = faults(command, words)
    assert found[0].startswith(f"{sample}: column 'image_id' is missing; found Id,")
    # What is there now may be another format; then the lines follow that would read it.
    assert all("look as if these lines would read them" in line for line in found[1:2])


def rename_column(path: Path, old: str, new: str) -> None:
    """Give a column another name."""
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([",".join(new if name == old else name for name in header.split(",")), *rows, ""]))


def recognised(command: Command, data_dir: Path | None, project: Path) -> Path:
    """Write what check prints without a config into configs/, as by `> configs/mine.yaml`, and return that file."""
    done = command("check", *([] if data_dir is None else [f"data.dir={data_dir}"]))
    assert done.returncode == 0, done.stderr
    shutil.copytree(project / "configs", "configs", dirs_exist_ok=True)
    path = Path("configs/mine.yaml")
    path.write_text(done.stdout)
    assert done.stdout.endswith(f": competition check {path}\n")
    return path


def test_without_a_config_one_is_printed_that_reads_the_files(
    task: str, data_dir: Path, command: Command, project: Path
) -> None:
    path = recognised(command, data_dir, project)
    assert load_config([path]).task == task
    assert load_config([path]).data.num_folds == load_config([project / "configs" / f"{task}.yaml"]).data.num_folds
    assert command("check", path).returncode == 0


def test_without_a_config_a_second_task_that_fits_is_printed_as_a_comment(
    task: str, data_dir: Path, command: Command, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("competition.checking.recognise_format.task_names", lambda: [task, task])
    path = recognised(command, data_dir, project)
    assert f"# base: {task}.yaml\n" in path.read_text()
    assert load_config([path]).task == task


def test_without_a_word_the_files_in_data_are_looked_at(
    task: str, data_dir: Path, command: Command, project: Path
) -> None:
    config = load_config([recognised(command, None, project)])
    assert (config.task, config.data.dir) == (task, Path("data"))


def test_ids_without_ending_are_recognised_and_what_reads_them_is_told(
    words: list[str], data_dir: Path, command: Command, project: Path
) -> None:
    for name in ("train.csv", "sample_submission.csv"):
        (data_dir / name).write_text((data_dir / name).read_text().replace(".png", ""))
    found = faults(command, words)
    assert "test_" in found[-1]
    assert re.search(r"no such image file; (\S+)\.png is there: set data\.image_file to '\{image_id\}\.png'", found[0])
    path = recognised(command, data_dir, project)
    assert load_config([path]).data.image_file == "{image_id}.png"
    assert command("check", path).returncode == 0


def test_images_in_folders_of_other_names_are_found(data_dir: Path, command: Command, project: Path) -> None:
    for name in ("train", "test"):
        (data_dir / f"{name}_images").rename(data_dir / name)
    assert command("check", recognised(command, data_dir, project)).returncode == 0


def test_files_of_no_known_format_are_said_to_be_so(command: Command, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("what,is\nthis,then\n")
    (tmp_path / "sample_submission.csv").write_text("no,idea,at,all\n1,2,3,4\n")
    done = command("check", f"data.dir={tmp_path}")
    assert done.returncode == 1
    assert done.stderr.startswith(f"{tmp_path / 'train.csv'}, sample_submission.csv: no format known here fits")
    assert command("check", "trainer.devices=2").returncode == 1


def test_without_a_config_columns_that_are_separated_by_semicolons_are_told(command: Command, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("image_id;label\na;0,5\n")
    (tmp_path / "sample_submission.csv").write_text("image_id;label\nb;0,5\n")
    (told,) = command("check", f"data.dir={tmp_path}").stderr.splitlines()
    assert told.startswith(f"{tmp_path / 'train.csv'}: columns are separated by semicolons")


def test_columns_of_other_names_are_recognised_and_the_lines_that_read_them_printed(
    words: list[str], data_dir: Path, command: Command, tmp_path: Path
) -> None:
    """With the lines put into the config the same files have no fault."""
    for name in ("train.csv", "sample_submission.csv"):
        rename_column(data_dir / name, "image_id", "ImageId")
    found = faults(command, words)
    assert "column 'image_id' is missing; found ImageId," in found[0]
    start = next(number for number, line in enumerate(found) if "look as if these lines would read them" in line)
    (tmp_path / "format.yaml").write_text("\n".join(found[start + 1 :]))
    done = command("check", words[0], tmp_path / "format.yaml", *words[1:])
    assert done.returncode == 0, done.stderr


def test_without_a_config_a_missing_folder_or_file_is_named(data_dir: Path, command: Command, tmp_path: Path) -> None:
    assert command("check", f"data.dir={tmp_path / 'gone'}").stderr.startswith(f"{tmp_path / 'gone'}: no such folder;")
    empty = tmp_path / "empty"
    empty.mkdir()
    found = command("check", f"data.dir={empty}").stderr.splitlines()
    assert [line.partition(":")[0] for line in found] == [f"{empty}/train.csv", f"{empty}/sample_submission.csv"]
    assert all("no such file; where it has another name" in line for line in found)


# -- values


def write_floats(words: list[str], data_dir: Path, change: Callable[[np.ndarray], np.ndarray]) -> list[str]:
    """Put float arrays, from 0 to 1 and changed, in the place of the training images."""
    for path in (data_dir / "train_images").iterdir():
        pixels = read_image(path, 3).astype(np.float32) / 255
        with path.with_suffix(".npy").open("wb") as file:
            np.save(file, change(pixels))
        path.unlink()
    for path in (data_dir / "test_images").iterdir():
        np.save(path.with_suffix(".npy"), read_image(path, 3))
    for name in ("train.csv", "sample_submission.csv"):
        (data_dir / name).write_text((data_dir / name).read_text().replace(".png", ".npy"))
    return words


def test_pixels_that_are_no_numbers_are_told_with_their_image(words: list[str], data_dir: Path) -> None:
    write_floats(words, data_dir, lambda pixels: pixels)
    third = image_ids(data_dir / "train.csv")[2]
    pixels = np.load(data_dir / "train_images" / third)
    pixels[:3, :2] = np.nan
    np.save(data_dir / "train_images" / third, pixels)
    with pytest.raises(CompetitionError) as raised:
        check(load_config([Path(words[0])], words[1:]))
    (told,) = str(raised.value).splitlines()
    assert told.startswith(f"{data_dir / 'train_images' / third}: 18 of {pixels.size} values are no numbers")
    assert told.endswith(f"(train.csv line {line_of(data_dir / 'train.csv', third)})")


@pytest.mark.parametrize(
    ("change", "fits"),
    [
        (lambda pixels: pixels, True),
        (lambda pixels: pixels * 0.0625, False),
        (lambda pixels: pixels * 100 + 200, False),
        (lambda pixels: (pixels - 0.5) * 20, False),
    ],
    ids=["0 to 1", "12 bit", "200 to 300", "-10 to 10"],
)
def test_the_range_of_values_is_told_and_where_mean_and_std_do_not_fit_it(
    words: list[str], data_dir: Path, change: Callable[[np.ndarray], np.ndarray], fits: bool
) -> None:
    """With the mean and std that are told nothing is said any more."""
    write_floats(words, data_dir, change)
    report = check(load_config([Path(words[0])], words[1:]))
    (told,) = (line for line in report if line.startswith("values of training images: "))
    low, high = change(np.array([0.0, 1.0]))
    found = [float(number) for number in re.findall(r"-?\d+\.?\d*", told)[:2]]
    assert found == pytest.approx([low, high], abs=0.2 * (high - low))
    warnings = [line for line in report if line.startswith("warning: data.mean and data.std")]
    assert len(warnings) == (0 if fits else 1)
    if warnings:
        again = re.findall(r"data\.\w+=\[[^\]]*\]", warnings[0])
        report = check(load_config([Path(words[0])], [*words[1:], *again]))
        assert not [line for line in report if line.startswith("warning: data.mean")]


# -- groups


def add_column(path: Path, name: str, num_values: int) -> None:
    """Give a column to a csv file whose values go by image: as many as named, by turns."""
    header, *rows = path.read_text().splitlines()
    ids = image_ids(path)
    values = (ids.index(row.partition(",")[0]) % num_values for row in rows)
    path.write_text("\n".join([f"{header},{name}", *(f"{r},p{v}" for r, v in zip(rows, values, strict=True)), ""]))


def test_a_column_that_looks_like_a_group_is_told_unless_the_config_names_one(
    words: list[str], data_dir: Path, command: Command
) -> None:
    add_column(data_dir / "train.csv", "PatientID", 8)
    told = "train.csv: column PatientID has 8 values in 24 images: data.group: PatientID keeps those of one in the same"
    assert told in command("check", "--no-page", *words).stdout
    assert f"\n# {told}" in command("check", f"data.dir={data_dir}").stdout
    assert told not in command("check", "--no-page", *words, "data.group=PatientID").stdout
    (data_dir / "train_images" / image_ids(data_dir / "train.csv")[0]).unlink()
    assert told in command("check", "--no-page", *words).stderr


@pytest.mark.parametrize(
    ("name", "num_values"), [("hue", 8), ("casement", 8), ("Patient Age", 8), ("patient", 24), ("patient", 1)]
)
def test_other_columns_are_not_taken_for_groups(
    words: list[str], data_dir: Path, command: Command, name: str, num_values: int
) -> None:
    add_column(data_dir / "train.csv", name, num_values)
    assert f"column {name}" not in command("check", "--no-page", *words).stdout


# -- near-duplicates


def test_near_duplicates_are_told_with_their_folds_and_a_way_to_keep_them_together(
    words: list[str], data_dir: Path, command: Command
) -> None:
    config = load_config([Path(words[0])], words[1:])
    make_folds(config)
    ids = image_ids(data_dir / "train.csv")
    folds = read_folds(config, Task(config.task).table.read_table(config)).tolist()
    sizes = [read_image_size(data_dir / "train_images" / image_id, 3) for image_id in ids]
    pairs = [(a, b) for a in range(24) for b in range(24) if sizes[a] == sizes[b] and folds[a] < folds[b]]
    here, there = (ids[index] for index in pairs[0])
    shutil.copy(data_dir / "train_images" / here, data_dir / "train_images" / there)
    done = command("check", *words)
    assert done.returncode == 0, done.stderr
    report = " ".join(done.stdout.splitlines())
    assert "near-duplicates: 2 images in 1 group, as " in report
    assert "1 of these groups are torn over folds" in report
    assert f"data.group_file={data_dir / 'near_duplicates.csv'}" in report
    again = [*words, f"data.group_file={data_dir / 'near_duplicates.csv'}"]
    assert command("folds", *again).returncode == 0
    assert "each of these groups lies in one fold" in command("check", *again).stdout
    assert "near-duplicates" not in command("check", *words, "data.near_duplicates=false").stdout


def test_a_report_that_cannot_be_written_is_no_fault_of_the_data(
    words: list[str], data_dir: Path, command: Command, tmp_path: Path
) -> None:
    images = sorted((data_dir / "train_images").iterdir())
    first, second = next((a, b) for a, b in combinations(images, 2) if read_image_size(a, 3) == read_image_size(b, 3))
    shutil.copy(first, second)
    (data_dir / "near_duplicates.csv").mkdir()
    (tmp_path / "outputs").write_text("a file where the folder belongs")
    done = command("check", *words)
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    assert any(line.startswith(f"{data_dir / 'near_duplicates.csv'}: cannot be written (") for line in told)
    assert any(line.endswith("; data.folds says where else to write") for line in told)
    if has_room("pages"):
        assert any("check.html: cannot be written (" in line for line in told)


def test_faults_of_all_kinds_are_told_together(words: list[str], data_dir: Path, command: Command) -> None:
    train_csv = data_dir / "train.csv"
    first = image_ids(train_csv)[0]
    (data_dir / "train_images" / first).unlink()
    (data_dir / "test_images" / image_ids(data_dir / "sample_submission.csv")[0]).unlink()
    (data_dir / "folds.csv").write_text(f"image_id,fold\n{first},0\n")
    found = faults(command, words)
    assert len(found) == 3
    assert sum("no such image file" in line for line in found) == 2
    assert sum(line.startswith(f"{data_dir / 'folds.csv'}: image ") for line in found) == 1


def test_a_missing_sample_submission_is_told_beside_other_faults(
    words: list[str], data_dir: Path, command: Command
) -> None:
    (data_dir / "sample_submission.csv").unlink()
    (data_dir / "train_images" / image_ids(data_dir / "train.csv")[0]).unlink()
    found = faults(command, words)
    assert len(found) == 2
    assert found[0].startswith(f"{data_dir / 'sample_submission.csv'}: no such file")


def test_what_nobody_looks_at_where_train_csv_cannot_be_read_is_told(words: list[str], data_dir: Path) -> None:
    rename_column(data_dir / "train.csv", "image_id", "what")
    with pytest.raises(CompetitionError) as raised:
        check(load_config([Path(words[0])], words[1:]))
    assert "until it can be read nobody looks at images, folds and the sample submission" in str(raised.value)


def test_many_faults_of_a_kind_are_cut_short(words: list[str], data_dir: Path, command: Command) -> None:
    for path in (data_dir / "train_images").iterdir():
        path.unlink()
    found = faults(command, words)
    assert len(found) == MOST_LINES + 1
    assert found[-1] == f"training images: and {24 - MOST_LINES} more faults"


def test_images_that_no_row_names_are_no_fault_but_told(words: list[str], data_dir: Path) -> None:
    (data_dir / "train_images" / "extra.png").write_text("")
    report = check(load_config([Path(words[0])], words[1:]))
    assert report[-1].startswith(f"{data_dir / 'train_images'}: 1 files that train.csv does not name, as extra.png")
    has_way_on = report[-1].endswith("data.absent_images: empty")
    assert has_way_on == load_config([Path(words[0])], words[1:]).model.answers_places


def test_images_in_folders_that_no_row_names_are_told_where_ids_have_folders(words: list[str], data_dir: Path) -> None:
    images, train_csv = data_dir / "train_images", data_dir / "train.csv"
    for path in [*images.iterdir()]:
        (images / "s1").mkdir(exist_ok=True)
        path.rename(images / "s1" / path.name)
    for name in ("s1/extra.png", "s2/more.png", ".ipynb_checkpoints/copy.png", "s1/masks/mask.png"):
        (images / name).parent.mkdir(exist_ok=True)
        (images / name).write_text("")
    flat = ["data.test_image_file={image_id}"]
    by_name = check(load_config([Path(words[0])], [*words[1:], "data.image_file=s1/{image_id}", *flat]))
    assert "1 files that train.csv does not name, as s1/extra.png" in by_name[-1]
    header, *rows = train_csv.read_text().splitlines()
    train_csv.write_text("\n".join([header, *(f"s1/{row}" for row in rows), ""]))
    by_id = check(load_config([Path(words[0])], words[1:]))
    assert "2 files that train.csv does not name, as s1/extra.png" in by_id[-1]


@pytest.mark.parametrize("orientation", ["ignore", "apply"])
def test_images_that_a_viewer_turns_are_told_unless_they_are_turned(
    words: list[str], data_dir: Path, orientation: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    paths = [next((data_dir / folder).iterdir()) for folder in ("train_images", "test_images")]
    for path in paths:
        Image.fromarray(read_image(path, 3)).save(path, "png", exif=exif)
    report = check(load_config([Path(words[0])], [*words[1:], f"data.exif_orientation={orientation}"]))
    told = [line for line in report if "EXIF" in line]
    start = f"warning: 2 of 30 images have an EXIF orientation other than 1, as {min(paths)}: they are read as stored"
    assert [line.startswith(start) for line in told] == [True] * (orientation == "ignore")
    assert all(line.endswith("data.exif_orientation: apply") for line in told)


def test_an_encoder_that_is_not_there_is_told_before_a_training(words: list[str], command: Command) -> None:
    (line,) = faults(command, [*words, "model.encoder=resnet81"])
    assert line.startswith("model.encoder: 'resnet81' is no encoder of timm")
    assert "; nearest: resnet" in line


def test_an_encoder_like_none_is_told_with_the_packages_that_were_searched(words: list[str]) -> None:
    config = load_config([Path(words[0])], [*words[1:], "model.encoder=zzqqx"])
    with pytest.raises(CompetitionError, match=r"; nearest: none$") as told:
        refuse_unknown_encoder(config)
    assert ("or segmentation_models_pytorch" in str(told.value)) == config.model.knows_other_encoders


@pytest.mark.parametrize("verb", ["check", "run"])
def test_without_data_the_message_names_the_command_that_makes_some(
    config_file: Path, command: Command, verb: str
) -> None:
    done = command(verb, config_file)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("data/train.csv: no data there;")
    assert done.stderr.endswith("competition sample\n")


def test_a_submission_that_could_not_be_handed_in_is_refused_before_anything_is_trained(
    words: list[str], command: Command, task: str
) -> None:
    """Thresholds of which there are too few show only when answers are written."""
    wrong = facts_of(task).thresholds
    found = faults(command, [*words, *facts_of(task).decides, f"decode.{wrong}=[0.5]"])
    found = [line for line in found if "until it can be read" not in line]  # of masks the table itself asks for them
    assert [line for line in found if line.startswith(f"decode.{wrong}: ")] == found != []


@pytest.mark.skipif("classification" not in task_names(), reason="only labels can stand for those that are new")
def test_a_label_of_new_classes_that_train_csv_has_is_refused(command: Command, tmp_path: Path, project: Path) -> None:
    """A trial submission finds it, too: each image would be answered by it twice."""
    folder = tmp_path / "data"
    write_sample("classification", folder, size=24)
    sample = ["image_id,answer", *(f"{image_id},ring" for image_id in image_ids(folder / "sample_submission.csv"))]
    (folder / "sample_submission.csv").write_text("\n".join([*sample, ""]))
    words = [str(project / "configs" / "classification.yaml"), *TINY, f"data.dir={folder}", "metrics=[map5]"]
    form = "format={submission: {layout: top}, new: ring}"
    assert command("check", *words, form.replace("ring", "other")).returncode == 0
    line, *_ = faults(command, [*words, form])
    assert line.startswith("format.new: 'ring' is a class of ")
    config = load_config([Path(words[0])], [*words[1:], form])
    with pytest.raises(CompetitionError, match=r"a trial submission\.csv: line \d: .* a class stands twice"):
        try_submission(config, ["disc", "ring", "cross", "bar"], image_ids(folder / "sample_submission.csv"))
