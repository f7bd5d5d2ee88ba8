"""The gap benchmark: what a run is made of, its arithmetic, and that finished runs are not repeated."""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset

from hf_midrange import columns, curate


sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import gap  # noqa: E402
from baselines import BASELINES, RANKS  # noqa: E402
from gap_tables import by_condition, by_task, details, interval, oracle, pooled, regret, summary, verdicts  # noqa: E402
from tasks.pictures import fashion  # noqa: E402
from tasks.pool import Pool, draw, erm_head, pool_of  # noqa: E402
from tasks.registry import SETS, TASKS, tasks_named  # noqa: E402
from tasks.reviews import rated, review_topics, topic_of  # noqa: E402
from tasks.simulator import simulated, skewed_cue  # noqa: E402


def fake_pool(classes, per_group=60, width=8):
    rng = np.random.default_rng(0)
    labels, tied = (part.ravel() for part in np.mgrid[:classes, :classes].repeat(per_group, axis=2))
    splits = {}
    for name in ("train", "curation", "test"):
        values = rng.normal(size=(len(labels), width)) + 2 * np.eye(width)[labels] + 2 * np.eye(width)[classes + tied]
        more = {"embedding": (values.astype(np.float32), columns.vector(width))}
        names = [f"c{k}" for k in range(classes)]
        splits[name] = pool_of(more, labels, tied, names, [f"t{k}" for k in range(classes)])
    return Pool(splits)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr("tasks.pool.SIZES", {"train": 80, "curation": 60, "test": 60})


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("share", [0.1, None])
def test_a_run_is_tied_as_asked_and_its_test_is_not(small, classes, share):
    wanted = 1 - 1 / classes if share is None else share
    run = draw(fake_pool(classes), wanted, 3)
    labels, groups = columns.labels(run.curation), columns.labels(run.curation, "group")
    for k in range(classes):
        assert np.mean(groups[labels == k] % classes != k) == pytest.approx(wanted, abs=0.05)
        assert 30 <= (labels == k).sum() <= 31
    assert np.bincount(run.groups, minlength=2 * classes).tolist() == [30 // classes, 30 - 30 // classes] * classes
    logits = columns.matrix(run.curation, "logits")
    np.testing.assert_allclose(logits, run.head(columns.matrix(run.curation, "embedding")).numpy(), atol=1e-5)
    again = draw(fake_pool(classes), wanted, 3)
    np.testing.assert_array_equal(again.embedding, run.embedding)
    if share is not None:
        np.testing.assert_array_equal(gap.contrary_rows(run.curation), groups % classes != labels)


def test_too_few_rows_in_the_pool_keep_their_shares(small):
    run = draw(fake_pool(2), 0.1, 0, rows=400)
    assert np.bincount(columns.labels(run.curation, "group")).tolist() == [60, 7, 7, 60]


def test_a_class_may_be_rare_in_what_is_given_but_not_in_the_test(small):
    run = draw(fake_pool(2), 0.1, 0, rare=True)
    assert np.bincount(columns.labels(run.curation)).tolist() == [30, 7]
    assert np.bincount(run.labels).tolist() == [30, 30]


@pytest.mark.parametrize("classes", [2, 3])
def test_the_erm_head_is_scikit_learns(classes):
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(1)
    values, labels = rng.normal(size=(200, 5)) * 3 + 7, rng.integers(0, classes, 200)
    scaled = np.clip((values - values.mean(axis=0)) / values.std(axis=0), -4, 4)
    model = LogisticRegression(C=0.01, max_iter=1000).fit(scaled, labels)
    found = torch.softmax(erm_head(values, labels, classes)(values), dim=1).numpy()
    np.testing.assert_allclose(found, model.predict_proba(scaled), atol=1e-3)


def runs_of(*triples):
    return [{"ERM": {"wga": e}, "auto": {"wga": a}, "group": {"wga": g}} for e, a, g in triples]


def test_gap_closed_is_pooled_over_runs_with_a_gap():
    runs = runs_of((0.5, 0.7, 0.8), (0.6, 0.6, 0.9), (0.8, 0.1, 0.84))
    assert pooled(runs, "auto") == pytest.approx(0.2 / 0.6)
    assert pooled(runs[2:], "auto") is None
    assert oracle(runs[0] | {"DFR (oracle)": {"wga": 0.9}}) == 0.9


def test_a_simulated_run_end_to_end(tmp_path):
    run = simulated(2, 1, 0.05, seed=400, rows=400)
    results = gap.evaluate(run, 0, ["auto", "class-balanced", "group"])
    assert results[gap.ACTING]["wga"] >= results["auto"]["wga"] > results["class-balanced"]["wga"]
    assert results["auto"]["recall"] > 0.6
    assert results["group"]["contrary_weight"] > 0.5 > results["class-balanced"]["contrary_weight"]
    assert gap.ORACLE in results
    stored = {"commit": "abc", "runs": {"simulated 2x1|5%|0": results, "simulated 2x1|untied|0": results}}
    gap.report(stored, tmp_path / "gap.json")
    text = (tmp_path / "gap.md").read_text()
    assert "abc" in text
    assert "| auto |" in text
    runs, shown = stored["runs"], ["auto", "class-balanced"]
    tables = [by_condition(runs, shown), by_task(runs, shown, "5%"), details(runs, shown, "5%"), verdicts(runs)]
    for table in tables:
        widths = {line.count("|") for line in table.splitlines()}
        assert len(widths) == 1


def test_a_suspicion_counts_as_acted_on_in_one_arm_alone(monkeypatch):
    run = simulated(2, 1, 0.05, seed=400, rows=400)
    monkeypatch.setattr(gap, "curation_report", lambda _: {"verdict": "suspected"})
    results = gap.evaluate(run, 0, ["auto"])
    assert results["auto"]["wga"] == results["ERM"]["wga"] < results[gap.ACTING]["wga"]


def test_a_finished_run_is_not_repeated(tmp_path, monkeypatch):
    asked = []

    def evaluate(run, seed, strategies):
        asked.append((seed, tuple(strategies)))
        figures = {"wga": 0.5, "mean": 0.5, "seconds": 0.1, "contrary_weight": 0.1}
        return {name: figures for name in ("ERM", *strategies, gap.ORACLE, gap.ACTING)} | {"rows": 5}

    monkeypatch.setattr(gap, "evaluate", evaluate)
    monkeypatch.setitem(gap.PROFILES, "quick", gap.Profile(("simulated 2x1",), ("0.05", "untied"), (0, 1)))
    argv = ["gap.py", "--output", str(tmp_path / "gap.json"), "--strategies", "auto", "group"]
    monkeypatch.setattr(sys, "argv", argv)
    gap.main()
    assert len(asked) == 4
    gap.main()
    assert len(asked) == 4
    monkeypatch.setattr(sys, "argv", [*argv, "afr"])
    gap.main()
    assert asked[4:] == [(0, ("afr",)), (1, ("afr",))] * 2
    assert len(json.loads((tmp_path / "gap.json").read_text())["runs"]) == 4


def test_conditions_say_what_differs():
    assert gap.condition("0.05") == "5%"
    assert gap.condition("untied", 200, 0.1, True) == "untied, 200 rows, 10% wrong labels, rare class"


def test_the_grid_passes_over_ties_that_a_task_cannot_have(tmp_path, monkeypatch):
    plain = Pool({name: rows for name, rows in fake_pool(2).splits.items()})
    ids = columns.labels(plain.splits["train"])
    alone = pool_of({}, ids, np.zeros(len(ids), dtype=int), ["a", "b"], ["nothing"])
    pools = {"digits 3/8": plain, "plain 3/8": Pool(dict.fromkeys(plain.splits, alone))}
    monkeypatch.setattr(gap.Pool, "of", lambda task, *_: pools[task.name])
    asked = {"tasks": ["digits 3/8", "plain 3/8", "skewed cue 1.0", "simulated 5x1"], "seeds": [0], "data": {}}
    asked |= {"ties": ["0.05", "untied", "natural"], "rows": [None], "wrong": [0.0], "rare": [0], "cache": tmp_path}
    keys = [key for key, _, _ in gap.grid(argparse.Namespace(**asked))]
    assert keys == ["digits 3/8|5%|0", "digits 3/8|untied|0", "plain 3/8|untied|0", "skewed cue 1.0|untied|0",
                    "simulated 5x1|5%|0", "simulated 5x1|untied|0"]  # fmt: skip


@pytest.mark.parametrize(
    ("tied", "untied", "complaint"),
    [
        ({"ERM": 0.5, "auto": 0.8, "class-balanced": 0.6, "group": 0.9}, 0.49, None),
        ({"ERM": 0.5, "auto": 0.6, "class-balanced": 0.6, "group": 0.9}, 0.5, "closes 0.25 .* `class-balanced` 0.25"),
        ({"ERM": 0.5, "auto": 0.5, "class-balanced": 0.5, "group": 0.5}, 0.5, "no tied run has a gap"),
        ({"ERM": 0.5, "auto": 0.8, "class-balanced": 0.6, "group": 0.9}, 0.47, "untied is -0.030"),
        ({"ERM": 0.5, "auto": 0.8, "class-balanced": 0.6, "group": 0.9}, None, "untied was not measured"),
    ],
)
def test_the_check_fails_where_auto_does_not_deliver(tmp_path, monkeypatch, tied, untied, complaint):
    plain = dict.fromkeys(("ERM", "class-balanced", "group"), 0.5)
    runs = {"task|5%|0": tied} | ({} if untied is None else {"task|untied|0": plain | {"auto": untied}})
    stored = {key: {name: {"wga": wga, "mean": wga} for name, wga in run.items()} for key, run in runs.items()}
    stored = {key: run | {gap.ACTING: run["auto"]} for key, run in stored.items()}
    (tmp_path / "gap.json").write_text(json.dumps({"commit": "abc", "runs": stored}))
    monkeypatch.setattr(gap, "grid", lambda _: [])
    monkeypatch.setattr(sys, "argv", ["gap.py", "--check", "--output", str(tmp_path / "gap.json")])
    if complaint is None:
        gap.main()
    else:
        with pytest.raises(SystemExit, match=complaint):
            gap.main()


@pytest.mark.parametrize("name", list(gap.RECIPES))
def test_a_recipe_gives_classes_of_new_rows(name):
    run = simulated(3 if "view" in name else 2, 1, 0.1, seed=401, rows=200)
    predicted = gap.RECIPES[name](run.curation, run.head, 0)(run.embedding)
    assert predicted.shape == run.labels.shape
    assert (predicted == run.labels).mean() > 0.45
    again = gap.RECIPES[name](run.curation, run.head, 0)(run.embedding)
    np.testing.assert_array_equal(again, predicted)


def test_arms_differ_in_nothing_but_which_rows():
    run = simulated(2, 1, 0.1, seed=402, rows=300)
    labels, logits = columns.labels(run.curation), columns.matrix(run.curation, "logits")
    chosen, weights = {}, set()
    for name in RANKS:
        curated = curate(run.curation, strategy=BASELINES[name])
        names = curated.features["pseudo_group"].names
        chosen[name] = np.array(["like" in names[cell] for cell in curated["pseudo_group"]])
        assert [chosen[name][labels == k].sum() for k in (0, 1)] == [20, 20]
        weights.add(tuple(np.round(sorted(set(curated["weight"])), 4)))
    assert len(weights) == 1
    own, wrong = logits[np.arange(len(labels)), labels], logits.argmax(axis=1) != labels
    for k in (0, 1):
        mine = labels == k
        assert own[mine & chosen["20 lowest own logits"]].max() <= own[mine & ~chosen["20 lowest own logits"]].min()
        assert own[mine & chosen["20 top"]].min() >= own[mine & ~chosen["20 top"]].max()
        assert (chosen["20 misclassified"] & wrong & mine).sum() == min(20, (wrong & mine).sum())


def test_wrong_labels_leave_groups_and_test_alone(small):
    run = draw(fake_pool(2), 0.1, 3, wrong=0.2)
    labels, groups = columns.labels(run.curation), columns.labels(run.curation, "group")
    assert (labels != groups // 2).sum() == 12
    np.testing.assert_array_equal(run.labels, run.groups // 2)
    np.testing.assert_array_equal(gap.contrary_rows(run.curation), groups % 2 != groups // 2)


def test_rows_as_they_are_in_the_data(small):
    run = draw(fake_pool(2), None, 3)
    assert len(run.curation) == 60
    assert np.bincount(run.groups).tolist() == [15] * 4


def test_a_cue_that_is_the_class_has_no_confounder():
    run = skewed_cue(1.0, 0.5, seed=0, rows=400)
    assert not gap.contrary_rows(run.curation).any()
    assert (run.head(run.embedding).argmax(dim=1).numpy() == run.labels).mean() > 0.8


@pytest.mark.slow
def test_a_network_trained_end_to_end_leans_on_what_is_tied():
    from tasks.networks import trained

    tied, untied = trained((3, 8), 0.05, 0), trained((3, 8), 0.5, 0)
    assert columns.view_columns(tied.curation.features) == ["view_thumbnail"]
    assert gap.score(untied.head, untied)["wga"] > gap.score(tied.head, tied)["wga"] + 0.1


def test_regret_weighs_tied_and_untied_the_same_and_intervals_are_over_tasks():
    runs = {
        "a|5%|0": {"ERM": {"wga": 0.5}, "auto": {"wga": 0.7}, "group": {"wga": 0.9}},
        "a|5%|1": {"ERM": {"wga": 0.5}, "auto": {"wga": 0.9}, "group": {"wga": 0.9}},
        "b|5%|0": {"ERM": {"wga": 0.8}, "auto": {"wga": 0.7}, "group": {"wga": 0.82}},
        "a|untied|0": {"ERM": {"wga": 0.9}, "auto": {"wga": 0.86}, "group": {"wga": 0.88}},
    }
    assert regret(runs, "auto") == pytest.approx((np.mean([0.1, 0.12]) + 0.04) / 2)
    low, high = interval(runs, "auto", regret)
    assert low < regret(runs, "auto") < high
    table = summary(runs, ["ERM", "auto"])
    assert "Without a gap to close: b at 5%." in table
    assert "| auto | 0.075 (" in table
    assert "| 0.000 (0.000 to 0.000) |" in table  # of auto against itself


def test_natural_tasks_are_read_from_the_users_files(tmp_path, monkeypatch):
    from tasks import natural

    rng = np.random.default_rng(0)
    rows = {
        "premise": [f"premise {k // 2}" for k in range(80)],
        "hypothesis": [f"it is{' not' if rng.random() < 0.5 else ''} so {k}" for k in range(80)],
        "label": ["contradiction" if k % 2 else "neutral" for k in range(80)],
    }
    Dataset.from_dict(rows).to_parquet(tmp_path / "nli.parquet")
    monkeypatch.setattr(natural, "embedded", lambda texts, pairs: rng.normal(size=(len(texts), 4)).astype(np.float32))
    (task,) = tasks_named("contradiction by negation")
    pools = task.build(tmp_path)
    seen = [set(pool["text"]) for pool in pools.values()]
    assert sum(map(len, seen)) == len(set.union(*seen)) == 40
    for pool in pools.values():
        for text, group in zip(pool["text_pair"], pool["group"], strict=True):
            assert ("not" in text.split()) == (group % 2 == 1)
        np.testing.assert_array_equal(np.array(pool["group"]) // 2, pool["label"])
    assert columns.view_columns(pools["curation"].features)
    with pytest.raises(FileNotFoundError, match=r"faces.parquet.*--natural"):
        tasks_named("age by gender")[0].build(tmp_path)


def test_missing_data_say_where_they_come_from(tmp_path):
    with pytest.raises(FileNotFoundError, match="dataset-fashion-mnist"):
        fashion(tmp_path)
    with pytest.raises(FileNotFoundError, match="vaderSentiment"):
        rated("movies", tmp_path)
    with pytest.raises(ValueError, match="digits 3/8"):
        tasks_named("nothing")


def test_ratings_are_read_and_parted_by_polarity(tmp_path):
    lines = ["1\t2.5\tgood film", "2\t-1.0\tbad film", "3\t0.1\tfilm", "4\t0.5\tfair film"]
    (tmp_path / "movieReviewSnippets_GroundTruth.txt").write_text("\n".join(lines), encoding="latin-1")
    negative, positive = rated("movies", tmp_path)
    assert negative == ["bad film"]
    assert sorted(positive) == ["fair film", "good film"]


def test_pictures_of_clothes_are_read(tmp_path):
    import gzip

    pixels = np.arange(3 * 784, dtype=np.uint8)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(16) + pixels.tobytes()))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes(8) + bytes([4, 0, 9])))
    images, labels = fashion(tmp_path)
    np.testing.assert_array_equal(images.ravel(), pixels)
    assert labels.tolist() == [4, 0, 9]


def test_profiles_name_tasks_that_exist():
    for profile in gap.PROFILES.values():
        assert all(name in gap.MADE or tasks_named(name) for name in profile.tasks)
    assert all(task.data is None for name in gap.PROFILES["quick"].tasks if name not in gap.MADE for task in TASKS
               if task.name == name)  # fmt: skip
    assert any(task.aside for tasks in SETS.values() for task in tasks)


def test_a_topic_is_told_by_words_of_one_kind():
    assert topic_of("A superb performance by the CAST") == "the people"
    assert topic_of("the plot, such as it is") == "the story"
    assert topic_of("acting cannot save the story") is None
    assert topic_of("exactly what it says") is None


def test_reviews_of_two_topics_make_a_pool(tmp_path, monkeypatch):
    from tasks import reviews

    topics = ("good acting", "a fine plot, never dull", "no topic")
    kinds = [(score, words) for score in (-2.0, 2.0) for words in topics]
    lines = [f"{i}\t{score}\t{words} {i}" for i, (score, words) in enumerate(kinds * 20)]
    (tmp_path / "movieReviewSnippets_GroundTruth.txt").write_text("\n".join(lines), encoding="latin-1")
    monkeypatch.setattr(reviews, "embedded", lambda texts: np.zeros((len(texts), 3), dtype=np.float32))
    pools = review_topics(tmp_path)
    texts = [text for pool in pools.values() for text in pool["text"]]
    assert len(set(texts)) == len(texts) == 80
    for pool in pools.values():
        names = pool.features["group"].names
        assert names == [f"{y} with {t}" for y in ("negative", "positive") for t in ("the people", "the story")]
        for text, group in zip(pool["text"], pool["group"], strict=True):
            assert ("acting" in text) == (names[group].endswith("people"))
            assert kinds[int(text.split()[-1]) % 6][0] == (-2.0 if names[group].startswith("negative") else 2.0)


def test_sprites_of_a_pool_stand_where_their_group_says(monkeypatch):
    from tasks import sprites

    monkeypatch.setattr(sprites, "PER_GROUP", {"train": 3, "curation": 2, "test": 1})
    drawn = []
    real = sprites.render
    monkeypatch.setattr(sprites, "render", lambda *factors: drawn.append(factors) or real(*factors))
    pools = sprites.sprite_places(None)
    for (pool, factors), size in zip(zip(pools.values(), drawn, strict=True), (3, 2, 1), strict=True):
        assert np.bincount(pool["group"]).tolist() == [size] * 9
        place = np.select([factors[3] < 10, factors[3] < 21], [0, 1], 2)
        np.testing.assert_array_equal(np.array(pool["group"]), 3 * factors[0] + place)
        assert set(pool.column_names) >= {"label", "group", "embedding", "source_id"}
    every = np.concatenate(drawn, axis=1)
    assert np.unique(every, axis=1).shape == every.shape


def test_missing_data_are_told_of_before_the_first_run(tmp_path, monkeypatch):
    monkeypatch.setattr(gap, "evaluate", lambda *_: pytest.fail("a run was made"))
    words = ["--tasks", "movies/products", "--ties", "0.05", "--output", str(tmp_path / "gap.json")]
    monkeypatch.setattr(sys, "argv", ["gap.py", *words, "--cache", str(tmp_path), "--data", f"reviews={tmp_path}"])
    with pytest.raises(FileNotFoundError, match="vaderSentiment"):
        gap.main()
    monkeypatch.setattr(sys, "argv", ["gap.py", "--tasks", "no such"])
    with pytest.raises(ValueError, match="no task 'no such'"):
        gap.main()
