"""What answers cost, and that the published list is whole."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from lib import config
from lib.errors import OrchestratorError
from lib.judgement import prices
from lib.judgement.prices import Bill, Item, Prices
from lib.models import PROMPT_STEPS, Sort, Usage
from lib.templates import FOLDER

DAY_MS = 86_400_000
#: 2026-11-28 and a day in the summer before it.
AUTUMN = 20_785 * DAY_MS
SUMMER = 20_650 * DAY_MS
MILLION = 1_000_000

PLAIN = {"input": 1, "output": 5, "cache_read": 0.1, "cache_write_5m": 1.25, "cache_write_1h": 2}


def published() -> Prices:
    path = FOLDER / "prices.yaml"
    return prices.read(config.read_yaml(path), str(path))


def listed(*rows: dict[str, Any], **values: Any) -> Prices:
    return prices.read({"models": [{"model": "quill", **PLAIN, **row} for row in rows], **values}, "prices.yaml")


# A million tokens of each kind, as Claude Code 2.1.330 reckons them itself.
@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("claude-opus-5-5", (4, 20, 0.2, 5, 8)),
        ("claude-opus-5-5[1m]", (4, 20, 0.2, 5, 8)),  # the mark of a long context costs nothing
        ("claude-opus-5", (5, 25, 0.5, 6.25, 10)),
        ("claude-opus-4-5-20251101", (5, 25, 0.5, 6.25, 10)),  # with its date
        ("claude-opus-4-20250514", (15, 75, 1.5, 18.75, 30)),  # not the row of a later 4
        ("claude-fable-5-2", (8, 40, 0.2, 10, 16)),
        ("claude-sonnet-5-5", (2, 10, 0.1, 2.5, 4)),
        ("claude-sonnet-4-5-20250929", (3, 15, 0.3, 3.75, 6)),
        ("claude-haiku-4-5-20251001", (1, 5, 0.1, 1.25, 2)),
    ],
)
def test_a_million_tokens_cost_what_the_list_says(model: str, expected: tuple[float, ...]) -> None:
    sort = Sort(model, AUTUMN)
    found = [published().cost(sort, Usage(**{kind: MILLION})) for kind in prices.KINDS]
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        (Sort("claude-sonnet-5-5", AUTUMN), 0.1),  # cheaper since October
        (Sort("claude-sonnet-5-5", 20_733 * DAY_MS), 0.1),  # from the first instant of the seventh on
        (Sort("claude-sonnet-5-5", 20_733 * DAY_MS - 1), 0.2),
        (Sort("claude-haiku-5-5", AUTUMN), 0.01),
        (Sort("claude-haiku-5-5", AUTUMN, above=100_000), 0.05),  # a long prompt makes all of it dearer
        (Sort("claude-haiku-5-5", AUTUMN, above=200_000), 0.05),
        (Sort("claude-opus-5-5", AUTUMN, above=200_000), 0.2),  # not of a model that has one price
        (Sort("claude-opus-5-5", AUTUMN, is_fast=True), 0.4),
        (Sort("claude-opus-4-7", AUTUMN, is_fast=True), 3.0),
        (Sort("claude-sonnet-5-5", AUTUMN, is_fast=True), 0.1),  # has no fast mode
        (Sort("claude-opus-5-5", AUTUMN, is_us=True), 0.22),
        (Sort("claude-opus-5-5", AUTUMN, is_us=True, is_fast=True), 0.44),
    ],
)
def test_what_else_a_price_depends_on(sort: Sort, expected: float) -> None:
    assert published().cost(sort, Usage(cache_read=MILLION)) == pytest.approx(expected)


@pytest.mark.parametrize(
    "sort",
    [
        Sort("gpt-4", AUTUMN),
        Sort("claude-opus-9", AUTUMN),  # a successor is not guessed from its name
        Sort("claude-opus-5-5-mini", AUTUMN),
        Sort("unknown", AUTUMN),
        Sort("", AUTUMN),
        Sort("claude-haiku-5-5", SUMMER),  # before there was a price
    ],
)
def test_a_model_without_a_price_is_never_guessed(sort: Sort) -> None:
    assert published().cost(sort, Usage(input=MILLION)) is None


def test_thinking_is_output_and_not_billed_twice() -> None:
    assert listed({}).cost(Sort("quill", 1), Usage(output=MILLION, thinking=MILLION)) == pytest.approx(5)


def test_searches_are_billed_by_the_thousand() -> None:
    assert published().cost(Sort("claude-opus-5-5", AUTUMN), Usage(web_searches=3)) == pytest.approx(0.03)


def test_own_rows_come_before_the_published_ones() -> None:
    own = prices.read({"models": [{"model": "claude-opus-*", **PLAIN}, {"model": "gate/*", **PLAIN}]}, "own")
    both = prices.joined(own, published())
    assert both.cost(Sort("claude-opus-5-5", AUTUMN), Usage(input=MILLION)) == pytest.approx(1)
    assert both.cost(Sort("gate/quill", AUTUMN), Usage(input=MILLION)) == pytest.approx(1)
    assert both.cost(Sort("claude-sonnet-5-5", AUTUMN), Usage(input=MILLION)) == pytest.approx(2)
    assert both.cost(Sort("claude-opus-5-5", AUTUMN), Usage(web_searches=1000)) == pytest.approx(10)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (None, "must hold a list"),
        ({"models": "none"}, "must hold a list"),
        ({"models": [], "dollars": 1}, "unknown dollars"),
        ({"models": [{"input": 1}]}, "row 1 must name a model"),
        ({"models": [{"model": "quill", "input": 1}]}, r"\(quill\) has no price for output"),
        ({"models": [{"model": "quill", **PLAIN, "output": "much"}]}, "output must be a number"),
        ({"models": [{"model": "quill", **PLAIN, "output": -1}]}, "output must be a number"),
        ({"models": [{"model": "quill", **PLAIN, "output": float("nan")}]}, "output must be a number"),
        ({"models": [{"model": "quill", **PLAIN, "output": True}]}, "output must be a number"),
        ({"models": [{"model": "quill", **PLAIN, "until": 1}]}, "unknown until"),
        ({"models": [{"model": "quill", **PLAIN, "from": "soon"}]}, "from must be a day"),
        ({"models": [{"model": "quill", **PLAIN, "long_above": 7}]}, "long_above must be one of"),
        ({"models": [], "us_only": None}, "us_only must be a number"),
    ],
)
def test_a_list_that_is_wrong_is_named(values: object, said: str) -> None:
    with pytest.raises(OrchestratorError, match=said):
        prices.read(values, "prices.yaml")


@pytest.mark.parametrize(
    ("prompt", "step"), [(0, 0), (100_000, 0), (100_001, 100_000), (200_000, 100_000), (200_001, 200_000)]
)
def test_the_step_of_a_prompt(prompt: int, step: int) -> None:
    assert prices.step(prompt) == step
    assert step in PROMPT_STEPS


def test_a_bill_adds_up_and_names_what_has_no_price() -> None:
    work = Item(Sort("quill", 1), Usage(input=MILLION), 2)
    asked = Item(Sort("quill", 1), Usage(output=MILLION), 3, is_supervision=True)
    strange = Item(Sort("other", 1), Usage(input=7, output=1), 1)
    found = prices.bill(listed({}), [work, asked, strange])
    assert (found.answers, found.unpriced) == (6, {"other": 8})
    assert found.usd == pytest.approx(6)
    assert found.supervision_share == pytest.approx(5 / 6)
    assert found.usage == Usage(input=MILLION + 7, output=MILLION + 1)


def test_the_share_of_supervision_is_of_tokens_when_nothing_has_a_price() -> None:
    strange = [Item(Sort("other", 1), Usage(input=3)), Item(Sort("other", 1), Usage(input=1), is_supervision=True)]
    assert prices.bill(listed({}), strange).supervision_share == pytest.approx(0.25)
    assert Bill().supervision_share is None


def test_every_count_takes_part_in_a_sum() -> None:
    one = Usage(**{field.name: number for number, field in enumerate(fields(Usage), start=1)})
    assert (one + one).counts == tuple(2 * count for count in one.counts)
    assert (one + -one) == Usage()
    assert one.at_least(Usage(output=9)) == Usage(**{**vars(one), "output": 9})
    assert one.tokens == one.prompt + one.output == 1 + 2 + 3 + 4 + 5
