"""`extract` against a loop written by hand, row by row, for every kind of model and dataset."""

import json
import warnings

import numpy as np
import pytest
import timm
import torch
from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict
from PIL import Image as PillowImage
from support.classifiers import CLASSES, SMALL, as_table, bert, gpt2, images, texts, timm_model, tokenizer
from torch import nn
from transformers import (
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    LlamaConfig,
    LlamaForSequenceClassification,
    ResNetConfig,
    ResNetForImageClassification,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

import hf_midrange as hm
from hf_midrange.classifier import fingerprint
from hf_midrange.columns import facts, matrix
from hf_midrange.extraction import read_shards


def wrapped() -> TimmWrapperForImageClassification:
    torch.manual_seed(0)
    return TimmWrapperForImageClassification(TimmWrapperConfig(architecture="test_resnet", num_labels=3))


def vit() -> ViTForImageClassification:
    torch.manual_seed(0)
    return ViTForImageClassification(ViTConfig(**SMALL, image_size=16, patch_size=8, num_labels=3))


def resnet() -> ResNetForImageClassification:
    torch.manual_seed(0)
    return ResNetForImageClassification(
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic", num_labels=3)
    )


def llama() -> LlamaForSequenceClassification:
    torch.manual_seed(0)
    config = LlamaConfig(**SMALL, vocab_size=20, num_labels=3, pad_token_id=0, initializer_range=0.5)
    return LlamaForSequenceClassification(config)


def small_processor() -> ViTImageProcessor:
    return ViTImageProcessor(size={"height": 16, "width": 16})


def by_hand(model: nn.Module, inputs_of_row, ds: Dataset) -> np.ndarray:
    """Logits of shape `(n, C)`, one row at a time, with no code of the package."""
    model.cpu().eval()
    with torch.no_grad():
        outputs = [model(**inputs_of_row(row)) for row in ds]
    return torch.cat([getattr(output, "logits", output) for output in outputs]).numpy()


def check(result: Dataset, ds: Dataset, expected: np.ndarray, head: nn.Linear) -> None:
    embedding, logits = matrix(result, "embedding"), matrix(result, "logits")
    assert len(result) == len(ds)
    assert embedding.dtype == logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    with torch.no_grad():
        np.testing.assert_allclose(head(torch.from_numpy(embedding.copy())).numpy(), expected, atol=1e-5)
    assert result["prediction"][:] == expected.argmax(1).tolist()
    assert result.features["prediction"] == ds.features["label"]
    assert result["label"][:] == ds["label"][:]


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"])
def test_raw_timm_models(name):
    model, ds = timm_model(name), images(7)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    expected = by_hand(model, lambda row: {"x": transform(row["image"].convert("RGB"))[None]}, ds)
    check(hm.extract(ds, model, batch_size=3), ds, expected, model.get_classifier())


def test_wrapped_timm_model_as_object_and_folder(tmp_path):
    model, ds = wrapped(), images(7)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model.timm_model))
    expected = by_hand(model, lambda row: {"pixel_values": transform(row["image"])[None]}, ds)
    check(hm.extract(ds, model, batch_size=3), ds, expected, model.timm_model.fc)
    model.save_pretrained(tmp_path)
    check(hm.extract(ds, tmp_path, batch_size=3), ds, expected, model.timm_model.fc)


@pytest.mark.parametrize("make", [vit, resnet])
def test_transformers_image_classifiers_as_object_and_folder(make, tmp_path):
    model, ds, processor = make(), images(), small_processor()
    expected = by_hand(model, lambda row: processor(row["image"], return_tensors="pt"), ds)
    head = model.classifier if make is vit else model.classifier[1]
    check(hm.extract(ds, model, processor, batch_size=5), ds, expected, head)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    check(hm.extract(ds, str(tmp_path), batch_size=5), ds, expected, head)


@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("make", [bert, gpt2])
def test_sequence_classifiers_with_texts_and_pairs(make, pair, tmp_path):
    model, ds, tok = make(), texts(pair=pair), tokenizer()
    arguments = {"truncation": True, "max_length": 12, "return_tensors": "pt"}
    if make is gpt2:
        tok.model_input_names = ["input_ids", "attention_mask"]
    expected = by_hand(model, lambda row: tok(row["text"], row.get("text_pair"), **arguments), ds)
    head = model.classifier if make is bert else model.score
    check(hm.extract(ds, model, tok, batch_size=5), ds, expected, head)
    model.save_pretrained(tmp_path)
    tok.save_pretrained(tmp_path)
    check(hm.extract(ds, tmp_path, batch_size=5), ds, expected, head)


def test_a_callable_is_a_processor_and_a_plain_module_a_model():
    torch.manual_seed(0)
    model, ds = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 3)), images()

    def corner(image: PillowImage.Image) -> torch.Tensor:
        return torch.from_numpy(np.asarray(image)[:2, :2].copy()).permute(2, 0, 1) / 255

    expected = by_hand(model, lambda row: {"input": corner(row["image"])[None]}, ds)
    check(hm.extract(ds, model, corner), ds, expected, model[3])


def teacher() -> DeiTForImageClassificationWithTeacher:
    torch.manual_seed(0)
    return DeiTForImageClassificationWithTeacher(DeiTConfig(**SMALL, image_size=16, patch_size=8, num_labels=3))


def test_a_distilled_model_has_the_mean_of_its_heads_on_both_embeddings():
    model, ds, processor = teacher(), images(5), small_processor()
    expected = by_hand(model, lambda row: processor(row["image"], return_tensors="pt"), ds)
    result = hm.extract(ds, model, processor, batch_size=2)
    np.testing.assert_allclose(matrix(result, "logits"), expected, atol=1e-5)
    assert matrix(result, "embedding").shape == (5, 32)
    assert facts(result.features, "logits")["head"] == "cls_classifier+distillation_classifier"


@pytest.mark.parametrize("name", ["deit_tiny_distilled_patch16_224", "levit_128s"])
def test_distilled_timm_models(name):
    torch.manual_seed(0)
    model, ds = timm.create_model(name, num_classes=3), images(3)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    expected = by_hand(model, lambda row: {"x": transform(row["image"].convert("RGB"))[None]}, ds)
    np.testing.assert_allclose(matrix(hm.extract(ds, model), "logits"), expected, atol=1e-5)


def test_a_head_chosen_among_two_gives_its_own_logits():
    model, ds, processor = teacher(), images(5), small_processor()
    result = hm.extract(ds, model, processor, head="cls_classifier")
    with torch.no_grad():
        inputs = processor([image for image in ds["image"]], return_tensors="pt")
        expected = model.eval()(**inputs).cls_logits
    np.testing.assert_allclose(matrix(result, "logits"), expected.numpy(), atol=1e-5)


def test_logits_that_are_not_the_heads_outputs_are_refused():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x):
            return 30 * self.fc(x.mean((2, 3)))

    ds = images(3)
    with pytest.raises(ValueError, match=r"are not the outputs of 'fc'.*head='fc'"):
        hm.extract(ds, Scaled(), lambda image: torch.ones(3, 2, 2))
    assert len(hm.extract(ds, Scaled(), lambda image: torch.ones(3, 2, 2), head="fc")) == 3


@pytest.mark.parametrize("on_disk", [False, True])
def test_every_kind_of_dataset_comes_back_as_its_kind(on_disk, tmp_path):
    model, ds = timm_model(), images()
    reference = hm.extract(ds, model, batch_size=4, shard_size=10)
    folder = {name: tmp_path / name if on_disk else None for name in ("one", "dict", "stream", "streams")}

    one = hm.extract(ds, model, batch_size=4, shard_size=10, output_dir=folder["one"])
    both = hm.extract(DatasetDict(a=ds, b=ds), model, batch_size=4, shard_size=10, output_dir=folder["dict"])
    stream = hm.extract(ds.to_iterable_dataset(), model, batch_size=4, shard_size=10, output_dir=folder["stream"])
    streams = IterableDatasetDict({"a": ds.to_iterable_dataset()})
    streams = hm.extract(streams, model, batch_size=4, shard_size=10, output_dir=folder["streams"])

    assert (type(one), type(both), type(stream), type(streams)) == (
        Dataset, DatasetDict, IterableDataset, IterableDatasetDict
    )  # fmt: skip
    for result in (one, both["a"], both["b"], as_table(stream), as_table(streams["a"])):
        assert result.features == reference.features
        for name in ("embedding", "logits"):
            np.testing.assert_array_equal(matrix(result, name), matrix(reference, name))
        assert result["prediction"][:] == reference["prediction"][:]
        assert [np.asarray(x).tolist() for x in result["image"]] == [np.asarray(x).tolist() for x in ds["image"]]
    if on_disk:
        assert sorted(path.name for path in (tmp_path / "dict").iterdir()) == ["a", "b"]
        assert one.cache_files


def test_selected_rows_and_earlier_columns_are_handled(tmp_path):
    ds, model = images(), timm_model()
    chosen = ds.select([5, 3, 20, 3])
    first = hm.extract(chosen, model)
    again = hm.extract(first, model, output_dir=tmp_path)
    assert again.column_names == first.column_names
    np.testing.assert_array_equal(matrix(first, "logits"), matrix(again, "logits"))
    np.testing.assert_array_equal(matrix(first, "logits")[1], matrix(first, "logits")[3])


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_columns_say_which_model_made_them(stream, on_disk, tmp_path):
    ds, model, other = images(6), timm_model(), timm_model()
    with torch.no_grad():
        other.fc.bias[0] += 1
    folders = [tmp_path / name if on_disk else None for name in ("first", "again")]
    first = hm.extract(ds, other, output_dir=folders[0])
    again = hm.extract(first.to_iterable_dataset() if stream else first, model, output_dir=folders[1])
    expected = {"model": "unnamed", "fingerprint": fingerprint(model), "head": "fc", "dtype": "float32"}
    assert facts(again.features, "logits") == facts(again.features, "embedding") == expected
    if not stream:
        again.save_to_disk(tmp_path / "saved")
        assert facts(Dataset.load_from_disk(tmp_path / "saved").features, "logits") == expected
        again.to_parquet(tmp_path / "rows.parquet")
        read = Dataset.from_parquet(str(tmp_path / "rows.parquet"), cache_dir=tmp_path / "cache")
        assert facts(read.features, "logits") == expected
    if on_disk:
        assert facts(read_shards(folders[1]).features, "logits") == expected


def test_a_loaded_model_is_named_by_where_it_came_from(tmp_path):
    vit().save_pretrained(tmp_path)
    for model in (tmp_path, ViTForImageClassification.from_pretrained(tmp_path)):
        found = facts(hm.extract(images(3), model, small_processor()).features, "logits")
        assert (found["model"], found["fingerprint"]) == (str(tmp_path), fingerprint(vit()))


@pytest.mark.parametrize("on_disk", [False, True])
def test_the_weights_are_read_once_a_run(on_disk, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("hf_midrange.extraction.run.fingerprint", lambda model: seen.append(model) or "mark")
    splits = DatasetDict(a=images(3), b=images(4), c=images(5))
    hm.extract(splits, timm_model(), output_dir=tmp_path if on_disk else None)
    assert len(seen) == 1


def test_without_labels_predictions_carry_the_models_names():
    model = vit()
    model.config.id2label = {0: "x", 1: "y", 2: "z"}
    result = hm.extract(images(4).remove_columns("label"), model, small_processor())
    assert result.features["prediction"].names == ["x", "y", "z"]
    assert hm.extract(images(4).remove_columns("label"), timm_model()).features["prediction"].names == ["0", "1", "2"]


def test_low_precision_backbone_gives_float32_logits_and_leaves_the_model_alone():
    model, ds = timm_model("test_vit"), images(6)
    full = hm.extract(ds, model)
    low = hm.extract(ds, model, dtype="bfloat16")
    embedding, logits = matrix(low, "embedding"), matrix(low, "logits")
    expected = embedding @ model.head.weight.detach().numpy().T + model.head.bias.detach().numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-6)
    assert (embedding == torch.from_numpy(embedding.copy()).bfloat16().float().numpy()).all()
    assert not np.array_equal(logits, matrix(full, "logits"))
    assert (logits != torch.from_numpy(logits.copy()).bfloat16().float().numpy()).any()
    assert next(model.parameters()).dtype == torch.float32


def test_the_model_keeps_weights_buffers_modes_and_hooks():
    model = timm_model().train()
    model.layer1.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    hm.extract(images(), model, batch_size=4)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert not model.fc._forward_pre_hooks


@pytest.mark.parametrize(("make", "ds"), [(timm_model, images()), (bert, texts())])
def test_batch_size_and_workers_change_nothing_beyond_rounding(make, ds):
    processor = tokenizer() if make is bert else None
    one = hm.extract(ds, make(), processor, batch_size=1)
    many = hm.extract(ds, make(), processor, batch_size=16, num_workers=2)
    np.testing.assert_allclose(matrix(one, "logits"), matrix(many, "logits"), atol=1e-5)


def test_out_of_memory_halves_the_batch_and_keeps_every_row(monkeypatch):
    model, ds = timm_model(), images()
    expected = matrix(hm.extract(ds, model, batch_size=2), "logits")
    forward, sizes = model.forward, []

    def small_device(x):
        sizes.append(len(x))
        if len(x) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return forward(x)

    monkeypatch.setattr(model, "forward", small_device)
    result = hm.extract(ds, model, batch_size=16)
    np.testing.assert_allclose(matrix(result, "logits"), expected, atol=1e-5)
    assert sizes == [16, 8, 4, 4, 4, 4, 1, 4, 3]  # one row of the first batch runs alone, too


def test_records_of_shards_say_which_rows_they_hold(tmp_path):
    hm.extract(images(), timm_model(), shard_size=10, output_dir=tmp_path)
    records = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("shard-*.json"))]
    assert [(record["first"], record["rows"]) for record in records] == [(0, 10), (10, 10), (20, 3)]
    assert not list(tmp_path.glob("*.tmp"))


def lora(model):
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    settings = peft.LoraConfig(
        target_modules=["query", "value"], modules_to_save=["classifier"], init_lora_weights=False, task_type="SEQ_CLS"
    )
    return peft.get_peft_model(model, settings)


class Named(nn.Module):
    """A plain module that takes a mask and token types by name."""

    def __init__(self, model):
        super().__init__()
        self.num_classes, self.model = 3, model
        self.main_input_name = "input_ids"

    def forward(self, input_ids, attention_mask, token_type_ids):
        return self.model(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids).logits


class Placed(Named):
    """A plain module whose main input has a name of its own."""

    def forward(self, ids, attention_mask, token_type_ids=None):
        return self.model(ids, attention_mask=attention_mask, token_type_ids=token_type_ids).logits


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`")  # peft asks for what transformers renamed
@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel, lora, Named, Placed])
def test_all_inputs_reach_a_wrapped_model(wrap):
    ds, tok = texts(pair=True), tokenizer()
    tok.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    model = wrap(bert())
    arguments = {"truncation": True, "max_length": 12, "return_tensors": "pt"}
    held = {torch.compile: "_orig_mod", nn.DataParallel: "module", Placed: "model"}.get(wrap)
    held = getattr(model, held) if held else model
    expected = by_hand(held, lambda row: tok(row["text"], row["text_pair"], **arguments), ds)
    head = None if wrap in (torch.compile, nn.DataParallel, lora) else "model.classifier"
    result = hm.extract(ds, model, tok, batch_size=5, head=head)
    np.testing.assert_allclose(matrix(result, "logits"), expected, atol=1e-5)


def test_inputs_that_a_model_does_not_take_are_left_out():
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    torch.manual_seed(0)
    model = DistilBertForSequenceClassification(
        DistilBertConfig(dim=16, n_layers=1, n_heads=2, hidden_dim=16, vocab_size=20, num_labels=3)
    )
    tok = tokenizer()
    tok.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    assert len(hm.extract(texts(6), model, tok)) == 6


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_model_that_counts_positions_from_the_left_is_warned_of(side):
    model, tok = gpt2(), tokenizer()
    tok.model_input_names, tok.padding_side = ["input_ids", "attention_mask"], side
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        hm.extract(texts(), model, tok)
    said = [str(each.message) for each in caught if "other logits padded in a batch than alone" in str(each.message)]
    assert bool(said) == (side == "left")
    assert all("padding_side = 'right'" in each for each in said)


@pytest.mark.parametrize(("make", "side"), [(bert, "right"), (gpt2, "right"), (llama, "right"), (llama, "left")])
def test_one_row_alone_equals_the_padded_row(make, side):
    ds, tok, model = texts(12), tokenizer(), make()
    tok.model_input_names, tok.padding_side = ["input_ids", "attention_mask"], side
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        together = matrix(hm.extract(ds, model, tok, batch_size=12), "logits")
        alone = matrix(hm.extract(ds, model, tok, batch_size=1), "logits")
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_goes_the_whole_way(precision):
    from hf_midrange.head.proof import prove_repaired

    ds, processor, model = images(24), small_processor(), vit().to(getattr(torch, precision))
    result = hm.extract(ds, model, processor, batch_size=8)
    logits, full = matrix(result, "logits"), matrix(hm.extract(ds, vit(), processor), "logits")
    assert logits.dtype == np.float32
    assert facts(result.features, "logits")["dtype"] == precision
    np.testing.assert_allclose(logits, full, atol=0.02 * (1 + np.abs(full).max()))
    head = hm.retrain_head(result.add_column("weight", np.ones(24, np.float32)), model)
    merged = head.merge_into(model)
    assert merged.classifier.weight.dtype == getattr(torch, precision)
    prove_repaired(merged, ds, processor)
    found = matrix(hm.extract(ds, merged, processor), "logits")
    wanted = head(matrix(result, "embedding")).numpy()
    np.testing.assert_allclose(found, wanted, atol=0.01 * (1 + np.abs(wanted).max()))


def test_a_model_that_does_not_see_padding_is_warned_of():
    tok = tokenizer()
    tok.model_input_names = ["input_ids"]
    with pytest.warns(UserWarning, match="does not see which tokens are padding"):
        hm.extract(texts(), bert(), tok)


def test_a_model_that_mixes_the_rows_of_a_batch_is_warned_of():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x):
            x = x.mean((2, 3))
            return self.fc(x - x.mean(0))

    with pytest.warns(UserWarning, match="other logits in a batch than alone .*mix the rows"):
        hm.extract(images(4), Mixed(), lambda image: torch.full((3, 2, 2), float(image.height)))


def named(names) -> ViTForImageClassification:
    model = vit()
    model.config.id2label = dict(enumerate(names))
    return model


@pytest.mark.parametrize("on_disk", [False, True])
def test_logits_come_in_the_order_of_the_datasets_classes(on_disk, tmp_path):
    ds, processor = images(6), small_processor()  # cat, dog, bird
    expected = matrix(hm.extract(ds, vit(), processor), "logits")[:, [2, 0, 1]]
    model = named(["Dog", "bird", "cat"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = hm.extract(ds, model, processor, output_dir=tmp_path if on_disk else None)
    np.testing.assert_allclose(matrix(result, "logits"), expected, atol=1e-6)
    assert result["prediction"][:] == expected.argmax(1).tolist()
    assert result.features["prediction"].names == CLASSES


def test_other_class_names_are_warned_of_with_both_lists():
    with pytest.warns(UserWarning, match="the model's classes are sun, moon, star, the dataset's cat, dog, bird"):
        hm.extract(images(3), named(["sun", "moon", "star"]), small_processor())


def test_some_of_a_models_classes_are_matched_by_name():
    ds, processor = images(6), small_processor()
    torch.manual_seed(0)
    model = ViTForImageClassification(ViTConfig(**SMALL, image_size=16, patch_size=8, num_labels=5))
    model.config.id2label = dict(enumerate(["bird", "sun", "dog, hound", "moon", "cat"]))
    with pytest.raises(ValueError, match="model has 5 labels but column 'label' has 3 .*classes='match'"):
        hm.extract(ds, model, processor)
    whole = hm.extract(ds.remove_columns("label"), model, processor)
    result = hm.extract(ds, model, processor, classes="match")
    np.testing.assert_allclose(matrix(result, "logits"), matrix(whole, "logits")[:, [4, 2, 0]], atol=1e-6)
    assert result.features["prediction"].names == CLASSES
    with pytest.raises(ValueError, match="not all classes of column 'label' .* are among the model's labels"):
        hm.extract(ds, named(["a", "b", "c"]), processor, classes="match")


def test_what_another_model_derived_is_dropped():
    ds, model, other = images(30), timm_model(), timm_model("test_vit")
    weighted = ds.add_column("weight", [1.0] * 30)
    first = hm.extract(weighted, other)
    assert "weight" in first.column_names  # the user's own: nothing was extracted before
    banded = hm.LogitBands("quantile").fit(first).transform(first)
    kept = hm.extract(banded, other)
    assert "band" in kept.column_names
    with pytest.warns(UserWarning, match="dropped weight, quantile, .*band.*: they were derived from the outputs of"):
        again = hm.extract(banded, model)
    assert not {"quantile", "band", "position", "weight"} & set(again.column_names)
    assert again.features["logits"] == hm.extract(ds, model).features["logits"]


def test_bfloat16_weights_give_float32_logits():
    ds, processor, model = images(6), small_processor(), vit().bfloat16()
    result = hm.extract(ds, model, processor)
    logits = matrix(result, "logits")
    assert logits.dtype == np.float32
    weight, bias = model.classifier.weight.detach().float().numpy(), model.classifier.bias.detach().float().numpy()
    np.testing.assert_allclose(matrix(result, "embedding") @ weight.T + bias, logits, atol=1e-5)
    assert facts(result.features, "logits")["dtype"] == "bfloat16"


def test_a_head_that_is_pooled_afterwards_is_refused_however_small_its_logits():
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x):
            return 1e-3 * self.fc(x.flatten(2).transpose(1, 2)).mean(1)

    torch.manual_seed(0)
    with pytest.raises(ValueError, match="pooled afterwards has no single embedding"):
        hm.extract(images(3), Pooled(), lambda image: torch.rand(3, 2, 2))


def test_a_model_that_needs_the_padding_is_run():
    class Long(Named):
        def forward(self, input_ids, attention_mask):
            if input_ids.shape[1] < 6:
                raise RuntimeError("too short")
            return self.model(input_ids, attention_mask=attention_mask).logits

    assert len(hm.extract(texts(6), Long(bert()), tokenizer(), head="model.classifier")) == 6
