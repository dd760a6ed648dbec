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
            "%a = (f32[2]{0:T(256)}, f32[4]{0:T(256)S(1)}) all-gather-start(%x), replica_groups=[4,2]<=[8]",
            [Collective("all-gather", 1, 8)],
            id="a start, which gives its operand back, with tiles of a TPU",
        ),
        pytest.param(
            f"%a = f32[8]{{0}} all-reduce(%x), replica_groups={{{{0}},{{1}}}}, {SUM}", [], id="groups of one"
        ),
    ],
)
def test_bytes_that_a_device_sends(line, expected):
    assert collectives(f"ENTRY %main {{\n  {line}\n}}") == expected


LOOPS = """HloModule jit_f

%add (x: f32[], y: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%x, %y)
}

%inner (p: f32[4]) -> f32[4] {
  %a = f32[4]{0} collective-permute(%p), source_target_pairs={{0,1}}
}

%condition (p: f32[4]) -> pred[] {
  ROOT %b = pred[] compare(%p, %p), direction=LT
}

%outer (p: f32[4]) -> f32[4] {
  %c = f32[4]{0} while(%p), condition=%condition, body=%inner, backend_config={"known_trip_count":{"n":"5"}}
  %d = f32[4]{0} all-reduce(%c), replica_groups={{0,1}}, to_apply=%add
}

ENTRY %main (p: f32[4]) -> f32[4] {
  %e = f32[4]{0} while(%p), condition=%condition, body=%outer, backend_config={"known_trip_count":{"n":"3"}}
  ROOT %f = f32[4]{0} collective-permute(%e), source_target_pairs={{0,1}}
}
"""


def test_loops_count_their_rounds():
    assert collectives(LOOPS) == [Collective("all-reduce", 3, 48), Collective("collective-permute", 16, 256)]


def test_a_loop_of_unknown_length_is_refused_where_devices_talk_in_it():
    with pytest.raises(ValueError, match="collective-permute in a loop of unknown length"):
        collectives(LOOPS.replace('{"n":"5"}', "{}"))
    silent = LOOPS.replace("collective-permute(%p)", "negate(%p)").replace('{"n":"5"}', "{}")
    assert collectives(silent) == [Collective("all-reduce", 3, 48), Collective("collective-permute", 1, 16)]
