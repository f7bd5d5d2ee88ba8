"""The report: its facts against the data they come from, its page against what a page must be."""

import base64
import io
import json
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Value
from PIL import Image
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
from hf_midrange.reporting.drawing import Distribution
from hf_midrange.reporting.examples import marked
from hf_midrange.training import DebiasReport


ALLOWED = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "header",
        "main",
        "footer",
        "section",
        "article",
        "div",
        "span",
    ),
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
    assert str(made).startswith(
        "The model takes “tied” for “class_0”. Retraining the last layer takes the worst group"
    )
    first = Page(made.html).of("h1", "h2", "h3", "p", "table")
    assert first[1][0] == "h1"  # after the kicker
    assert made.html.index(f"<h1>{made}</h1>") < made.html.index("<h2")


def test_cards_say_what_the_shortcuts_and_findings_say(made, pictures):
    curated, findings = pictures
    one = hm.shortcuts(curated, findings)[0]
    card = made.facts["shortcuts"][0]
    assert (card["name"], card["class"], card["reading"]) == ("tied", "class_0", one["reading"])
    assert card["sentence"] == one["sentence"]
    assert (card["rows"], card["findings"]) == (len(one["rows"]), len(one["findings"]))
    row = findings[one["findings"][0]]
    assert [side["profile"] for side in card["profile"]["sides"]] == [row["member_profile"], row["stranger_profile"]]
    assert made.facts["findings"] == len(findings) == len(made.facts["listed"])
    assert made.facts["confirmed"] == sum(findings["confirmed"])


def test_rows_stand_in_the_cell_that_the_card_says_from_the_highest_score_down(made, pictures):
    ds, _ = pictures
    card = made.facts["shortcuts"][0]
    logits, ids = columns.matrix(ds, "logits"), columns.labels(ds)
    words = columns.vocabulary(ds.features, "concepts_tags")
    has = columns.presence(ds, "concepts_tags").toarray()[:, words.index("tied")]
    places = [(True, True), (True, False), (False, True), (False, False)]
    for cell, (member, with_it) in zip(card["cells"], places, strict=True):
        rows = np.flatnonzero(((ids == 0) == member) & (has == with_it))
        shown = [one["row"] for one in cell["examples"]]
        assert cell["breaks"] == (member != with_it)
        assert cell["rows"] == len(rows)
        assert cell["right"] == pytest.approx((logits.argmax(axis=1) == ids)[rows].mean())
        assert {*shown} <= {*rows.tolist()}
        assert logits[shown, 0].tolist() == sorted(logits[shown, 0], reverse=True)
        assert [one["file"] for one in cell["examples"]] == [f"picture_{row}.png" for row in shown]
    assert sum(cell["rows"] for cell in card["cells"] if cell["breaks"]) == card["rows"]


def test_mean_pictures_are_the_mean_of_the_rows(made, pictures):
    cell = made.facts["shortcuts"][0]["cells"][0]
    found = examples.means(pictures[0], [cell])
    shown = Image.open(io.BytesIO(base64.b64decode(found[cell["mean"]].split(",")[1])))
    mean = np.mean([np.asarray(pictures[0][row]["image"], dtype=float) for row in cell["mean_of"]], axis=(0, 1, 2))
    assert np.asarray(shown.convert("RGB")).mean(axis=(0, 1)) == pytest.approx(mean, abs=4)
    assert made.html.count('class="mean"') == 4


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
    suspect = next(suspect for suspect in found["suspects"] if suspect["row"] == row)
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
    assert not {suspect["row"] for suspect in found["suspects"]} & set(breaks.tolist())
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
    assert {one["row"] for one in hm.report(ds, findings).facts["suspects"]} & breaks
    assert not {one["row"] for one in hm.report(curated, findings).facts["suspects"]} & breaks


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
    assert made.facts["shortcuts"][0]["sentence"] in "".join(Page(made.html).words)


def test_sentences_carry_the_marked_phrase():
    ds = texts()
    made = hm.report(ds, hm.associate(ds))
    card = made.facts["shortcuts"][0]
    assert card["name"] == "film"
    for cell, with_it in zip(card["cells"], (True, False, True, False), strict=True):
        assert len(cell["examples"]) == 2
        for one in cell["examples"]:
            assert [part for part, is_it in one["text"] if is_it] == (["Film"] if with_it else [])
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
    reason = {"reason": (curated["reason"][:], reason_feature(told))}
    rows = columns.with_columns(curated.remove_columns("group"), reason)
    facts = hm.report(rows, findings).facts
    assert said in facts["verdict"]["sentence"]
    assert facts["verdict"]["verdict"] == verdict
    assert facts["verdict"]["steps"]
    assert (facts["shortcuts"] == []) == (verdict == "none seen")


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
    assert made.facts["shortcuts"] == []
    assert made.facts["listed"][0]["unit"] == "unit_0"
    assert not any(found["is_class"] for found in made.facts["distributions"])
    assert made.facts["suspects_note"]


def test_nothing_found_is_a_report_too():
    ds = simulated(400, tie=0.0)
    made = hm.report(ds, hm.associate(ds, alpha=1e-12))
    assert made.facts["shortcuts"] == []
    assert "No shortcut was found in" in str(made)


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
    assert made.facts["shortcuts"][0]["sentence"] in html
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
    assert len(made.facts["listed"]) == 100
    assert len(made.html.encode()) <= 5_000_000
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
    names = [card[name] for card in made.facts["shortcuts"] for name in ("name", "class")]
    names += [row[name] for row in made.facts["listed"] for name in ("concept", "unit")]
    assert max(map(len, names)) <= 80
    assert max(len(card["sentence"]) for card in made.facts["shortcuts"]) < 300
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
    assert "The model takes “tied” for “class_0”" in said
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
