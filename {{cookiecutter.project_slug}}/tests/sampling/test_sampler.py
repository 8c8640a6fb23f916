"""The ratio sampler: shares, ranks, epochs, weights, groups, and what is refused."""

import math
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
import pytest
from competition.sampling.sampler import CHUNK, RatioSampler, class_weights
from competition.sampling.share_schedule import EpochCounts, ShareSchedule, schedule_warnings
from competition.support.errors import CompetitionError
from hypothesis import assume, given, settings
from hypothesis import strategies as st

SHARES = st.floats(0.02, 0.98)
WAYS: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.fixed_dictionaries({"keep": st.sampled_from(["positives", "negatives"])}),
    st.fixed_dictionaries({"num_draws": st.integers(8, 300)}),
)
some_settings = settings(max_examples=60, deadline=None)


@pytest.fixture(scope="module", params=[7, CHUNK], autouse=True)
def chunk(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run every test twice: draws are put together from many chunks, and from one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("competition.sampling.sampler.CHUNK", request.param)
        patch.setattr("competition.sampling.sampler.CHUNK", request.param)
        yield


def rows(num_positives: int, num_negatives: int) -> np.ndarray:
    """Return (n,) bool: positives spread over the table."""
    return np.random.default_rng(0).permutation(np.arange(num_positives + num_negatives) < num_positives)


def at(share: float | None) -> ShareSchedule:
    return ShareSchedule.constant(share)


def draw(sampler: RatioSampler, epoch: int) -> np.ndarray:
    """Return the draw of all ranks."""
    return np.concatenate(list(sampler.chunks(epoch)))


@st.composite
def samplers(draw: st.DrawFn, extras: tuple[str, ...] = ("none", "weights", "groups")) -> dict[str, Any]:
    """Arguments of samplers of every kind, for at most four ranks."""
    positive = rows(draw(st.integers(12, 60)), draw(st.integers(4, 200)))
    schedule = ShareSchedule(
        ((0, draw(SHARES)), (4, draw(st.none() | SHARES))),
        draw(st.sampled_from(["hold", "linear", "cosine"])),
    )
    arguments = {
        "positive": positive,
        "schedule": schedule,
        "seed": draw(st.integers(0, 2**32)),
        **draw(WAYS),
    }
    extra = draw(st.sampled_from(extras))
    if extra == "weights":
        arguments["weights"] = np.random.default_rng(1).random(len(positive))
    if extra == "groups":
        groups = np.arange(len(positive)) // 3
        groups[np.flatnonzero(~positive)[:4]] = -np.arange(1, 5)  # some groups without a positive
        arguments |= {"groups": groups, "max_per_group": draw(st.integers(1, 3))}
    return arguments


@given(samplers(), st.integers(0, 6), st.integers(1, 4))
@some_settings
def test_ranks_divide_the_draw_of_one_process(arguments: dict[str, Any], epoch: int, world_size: int) -> None:
    alone = list(RatioSampler(**arguments, epoch=epoch))
    ranks = [RatioSampler(**arguments, epoch=epoch, rank=r, world_size=world_size) for r in range(world_size)]
    parts = [list(sampler) for sampler in ranks]
    assert {len(part) for part in parts} == {len(alone) // world_size}
    # Taking turns gives back the order of one process: every global batch holds the same rows.
    assert list(chain.from_iterable(zip(*parts, strict=True))) == alone[: len(alone) // world_size * world_size]


@given(samplers(), st.integers(0, 6))
@some_settings
def test_length_and_counts_are_those_of_the_draw(arguments: dict[str, Any], epoch: int) -> None:
    for world_size in (1, 3):
        sampler = RatioSampler(**arguments, rank=world_size - 1, world_size=world_size)
        sampler.set_epoch(epoch)
        counts = sampler.counts(epoch)
        assert len(sampler) == len(list(sampler)) == counts.per_rank == counts.total // world_size
        num_positives = int(arguments["positive"][draw(sampler, epoch)].sum())
        assert (num_positives, len(draw(sampler, epoch)) - num_positives) == (
            counts.positives,
            counts.negatives,
        )


@given(samplers(), st.integers(0, 6))
@some_settings
def test_seed_and_epoch_alone_decide_the_draw(arguments: dict[str, Any], epoch: int) -> None:
    fresh = RatioSampler(**arguments, epoch=epoch)
    old = RatioSampler(**arguments)
    np.random.default_rng(0).random()
    for earlier in (5, 0, epoch):
        old.set_epoch(earlier)
        drawn = list(old)
    assert drawn == list(fresh) == list(fresh)


def test_epochs_and_seeds_differ() -> None:
    draws = [tuple(RatioSampler(rows(50, 500), schedule=at(0.5), seed=s, epoch=e)) for s in range(3) for e in range(3)]
    assert len(set(draws)) == len(draws)


@given(st.integers(1, 100), st.integers(1, 1000), SHARES, WAYS, st.integers(0, 3))
@some_settings
def test_share_is_reached_to_the_nearest_draw(
    num_positives: int, num_negatives: int, share: float, way: dict[str, Any], epoch: int
) -> None:
    sampler = RatioSampler(rows(num_positives, num_negatives), schedule=at(share), seed=1, epoch=epoch, **way)
    counts = sampler.counts(epoch)
    assume(way.get("keep") != "positives" or share > num_positives / (num_positives + num_negatives))
    furthest = 1 if "num_draws" in way else 0.5  # what is left of a draw is carried to the next epoch
    assert abs(counts.share - share) * (counts.positives + counts.negatives) <= furthest + 1e-6


@given(st.integers(1, 300), st.floats(0.001, 1), st.integers(1, 40))
@some_settings
def test_a_number_of_draws_has_its_share_over_the_run_however_small(num_draws: int, share: float, epochs: int) -> None:
    sampler = RatioSampler(rows(20, 480), schedule=at(share), seed=1, num_draws=num_draws)
    counts = [sampler.counts(epoch) for epoch in range(epochs)]
    assert abs(sum(c.positives for c in counts) - share * num_draws * epochs) <= 0.5 + 1e-6
    assert all(c.positives + c.negatives == num_draws and c.negatives >= 0 for c in counts)
    assert schedule_warnings(sampler.schedule, counts) == []


def test_keeping_positives_draws_each_once_and_no_negative_twice() -> None:
    positive = rows(30, 400)
    drawn = Counter(RatioSampler(positive, schedule=at(0.25), seed=0))
    assert set(np.flatnonzero(positive)) <= set(drawn)
    assert len(drawn) == drawn.total() == 120


def test_keeping_negatives_repeats_positives_evenly() -> None:
    positive = rows(30, 400)
    drawn = Counter(RatioSampler(positive, schedule=at(0.5), keep="negatives", seed=0))
    assert {drawn[row] for row in np.flatnonzero(~positive)} == {1}
    assert {drawn[row] for row in np.flatnonzero(positive)} == {13, 14}
    assert drawn.total() == 800


def test_number_of_draws_can_be_fixed() -> None:
    assert [len(RatioSampler(rows(30, 400), schedule=at(s), num_draws=1000, seed=0)) for s in (0.01, None, 1)] == [
        1000
    ] * 3


@given(st.integers(1, 50), st.integers(0, 50))
@some_settings
def test_natural_share_draws_every_row_once(num_positives: int, num_negatives: int) -> None:
    positive, everything = rows(num_positives, num_negatives), list(range(num_positives + num_negatives))
    assert sorted(RatioSampler(positive, seed=0)) == everything
    assert num_negatives == 0 or sorted(RatioSampler(positive, keep="negatives", seed=0)) == everything


def test_a_share_below_the_natural_one_takes_all_there_is() -> None:
    counts = RatioSampler(rows(30, 60), schedule=at(0.1), seed=0).counts(0)
    assert (counts.positives, counts.negatives) == (30, 60)
    assert (counts.asked, counts.share) == (0.1, pytest.approx(1 / 3))


@given(samplers(("none",)), st.integers(1, 9))
@some_settings
def test_rows_of_a_side_come_equally_often_over_the_run(arguments: dict[str, Any], num_epochs: int) -> None:
    sampler = RatioSampler(**arguments)
    drawn = np.bincount(
        np.concatenate([draw(sampler, e) for e in range(num_epochs)]), minlength=len(arguments["positive"])
    )
    for side in (arguments["positive"], ~arguments["positive"]):
        assert np.ptp(drawn[side]) <= 1


def test_draws_are_in_random_order() -> None:
    positive = rows(2000, 2000)
    drawn = np.array(list(RatioSampler(positive, seed=0)))
    assert abs(positive[drawn[:1000]].mean() - 0.5) < 0.06
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.06


def test_big_tables_are_mixed_anew_every_epoch() -> None:
    num_rows, near = 20_000, 50
    sampler = RatioSampler(rows(num_rows, 0), seed=0)
    before, after = (np.argsort(draw(sampler, epoch)) for epoch in (0, 1))
    order = np.argsort(before)
    meet_again = np.abs(np.diff(after[order])) < near
    assert meet_again.mean() < 3 * (2 * near / num_rows)


def test_every_piece_of_an_epoch_has_its_share() -> None:
    positive = rows(200, 3000)
    for piece in RatioSampler(positive, schedule=at(0.3), seed=0).chunks(5):
        assert abs(positive[piece].sum() - 0.3 * len(piece)) <= 1


@given(st.integers(1, 60), st.integers(1, 200), SHARES, st.integers(0, 9))
@some_settings
def test_rows_are_repeated_evenly_in_every_piece(
    num_positives: int, num_negatives: int, share: float, epoch: int
) -> None:
    positive = rows(num_positives, num_negatives)
    for piece in RatioSampler(positive, schedule=at(share), keep="negatives", seed=0).chunks(epoch):
        assert np.ptp(np.bincount(piece, minlength=len(positive))[positive]) <= 1


def test_an_epoch_can_be_taken_up_in_the_middle() -> None:
    sampler = RatioSampler(rows(30, 400), schedule=at(0.3), seed=0, rank=1, world_size=2)
    sampler.set_epoch(2)
    whole, length = list(sampler), len(sampler)
    sampler.set_epoch(2, start=7)
    sampler.set_epoch(2)  # Lightning does this before it iterates
    assert list(sampler) == whole[7:]
    assert len(sampler) == length  # Lightning adds the batches done before to those to come
    sampler.set_epoch(3)
    assert len(list(sampler)) == len(sampler)


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [
        (ShareSchedule(), [0.1, 0.1, 0.1, 0.1, 0.1, 0.1]),
        (ShareSchedule.constant(0.5), [0.5, 0.5, 0.5, 0.5, 0.5, 0.5]),
        (ShareSchedule.linear(0.9, 4), [0.9, 0.7, 0.5, 0.3, 0.1, 0.1]),
        (ShareSchedule.linear(0.9, 2, 0.5), [0.9, 0.7, 0.5, 0.5, 0.5, 0.5]),
        (
            ShareSchedule.cosine(0.9, 4),
            [0.9, 0.5 + 0.2 * math.sqrt(2), 0.5, 0.5 - 0.2 * math.sqrt(2), 0.1, 0.1],
        ),
        (ShareSchedule.steps({0: 0.8, 2: 0.4, 5: None}), [0.8, 0.8, 0.4, 0.4, 0.4, 0.1]),
        (ShareSchedule(((0, 0.2), (2, 0.8), (4, None)), "linear"), [0.2, 0.5, 0.8, 0.45, 0.1, 0.1]),
    ],
)
def test_schedules_by_hand(schedule: ShareSchedule, shares: list[float]) -> None:
    assert [schedule.share(epoch, 0.1) for epoch in range(6)] == pytest.approx(shares)


def test_epochs_grow_as_the_share_falls() -> None:
    sampler = RatioSampler(rows(10, 90), schedule=ShareSchedule.steps({0: 1.0, 1: 0.5, 2: 0.2, 3: None}), seed=0)
    assert [sampler.counts(epoch).total for epoch in range(4)] == [10, 20, 50, 100]


def test_balanced_weights_even_out_classes() -> None:
    labels = np.repeat(["cat", "dog", "eel"], [6000, 900, 300])
    everything = np.ones(len(labels), bool)
    for kind, expected in (("balanced", [1, 1, 1]), ("sqrt", np.sqrt([6000, 900, 300]))):
        sampler = RatioSampler(everything, weights=class_weights(labels, kind), seed=0)
        drawn = np.unique(labels[draw(sampler, 3)], return_counts=True)[1]
        assert drawn / drawn.sum() == pytest.approx(np.array(expected) / np.sum(expected), abs=0.01)
        assert drawn.sum() == len(labels)


def test_a_row_of_several_classes_weighs_as_its_rarest() -> None:
    labels = np.array([[1, 0], [1, 0], [1, 0], [1, 1], [0, 0], [0, 0]])
    assert class_weights(labels, "balanced") == pytest.approx([1 / 4, 1 / 4, 1 / 4, 1, 1 / 2, 1 / 2])
    assert class_weights(labels, "sqrt") == pytest.approx(class_weights(labels, "balanced") ** 0.5)


@given(st.lists(st.floats(0, 9), min_size=5, max_size=40), st.integers(0, 1000), st.integers(1, 200))
@some_settings
def test_a_row_comes_as_often_as_its_weight_is_due(values: list[float], epoch: int, num_draws: int) -> None:
    weights = np.array(values)
    assume(weights.sum() > 0.1)
    sampler = RatioSampler(np.ones(len(weights), bool), weights=weights, num_draws=num_draws, seed=0)
    drawn = np.bincount(draw(sampler, epoch), minlength=len(weights))
    assert drawn.sum() == num_draws
    assert np.all(np.abs(drawn - num_draws * weights / weights.sum()) < 1 + 1e-6)


def test_weights_act_within_positives_and_negatives() -> None:
    positive = rows(100, 900)
    weights = np.where(np.arange(1000) % 2, 3.0, 1.0)
    drawn = draw(RatioSampler(positive, schedule=at(0.5), num_draws=4000, weights=weights, seed=0), 0)
    assert positive[drawn].sum() == 2000
    share = 3 * (np.flatnonzero(~positive) % 2).sum() / weights[~positive].sum()
    assert (drawn[~positive[drawn]] % 2).mean() == pytest.approx(share, abs=0.01)


@given(samplers(("groups",)), st.integers(0, 9))
@some_settings
def test_a_group_is_capped_and_no_row_repeated(arguments: dict[str, Any], epoch: int) -> None:
    drawn = draw(RatioSampler(**arguments), epoch)
    assert max(Counter(arguments["groups"][drawn]).values()) <= arguments["max_per_group"]
    assert len(set(drawn)) == len(drawn)


def test_all_rows_of_a_capped_group_get_their_turn() -> None:
    groups = np.repeat(np.arange(20), 5)
    sampler = RatioSampler(np.ones(100, bool), groups=groups, max_per_group=2, seed=0)
    drawn = np.bincount(np.concatenate([draw(sampler, epoch) for epoch in range(5)]))
    assert drawn.tolist() == [2] * 100


def test_positives_come_first_in_a_capped_group() -> None:
    positive = np.array([True, False, False, False])
    groups = np.array(["a", "a", "b", "b"])
    sampler = RatioSampler(positive, groups=groups, max_per_group=1, seed=0)
    assert sampler.counts(0) == EpochCounts(epoch=0, asked=0.5, positives=1, negatives=1)
    assert all(0 in draw(sampler, epoch) and 1 not in draw(sampler, epoch) for epoch in range(9))


def test_where_all_rows_are_positive_an_epoch_holds_each_once_and_a_warning_says_so() -> None:
    sampler = RatioSampler(np.ones(9, bool), seed=0, schedule=ShareSchedule.linear(0.5, 2))
    counts = [sampler.counts(epoch) for epoch in range(3)]
    assert all(sorted(draw(sampler, epoch)) == list(range(9)) for epoch in range(3))
    (line,) = schedule_warnings(sampler.schedule, counts)
    assert "share 0.500 cannot be reached" in line
    assert "the share is 1.000 instead" in line


HALF = rows(4, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"positive": np.zeros(9, bool)}, "0 of 9 rows are positive"),
        ({"positive": np.zeros(0, bool)}, "0 of 0 rows are positive"),
        ({"positive": np.ones(9)}, "positive is 1d float64; expected 1d bool"),
        ({"positive": np.ones(9, bool), "schedule": at(0.5), "num_draws": 4}, "9 positives and no negative"),
        ({"positive": np.ones(9, bool), "keep": "negatives"}, "9 positives and no negative"),
        ({"schedule": at(1.0), "keep": "negatives"}, "share 1 has no room for negatives"),
        ({"num_draws": 0}, "num_draws 0, keep positives: give 1 or more"),
        ({"num_draws": 5, "keep": "negatives"}, "keep negatives: give 1 or more, no keep"),
        ({"world_size": 9}, "epoch 1 has 8 draws for 9 ranks"),
        ({"schedule": at(1.0), "world_size": 5}, "epoch 1 has 4 draws for 5 ranks"),
        ({"weights": np.ones(3)}, r"weights has shape \(3,\); expected \(8,\)"),
        ({"weights": np.full(8, np.nan)}, "not a number"),
        ({"weights": -HALF.astype(float)}, "negative"),
        ({"weights": HALF.astype(float)}, "all negatives have weight 0"),
        ({"groups": np.arange(8)}, "max_per_group is None"),
        ({"max_per_group": 2}, "max_per_group is 2; expected at least 1, with groups"),
        ({"groups": np.arange(8), "max_per_group": 0}, "max_per_group is 0"),
        ({"groups": np.arange(8), "max_per_group": 1, "weights": np.ones(8)}, "give one of them"),
    ],
)
def test_what_makes_no_draw_is_refused_in_one_line(arguments: dict[str, Any], message: str) -> None:
    always: dict[str, Any] = {} if "positive" in arguments else {"positive": HALF}
    with pytest.raises(CompetitionError, match=message) as caught:
        RatioSampler(**always, **arguments, seed=0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("points", "course", "message"),
    [
        (((0, 0.0),), "hold", "share of epoch 0 is 0.0; expected a number over 0"),
        (((0, 0.5), (3, 1.5)), "linear", "share of epoch 3 is 1.5"),
        (((0, math.nan),), "hold", "share of epoch 0 is nan"),
        ((), "hold", "give one for epoch 0 first"),
        (((1, 0.5),), "hold", r"epochs \[1\]; give one for epoch 0 first"),
        (((0, 0.5), (0, 0.4)), "hold", r"epochs \[0, 0\]; list each once, in rising order"),
        (((0, 0.5),), "line", "course is 'line'"),
    ],
)
def test_what_is_no_schedule_is_refused(points: Any, course: Any, message: str) -> None:
    with pytest.raises(CompetitionError, match=message):
        ShareSchedule(points, course)


def warnings_of(schedule: ShareSchedule, num_epochs: int, **way: Any) -> list[str]:
    sampler = RatioSampler(rows(10, 90), schedule=schedule, seed=0, **way)
    counts = [sampler.counts(epoch) for epoch in range(num_epochs)]
    return schedule_warnings(schedule, counts)


def test_a_run_that_fits_its_schedule_gives_no_warning() -> None:
    assert warnings_of(ShareSchedule.linear(0.5, 4), 5) == []
    assert warnings_of(ShareSchedule.linear(0.9, 3), 4, keep="negatives") == []


def test_warnings_say_what_happens_instead() -> None:
    (longer,) = warnings_of(ShareSchedule.linear(0.9, 8), 5)
    assert "until epoch 9, but the run's last epoch is 5: it ends at share 0.500" in longer
    (missed,) = warnings_of(ShareSchedule.steps({0: 0.5, 1: 0.05}), 4)
    assert "share 0.050 cannot be reached" in missed
    assert "epoch 2 (and 2 more up to epoch 4): the share is 0.100 instead" in missed


def test_batches_of_an_epoch() -> None:
    counts = EpochCounts(epoch=0, asked=0.5, positives=10, negatives=11, world_size=2)
    assert (counts.per_rank, counts.total) == (10, 20)
    assert (counts.num_batches(4), counts.num_batches(4, drop_last=True)) == (3, 2)
