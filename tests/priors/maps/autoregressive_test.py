import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lasers_jax.errors import InputError
from lasers_jax.priors.maps import tokens
from lasers_jax.priors.maps.autoregressive import Autoregressive
from lasers_jax.priors.maps.base import Known
from lasers_jax.priors.maps.choose import TokenDrawing
from lasers_jax.priors.maps.layout import Layout
from tests.priors.maps import small

PLAIN = Layout((2, 3), (3, 4, 2))
SITES, PLANES = 6, 3


@pytest.fixture(scope='module')
def plain():
  """A prior of a code whose events are free, and bits as a function."""
  model, variables = small.prior(Autoregressive, PLAIN)
  bits = jax.jit(functools.partial(model.apply, variables, method='bits'))
  return model, variables, bits


@pytest.fixture(scope='module')
def sets():
  """A prior of a code of sets, with all its codes and their p, given 1."""
  return enumerated(small.pairs(), small.all_codes(small.pairs()))


@pytest.fixture(scope='module')
def keeping():
  """A prior of a code that keeps 2 sites of 4, as above."""
  layout = Layout((2, 2), (2, 3), kept=2)
  codes = []
  for sites in itertools.combinations(range(4), 2):
    for values in itertools.product(range(3), repeat=2):
      code = np.zeros((4, 2), np.int32)
      code[list(sites), 0], code[list(sites), 1] = 1, values
      codes.append(code.reshape(2, 2, 2))
  return enumerated(layout, np.array(codes))


def enumerated(layout, codes):
  model, variables = small.prior(Autoregressive, layout)
  bits = jax.jit(functools.partial(model.apply, variables, method='bits'))
  each = np.asarray(bits(codes, jnp.ones(len(codes), jnp.int32)))
  return model, variables, codes, 2.0 ** -np.sum(each, (1, 2, 3), np.float64)


def drawn(model, variables, drawing=None, known=None):
  """A compiled function of keys and labels."""
  drawing = drawing or TokenDrawing()
  return jax.jit(
    lambda keys, labels: model.apply(
      variables, keys, labels, drawing, known, method='_drawn'
    )
  )


def keys_of(n, seed=0):
  return jax.random.split(jax.random.key(seed), n)


def test_nothing_of_later_events_is_seen(plain):
  _, _, bits = plain
  base = np.repeat(small.random_events(PLAIN, 1), SITES * PLANES, axis=0)
  labels = jnp.zeros(len(base), jnp.int32)
  changed = base.reshape(len(base), -1).copy()
  for i in range(len(base)):
    changed[i, i] = (changed[i, i] + 1) % PLAIN.sizes[i % PLANES]
  before = np.asarray(bits(base, labels)).reshape(len(base), -1)
  after = np.asarray(bits(changed.reshape(base.shape), labels))
  after = after.reshape(len(base), -1)
  for i in range(len(base)):
    np.testing.assert_array_equal(before[i, :i], after[i, :i])
    moved = np.abs(before[i, i + 1 :] - after[i, i + 1 :]) > 1e-4
    # All that follows sees the change, and not only the next site.
    assert np.all(moved)


def test_the_values_of_each_event_have_a_distribution(plain):
  _, _, bits = plain
  base = small.random_events(PLAIN, 1)
  rows = []
  for site, plane in np.ndindex(SITES, PLANES):
    for value in range(PLAIN.sizes[plane]):
      row = base[0].copy().reshape(SITES, PLANES)
      row[site, plane] = value
      rows.append((site, plane, row.reshape(base.shape[1:])))
  events = np.stack([row for *_, row in rows])
  found = np.asarray(bits(events, jnp.zeros(len(events), jnp.int32)))
  found = found.reshape(len(events), SITES, PLANES)
  sums = np.zeros((SITES, PLANES))
  for i, (site, plane, _) in enumerate(rows):
    sums[site, plane] += 2.0 ** -found[i, site, plane]
  np.testing.assert_allclose(sums, 1, atol=1e-5)


def test_mass_is_one_and_draws_follow_it(sets):
  model, variables, codes, p = sets
  assert len(codes) == 24**2
  assert p.sum() == pytest.approx(1, abs=1e-5)
  n = 40_000
  draws, _ = drawn(model, variables)(keys_of(n), jnp.ones(n, jnp.int32))
  assert small.chi_square(small.counts(draws, codes), p) > 1e-3


def test_mass_is_one_where_a_number_of_sites_is_kept(keeping):
  model, variables, codes, p = keeping
  assert p.sum() == pytest.approx(1, abs=1e-5)
  n = 10_000
  draws, _ = drawn(model, variables)(keys_of(n), jnp.ones(n, jnp.int32))
  assert small.chi_square(small.counts(draws, codes), p) > 1e-3


def test_an_image_that_is_completed_keeps_its_number_of_sites(keeping):
  model, variables, codes, _ = keeping
  view = jnp.asarray(codes)
  known = Known(view, jnp.asarray([[False, True], [False, True]])[None])
  known = known._replace(sites=jnp.repeat(known.sites, len(codes), 0))
  draws, _ = drawn(model, variables, known=known)(
    keys_of(len(codes)), jnp.zeros(len(codes), jnp.int32)
  )
  assert small.counts(draws, codes).sum() == len(codes)
  np.testing.assert_array_equal(draws[:, :, 1], view[:, :, 1])


def teacher(model, variables, events, labels):
  """Logits of all events from one pass over whole maps, a list by plane."""

  each = events.reshape(-1, SITES, PLANES)

  def logits(model):
    total, outputs = model._outputs(each, labels, False), []
    for p in range(PLANES):
      outputs.append(model.head.logits(total, p))
      if p + 1 < PLANES:
        total = model.head.add(total, p, each[..., p])
    return outputs

  return model.apply(variables, method=logits)


@pytest.mark.parametrize('images, guidance', [(7, 1.0), (1, 2.5), (7, 2.5)])
def test_cached_drawing_equals_teacher_forcing(plain, images, guidance):
  model, variables, bits = plain
  drawing = TokenDrawing(guidance=guidance, ramp='linear')
  labels = jnp.arange(images, dtype=jnp.int32) % 3
  events, nats = drawn(model, variables, drawing)(keys_of(images), labels)
  score = jax.jit(functools.partial(teacher, model, variables))
  c = score(events, labels)
  u = score(events, jnp.full_like(labels, 3))
  g = 1 + (guidance - 1) * np.arange(SITES)[None, :, None] / SITES
  expected = 0
  for p in range(PLANES):
    logits = jax.nn.log_softmax(u[p] + g * (c[p] - u[p]))
    event = events.reshape(images, SITES, PLANES)[..., p]
    expected -= jnp.take_along_axis(logits, event[..., None], -1)[..., 0]
  np.testing.assert_allclose(nats, expected, atol=1e-4)
  if guidance == 1:
    total = bits(events, labels).reshape(images, SITES, PLANES).sum(-1)
    np.testing.assert_allclose(nats, total * np.log(2), atol=1e-4)
    assert np.abs(c[0] - u[0]).max() > 0.1  # the class matters


def test_an_image_depends_on_its_own_key(plain):
  model, variables, _ = plain
  labels = jnp.arange(7, dtype=jnp.int32) % 4
  drawing = TokenDrawing(guidance=1.5)
  keys = keys_of(7)
  draw = drawn(model, variables, drawing)
  together, _ = draw(keys, labels)
  assert len(np.unique(together.reshape(7, -1), axis=0)) == 7
  alone, _ = draw(keys[4:5], labels[4:5])
  np.testing.assert_array_equal(alone[0], together[4])
  order = np.array([3, 0, 6, 1, 5, 2, 4])
  again, _ = draw(keys[order], labels[order])
  np.testing.assert_array_equal(again, together[order])


def test_known_sites_are_given_to_those_after_them(plain):
  model, variables, _ = plain
  n, labels = 50, jnp.zeros(50, jnp.int32)
  free, _ = drawn(model, variables)(keys_of(n), labels)
  view = small.random_events(PLAIN, n, seed=5)
  sites = np.zeros((n, 2, 3), bool)
  sites[:, 0, 1] = sites[:, 1, 0] = True
  known = Known(jnp.asarray(view), jnp.asarray(sites))
  found, _ = drawn(model, variables, known=known)(keys_of(n), labels)
  np.testing.assert_array_equal(found[sites], view[sites])
  np.testing.assert_array_equal(found[:, 0, 0], free[:, 0, 0])
  assert np.any(found[:, 0, 2] != free[:, 0, 2])
  assert np.all(np.asarray(found) < PLAIN.sizes)


def test_the_loss_is_the_bits_of_a_site(plain):
  model, variables, bits = plain
  events = small.random_events(PLAIN, 5)
  labels = jnp.arange(5, dtype=jnp.int32) % 4
  each = bits(events, labels)
  loss, stats = jax.jit(lambda: model.apply(variables, events, labels, False))()
  np.testing.assert_allclose(loss, each.sum((1, 2, 3)) / SITES, rtol=1e-5)
  assert float(stats['bits']) == pytest.approx(float(loss.mean()), rel=1e-5)


def test_smoothing_is_of_the_loss_alone(sets):
  model, variables, codes, p = sets
  labels = jnp.ones(40, jnp.int32)
  smooth = model.clone(smoothing=0.25)

  def mean(variables):
    each, stats = smooth.apply(variables, codes[:40], labels, False)
    return each.mean(), stats['bits']

  (loss, bits), gradients = jax.jit(jax.value_and_grad(mean, has_aux=True))(
    variables
  )
  exact = -np.log2(p[:40]).mean() / 2
  assert float(bits) == pytest.approx(exact, rel=1e-5)
  assert float(loss) != pytest.approx(exact, rel=1e-3)
  assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(gradients))
  # Against the definition, for the first event of a site alone.
  logits = np.array([[0.0, 1.0, -np.inf, 3.0]], np.float32)
  nats, found = tokens._cross_entropy(logits, np.array([1]), 0.25)
  log_p = np.array([0.0, 1.0, 3.0]) - np.log(1 + np.e + np.e**3)
  assert float(nats[0]) == pytest.approx(-log_p[1], rel=1e-6)
  expected = -0.75 * log_p[1] - 0.25 * log_p.mean()
  assert float(found[0]) == pytest.approx(expected, rel=1e-6)


def test_labels_are_dropped_in_training_alone(plain):
  model, variables, _ = plain
  labels = jnp.asarray(np.arange(20_000) % 3, jnp.int32)

  def dropped(model, train):
    return model.apply(
      variables,
      labels,
      train,
      method='drop_labels',
      rngs={'prior': jax.random.key(0)},
    )

  found = dropped(model, True)
  gone = found != labels
  assert np.mean(gone) == pytest.approx(model.label_dropout, abs=0.01)
  assert np.all(found[gone] == model.classes)  # of the data, not 1000
  np.testing.assert_array_equal(dropped(model, False), labels)
  assert variables['params']['labels']['embedding'].shape == (4, 16)


def test_logits_are_guided_on_every_plane_and_once_where_none_is(plain):
  model, _, _ = plain
  labels = jnp.arange(3, dtype=jnp.int32)
  assert model.doubled(labels, TokenDrawing()) is labels
  both = model.doubled(labels, TokenDrawing(guidance=2.0))
  np.testing.assert_array_equal(both, [0, 1, 2, 3, 3, 3])


def test_guidance_without_classes_is_refused():
  model = Autoregressive(sites=(2, 3), layout=PLAIN)
  with pytest.raises(InputError, match='guidance=2.0 needs a prior of label'):
    model.check_drawing(TokenDrawing(guidance=2.0))
  model.check_drawing(TokenDrawing())


def test_one_value_left_is_the_likeliest_at_each_step(plain):
  model, variables, _ = plain
  labels = jnp.zeros(2, jnp.int32)
  draw = drawn(model, variables, TokenDrawing(top_k=1))
  events, _ = draw(keys_of(2), labels)
  other, _ = draw(keys_of(2, seed=9), labels)
  np.testing.assert_array_equal(events, other)
  logits = jax.jit(functools.partial(teacher, model, variables))(events, labels)
  for p in range(PLANES):
    best = jnp.argmax(logits[p], -1)
    np.testing.assert_array_equal(
      events.reshape(2, SITES, PLANES)[..., p], best
    )
