"""The published figures: how they are merged, what the tables say, and that those in git are made from results.json."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks import results, run, tables
from benchmarks.figures import Alternative, Figure, ratio
from benchmarks.results import Measured
from tests.conftest import ROOT


def measured(name: str, *figures: Figure, is_quick: bool = False, day: int = 1) -> Measured:
    return Measured(
        area=f"Area of {name}",
        name=name,
        about=f"About {name}.",
        at=datetime(2026, 11, day, tzinfo=UTC),
        by=f"benchmarks/run.py -k {name}",
        is_quick=is_quick,
        seconds=12.0,
        load=(0.5, 1.5),
        machine="2 cores",
        versions={"tmux": "3.3a"},
        rows=tuple(figure.row() for figure in figures),
    )


SEND = Figure(
    "a message",
    "ms",
    (100.0, 120.0),
    target=200.0,
    alternatives=(Alternative("by hand", (500.0, 400.0)), Alternative("by magic", (), "it could not be installed")),
    headline=True,
)


RATIOS = [
    # Pair by pair: the busy moment that doubled both changes nothing.
    ((10.0, 20.0, 10.0), (20.0, 40.0, 20.0), 0.5),
    # Not as many of the others: their medians.
    ((10.0, 20.0, 30.0), (40.0,), 0.5),
    # Nothing arrived by the other way, or nothing was measured.
    ((100.0,), (0.0,), None),
    ((100.0,), (), None),
    ((), (100.0,), None),
]


@pytest.mark.parametrize(("ours", "theirs", "expected"), RATIOS)
def test_a_ratio_is_ours_in_theirs(ours: tuple[float, ...], theirs: tuple[float, ...], expected: float | None) -> None:
    assert ratio(ours, theirs) == expected


class TestMerging:
    def test_a_measurement_replaces_its_own_and_no_other(self) -> None:
        before = {one.name: one for one in (measured("a", SEND), measured("b", SEND))}
        newer = measured("a", Figure("another", "s", (1.0,)), day=2)
        assert results.merged(before, [newer], order=["a", "b"]) == [newer, before["b"]]

    def test_they_stand_in_the_order_of_the_measurements_and_foreign_ones_last(self) -> None:
        before = {"load": measured("load", SEND), "b": measured("b", SEND)}
        found = results.merged(before, [measured("a", SEND)], order=["a", "b", "c"])
        assert [one.name for one in found] == ["a", "b", "load"]

    @pytest.mark.parametrize(
        ("before_is_quick", "now_is_quick", "is_replaced"),
        [(False, False, True), (True, True, True), (True, False, True), (False, True, False)],
    )
    def test_a_quick_look_does_not_replace_a_whole_measurement(
        self, before_is_quick: bool, now_is_quick: bool, is_replaced: bool
    ) -> None:
        before = measured("a", SEND, is_quick=before_is_quick)
        now = measured("a", SEND, is_quick=now_is_quick, day=2)
        assert results.merged({"a": before}, [now], order=["a"]) == [now if is_replaced else before]

    def test_what_is_written_is_read_again(self, tmp_path: Path) -> None:
        told = Figure("told", "%", (0.0,), condition="busy", alternatives=(Alternative("by hand", (50.0,)),))
        kept = [measured("a", SEND, told), replace(measured("b"), load=None, seconds=None)]
        results.write(kept, tmp_path / "results.json")
        assert list(results.read(tmp_path / "results.json").values()) == kept

    def test_without_a_file_nothing_was_published(self, tmp_path: Path) -> None:
        assert results.read(tmp_path / "results.json") == {}


class TestTables:
    def test_a_figure_stands_with_its_alternatives_its_target_and_its_date(self) -> None:
        assert tables.as_markdown([measured("a", SEND)]).splitlines()[2:] == [
            "| a message | 110 ms | 120 ms | 2 | | 200 ms | 2026-11-01 | met |",
            "| — by hand | 450 ms | 499 ms | 2 | 0.25 | | |  |",
            "| — by magic | — | — | 0 |  | | | it could not be installed |",
        ]

    def test_what_misses_its_target_says_so(self) -> None:
        slow = Figure("slow", "s", (9.0,), target=5.0, note="on a busy machine")
        assert "| 2026-11-01, few | missed; on a busy machine |" in tables.as_markdown(
            [measured("a", slow, is_quick=True)]
        )

    def test_conditions_have_a_line_for_each_way_and_a_column_for_each_figure(self) -> None:
        by_hand = Alternative("by hand", (50.0,))
        rows = (
            Figure("arrived", "%", (100.0,), condition="idle", alternatives=(by_hand,)),
            Figure("took", "ms", (5.0, 15.0), condition="idle", alternatives=(Alternative("by hand", ()),)),
            Figure("arrived", "%", (100.0,), condition="busy", alternatives=(by_hand,)),
        )
        page = tables.results_page([measured("a", *rows)])
        assert "| Condition | Way | arrived | took | Date |" in page
        assert "| idle | ours | 100 % | 10 ms, p99 15 ms | 2026-11-01 |" in page
        assert "| idle | by hand | 50 % | — | 2026-11-01 |" in page
        assert "| busy | ours | 100 % |  | 2026-11-01 |" in page

    def test_the_page_says_how_and_where_each_was_measured(self) -> None:
        page = tables.results_page([measured("a", SEND)])
        assert "- About a. (`benchmarks/run.py -k a`: 2026-11-01, load 0.5 to 1.5, takes 12 s)" in page
        assert "2 cores, tmux 3.3a: a." in page

    def test_only_headlines_stand_in_readme(self) -> None:
        table = tables.readme_table([measured("a", SEND, Figure("a detail", "s", (1.0,)))])
        assert "| a message | 110 ms | 200 ms | by hand: 450 ms | 0.25 | 2026-11-01 |" in table
        assert "a detail" not in table

    def test_readme_tells_of_a_missed_target_and_of_the_slowest_where_there_are_enough(self) -> None:
        slow = Figure("slow", "ms", tuple(float(number) for number in range(100, 200)), target=120, headline=True)
        assert "| slow | 150 ms, p99 198 ms | 120 ms, missed | | | 2026-11-01 |" in tables.readme_table(
            [measured("a", slow)]
        )

    def test_a_readme_without_marks_is_refused_and_one_with_them_keeps_the_rest(self) -> None:
        with pytest.raises(ValueError, match="no place for the figures"):
            tables.with_table("# Readme\n", "| |")
        readme = f"before\n{tables.BEGIN}\nold\n{tables.END}\nafter\n"
        assert tables.with_table(readme, "new") == f"before\n{tables.BEGIN}\nnew\n{tables.END}\nafter\n"


class TestWhatIsInGit:
    def test_the_tables_are_those_of_the_store(self) -> None:
        kept = list(results.read().values())
        readme = (ROOT / "README.md").read_text(encoding="utf-8")
        assert (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8") == tables.results_page(kept)
        assert readme == tables.with_table(readme, tables.readme_table(kept))

    def test_every_measurement_that_there_is_was_published_once(self) -> None:
        kept = results.read()
        assert set(run.MEASUREMENTS) <= set(kept)
        assert all(one.area == run.AREA_OF.get(name, one.area) for name, one in kept.items())

    def test_every_figure_has_a_name_of_its_own(self) -> None:
        names = [(row.condition, row.name) for one in results.read().values() for row in one.rows]
        assert len(names) == len(set(names))


def test_publishing_writes_the_store_and_both_tables(tmp_path: Path) -> None:
    folder, readme = tmp_path / "benchmarks", tmp_path / "README.md"
    folder.mkdir()
    readme.write_text(f"# Title\n{tables.BEGIN}\n{tables.END}\n", encoding="utf-8")
    kept = [measured("a", SEND)]
    run.publish_all(kept, folder=folder)
    assert list(results.read(folder / "results.json").values()) == kept
    assert (folder / "RESULTS.md").read_text(encoding="utf-8") == tables.results_page(kept)
    assert "| a message | 110 ms |" in readme.read_text(encoding="utf-8")
