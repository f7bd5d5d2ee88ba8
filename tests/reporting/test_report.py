"""The report: its facts against the data they come from, its page against what a page must be."""

import json
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Value
from support.associations import simulated
from support.commands import called
from support.curated_rows import report as verdict_in
from support.report_material import HOSTILE, crowded, head_of, hostile, images, long_named, texts

import hf_midrange as hm
from hf_midrange import columns
from hf_midrange.association import findings_table, provenance, suspected_mislabels
from hf_midrange.bands import LogitBands
from hf_midrange.curation.report import reason_feature
from hf_midrange.explorer.index import Index
from hf_midrange.reporting import drawing, examples
from hf_midrange.reporting.examples import marked
from hf_midrange.reporting.facts import Distribution
from hf_midrange.training import DebiasReport


ALLOWED = {
    *("html", "head", "meta", "title", "style", "body", "header", "main", "footer", "section", "nav", "div", "span"),
    *("p", "h1", "h2", "h3", "h4", "ul", "ol", "li", "a", "b", "br", "code", "pre", "q", "bdi", "mark", "img"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td", "dl", "dt", "dd", "figure", "figcaption"),
    *("details", "summary", "svg", "g", "desc", "text", "line", "path", "rect", "circle", "polyline"),
}
ATTRIBUTES = {
    *("lang", "charset", "content", "http-equiv", "name", "class", "id", "href", "src", "alt", "scope", "role"),
    *("open", "aria-label", "aria-labelledby", "aria-hidden", "tabindex", "dir", "data-name", "viewbox", "x", "y"),
    *("x1", "x2", "y1", "y2", "cx", "cy", "r", "d", "points", "width", "height", "text-anchor"),
}


class Page(HTMLParser):
    """The elements of a page, in order."""

    def __init__(self, html):
        super().__init__()
        self.elements = []
        self.words = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    def of(self, *tags):
        return [(tag, attributes) for tag, attributes in self.elements if tag in tags]


@pytest.fixture(scope="module")
def pictures():
    ds = images()
    findings = hm.associate(ds)
    curated = hm.curate(ds, findings, strategy="group")
    return curated, findings


@pytest.fixture(scope="module")
def made(pictures):
    curated, findings = pictures
    head = hm.retrain_head(curated, head_of(curated), force=True)
    return hm.report(curated, findings, head=head)


def test_the_verdict_comes_first_and_names_the_shortcut(made):
    assert made.facts["verdict"]["sentence"] == str(made)
    assert "“tied” for “class_0”" in str(made)
    first = Page(made.html).of("h1", "h2", "h3", "p", "table")
    assert first[1][0] == "h1"  # after the kicker
    assert made.html.index(f"<h1>{made}</h1>") < made.html.index("<h2")


def test_cards_say_what_the_findings_say(made, pictures):
    _, findings = pictures
    rows = findings.to_list()
    card = made.facts["cards"][0]
    row = next(row for row in rows if row["confounder"])
    for name in ("band", "source", "concept", "q_value", "q_confirm", "confirmed"):
        assert card[name] == row[name]
    assert [side["shares"] for side in card["sides"]] == [row["member_profile"], row["stranger_profile"]]
    told = sum(1 + len(card["siblings"]) for card in made.facts["cards"])
    assert told == len(findings) == made.facts["findings"]
    assert made.facts["confirmed"] == sum(row["confirmed"] for row in rows)


def test_examples_stand_where_the_card_says(made, pictures):
    ds, _ = pictures
    card = made.facts["cards"][0]
    bands, logits, ids = columns.matrix(ds, "band")[:, 0], columns.matrix(ds, "logits")[:, 0], columns.labels(ds)
    words = columns.vocabulary(ds.features, "concepts_tags")
    has = columns.presence(ds, "concepts_tags").toarray()[:, words.index(card["concept"])]
    for spot in card["spots"]:
        rows = (bands == ("low", "mid", "high").index(spot["band"])) & ((ids == 0) == (spot["side"] == "members"))
        assert (spot["rows"], spot["with_concept"]) == (rows.sum(), has[rows].sum())
        for one in spot["examples"]:
            assert rows[one["row"]]
            assert one["has"] == has[one["row"]]
            assert one["value"] == pytest.approx(logits[one["row"]])
            assert one["file"] == f"picture_{one['row']}.png"
    broken = [one["row"] for one in card["exceptions"]]
    assert len(broken) == 4
    assert all(bands[row] == 1 and has[row] == (ids[row] != 0) for row in broken)


def test_groups_are_scored_without_the_row_and_with_a_control(made, pictures):
    ds, _ = pictures
    scores = {score["name"]: score for score in made.facts["groups"]["scores"]}
    assert list(scores) == ["before", "after, cross-validated", "control: random rows", "after, own rows"]
    expected = hm.group_metrics(
        columns.matrix(ds, "logits").argmax(axis=1),
        columns.labels(ds),
        columns.labels(ds, "group"),
        group_names=ds.features["group"].names,
    )
    assert scores["before"]["metrics"] == json.loads(json.dumps(expected))
    worst = {name: score["metrics"]["worst_group"] for name, score in scores.items()}
    assert worst["after, cross-validated"] > worst["control: random rows"]
    assert "too good" in scores["after, own rows"]["note"]


def test_cross_validated_accuracy_is_that_of_the_curation(pictures):
    curated, findings = pictures
    groups = hm.report(curated.remove_columns("group"), findings).facts["groups"]
    assert groups["by"] == "pseudo_group"
    after = next(score for score in groups["scores"] if score["name"] == "after, cross-validated")
    for cell in hm.curation_report(curated)["cells"]:
        told = after["metrics"]["groups"][cell["name"]]
        assert told["accuracy"] == pytest.approx(cell["after"]["accuracy"], abs=1e-4)


def test_rows_of_their_own_score_the_head_itself(pictures):
    curated, findings = pictures
    apart = images(300, seed=5)
    head = hm.retrain_head(curated, head_of(curated), force=True)
    plain = hm.report(curated, findings, head=head, evaluation=apart)
    scores = {score["name"]: score["metrics"] for score in plain.facts["groups"]["scores"]}
    assert list(scores) == ["before", "after"]
    predicted = head(columns.matrix(apart, "embedding")).argmax(dim=1).numpy()
    right = predicted == columns.labels(apart)
    assert scores["after"]["mean"] == pytest.approx(right.mean())


def test_a_planted_mislabel_is_shown():
    ds = images()
    ids = columns.labels(ds).copy()
    logits = columns.matrix(ds, "logits")
    row = int(np.flatnonzero(ids == 1)[np.argmax((logits[:, 1] - logits[:, 2])[ids == 1])])
    ids[row] = 2
    ds = columns.with_columns(ds, {"label": (ids, ds.features["label"])})
    found = hm.report(ds, hm.associate(ds)).facts
    suspect = next(suspect for suspect in found["suspects"] if suspect["example"]["row"] == row)
    assert (suspect["label"], suspect["suggested"]) == ("class_2", "class_1")
    assert found["suspected"] >= len(found["suspects"])


def tied_reviews(n=1500, seed=0):
    """Return rows of two classes whose logits follow a phrase that goes with one class in nine rows of ten."""
    rng = np.random.default_rng(seed)
    ids = np.arange(n) % 2
    tied = np.where(rng.random(n) < 0.1, 1 - ids, ids)
    margin = 1.0 * (2 * ids - 1) + 3.0 * (2 * tied - 1) + rng.normal(size=n)
    ds = Dataset.from_dict({"label": ids}).cast_column("label", ClassLabel(names=["good", "bad"]))
    logits = np.stack([-margin, margin], axis=1).astype(np.float32) / 2
    embedding = np.stack([ids + rng.normal(0, 0.3, n), tied, rng.normal(size=n)], axis=1).astype(np.float32)
    made = {
        "logits": (logits, columns.vector(2)),
        "embedding": (embedding, columns.vector(3)),
        "group": (2 * ids + tied, ClassLabel(names=["good", "good, dvd", "bad", "bad, dvd"])),
        "concepts_tags": (columns.concept_arrow(tied[:, None] == 1, ["dvd"]), columns.concept_list(["dvd"])),
    }
    ds = columns.with_columns(ds, made)
    return LogitBands().fit(ds).transform(ds), ids, tied


def test_rows_that_break_a_tie_are_never_called_mislabelled():
    ds, ids, tied = tied_reviews()
    findings = hm.associate(ds)
    assert any(findings["confounder"])
    breaks = np.flatnonzero(ids != tied)
    assert np.isin(suspected_mislabels(ds, findings)["row"][:], breaks).any()  # which would be deleted as wrong
    found = hm.report(ds, findings).facts
    assert not {suspect["example"]["row"] for suspect in found["suspects"]} & set(breaks.tolist())
    assert not set(Index(ds, findings).suspects) & set(breaks.tolist())
    steps = found["verdict"]["steps"]
    looked = [k for k, step in enumerate(steps) if "mislabelled" in step]
    assert looked in ([], [len(steps) - 1])  # after the shortcuts


def test_the_curation_explains_rows_too():
    """Without a concept that shows the tie, the pseudo-groups do."""
    ds, ids, tied = tied_reviews(seed=1)
    findings = hm.associate(ds).select([])
    curated = hm.curate(ds, strategy="group")
    assert hm.curation_report(curated)["verdict"] not in ("nothing to repair", "none seen")
    breaks = set(np.flatnonzero(ids != tied).tolist())
    assert {one["example"]["row"] for one in hm.report(ds, findings).facts["suspects"]} & breaks
    assert not {one["example"]["row"] for one in hm.report(curated, findings).facts["suspects"]} & breaks


def test_an_error_of_our_own_is_no_note(pictures, monkeypatch):
    def broken(*_):
        raise KeyError("a mistake in the code")

    monkeypatch.setattr("hf_midrange.reporting.inputs.suspected_mislabels", broken)
    with pytest.raises(KeyError, match="a mistake in the code"):
        hm.report(*pictures)


def test_the_middle_is_shaded_though_nothing_stands_at_the_top():
    values, bands = np.arange(8.0), np.array([0, 0, 0, 0, 1, 1, 1, 1])
    found = Distribution.of("cat", values, bands, bands == 1, ("low", "mid", "high"))
    assert [(band.name, band.is_middle) for band in found.bands] == [("low", False), ("mid", True)]
    assert drawing.distribution(found, 1).count('class="middle"') == 1


def test_the_json_is_strict_and_says_the_same(made, tmp_path):
    page = made.save(tmp_path / "new" / "folder")
    text = (page.parent / "report.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == made.facts
    assert page.read_text() == made.html
    card = made.facts["cards"][0]
    words = "".join(Page(made.html).words)
    assert f"{card['spots'][1]['with_concept']} of {card['spots'][1]['rows']} have it" in words


def test_sentences_carry_the_marked_phrase():
    ds = texts()
    made = hm.report(ds, hm.associate(ds))
    card = next(card for card in made.facts["cards"] if card["concept"] == "film")
    shown = [one for spot in card["spots"] for one in spot["examples"]]
    assert any(one["has"] for one in shown)
    for one in shown:
        assert [part for part, is_it in one["text"] if is_it] == (["Film"] if one["has"] else [])
        assert "".join(part for part, _ in one["text"]) == ds[one["row"]]["text"]
    assert "<mark>Film</mark>" in made.html
    assert "<img" not in made.html


def test_marks_agree_with_the_n_grams():
    ds = texts(200)
    words = columns.vocabulary(ds.features, "concepts_ngrams")
    table = columns.presence(ds, "concepts_ngrams").toarray()
    for text, row in zip(ds["text"][:], table, strict=True):
        for word, has in zip(words, row, strict=True):
            assert any(is_it for _, is_it in marked(text, word)) == has, (text, word)


def test_long_texts_are_cut_around_the_phrase():
    parts = marked("word " * 200 + "the film here" + " word" * 200, "film")
    shown = "".join(part for part, _ in parts)
    assert ("film", True) in parts
    assert len(shown) < 240
    assert shown.startswith("… ")
    assert shown.endswith(" …")


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        ("shown", "from 50 % to 80 %"),
        ("none seen", "left as it is"),
        ("cannot be carried", "no last layer can repair it"),
    ],
)
def test_every_verdict_has_a_sentence_and_a_step(verdict, said, pictures):
    curated, findings = pictures
    told = verdict_in(verdict) | {"worst_before": 0.5, "worst_after": 0.8, "views": []}
    rows = columns.with_columns(curated, {"reason": (curated["reason"][:], reason_feature(told))})
    facts = hm.report(rows, findings).facts
    assert said in facts["verdict"]["sentence"]
    assert facts["verdict"]["verdict"] == verdict
    assert facts["verdict"]["steps"]
    nothing = hm.report(rows, findings.select([])).facts
    assert nothing["verdict"]["sentence"].startswith("No cue was confirmed")


def test_rows_without_pictures_or_texts_still_tell_the_story():
    ds = simulated(400)
    findings = hm.associate(ds)
    made = hm.report(ds, findings)
    assert made.facts["verdict"]["verdict"] == "not curated"
    assert made.facts["groups"]["by"] == "label"
    assert "Curate the rows" in made.html
    assert "<img" not in made.html


def test_units_without_a_class_have_no_members():
    ds = simulated(400)
    banded = LogitBands("quantile", units="embedding", n_bands=4)
    rng = np.random.default_rng(0)
    tied = columns.presence(ds, "concepts_tags").toarray()[:, -1]
    values = np.column_stack([tied + rng.normal(size=400), rng.normal(size=(400, 4))]).astype(np.float32)
    ds = columns.with_columns(ds, {"embedding": (values, columns.vector(5))})
    ds = banded.fit(ds).transform(ds)
    made = hm.report(ds, hm.associate(ds))
    card = made.facts["cards"][0]
    assert not card["is_class"]
    assert [side["side"] for side in card["sides"]] == ["all rows"]
    assert {spot["band"] for spot in card["spots"]} == {"low", "mid_1", "mid_2", "high"}
    assert made.facts["suspects_note"]


def test_nothing_found_is_a_report_too():
    ds = simulated(400, tie=0.0)
    made = hm.report(ds, hm.associate(ds, alpha=1e-12))
    assert made.facts["cards"] == []
    assert "No cue was confirmed in" in str(made)


def test_findings_of_other_rows_are_refused(pictures):
    curated, findings = pictures
    with pytest.raises(ValueError, match="speak of 'tied' in `concepts_tags`"):
        hm.report(texts(), findings)
    with pytest.raises(ValueError, match="2 classes on embeddings of width 3"):
        hm.report(curated, findings, head=hm.LinearHead.from_weights(np.eye(2, 3), np.zeros(2)))
    with pytest.raises(TypeError, match="`ds` must be one split, such as that of 'test'"):
        hm.report(DatasetDict(test=curated), findings)
    with pytest.raises(KeyError, match="annotate"):
        hm.report(curated.remove_columns("concepts_tags"), findings)


def test_the_page_is_built_for_every_reader(made):
    page = Page(made.html)
    assert page.elements[0] == ("html", {"lang": "en"})
    levels = [int(tag[1]) for tag, _ in page.of("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False))
    pictures = page.of("img")
    assert pictures
    assert all(attributes["alt"] for _, attributes in pictures)
    assert all("scope" in attributes for _, attributes in page.of("th"))
    svgs = page.of("svg")
    assert all("aria-labelledby" in attributes or attributes.get("aria-hidden") for _, attributes in svgs)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [attributes["href"] for _, attributes in page.of("a")]
    assert {target.removeprefix("#") for target in targets} <= set(ids)


def test_the_page_asks_for_nothing_and_runs_nothing(made):
    page = Page(made.html)
    assert {tag for tag, _ in page.elements} <= ALLOWED
    assert {name for _, attributes in page.elements for name in attributes} <= ATTRIBUTES
    assert all(attributes["src"].startswith("data:image/webp;base64,") for _, attributes in page.of("img"))
    assert "url(" not in made.html
    assert "@import" not in made.html


def test_hostile_text_is_inert():
    ds = hostile()
    findings = hm.associate(ds)
    curated = hm.curate(ds, findings)
    made = hm.report(curated, findings)
    for html in (made.html, made._repr_html_()):
        page = Page(html)
        assert {tag for tag, _ in page.elements} <= ALLOWED | {"strong"}
        assert {name for _, attributes in page.elements for name in attributes} <= ATTRIBUTES
        assert not {c for c in html if c in "\u202e\u202c\u200f"}
        assert "49" not in str(made)
    words = "".join(Page(made.html).words)
    assert r"\u202egnp.exe\u202c\u200f" in words
    assert HOSTILE[0] in words
    assert len(Page(made.html).of("style")) == 1


def test_local_folders_are_not_told(pictures):
    curated, findings = pictures
    rows = columns.signed(curated, "extract", "/home/me/secret/model, float32")
    told = json.loads(findings.info.description) | {"dataset_description": rows.info.description}
    findings = findings.select(range(len(findings)))
    findings.info.description = json.dumps(told)
    made = hm.report(rows, findings)
    assert "extract: model" in made.html
    assert "secret" not in made.html + json.dumps(made.facts)


def test_notebooks_show_the_verdict_and_the_tables(made):
    html = made._repr_html_()
    assert str(made) in html
    assert "tags: tied" in html
    assert "confirmed cue" in html
    assert len(html) < 20_000
    assert len(repr(made)) < 300


def test_findings_show_as_a_table_and_print_as_lines():
    ds = hostile()
    findings = hm.associate(ds)
    told = findings_table(findings, rows=3)
    assert isinstance(told, str)
    assert len(told.splitlines()) >= 5
    page = Page(told._repr_html_())
    assert {tag for tag, _ in page.elements} == {"div", "table", "thead", "tbody", "tr", "th", "td", "p"}
    assert len(page.of("tr")) == 4
    assert f"of {provenance(findings)['tested']} tests discovered" in "".join(page.words)
    assert "\u202e" not in told._repr_html_()


def test_the_page_keeps_its_budget():
    ds = crowded()
    findings = hm.associate(ds)
    assert len(findings) >= 100
    made = hm.report(ds, findings)
    assert len(made.facts["cards"]) == 100
    assert len(made.html.encode()) <= 5_000_000
    assert made.html.count("<img") > 1000
    assert max(examples.STEPS)[0] >= 112  # the budget was met by making images smaller
    assert made.facts["rows"] == 10_000


@pytest.mark.parametrize("letters", [2000, 200_000])
def test_names_of_any_length_are_shortened(letters):
    ds = long_named(letters)
    curated = hm.curate(ds, hm.associate(ds), strategy="group")
    made = hm.report(curated, hm.associate(ds))
    assert len(made.html) < 1_500_000
    assert len(made.summary) < 30_000
    assert "x" * 2001 not in made.html
    assert len(str(made)) < 1000
    names = {card["unit"] for card in made.facts["cards"]} | {card["concept"] for card in made.facts["cards"]}
    assert max(map(len, names)) <= 80
    assert len(set(made.facts["classes"])) == 3  # told apart, though their ends are alike


def test_images_beyond_the_budget_are_left_out(pictures, monkeypatch):
    curated, _ = pictures
    everything = examples.thumbnails(curated, [3, 1, 2, 3])
    assert list(everything) == [3, 1, 2]
    smallest = len(everything[3])
    monkeypatch.setattr(examples, "BUDGET", 2 * smallest)
    monkeypatch.setattr(examples, "STEPS", examples.STEPS[:1])
    few = examples.thumbnails(curated, [3, 3, 1, 2])
    assert list(few) == [3]


def test_the_command_writes_page_and_facts(pictures, tmp_path):
    curated, findings = pictures
    curated.save_to_disk(tmp_path / "curated")
    findings.save_to_disk(tmp_path / "findings")
    head_of(curated).save_pretrained(tmp_path / "head")
    out = tmp_path / "out"
    flags = ("--findings", tmp_path / "findings", "--head", tmp_path / "head", "--output", out)
    said = called("report", tmp_path / "curated", *flags).stdout
    assert "The model uses a cue" in said
    facts = json.loads((out / "report.json").read_text())
    assert facts["findings"] == len(findings)
    assert facts["provenance"]["tested"] > 0
    assert (out / "report.html").stat().st_size < 5_000_000
    with pytest.raises(ValueError, match="not empty"):
        called("report", tmp_path / "curated", *flags[:2], *flags[4:])  # another report, without the head


def test_a_curation_without_its_report_counts_as_not_curated(pictures):
    curated, findings = pictures
    bare = columns.with_columns(curated, {"reason": (curated["reason"][:], Value("string"))})
    made = hm.report(bare, findings)
    assert made.facts["curation"] is None


def test_the_outcome_of_a_debiasing_shows_as_a_table():
    ds = hostile(300)
    findings = hm.associate(ds)
    curated = hm.curate(ds, findings, strategy="group")
    before, after = ({"eval_accuracy": share, "eval_runtime": 1.0, "epoch": 1.0} for share in (0.5, 0.75))
    outcome = replace(DebiasReport.of(findings, curated, head_of(ds)), before=before, after=after)
    page = Page(outcome._repr_html_())
    assert {tag for tag, _ in page.elements} == {"div", "table", "thead", "tbody", "tr", "th", "td", "p"}
    assert len(page.of("tr")) == 2
    words = " ".join(page.words)
    assert "eval_accuracy" in words
    assert "50.0 %" in words
    assert "75.0 %" in words
    assert outcome.verdict in words
    assert "\u202e" not in outcome._repr_html_()
    assert str(outcome).splitlines()[-1].split() == ["eval_accuracy", "50.0", "%", "75.0", "%"]
    assert "<script" not in DebiasReport.of(None, curated, head_of(ds))._repr_html_()  # names of pseudo-groups
