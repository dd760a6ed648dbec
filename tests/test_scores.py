"""Who is scored."""

import numpy as np
import pandas as pd
import pytest

from modaltune_jax.scores import judged_cases

TABLE = pd.DataFrame(
    {
        "num_tiles": [5, 0, 4, 0],
        "has_expression": [True, True, False, False],
        "subtype": [0, 1, 1, 0],
        "event": [1, 0, 1, 0],
        "time": [3.0, 4.0, 5.0, 6.0],
    },
    index=[3, 2, 1, 0],
)


@pytest.mark.parametrize(
    ("shown", "judged"),
    [
        pytest.param(("slides",), [True, False, True, False], id="slides"),
        pytest.param(("expression",), [True, True, False, False], id="expression"),
        pytest.param(("slides", "expression"), [True, True, True, False], id="either is enough"),
        pytest.param(("slides", "clinical"), [True] * 4, id="clinical is known of all"),
    ],
)
def test_a_case_is_judged_if_the_model_is_shown_anything_of_it(shown, judged):
    table = judged_cases(TABLE, shown)
    np.testing.assert_array_equal(table["subtype"] >= 0, judged)
    np.testing.assert_array_equal(table["event"] >= 0, judged)
    np.testing.assert_array_equal(np.isfinite(table["time"]), judged)
    pd.testing.assert_frame_equal(table[judged], TABLE[judged])
