"""What is read of compiled programs, from lines as compilers write them."""

import types

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from lasers_jax.core import programs, sharding

# As libtpu and the CUDA plugin of jax 0.10.2 write them, shortened.
SYNCHRONOUS = """
ENTRY %main (p: f32[8,4]) -> f32[8,4] {
  %all-reduce.1 = (f32[8,4]{1,0:T(8,128)}, bf16[3]{0}) all-reduce(%a, %b), \
channel_id=1, metadata={op_name="jit(step)/sum"}
  %all-gather = bf16[16,4]{1,0} all-gather(%c), channel_id=2, dimensions={0}
}
"""
ASYNCHRONOUS = """
ENTRY %main (p: f32[8,4]) -> f32[8,4] {
  %s = (f32[2,4]{1,0}, f32[8,4]{1,0}) all-gather-start(%a), channel_id=1
  %d = f32[8,4]{1,0} all-gather-done(%s)
  %p = (s32[5]{0}, s32[5]{0}, u32[], u32[]) collective-permute-start(%b), \
channel_id=2
  %r = f32[8,4]{1,0} all-reduce-start(%d), channel_id=3
}
"""
# The same exchange stands in two computations, and again in the main one.
OVERLAPPED = """
%async (p: f32[4]) -> f32[4] {
  %all-reduce.1 = f32[4]{0} all-reduce(%p), channel_id=7
}

ENTRY %main (p: f32[4]) -> f32[4] {
  %all-reduce.2 = f32[4]{0} all-reduce(%p), channel_id=7
  %all-reduce.3 = f32[4]{0} all-reduce(%p), channel_id=8
}
"""
# TPUs write a reduce-scatter as a fusion of an all-reduce and its slice.
FUSED = """
%all-reduce-scatter.7 (input_0: f32[3,3,8,4], input_1: f32[8]) -> \
(f32[3,3,2,4], /*index=1*/f32[2]) {
  %all-reduce.85 = (f32[3,3,8,4]{3,2,1,0}, f32[8]{0}) all-reduce(%input_0, \
%input_1), channel_id=1
}

ENTRY %main (p: f32[4]) -> f32[4] {
  %all-reduce.2 = f32[] all-reduce(%p), channel_id=2
}
"""


@pytest.mark.parametrize(
  ('hlo', 'expected'),
  [
    (
      SYNCHRONOUS,
      [
        ('all-reduce', [('f32', (8, 4)), ('bf16', (3,))], 134),
        ('all-gather', [('bf16', (16, 4))], 128),
      ],
    ),
    (
      ASYNCHRONOUS,
      [
        ('all-gather', [('f32', (8, 4))], 128),
        ('collective-permute', [('s32', (5,))], 20),
        ('all-reduce', [('f32', (8, 4))], 128),
      ],
    ),
    (OVERLAPPED, [('all-reduce', [('f32', (4,))], 16)] * 2),
    (
      FUSED,
      [
        ('reduce-scatter', [('f32', (3, 3, 2, 4)), ('f32', (2,))], 296),
        ('all-reduce', [('f32', ())], 4),
      ],
    ),
  ],
)
def test_collectives_are_read(hlo, expected):
  found = programs.collectives(hlo)
  assert [(x.kind, x.arrays, x.bytes) for x in found] == expected


def test_collectives_say_where_they_come_from():
  origins = [x.origin for x in programs.collectives(SYNCHRONOUS)]
  assert origins == ['jit(step)/sum', '']


def test_bytes_of_any_type():
  array = [('pred', (3,)), ('s4', (3,)), ('f64', (2,)), ('f8e4m3fn', (5,))]
  sizes = [programs.Collective('all-gather', [x], '').bytes for x in array]
  assert sizes == [3, 2, 16, 5]


def test_collectives_of_a_real_program():
  mesh = sharding.make_mesh(data=4, fsdp=2)
  weight = jax.ShapeDtypeStruct(
    (64, 32), jnp.float32, sharding=NamedSharding(mesh, P('fsdp'))
  )
  x = jax.ShapeDtypeStruct(
    (16, 64), jnp.float32, sharding=sharding.batch_sharding(mesh)
  )
  step = jax.jit(
    lambda w, x: jnp.sum(x @ w), out_shardings=sharding.replicated(mesh)
  )
  text = step.lower(weight, x).compile().as_text()
  found = {x.kind: x.arrays for x in programs.collectives(text)}
  assert found == {
    'all-gather': [('f32', (64, 32))],
    'all-reduce': [('f32', ())],
  }


def test_cycles_of_the_main_program_and_of_the_rest():
  hlo = """
%branch (p: f32[4]) -> f32[4] {
  %a = f32[4] add(%p, %p), backend_config={"estimated_cycles":"7"}
}

ENTRY %main (p: f32[4]) -> f32[4] {
  %b = f32[4] add(%p, %p), backend_config={"estimated_cycles":"100"}
  %c = f32[4] add(%p, %p), backend_config={"x":[],"estimated_cycles":"20"}
}
"""
  assert programs.estimated_cycles(hlo) == (120, 7)
  assert programs.estimated_cycles(SYNCHRONOUS) is None


# A loop of 4 turns, as the compiler for GPUs says, with one of 3, as that for
# TPUs writes it, and a loop in a branch.
LOOPS = """
%inside (p: s32[]) -> pred[] {
  %n.1 = s32[]{:T(128)} constant(3)
  ROOT %lt.1 = pred[]{:T(512)} compare(%p, %n.1), direction=LT
}

%inner (p: f32[4]) -> f32[4] {
  %r.1 = f32[4]{0} all-reduce(%p), channel_id=1
  %a = f32[4] add(%p, %p), backend_config={"estimated_cycles":"10"}
}

%outside (p: s32[]) -> pred[] {
  ROOT %call = pred[] fusion(%p), kind=kLoop, calls=%compare
}

%outer (p: f32[4]) -> f32[4] {
  %w.1 = f32[4] while(%p), condition=%inside, body=%inner
  %r.2 = f32[4]{0} all-reduce(%p), channel_id=2
  %b = f32[4] add(%p, %p), backend_config={"estimated_cycles":"100"}
}

%seldom (p: f32[4]) -> f32[4] {
  %w.2 = f32[4] while(%p), condition=%far, body=%rare
  %c = f32[4] sort(%p), backend_config={"estimated_cycles":"\
9223372036854775807"}
}

%far (p: s32[]) -> pred[] {
  ROOT %ne = pred[] compare(%p, %n), direction=NE
}

%rare (p: f32[4]) -> f32[4] {
  %d = f32[4] add(%p, %p), backend_config={"estimated_cycles":"7"}
}

ENTRY %main (p: f32[4]) -> f32[4] {
  %w.3 = f32[4] while(%p), condition=%outside, body=%outer, \
backend_config={"known_trip_count":{"n":"4"},"x":[]}
  %if = f32[4] conditional(%p, %p), branch_computations={%seldom, %other}
  %r.3 = f32[4]{0} all-reduce(%p), channel_id=3
  %e = f32[4] add(%p, %p), backend_config={"estimated_cycles":"1000"}
}
"""


def test_each_turn_of_a_loop_counts():
  times = [x.times for x in programs.collectives(LOOPS)]
  assert times == [12, 4, 1]
  # Nobody knows when the loop of the branch ends, and what its sort takes.
  assert programs.estimated_cycles(LOOPS) == (1000 + 400 + 120, 7)


def test_turns_of_a_real_loop():
  mesh = sharding.make_mesh(data=8)
  x = jax.ShapeDtypeStruct(
    (16, 16), jnp.float32, sharding=sharding.batch_sharding(mesh)
  )

  def f(x):
    def turn(total, _):
      return total + jnp.sum(jnp.sin(total * x)), None

    return jax.lax.scan(turn, 0.0, length=5)[0]

  text = jax.jit(f).lower(x).compile().as_text()
  (found,) = programs.collectives(text)
  assert (found.kind, found.times, found.bytes) == ('all-reduce', 5, 4)


def test_what_is_changed_in_place_counts_once():
  sizes = types.SimpleNamespace(
    argument_size_in_bytes=100,
    output_size_in_bytes=90,
    alias_size_in_bytes=80,
    temp_size_in_bytes=1000,
    generated_code_size_in_bytes=1,
  )
  compiled = types.SimpleNamespace(memory_analysis=lambda: sizes)
  assert programs.memory(compiled) == programs.Memory(100, 1000, 1111)
