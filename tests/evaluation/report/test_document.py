from __future__ import annotations

import dataclasses
import html
import json
import re
import sys

import pytest
from make_results import make_run

from scdrugmap.cli import main
from scdrugmap.errors import InvalidInput
from scdrugmap.evaluation.experiment import Experiment
from scdrugmap.evaluation.report import tables
from scdrugmap.evaluation.report.document import render, write_report
from scdrugmap.evaluation.report.sections import Figure, Section
from scdrugmap.evaluation.report.tables import MarkdownTable
from scdrugmap.evaluation.results.store import build_scores, write_run, write_scores

EDGES = {("hvg", "logistic", 1.5), ("constant", "constant", 0.0)}


@pytest.fixture(scope="module")
def report(tmp_path_factory, _results):
    """A report of made-up runs, and the settings that it was made with."""
    from scdrugmap.settings import Settings

    root = tmp_path_factory.mktemp("report")
    settings = Settings(root / "cache", _results)
    for model, head, effect in EDGES:
        for seed in (0, 1):
            asked = Experiment(
                model, head, ("simulated-a", "simulated-b"), protocol="cross-data", split_by="dataset", seed=seed
            )
            for train, test in (("simulated-a", "simulated-b"), ("simulated-b", "simulated-a")):
                run, rows = make_run(dataclasses.replace(asked, train=(train,), shots=0, datasets=(test,)), effect)
                parts = [dataclasses.replace(part, train=(train,), test=(test,)) for part in run.outcome.parts[:1]]
                outcome = dataclasses.replace(run.outcome, parts=(dataclasses.replace(parts[0], fold="all"),))
                pair = dataclasses.replace(run, experiment=dataclasses.replace(asked, train=(train,), shots=0))
                write_run(settings.results, dataclasses.replace(pair, outcome=outcome), rows)
    write_scores(settings.results)
    write_report(root / "out", settings)
    return root / "out", settings


def test_markdown_says_every_score_with_what_it_needs(report):
    folder, settings = report
    text = (folder / "report.md").read_text()
    scores = build_scores(settings.precomputed).filter(
        fold="all", metric="f1", model="hvg-pca", facet_value="simulated-a"
    )
    for row in scores.to_dicts():
        (line,) = [line for line in text.splitlines() if row["run_id"] in line]
        assert f"{row['value']:.2f} \\[{row['ci_low']:.2f}, {row['ci_high']:.2f}\\] | 0.67 |" in line  # the constant
        assert f"| {row['split_by']} |" in line
        assert f"| {row['n']} | {row['seed']} | 20" in line
        assert "| 0.1.0 |" in line
    head = next(line for line in text.splitlines() if line.startswith("| entry | split by | F1"))
    assert head.count("| constant ") == 4


def test_the_papers_split_stands_beside_the_leak_safe_one(report):
    text = (report[0] / "report.md").read_text()
    section = text.split("### pooled: simulated-a")[1].split("###")[0]
    rows = [line.split("|")[1:3] for line in section.splitlines() if re.match(r"\| (hvg|scgpt|constant)", line)]
    assert [split.strip() for _, split in rows] == ["cell", "sample"] * 6
    assert "## Leakage gap (simulated cells)" in text


def test_failures_stand_with_their_reason(report):
    text = (report[0] / "report.md").read_text().split("## What could not be done")[1]
    assert "confounded (label = sample): 'simulated-b' has one sensitive sample only." in text
    assert "Split by dataset or study." in text
    assert "hvg + logistic (pooled by sample) on simulated-b" in text


def test_the_page_holds_its_figures_and_asks_no_network(report):
    folder, _ = report
    page = (folder / "report.html").read_text()
    figures = list((folder / "figures").glob("*.svg"))
    assert figures
    assert page.count('src="data:image/svg+xml;base64,') == len(figures)
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "<script" not in page
    assert '<html lang="en">' in page
    for alt in re.findall(r'<img [^>]*alt="([^"]*)"', page):
        assert len(alt) > 60
    assert any(path.stem.startswith("transfer") for path in figures)
    assert all("<svg" in path.read_text()[:200] for path in figures)


ODD = "<script>alert(1)</script> *x* [y](z) a|b _c_ `d` &amp; ~~e~~"


@pytest.fixture
def odd_names():
    """A report whose data sets, entries and plan have names of characters that mean something elsewhere."""
    figure = Figure("one", ODD, f'{ODD} "quoted"', "<svg/>")
    return [Section(f"<b> {ODD}", [ODD, MarkdownTable(["a|b"], [[ODD], [None]]), figure], level=1)]


def test_names_are_never_markup_on_the_page(odd_names):
    page = render("report.html", odd_names)
    assert "<script" not in page
    assert "<a " not in page
    assert "<title>&lt;b&gt; &lt;script&gt;" in page
    assert page.count("<td>") == 2
    assert html.unescape(re.search("<td>(.*?)</td>", page)[1]) == ODD
    assert html.unescape(re.search('<img alt="(.*?)" src', page)[1]) == f'{ODD} "quoted"'


def test_names_are_never_markup_in_markdown(odd_names):
    """Read as GitHub does, by a reader of Markdown that would take raw HTML, the names are there to the letter."""
    from markdown_it import MarkdownIt

    page = (
        MarkdownIt("commonmark", {"html": True})
        .enable(["table", "strikethrough"])
        .render(render("report.md", odd_names))
    )
    assert not re.search("<(script|em|a|code|s|b)[ >]", page)
    assert html.unescape(re.search("<p>(.*?)</p>", page)[1]) == ODD
    assert html.unescape(re.search("<td>(.*?)</td>", page)[1]) == ODD
    assert page.count("<td>") == 2


def test_a_score_that_is_not_defined_says_so():
    assert tables.number(None) == "not defined"
    assert tables.number(0.5) == "0.50"
    assert tables.number(0.5, 0.4, 0.6) == "0.50 [0.40, 0.60]"


def test_nothing_to_report_is_said(settings, tmp_path):
    with pytest.raises(InvalidInput, match="None of these experiments has been run"):
        write_report(tmp_path, settings)


def test_the_command_says_what_it_wrote(filled_results, tmp_path, monkeypatch, capsys):
    words = ["scdrugmap", "benchmark", "report", "--output", str(tmp_path / "out"), "--json"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    written = json.loads(capsys.readouterr().out)["written"]
    assert str(tmp_path / "out" / "report.html") in written
