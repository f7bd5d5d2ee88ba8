"""Cards: what they say, and that nothing in the data can change what they are."""

import json
from dataclasses import asdict, replace
from html import unescape

import pytest
import yaml
from datasets import ClassLabel, Features
from huggingface_hub import DatasetCard, ModelCard, parse_eval_result_entries
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from hf_midrange.io.files import from_json
from hf_midrange.publishing import DatasetFacts, ModelFacts, Score, dataset_card, model_card
from hf_midrange.publishing.cards import code, eval_results, licence_metadata, size_category
from hf_midrange.publishing.escaping import front_matter, markdown, visible
from hf_midrange.publishing.facts import (
    ConfigFacts,
    CurationFacts,
    SplitFacts,
)


HOSTILE = [
    'a: "b" | c',
    "<script>alert('x')</script>",
    "line\nbreak\r\n---\n",
    "{{ 7 * 7 }}{% raw %}",
    "# [link](javascript:x) ![i](y) `code` *em* __x__ ~~s~~",
    "\u202eright to left\u200f",
    "\\|&#124;&amp;",
    "  spaces  at  both  ends ",
    "- 1. > + =",
    "no",
    "1e3",
    "0o17",
    "\x00\x1b[31m\ud800",
    "null: ~ !!python/object",
    "\ufdd0\ue000",
    "@user https://evil.example www.evil.example :smile:",
]
text = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=30))


CELL = {"name": "3, typical", "rows": 9, "weight": 0.5, "before": 0.6, "after": 0.7}
BANDS = {"rule": "class-relative", "edges": [0.0, 1.0], "names": ["low", "mid", "high"], "units": [["3", [0.1, 0.2]]]}


def finding(unit, concept):
    figures = {"odds_ratio": 3.21, "ci_low": 2.0, "ci_high": 4.0, "q_value": 1e-5, "q_confirm": 2e-4}
    return {"unit_name": unit, "band": "mid", "source": "place", "concept": concept, **figures}


def model_facts(**changes):
    facts = ModelFacts(
        repo_id="me/y",
        architecture="ViTForImageClassification",
        task="image-classification",
        classes=("3", "8"),
        versions={"hf_midrange": "0.1.0"},
        has_processor=True,
        base_model="me/base",
        licence="apache-2.0",
        changed=("classifier.weight", "classifier.bias"),
        score=Score("ours", 0.9, 0.8, (0.88, 0.92), (0.7, 0.87), worst_group_name="3 under 1"),
        controls=(Score("ERM", 0.7, 0.5),),
        findings=(finding("3", "sea"),),
        shortcuts=("Rows with sea score higher for 3.",),
        discovered=3,
        curation=CurationFacts("shown", "worst 0.5 before, 0.8 after", "auto", 0, 10, 5),
        dataset="me/x",
        curated="me/x-mid",
    )
    return replace(facts, **changes)


def dataset_facts(**changes):
    features = Features({"label": ClassLabel(names=["3", "8"])})._to_yaml_list()
    facts = DatasetFacts(
        repo_id="me/x-mid",
        task="text-classification",
        configs=(
            ConfigFacts("default", "data", (SplitFacts("train", 10, 99),), features),
            ConfigFacts("long", "long", (SplitFacts("train", 20, 99),), features),
        ),
        columns=({"name": "label", "kind": "one of 2 names", "how": "given"},),
        curation=(CurationFacts("shown", "why", "auto", 0, 10, 5, "train", (CELL,)),),
        versions={"hf_midrange": "0.1.0"},
        findings=(finding("3", "sea"),),
        discovered=1,
        bands=BANDS,
        sources=("me/x",),
        source_note="digits",
        licence="cc-by-4.0",
    )
    return replace(facts, **changes)


def parsed(card):
    """Return the metadata, and the body's structure as a Markdown parser with tables and HTML sees it."""
    empty, metadata, body = card.split("---\n", 2)
    assert empty == ""
    tokens = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(body)
    return yaml.safe_load(metadata), tokens


def shape(tokens):
    """Return the kinds of all blocks and inlines, without their words."""
    kinds = [t.type for t in tokens]
    inline = [c.type for t in tokens if t.children for c in t.children if c.type not in ("text", "softbreak")]
    return kinds, sorted(set(inline) - {"text_special"}), sum(1 for kind in inline if kind == "link_open")


def cells(tokens):
    """Return the words of every table cell, as shown."""
    shown = []
    for k, token in enumerate(tokens):
        if token.type in ("td_open", "th_open"):
            inline = tokens[k + 1]
            shown.append("".join(c.content for c in inline.children if c.type in ("text", "text_special")))
    return shown


@settings(max_examples=150)
@given(text)
@example("|")
def test_markdown_shows_the_text_and_nothing_else(name):
    line = f"| x {markdown(name)} y |\n|---|\n| {markdown(name)} |\n"
    tokens = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(line)
    assert [t.type for t in tokens].count("inline") == 2
    assert set(c.type for t in tokens if t.children for c in t.children) <= {"text", "text_special"}
    head, cell = cells(tokens)
    assert head == f"x {visible(name)} y"
    assert cell == visible(name)
    assert "<" not in markdown(name)
    assert unescape(markdown(name)) == visible(name)


@settings(max_examples=100)
@given(st.lists(text, min_size=1, max_size=4, unique=True), text)
def test_front_matter_comes_back_whatever_the_names(names, key):
    safe = [name.encode("utf-8", "surrogatepass").decode("utf-8", "replace") for name in names]
    metadata = {"names": dict(enumerate(safe)), "deep": [{"of": [{"key": safe[0]}]}], "top": safe[-1]}
    block = front_matter(metadata)
    assert block.isascii()
    assert block.count("---") == 2
    assert [line for line in block.splitlines() if line.startswith("---")] == ["---", "---"]
    assert yaml.safe_load(block.split("\n", 1)[1].rsplit("---\n", 1)[0]) == metadata


@settings(max_examples=60)
@given(text, text, text)
def test_no_name_changes_the_structure_of_a_card(unit, concept, group):
    found = finding(unit, concept)
    curation = CurationFacts("shown", f"worst in {group}", "auto", 0, 10, 5, "train", ({**CELL, "name": group},))
    plain = (model_facts(), dataset_facts())
    model = replace(
        plain[0],
        classes=(unit, concept),
        findings=(found,),
        curation=curation,
        controls=(Score(group, 0.7, 0.5),),
        shortcuts=(f"Rows with {concept} score higher for {unit}.",),
    )
    rows = replace(
        plain[1],
        findings=(found,),
        curation=(curation,),
        columns=({"name": concept, "kind": "text", "how": "given"},),
        bands={**BANDS, "units": [[unit, [0.1, 0.2]]]},
        source_note=group or "x",
    )
    for card, usual, names in (
        (model_card(model), model_card(plain[0]), (unit, f"place: {concept}", group)),
        (dataset_card(rows), dataset_card(plain[1]), (unit, f"place: {concept}", concept, group)),
    ):
        metadata, tokens = parsed(card)
        usual_metadata, usual_tokens = parsed(usual)
        assert metadata == usual_metadata
        assert shape(tokens) == shape(usual_tokens)
        assert set(map(visible, names)) <= set(cells(tokens))


@settings(max_examples=60)
@given(
    st.lists(
        st.sampled_from(HOSTILE) | st.text(st.characters(codec="utf-8"), max_size=20),
        min_size=2,
        max_size=5,
        unique=True,
    )
)
def test_class_names_survive_the_metadata_of_a_card(names):
    names = [name for name in names if "\ud800" not in name] or ["a"]
    features = Features({"label": ClassLabel(names=names)})
    config = ConfigFacts("default", "data", (SplitFacts("train", 10, 99),), features._to_yaml_list())
    card = dataset_card(dataset_facts(configs=(config,)))
    metadata = DatasetCard(card, ignore_metadata_errors=False).data.to_dict()
    assert Features._from_yaml_list(metadata["dataset_info"][0]["features"]) == features


def test_the_hub_client_reads_the_results_from_both_forms():
    facts = model_facts()
    (result, worst) = ModelCard(model_card(facts)).data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_type) == ("accuracy", 0.9, "me/x")
    assert (worst.metric_type, worst.metric_value, worst.dataset_split) == ("worst_group_accuracy", 0.8, "test")
    ((path, content),) = eval_results(facts).items()
    assert path == ".eval_results/me_x.yaml"
    entries = parse_eval_result_entries(yaml.safe_load(content))
    assert {(e.dataset_id, e.task_id, e.value) for e in entries} == {
        ("me/x", "accuracy", 0.9),
        ("me/x", "worst_group_accuracy", 0.8),
    }
    assert eval_results(replace(facts, dataset=None)) == {}


def test_what_is_unknown_is_left_out():
    bare = ModelFacts("me/y", "BertForSequenceClassification", "text-classification", ("a",), {"hf_midrange": "0.1.0"})
    card = model_card(bare)
    metadata, _ = parsed(card)
    assert set(metadata) == {"library_name", "pipeline_tag", "tags"}
    for absent in ("None", "How it does", "confounding", "Undefined"):
        assert absent not in card
    rows = dataset_facts(findings=(), discovered=None, bands=None, sources=(), source_note=None, licence=None)
    card = dataset_card(rows)
    for absent in ("None", "Group balance", "## Bands", "Where the rows come from", "Concepts tied"):
        assert absent not in card


def test_a_model_with_nothing_to_repair_is_not_called_corrected():
    nothing = CurationFacts("none seen", "no sign", "auto", 0, 10, 10, unchanged=True)
    card = model_card(model_facts(curation=nothing, corrected=False, changed=()))
    assert "Its last layer is as it was" in card
    assert "was corrected" not in card
    assert "debiasing" not in parsed(card)[0]["tags"]


def test_nothing_confirmed_is_said_plainly():
    card = model_card(model_facts(findings=(), discovered=7))
    assert "Of 7 associations found on one half of the rows, none was confirmed" in card


@pytest.mark.parametrize("facts", [model_facts(), dataset_facts()])
def test_facts_survive_json(facts):
    assert from_json(type(facts), json.loads(json.dumps(asdict(facts)))) == facts


def test_only_ids_stand_in_code():
    assert code("me/x-mid.1") == "me/x-mid.1"
    with pytest.raises(ValueError, match="cannot stand in the code"):
        code('me/x")\nimport os')
    with pytest.raises(ValueError, match="cannot stand in the code"):
        model_card(model_facts(curated='x")'))


def test_scores_need_both_figures():
    assert Score.of("ours", {"mean": 1, "worst_group": 0.5, "groups": {}}).mean == 1.0
    with pytest.raises(ValueError, match="group_metrics"):
        Score.of("ours", {"mean": 1.0})


def test_licences_and_sizes_are_in_the_words_of_the_hub():
    assert licence_metadata("Apache-2.0") == {"license": "apache-2.0"}
    assert licence_metadata("ask: <us>\n") == {"license": "other", "license_name": "ask-us"}
    assert licence_metadata(None) == {}
    sizes = {0: "n<1K", 999: "n<1K", 1000: "1K<n<10K", 99_999: "10K<n<100K", 10**6: "1M<n<10M", 10**10: "n>1B"}
    assert {rows: size_category(rows) for rows in sizes} == sizes
