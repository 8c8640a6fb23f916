"""The one SLURM that the tests of a session share."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from small_cluster import missing, small_cluster


@pytest.fixture(scope="session")
def slurm() -> Iterator[None]:
    """Start a SLURM for commands of this session; skip where its programs are not installed."""
    if absent := missing():
        pytest.skip(f"needs SLURM and munge: {', '.join(absent)} not installed (apt-get install slurm-wlm munge)")
    # A path of pytest's own may be longer than one of a socket can be.
    with TemporaryDirectory(prefix="slurm") as folder, small_cluster(Path(folder)):
        yield
