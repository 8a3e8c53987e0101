"""int8: each text by itself, close to fp32, small, and refused where it decides too differently."""

from __future__ import annotations

import functools
import json
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import staged_models
import tiny_models

from edgewren import Classifier
from edgewren.bundle import Bundle
from edgewren.errors import BundleError, InputError, ParityError
from edgewren.verification import verify
from edgewren_export import encoder_export, graph, grids, parity, stages
from edgewren_export.optimise import operators
from edgewren_export.pipeline import export
from edgewren_export.quantise import calibrate, quantise

ARCHITECTURES = [
    ("ridge", "bert"),
    ("lora", "bert"),
    pytest.param("ridge", "mpnet", marks=pytest.mark.slow),
    pytest.param("ridge", "roberta", marks=pytest.mark.slow),
    pytest.param("ridge", "distilbert", marks=pytest.mark.slow),
    pytest.param("lora", "roberta", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module")
def int8_bundle(open_gate_bundle):
    """Return a function: recipe and architecture to a bundle with int8. The gate has tests of its own."""
    return functools.partial(open_gate_bundle, "int8")


@pytest.mark.parametrize(("recipe", "architecture"), ARCHITECTURES)
def test_logits_are_bit_identical_alone_in_any_batch_order_and_thread_count(
    int8_bundle, many_texts, recipe, architecture
):
    bundle = int8_bundle(recipe, architecture)
    texts = [*many_texts[:60], *tiny_models.MIXED_TEXTS]
    one, two = (Classifier.load(bundle, device="cpu", threads=count, variant="int8") for count in (1, 2))
    expected = one.score(texts).logits
    assert (two.score(texts).logits == expected).all()
    shuffled = np.random.default_rng(2).permutation(len(texts))
    assert (two.score([texts[index] for index in shuffled]).logits == expected[shuffled]).all()
    assert (np.concatenate([one.score([text]).logits for text in texts]) == expected).all()


@pytest.mark.parametrize(("recipe", "architecture"), ARCHITECTURES)
def test_every_layer_is_quantised_and_the_logits_stay_close(int8_bundle, many_texts, recipe, architecture):
    bundle = int8_bundle(recipe, architecture)
    counted = operators(onnx.load(bundle / "onnx" / "model_int8.onnx"))
    assert counted["MatMulIntegerToFloat"] >= 6
    fp32 = Classifier.load(bundle, device="cpu", variant="fp32").score(many_texts).logits
    int8 = Classifier.load(bundle, device="cpu", variant="int8").score(many_texts).logits
    assert np.abs(int8 - fp32).max() > 0
    assert np.corrcoef(int8.ravel(), fp32.ravel())[0, 1] > 0.99


def test_int8_is_the_default_on_a_cpu_and_the_bundle_verifies(int8_bundle):
    bundle = int8_bundle("ridge", "bert")
    assert Classifier.load(bundle, device="cpu").variant == "int8"
    verified = verify(bundle)
    assert verified.ok, verified.failures
    assert {replay.variant for replay in verified.replays} == {"fp32", "int8"}
    card = (bundle / "README.md").read_text(encoding="utf-8")
    assert "| fp32 -> int8 | 1,100 |" in card


def test_verify_catches_an_int8_variant_that_computes_something_else(int8_bundle, tmp_path):
    import hashlib
    import shutil

    bundle = tmp_path / "bundle"
    shutil.copytree(int8_bundle("ridge", "bert"), bundle)
    model = onnx.load(bundle / "onnx" / "model_int8.onnx")
    for tensor in model.graph.initializer:
        if tensor.name.startswith("int8_weight_scales"):
            values = onnx.numpy_helper.to_array(tensor) * np.float32(1.5)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    data = model.SerializeToString()
    (bundle / "onnx" / "model_int8.onnx").write_bytes(data)
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    manifest["variants"]["int8"].update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert [failure[:12] for failure in verify(bundle).failures] == ["variant int8"]


def test_too_few_texts_are_refused_before_anything_is_computed(train_model, tmp_path, monkeypatch):
    monkeypatch.setattr(graph, "to_onnx", None)  # would fail
    with pytest.raises(ParityError, match="only proved on 1,000 texts or more, and there are 60"):
        export(train_model("ridge"), tmp_path / "b", precisions=["int8"])
    assert not (tmp_path / "b").exists()


@pytest.mark.slow
def test_gate_refuses_too_many_flips_and_writes_nothing(train_model, many_texts, tmp_path, monkeypatch):
    monkeypatch.setattr(parity, "MOST_FLIPS", -1.0)
    with pytest.raises(ParityError, match="fp32 -> int8 changes 0?[0-9]* of 1,100 labels and macro-F1 from"):
        export(train_model("ridge"), tmp_path / "b", precisions=["fp32", "int8"], texts=many_texts)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("flips", "passes"), [(0, True), (4, True), (6, False)])
def test_gate_allows_half_a_percent_of_flips(flips, passes):
    reference = np.tile(np.array([[1.0, -1.0], [-1.0, 1.0]], np.float32), (500, 1))
    candidate = reference.copy()
    candidate[:flips] = candidate[:flips, ::-1]  # equally often both ways, else macro-F1 falls by more
    truth = ["a", "b"] * 500
    if passes:
        stage = parity.compare_quantised("fp32 -> int8", reference, candidate, ("a", "b"), truth)
        assert stage.label_flips == flips
        assert stage.macro_f1_fp32 == 1.0
    else:
        with pytest.raises(ParityError, match="changes 6 of 1,000 labels"):
            parity.compare_quantised("fp32 -> int8", reference, candidate, ("a", "b"), truth)


def test_gate_refuses_loss_of_macro_f1_in_a_rare_class():
    truth = ["a"] * 990 + ["b"] * 10
    reference = np.array([[1.0, -1.0]] * 990 + [[-1.0, 1.0]] * 10, np.float32)
    candidate = reference.copy()
    candidate[-4:] = candidate[-4:, ::-1]
    with pytest.raises(ParityError, match="macro-F1 from 1.0000 to 0.87"):
        parity.compare_quantised("fp32 -> int8", reference, candidate, ("a", "b"), truth)
    with pytest.raises(ParityError, match="not finite"):
        parity.compare_quantised("fp32 -> int8", reference, candidate * np.nan, ("a", "b"), None)


def test_graph_without_products_is_refused():
    node = onnx.helper.make_node("Identity", ["input_ids"], ["logits"])
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node], "none", [value("input_ids", onnx.TensorProto.INT64, [1, 2])], [value("logits", 7, [1, 2])]
    )
    with pytest.raises(BundleError, match="no matrix products with constant weights"):
        calibrate(onnx.helper.make_model(graph), [[1, 2]])


@pytest.mark.parametrize(("recipe", "architecture"), ARCHITECTURES)
def test_session_of_the_runtime_fuses_no_scalar_kernel_back_in(int8_bundle, as_run, recipe, architecture):
    counted = operators(as_run(int8_bundle(recipe, architecture) / "onnx" / "model_int8.onnx"))
    assert "SkipLayerNormalization" not in counted
    assert "Softmax" not in counted
    assert counted["Attention"] >= 1
    assert counted["MatMulIntegerToFloat"] >= 6


@pytest.mark.slow
def test_unknown_attention_is_exported_unfused_and_said(train_model, many_texts, tmp_path, monkeypatch):
    from edgewren_export.editing import EditableGraph

    optimise = encoder_export.optimise

    def with_spelled_out_softmax(model):
        graph = EditableGraph(optimise(model))
        for node in graph.nodes():
            if node.op_type == "Softmax":
                axis = graph.constant("axis", np.array([-1]))
                power = graph.define("Exp", [node.input[0]], f"{node.output[0]}_power")
                total = graph.define("ReduceSum", [power, axis], f"{node.output[0]}_total")
                graph.define("Div", [power, total], node.output[0])
        return graph.finish()

    monkeypatch.setattr(encoder_export, "optimise", with_spelled_out_softmax)
    monkeypatch.setattr(parity, "MOST_FLIPS", 0.2)
    monkeypatch.setattr(parity, "MOST_F1_LOSS", 0.2)
    said = []
    bundle = export(
        train_model("ridge"), tmp_path / "b", precisions=["fp32", "int8"], texts=many_texts, say=said.append
    )
    assert any("attention of this architecture is not understood" in line for line in said)
    assert bundle.manifest.parity["int8"]["fused_attention"] == 0
    assert verify(bundle.folder).ok


def test_manifest_says_how_far_int8_is_from_the_golden_logits(int8_bundle):
    manifest = Bundle.open(int8_bundle("lora", "bert")).manifest
    assert 0 < manifest.parity["golden_difference"]["int8"] < 10
    assert manifest.variants["int8"].device == "cpu"
    assert manifest.parity["int8"]["alone_or_in_batch"] == "bit-identical (200 texts)"


@pytest.mark.slow
def test_scales_that_cut_nearly_every_value_do_not_pass_the_gate(train_model, many_texts, tmp_path, monkeypatch):
    monkeypatch.setattr(grids, "HEADROOM", 0.01)
    with pytest.raises(ParityError, match="fp32 -> int8 changes"):
        export(train_model("ridge"), tmp_path / "b", precisions=["int8"], texts=many_texts)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flips", "apart", "notes"),
    [
        ([3, 0], False, []),
        ([4, 3], True, ["changes 4 labels; trying"]),
        ([4, 5], False, ["changes 4 labels; trying"]),
        ([None, 6], True, ["fp32 -> int8 changes 99 of 1,200 labels"]),
        ([6, None], False, ["changes 6 labels; trying", "fp32 -> int8 changes 99 of 1,200 labels"]),
    ],
)
def test_large_features_are_apart_where_the_plain_form_changes_over_half_of_what_is_allowed(
    train_model, many_texts, tmp_path, monkeypatch, flips, apart, notes
):
    compare, answers = parity.compare_quantised, iter(flips)

    def with_flips(*args):
        flipped = next(answers)
        if flipped is None:
            raise ParityError("fp32 -> int8 changes 99 of 1,200 labels; allowed are fewer")
        monkeypatch.setattr(parity, "MOST_FLIPS", 1.0)
        monkeypatch.setattr(parity, "MOST_F1_LOSS", 1.0)
        stage = replace(compare(*args), label_flips=flipped, texts=1200)
        monkeypatch.setattr(parity, "MOST_FLIPS", 0.005)
        return stage

    monkeypatch.setattr(parity, "compare_quantised", with_flips)
    said = []
    made = export(train_model("ridge"), tmp_path / "b", precisions=["int8"], texts=many_texts, say=said.append)
    assert made.manifest.parity["int8"]["large_features_apart"] is apart
    counted = operators(onnx.load(made.folder / "onnx" / "model_int8.onnx"))
    assert counted["ReduceMax"] == counted["Attention"] * (1 + apart)
    assert [line for line in said if line.startswith("note: ") and "int8" in line and "labels" in line] == [
        line for line in said for note in notes if note in line
    ]
    assert sum(note in line for line in said for note in notes) == len(notes)


@pytest.mark.parametrize(("recipe", "architecture"), ARCHITECTURES)
def test_what_quantising_needs_costs_few_passes_over_the_hidden_states(int8_bundle, recipe, architecture):
    """One scale but behind Gelu, smoothing of attention's context in the values' scales, other biases in the products."""
    bundle = int8_bundle(recipe, architecture)
    apart = Bundle.open(bundle).manifest.parity["int8"]["large_features_apart"]
    model = onnx.load(bundle / "onnx" / "model_int8.onnx")
    counted, layers = operators(model), operators(model)["Attention"]
    scales_per_token = layers * (1 + apart)
    assert counted["ReduceMax"] == counted["ConstantOfShape"] == scales_per_token
    smoothed = [node for node in model.graph.node if node.output[0].endswith("_smooth")]
    assert len(smoothed) == 2 * layers + (recipe == "lora")  # of its last layer's input, the kept tokens once more
    constants = {tensor.name for tensor in model.graph.initializer}
    products = {node.output[0]: node for node in model.graph.node if node.op_type == "MatMulIntegerToFloat"}
    biased = [node for node in model.graph.node if node.op_type == "Add" and set(node.input) & constants]
    assert len([node for node in biased if set(node.input) & set(products)]) == (0 if apart else layers)  # behind Gelu


@pytest.mark.parametrize("labels", [3, 20])
def test_head_stays_in_fp32_so_that_exits_find_it_however_many_labels_it_has(labels):
    whole = staged_models.whole(100, labels)
    rows = [list(np.random.default_rng(seed).integers(5, 90, 8)) for seed in range(40)]
    quantised = quantise(calibrate(whole, rows))
    assert operators(quantised)["MatMulIntegerToFloat"] == 2 * staged_models.LAYERS
    head, own = staged_models.head(labels, seed=5), staged_models.head(labels, seed=6)
    attached = stages.attach_exits(quantised, head, {0: own}, like=whole)
    session = onnxruntime.InferenceSession(attached.SerializeToString(), providers=["CPUExecutionProvider"])
    ids = np.array(rows[:1], dtype=np.int64)
    early, late = session.run(["exit_0", "logits"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})
    assert early.shape == late.shape == (1, labels)


@pytest.fixture(scope="module")
def int8_only(train_model, many_texts, tmp_path_factory):
    """A bundle of a model that has margin, exported with int8 alone and with its publisher's notes."""
    folder = tmp_path_factory.mktemp("int8-only") / "bundle"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity, "MOST_FLIPS", 0.2)
        patch.setattr(parity, "MOST_F1_LOSS", 0.2)
        export(
            train_model("ridge"), folder, precisions=["int8"], texts=many_texts, notes="Data: CC0, from *nowhere*.\n"
        )
    return folder


@pytest.mark.slow
def test_int8_alone_leaves_the_fp32_file_out_and_keeps_its_logits_as_reference(int8_only, int8_bundle):
    files = {path.name for path in (int8_only / "onnx").iterdir()}
    assert files == {"model_int8.onnx"}
    both = int8_bundle("ridge", "bert")
    assert (int8_only / "golden.jsonl").read_bytes() == (both / "golden.jsonl").read_bytes()
    assert set(Bundle.open(int8_only).manifest.variants) == {"int8"}
    assert Classifier.load(int8_only, device="cpu").variant == "int8"
    verified = verify(int8_only)
    assert verified.ok, verified.failures
    assert [(replay.variant, replay.ok) for replay in verified.replays] == [("int8", True)]


def test_the_publishers_notes_stand_in_the_card(int8_only, int8_bundle):
    card = (int8_only / "README.md").read_text(encoding="utf-8")
    assert "## From the publisher\n\nData: CC0, from *nowhere*.\n" in card
    assert "## From the publisher" not in (int8_bundle("ridge", "bert") / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("content", "message"), [(None, "cannot be read"), (b"\xff", "not UTF-8"), (b" \n", "takes")])
def test_notes_that_are_no_text_are_refused_before_anything_is_computed(tmp_path, content, message):
    from edgewren.cli.main import main
    from edgewren_export.commands import _notes

    path = tmp_path / "notes.md"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        _notes(str(path))
    assert main(["export", str(tmp_path / "nowhere"), "--notes", str(path)]) == 4


def test_processors_without_vnni_are_asked_for_exact_products_which_elsewhere_are_the_same_bits(
    int8_only, many_texts, monkeypatch
):
    here = Classifier.load(int8_only, device="cpu").score(many_texts[:20]).logits
    monkeypatch.setattr("edgewren.session.int8_may_saturate", lambda: True)
    exact = Classifier.load(int8_only, device="cpu")
    options = exact._session._session.get_session_options()
    assert options.get_session_config_entry("session.x64quantprecision") == "1"
    assert (exact.score(many_texts[:20]).logits == here).all()
