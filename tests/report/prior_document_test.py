"""The report of a prior, and its row in the table."""

import copy

import numpy as np
import pytest

from lasers_jax.evaluation import conditional
from lasers_jax.report import prior_document
from lasers_jax.report.document import Origin
from lasers_jax.report.generation_table import table
from tests.report.document_test import Page, sections

MANIFOLD = {'precision': 0.5, 'recall': 0.25, 'density': 0.75, 'coverage': 0.9}
NEAR = {'all_train_mean_ratio': 0.95, 'copying_z': -1.5}


def results(exact=True):
  """The results of a prior, of numbers that nobody has measured."""
  rng = np.random.default_rng(0)
  asked = np.arange(40) % 4

  def accuracy(wrong):
    found = np.where(rng.random(40) < wrong, (asked + 1) % 4, asked)
    return conditional.class_accuracy(found, asked, 4)

  bits = rng.uniform(0, 8, (40, 8, 8, 2))
  distances = {'frechet': 31.25, 'marginal': 0.1, 'sliced': 0.2, 'exact': 0.3}
  return {
    'model': 'vq',
    'prior': 'ar',
    'distances': distances,
    'baselines': {**distances, 'frechet': 3.125},
    'frechet_to_train': 30.5,
    'manifold': MANIFOLD,
    'memorization': {'latents': NEAR, 'images': NEAR},
    'floors': {
      'train': {'frechet': 3.125, 'manifold': {**MANIFOLD, 'recall': 0.875}},
      'reconstructions': {
        'frechet': 12.5,
        'frechet_to_train': 13.5,
        'manifold': {**MANIFOLD, 'recall': 0.625},
        'memorization': {**NEAR, 'all_train_mean_ratio': 0.99},
      },
    },
    'class_accuracy': {
      kind: accuracy(wrong)
      for kind, wrong in (('draws', 0.5), ('reconstructions', 0.3), ('real', 0))
    },
    'class_names': ['cat', 'dog', 'ship', 'lorry'],
    'bits_per_pixel': {
      'fixed_length': 0.5625,
      'prior': conditional.bits_per_pixel(bits, 1024, 4, exact),
    },
    'seconds': {'draw': 12.5, 'image': 0.3125},
    'protocol': {
      'drawn': 40,
      'step': 4000,
      'drawing': {'guidance': 1.5, 'temperature': 0.9, 'top_k': 100},
    },
  }


def vector_row():
  """A row of a prior of one vector an image."""
  row = results()
  kept = 'distances', 'baselines', 'frechet_to_train', 'manifold'
  kept += ('memorization',)
  return {
    **{name: row[name] for name in kept},
    'model': 'vae',
    'prior': 'gmm',
    'seconds': {'fit': 1.5, 'draw': 0.5},
  }


def cells(text):
  head, _, *lines = text.splitlines()
  head, *lines = (
    [x.strip() for x in line.split('|')[1:-1]] for line in (head, *lines)
  )
  return [dict(zip(head, line, strict=True)) for line in lines]


def test_a_table_has_draws_below_their_floors():
  row = results()
  real, reconstructions, drawn = cells(table([row]))
  names = [x['prior'] for x in (real, reconstructions, drawn)]
  assert names == ['real', 'reconstructions', '`ar`']
  for column, expected in {
    'FD to held-out': ['3.125', '12.5', '31.25'],
    'FD to train': ['', '13.5', '30.5'],
    'W1 marginal': ['0.1000', '', '0.1000'],
    'recall': ['0.875', '0.625', '0.250'],
    'the same, images': ['1', '0.990', '0.950'],
    'class accuracy': [
      f'{row["class_accuracy"][x]["accuracy"]:.3f}'
      for x in ('real', 'reconstructions', 'draws')
    ],
    'guidance': ['', '', '1.5'],
    'drawing': ['', '', 'temperature=0.9, top_k=100'],
    'an image in s': ['', '', '0.31'],
    'fit in s': ['', '', ''],
  }.items():
    found = [x[column] for x in (real, reconstructions, drawn)]
    assert found == expected, column
  bits = row['bits_per_pixel']['prior']
  assert drawn['bits per pixel'] == f'{bits["given_class"]["mean"]:.4g}'
  assert drawn['with the class'] == f'{bits["with_class"]:.4g}'


def test_a_bound_is_called_so():
  *_, drawn = cells(table([results(exact=False)]))
  assert drawn['bits per pixel'].startswith('≤ 0.')
  assert drawn['with the class'].startswith('≤ 0.')


def test_rows_without_these_scores_show_nothing():
  assert 'class accuracy' not in table([vector_row()])
  *_, real, drawn = cells(table([results(), vector_row()]))
  assert (real['prior'], drawn['prior']) == ('real', '`gmm`')
  assert real['recall'] == drawn['class accuracy'] == drawn['guidance'] == ''
  assert drawn['fit in s'] == '1.5'


def origin():
  history = [{'step': i, 'loss': 9 / i, 'bits': 7 / i} for i in range(1, 50)]
  config = {'steps': 50, 'prior': {'name': 'ar', 'width': 128}}
  return Origin(config, history, {'jax': '0.10'}, 'python sample.py --prior=p')


def pictures():
  return {
    name: np.full((4, 6, 3), i, np.uint8)
    for i, name in enumerate(reversed(prior_document.FIGURES))
  }


def test_a_report_says_the_scores_and_shows_the_pictures():
  row = results()
  text = prior_document.render(row, pictures(), origin())
  assert text == prior_document.render(row, pictures(), origin())
  assert list(sections(text)) == ['results', 'pictures', 'training', 'made']
  page = Page(text)
  for said in (
    'Prior ar over the latents of vq',
    '0.5625 bits per pixel of fixed length',
    '31.25',
    'reconstructions 12.5',
    f'{row["class_accuracy"]["draws"]["accuracy"]:.1%}',
    'lorry',
    'drawing.top_k',
    'python sample.py --prior=p',
    ' + '.join(f'{x:.2f}' for x in row['bits_per_pixel']['prior']['by_plane']),
  ):
    assert said in page.text, said
  assert [x[0, 0, 0] for x in page.pictures] == [5, 4, 3, 2, 1, 0]
  for name in 'results', 'pictures':
    assert 'bits per pixel' in sections(text)[name]
  assert 'script' not in page.tags


def test_what_was_not_measured_is_left_out():
  row = copy.deepcopy(results())
  for name in 'floors', 'class_accuracy', 'class_names', 'bits_per_pixel':
    del row[name]
  text = prior_document.render(row, {}, origin()._replace(history=[]))
  assert list(sections(text)) == ['results', 'made']
  assert 'a continuous latent' in text
  assert 'Class accuracy' not in text


def test_a_bound_is_called_so_in_a_report():
  row = results(exact=False)
  bits = f'≤ {row["bits_per_pixel"]["prior"]["given_class"]["mean"]:.4g}'
  text = prior_document.render(row, {}, origin())
  assert text.count(bits) == 2


def test_a_picture_that_nobody_knows_is_refused():
  with pytest.raises(ValueError, match='no such picture of a prior: klasses'):
    prior_document.render(results(), {'klasses': np.zeros((1, 1, 3))}, origin())
