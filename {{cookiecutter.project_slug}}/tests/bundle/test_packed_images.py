"""Test images that came in an archive: said where a bundle is made, and refused where it finds the archive alone."""

from pathlib import Path

import pytest
from tiny import bundled

from competition.config.data_settings import Data
from competition.support.errors import CompetitionError

packed_images = bundled("packed_images")


@pytest.mark.parametrize(
    ("name", "images"), [("test.zip", "test"), ("test.tar.gz", "test/images"), ("test.json", "test_images")]
)
def test_an_archive_of_test_images_is_told_where_it_was_unpacked_and_refused_where_not(
    tmp_path: Path, name: str, images: str
) -> None:
    data = Data(dir=tmp_path, test_images=images)
    (tmp_path / "train.zip").write_bytes(b"")
    assert packed_images.describe_packed(data) == []
    packed_images.refuse_packed(data)  # what is missing is told with its name
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(CompetitionError, match=rf"{name}: .* are packed in it.*infer\.py FOLDER"):
        packed_images.refuse_packed(data)
    (tmp_path / images).mkdir(parents=True)
    packed_images.refuse_packed(data)
    (line,) = packed_images.describe_packed(data)
    assert line.startswith(f"{tmp_path / name}: ")
    assert "infer.py" in line
