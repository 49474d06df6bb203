"""What a notebook shows: graphs and reports; and graphs in words."""

from __future__ import annotations

import xml.etree.ElementTree as xml
from typing import Any

import pytest

from sage import BaseService, JobFailed, LocalEnvironment, Skip, SubmitError

SVG = "{http://www.w3.org/2000/svg}"


def boxes(page: str) -> dict[str, tuple[float, float, float, float]]:
    """Where the boxes are: left, top, width, and the thickness of the border; by their titles."""
    found = {}
    for group in xml.fromstring(page).findall(f"{SVG}g"):
        title, rect = group.find(f"{SVG}title"), group.find(f"{SVG}rect")
        assert title is not None and title.text and rect is not None
        found[title.text] = tuple(float(rect.attrib[name]) for name in ("x", "y", "width", "stroke-width"))
    return found  # type: ignore[return-value]


def test_a_graph_shows_every_step_behind_its_inputs_and_none_on_another() -> None:
    env = LocalEnvironment("graph")
    env.register_service("db", BaseService)
    words = env.from_batch(["a b"], name="words").flatmap(str.split, parallelism=3)
    upper = words.map(str.upper, name="<script>alert('&')</script>")
    words.connect(upper).sink(print, name="out")
    upper.collect()
    page = env._repr_html_()
    found = boxes(page)
    assert set(found) == {
        "words: iterable",
        "split: flatmap ×3",
        "<script>alert('&')</script>: map",
        "collect: sink",
        "out: sink",
        "db: service",
    }
    assert "<script" not in page, "names are no markup"
    left = {title.rpartition(":")[0]: box[0] for title, box in found.items()}
    assert left["words"] < left["split"] < left["<script>alert('&')</script>"] < left["out"] == left["collect"]
    for one, (x1, y1, w1, _) in found.items():
        for other, (x2, y2, w2, _) in found.items():
            assert one == other or x1 + w1 <= x2 or x2 + w2 <= x1 or abs(y1 - y2) >= 38, (one, other)
    size = xml.fromstring(page).attrib
    assert all(x + w <= float(size["width"]) and y + 38 <= float(size["height"]) for x, y, w, _ in found.values())
    assert len(xml.fromstring(page).findall(f"{SVG}path")) == 5, "one for each input"


def test_a_stream_is_shown_in_the_graph_of_its_environment() -> None:
    env = LocalEnvironment()
    stream = env.from_batch([1]).map(abs)
    stream.collect()
    borders = {title: box[3] for title, box in boxes(stream._repr_html_()).items()}
    assert borders["abs: map"] > borders["batch: iterable"] == borders["collect: sink"]


def test_a_loop_and_nothing_at_all_can_be_shown() -> None:
    env = LocalEnvironment()
    assert boxes(env._repr_html_()) == {}
    again = env.from_future("again")
    env.from_batch([3]).connect(again).map(lambda n: n - 1).filter(bool).fill_future(again)
    assert "stroke-dasharray" in env._repr_html_()


def test_a_report_is_a_table() -> None:
    env = LocalEnvironment("<b>")
    env.register_service("a&b", BaseService)
    env.from_batch(range(2000)).map(lambda n: 1 // n, name="<i>", on_error="skip").collect()
    page = env.submit(autostop=True).report._repr_html_()
    rows = xml.fromstring(f"<div>{page}</div>").findall(".//tr")
    cells = [["".join(cell.itertext()) for cell in row] for row in rows]
    assert ["<i>", "1", "2,000", "1,999", "1", "0"] in [row[:6] for row in cells]
    assert ["a&b", "cleaned", "0", "0"] in cells
    assert "<i>" not in page and "succeeded" in page


def test_functions_that_run_together_have_rows_with_what_is_known_of_them() -> None:
    env = LocalEnvironment("together")
    thirds = (
        env.from_batch(range(3000))
        .map(str, name="text")
        .map(int, name="number")
        .filter(lambda n: n % 3 == 0, name="third")
    )
    # In tasks of their own, as two read the same stream.
    thirds.map(abs, name="same").collect()
    thirds.map(str, name="shown").filter(lambda text: text > "5", name="late").sink(len, name="kept")
    report = env.submit(autostop=True).report
    assert report.functions == {
        "text → number → third": [("text", 3000, 3000), ("number", 3000, 3000), ("third", 3000, 1000)],
        "same → collect": [("same", 1000, 1000), ("collect", 1000, 1000)],
        "shown → late → kept": [("shown", 1000, 1000), ("late", 1000, None), ("kept", None, None)],
    }
    lines = [line.split() for line in str(report).splitlines()]
    above = next(index for index, line in enumerate(lines) if line[:5] == ["shown", "→", "late", "→", "kept"])
    assert lines[above + 1 : above + 4] == [["shown", "1000", "1000"], ["late", "1000", "?"], ["kept", "?", "?"]]
    rows = xml.fromstring(f"<div>{report._repr_html_()}</div>").findall(".//tr")
    cells = [["".join(cell.itertext()).strip() for cell in row] for row in rows]
    assert ["third", "", "3,000", "1,000", "", "", ""] in cells and ["late", "", "1,000", "?", "", "", ""] in cells


def test_what_is_behind_a_filter_is_known_if_all_that_follows_gives_one_for_one() -> None:
    env = LocalEnvironment("behind")
    odd = env.from_batch(range(10)).filter(lambda n: n % 2, name="odd").map(str, name="text")
    odd.collect()
    odd.flatmap(lambda text: [text] * 3, name="three").map(int, name="number").collect()
    functions = env.submit(autostop=True).report.functions
    assert functions["odd → text"] == [("odd", 10, 5), ("text", 5, 5)]
    assert functions["three → number → collect-2"] == [
        ("three", 5, None),
        ("number", None, None),
        ("collect-2", None, None),
    ]


@pytest.mark.parametrize("how", ["take", "failed"])
def test_of_functions_that_were_broken_off_nothing_is_said(how: str) -> None:
    env = LocalEnvironment("broken")
    stream = env.from_batch(range(10_000)).map(str, name="text").map(int, name="number")
    if how == "take":
        stream.take(3).collect()
        report = env.submit(autostop=True).report
    else:
        stream.map(lambda n: 1 // n).collect()
        with pytest.raises(JobFailed) as failed:
            env.submit(autostop=True)
        report = failed.value.report
    assert report.functions == {} and "text → number" in str(report)


def test_the_report_of_a_failed_job_tells_why() -> None:
    env = LocalEnvironment()
    env.from_batch([0]).map(lambda n: 1 // n).collect()
    with pytest.raises(JobFailed) as failed:
        env.submit(autostop=True)
    page = failed.value.report._repr_html_()
    assert "failed" in page and "ZeroDivisionError" in page
    xml.fromstring(f"<div>{page}</div>")


def test_an_explanation_in_words() -> None:
    env = LocalEnvironment("told")
    env.register_service("db", BaseService)
    stream = env.from_batch([1]).map(abs, parallelism=2)
    early = LocalEnvironment("early")
    early.from_batch([1]).filter(abs)
    assert "cannot run yet: the stream behind `abs` has no sink" in early.explain()
    stream.sink(print)
    assert env.explain().splitlines() == [
        "environment `told`",
        "  batch: iterable",
        "  abs: map ×2 ← batch",
        "  print: sink ← abs",
        "  service db",
        "runs as",
        "  [batch]",
        "  [abs] ×2",
        "  [print]",
    ]


def test_an_environment_without_anything_is_shown_as_that() -> None:
    assert LocalEnvironment()._repr_html_() == "<p>nothing is declared yet</p>"
    env = LocalEnvironment()
    env.register_service("db", BaseService)
    page = env._repr_html_()
    assert set(boxes(page)) == {"db: service"} and int(xml.fromstring(page).attrib["width"]) > 0
