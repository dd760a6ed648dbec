"""Config files as users write them, and values from the command line."""

import pytest

from modaltune_jax import config_file
from modaltune_jax.config import unpack
from modaltune_jax.types import InputError

COMMON = "from configs import common\n"


@pytest.mark.parametrize(
    ("override", "value"),
    [
        pytest.param("optim.epochs=20", 20, id="number"),
        pytest.param("optim.learning_rate=1", 1.0, id="whole number for a number"),
        pytest.param("optim.learning_rate=3e-4", 3e-4, id="exponent"),
        pytest.param("model.encoder.remat=true", True, id="truth value"),
        pytest.param("name=3", "3", id="text that reads as a number"),
        pytest.param("data.path=a=b (c)/d", "a=b (c)/d", id="path with signs and spaces"),
        pytest.param("data.path=", "", id="empty text"),
        pytest.param("seeds=3", (3,), id="one seed"),
        pytest.param("seeds=0,1,2", (0, 1, 2), id="seeds"),
        pytest.param("seeds=(0,1)", (0, 1), id="seeds as a tuple"),
        pytest.param("seeds=[0,1]", (0, 1), id="seeds as a list"),
        pytest.param("data.cohorts=brca,rcc", ("brca", "rcc"), id="words"),
        pytest.param("checkpoint.best=last", ("last",), id="one word"),
        pytest.param("compare=(('a',('slides',)),)", (("a", ("slides",)),), id="nested"),
    ],
)
def test_a_value_of_the_command_line_arrives(override, value):
    config = unpack(config_file.load("common.py", [override]))
    for key in override.partition("=")[0].split("."):
        config = getattr(config, key)
    assert config == value
    assert type(config) is type(value)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        pytest.param("def get_config(:", "line 1: SyntaxError", id="syntax"),
        pytest.param("def get_config():\n    return nothing", "line 2: NameError", id="name"),
        pytest.param("import no_such_module", "line 1: ModuleNotFoundError", id="import"),
        pytest.param("x = 1", "AttributeError", id="no get_config"),
        pytest.param("def get_config():\n    return {}", "must be a ConfigDict", id="a dict"),
        pytest.param(
            "def get_config():\n    raise ValueError('no such\\nvariant')", "no such variant", id="own"
        ),
        pytest.param(
            COMMON + "def get_config():\n    c = common.get_config()\n    c.optimm.epochs = 3",
            "line 4",
            id="key",
        ),
    ],
)
def test_a_broken_config_file_is_one_sentence(tmp_path, text, part):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(InputError) as info:
        config_file.load(str(path))
    assert str(path) in str(info.value)
    assert part in str(info.value)
    assert "\n" not in str(info.value)


def test_only_the_shipped_folder_is_searched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config_file.load("configs/brca.py").name == "brca"
    assert config_file.load("brca.py").name == "brca"
    with pytest.raises(InputError, match=r"'mine/brca\.py' does not exist"):
        config_file.load("mine/brca.py")
    (tmp_path / "configs").mkdir()
    own = COMMON + "def get_config(name):\n    c = common.get_config()\n    c.name = name\n    return c"
    (tmp_path / "configs/brca.py").write_text(own)
    assert config_file.load("configs/brca.py:own").name == "own"
