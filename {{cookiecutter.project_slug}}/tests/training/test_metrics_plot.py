"""The plot of metrics.csv: panels of which there is nothing yet stay empty without a word."""

import warnings
from pathlib import Path

import pytest
from competition.training.metrics_plot import draw_metrics


@pytest.mark.parametrize("row", ["1,0.5,,,0.001", "1,0.5,0.6,0.7,0.001"], ids=["not validated", "validated"])
def test_a_panel_without_values_has_no_legend_and_warns_of_nothing(tmp_path: Path, row: str) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(f"epoch,train/loss,val/loss,val/dice,learning_rate\n{row}\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert draw_metrics(path).read_bytes().startswith(b"\x89PNG")
