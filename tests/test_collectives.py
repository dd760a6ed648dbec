"""Bytes of collectives from the text of a program, in every notation that XLA prints."""

import pytest

from benchmarks.collectives import Collective, collectives

SUM = "channel_id=1, use_global_device_ids=true, to_apply=%add"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param(
            f"%a = f32[8,4]{{1,0}} all-reduce(%x), replica_groups={{{{0,1}},{{2,3}}}}, {SUM}",
            [Collective("all-reduce", 1, 128)],
            id="listed groups: once there, once back, half of it",
        ),
        pytest.param(
            "%a = bf16[16]{0} all-gather(%x), replica_groups=[2,4]<=[8], dimensions={0}",
            [Collective("all-gather", 1, 24)],
            id="counted groups",
        ),
        pytest.param(
            "%a = f32[16]{0} all-gather(%x), replica_groups=mesh['i'=2,'j'=4] {'j'}, dimensions={0}",
            [Collective("all-gather", 1, 48)],
            id="an axis of a mesh",
        ),
        pytest.param(
            "%a = f32[16]{0} all-gather(%x), replica_groups=mesh['i'=2,'j'=4] {'i','j':(1)2}, dimensions={0}",
            [Collective("all-gather", 1, 48)],
            id="an axis of a mesh and half of another",
        ),
        pytest.param(
            f"%a = (f32[4]{{0}}, /*index=1*/s32[2]{{0}}) all-reduce(%x), replica_groups={{{{0,1}}}}, {SUM}",
            [Collective("all-reduce", 1, 24)],
            id="several arrays at once",
        ),
        pytest.param(
            "%a = f32[4]{0} collective-permute(%x), source_target_pairs={{0,1}}",
            [Collective("collective-permute", 1, 16)],
            id="a neighbour",
        ),
        pytest.param(
            f"%a = f32[8]{{0}} all-reduce(%x), replica_groups={{{{0}},{{1}}}}, {SUM}", [], id="groups of one"
        ),
    ],
)
def test_bytes_that_a_device_sends(line, expected):
    assert collectives(f"ENTRY %main {{\n  {line}\n}}") == expected
