"""The report: what stands in it, what it needs, and how a browser shows it."""

import base64
import html.parser
import io
import re
import xml.etree.ElementTree

import numpy as np
import pytest
from PIL import Image

from lasers_jax.evaluation import examples, protocol
from lasers_jax.evaluation.examples import Findings, Samples, Sweep, rank
from lasers_jax.evaluation.protocol import Measured
from lasers_jax.metrics.registry import ALWAYS
from lasers_jax.report import charts, document, panels
from tests import browser

COUNT, SIDE, K, S = 200, 64, 512, 5
BITS = '1.25 bits per pixel'


def contents(sampled=True, bits=1.25, codes=K, broken=False):
  """All that a report shows, of 200 images that nobody has coded."""
  rng = np.random.default_rng(0)
  values = {
    'psnr': rng.normal(25, 3, COUNT),
    'ssim': rng.uniform(0.5, 1, COUNT),
    'lpips-vgg16': rng.uniform(0, 0.5, COUNT),
  }
  if sampled:
    values |= {f'initial/{name}': x + 0.1 for name, x in values.items()}
  if broken:
    values = {name: np.full(COUNT, np.nan) for name in values}
  counts = rng.geometric(0.01, codes)
  measured = Measured(values, {'fd-vgg16': 1.5}, counts, bits, 1)
  results = protocol.summarize(measured)
  results['protocol'] = {
    **protocol.PROTOCOL,
    **ALWAYS.protocol,
    'count': COUNT,
    'split': 'test',
    'step': 300,
    'weights': '0123456789abcdef',
    'bottleneck': {'name': 'lasers'},
    'parameters': {'encoder': 123, 'decoder': 456},
    'weights_of_metrics': {'fd-vgg16': 'fedcba9876543210'},
  }
  if sampled:
    sampling = {'solver': 'heun', 'steps': 10, 'guidance': 2}
    results['protocol']['sampling'] = sampling
  return results, measured, find(rng, measured, sampled), origin(sampled)


def find(rng, measured, sampled) -> Findings:
  def noise(*shape):
    return rng.integers(0, 256, (*shape, SIDE, SIDE, 3), np.uint8)

  ranked = {
    'psnr': rank(measured.values['psnr']),
    'lpips-vgg16': rank(measured.values['lpips-vgg16'], True),
  }
  groups = [x for by_group in ranked.values() for x in by_group.values()]
  shown = sorted({i for group in groups for i in group})
  samples = Samples([3, 5], noise(2), noise(2), noise(examples.DRAWS, 2))
  names = 'psnr', 'ssim', 'lpips-vgg16'
  values = {name: [0.1, 0.2, 0.3, 0.4] for name in names}
  first, times = dict.fromkeys(names, 0.25), [1.5, 3.0, 7.0, 14.0]
  sweep = Sweep([1, 2, 5, 10], values, first, times, 'TPU v4')
  return Findings(
    pairs={i: (noise(), noise()) for i in shown},
    ranked=ranked,
    atoms=rng.uniform(0, 1, (64, 20, 20, 3)),
    numbers=list(range(64)) if len(measured.counts) else None,
    coefficients=rng.normal(0, 1, (1000, S)),
    pursued=64,
    samples=samples if sampled else None,
    sweep=sweep if sampled else None,
  )


def origin(sampled=True) -> document.Origin:
  history = [
    {'step': i, 'loss': 10 / i, 'pixel': 1 / i, 'psnr': 20 + i, 'usage': 0.5}
    for i in range(1, 1001)
  ]
  for step in 500, 1000:
    history.append({'step': step, 'validation/psnr': 25.0, 'oddity': 1.0})
  history.append({'step': 1000, 'lonely': 1.0})
  config = {
    'steps': 1000,
    'data': {'name': 'cifar10', 'side': SIDE},
    'bottleneck': {'name': 'lasers', 'levels': (8, 8), 'inner': {'K': 7}},
    'loss': {'weights': {'pixel': 10.0}},
    **({'decoder': {'name': 'diffusion'}} if sampled else {}),
  }
  versions = {'python': '3.11', 'jax': '0.10'}
  return document.Origin(config, history, versions, 'python evaluate.py --S=3')


class Page(html.parser.HTMLParser):
  """What a page is made of."""

  def __init__(self, text):
    super().__init__()
    self.tags, self.links, self.text = [], [], ''
    self.feed(text)
    self.close()

  def handle_starttag(self, tag, attributes):
    self.tags.append(tag)
    self.links += [v for k, v in attributes if k in ('src', 'href', 'srcset')]

  def handle_data(self, data):
    self.text += data

  @property
  def pictures(self):
    """The PNG files in it, as arrays."""
    return [
      np.asarray(Image.open(io.BytesIO(base64.b64decode(x.partition(',')[2]))))
      for x in self.links
      if x.startswith('data:image/png')
    ]


@pytest.fixture(scope='module')
def full():
  return document.render(*contents())


@pytest.fixture(scope='module')
def page(full):
  return Page(full)


def sections(text):
  return dict(re.findall(r'<section id="(\w+)">(.*?)</section>', text, re.S))


def test_all_sections_are_there(full):
  assert list(sections(full)) == [
    'results', 'training', 'images', 'code', 'samples', 'steps', 'made'
  ]  # fmt: skip


def test_it_needs_no_network_and_no_script(full, page):
  assert 'script' not in page.tags
  assert all(re.match('data:|#', link) for link in page.links)
  assert not re.search(r'@import|url\(|\son\w+=', full)
  assert "default-src 'none'" in full


def test_quality_never_appears_without_bits(full):
  for name in 'results', 'images', 'samples', 'steps':
    assert BITS in sections(full)[name], name
  assert full.index('1.25') < full.index(' dB')


def test_it_says_the_results(full, page):
  results, *_ = contents()
  psnr = results['psnr']
  for said in (
    f'{psnr["mean"]:.2f}',
    f'{psnr["low"]:.2f} to {psnr["high"]:.2f}',
    f'{results["lpips-vgg16"]["mean"]:.4f}',
    f'{results["initial"]["ssim"]["mean"]:.4f}',
    '1.500',  # FD-VGG16
    'Gaussian 11x11',
    '0123456789abcdef',
    '(solver heun, steps 10, guidance 2)',
    'python evaluate.py --S=3',
    '3.11',
    'inner.K',
    'TPU v4',
    'Oddity',
  ):
    assert said in page.text, said
  assert 'Lonely' not in page.text  # A point is no curve.


def test_it_is_a_function_of_its_arguments(full):
  assert document.render(*contents()) == full


def test_it_is_small_and_shows_all_pictures(full, page):
  assert len(full) < 3 << 20  # Noise is what compresses least.
  examples_shown = 2 * 9 * 3
  samples_shown = 2 * (4 + panels.DRAWN) + 1
  assert len(page.pictures) == examples_shown + 64 + samples_shown


def test_few_images_have_no_interval():
  results, *others = contents()
  for name in 'psnr', 'ssim':
    results[name] = {**results[name], 'low': None, 'high': None}
  text = Page(document.render(results, *others)).text
  assert f'{results["psnr"]["mean"]:.2f}' in text
  assert 'None' not in text


def test_what_does_not_apply_is_left_out():
  results, measured, findings, found = contents(
    sampled=False, bits=None, codes=0
  )
  found = found._replace(history=[])
  findings = findings._replace(coefficients=None, atoms=findings.atoms[:0])
  text = document.render(results, measured, findings, found)
  assert list(sections(text)) == ['results', 'images', 'made']
  assert 'a continuous code' in sections(text)['results']
  assert 'First estimate' not in text
  assert 'nan' not in Page(text).text


def test_words_from_outside_are_no_markup():
  bad = '<script>alert(1)</script>'
  results, measured, findings, found = contents()
  found.config['data']['name'] = f'folder:/tmp/{bad}"&'
  found = found._replace(command=bad, versions={bad: bad})
  found.history.extend([{'step': 1, bad: 1.0}, {'step': 2, bad: 1.0}])
  results['protocol'] |= {'split': bad, 'note': bad}
  text = document.render(results, measured, findings, found)
  shown = Page(text)
  assert 'script' not in shown.tags
  assert f'folder:/tmp/{bad}"&' in shown.text


def test_a_model_that_diverged_has_a_report():
  text = document.render(*contents(broken=True))
  assert 'nan dB' in text


def test_large_pictures_are_cropped_and_it_says_so(full):
  assert 'Of larger' not in sections(full)['images']
  results, measured, findings, found = contents()
  large = np.arange(300 * 200 * 3).astype(np.uint8).reshape(300, 200, 3)
  pairs = dict.fromkeys(findings.pairs, (large, large))
  text = document.render(
    results, measured, findings._replace(pairs=pairs), found
  )
  said = sections(text)['images']
  assert 'Of larger images the middle 160 × 160 pixels are shown' in said
  first = Page(said).pictures[0]
  np.testing.assert_array_equal(first, large[70:230, 20:180])


def test_charts_are_small_drawings_with_text():
  y = np.geomspace(1, 0.01, 5000)
  text = charts.curves({'a & b': (np.arange(5000), y)}, 'loss', log=True)
  root = xml.etree.ElementTree.fromstring(text)
  assert root.tag.endswith('svg')
  assert len(text) < 30_000
  words = set(''.join(root.itertext()).split())
  assert {'loss', '0.05', '0.5', 'training'} <= words


def test_long_curves_become_means():
  x, y = charts.thin(range(1000), [*range(999), np.nan])
  assert len(x) == 333
  np.testing.assert_allclose([x[0], y[0], y[-1]], [1, 1, 997])
  x, y = charts.thin([1, 2, 3], [5, np.inf, 6])
  np.testing.assert_array_equal([x, y], [[1, 3], [5, 6]])


@pytest.mark.parametrize('n', [1, 2, 3, 4, 9, 50])
def test_ranks(n):
  values = np.random.default_rng(n).permutation(n).astype(float)
  groups = rank(values)
  chosen = [i for numbers in groups.values() for i in numbers]
  assert len(chosen) == len(set(chosen)) == min(n, 3 * min(3, max(1, n // 3)))
  assert values[groups['best'][0]] == n - 1
  if n > 1:
    assert values[groups['worst'][0]] == 0
  if n > 2:
    middle = [np.sum(values > values[i]) for i in groups['median']]
    np.testing.assert_allclose(np.mean(middle), (n - 1) / 2, atol=0.5)
  assert rank(-values, lower_is_better=True) == groups


def test_nan_is_worst():
  assert rank(np.array([1.0, np.nan, 3.0]))['worst'] == [1]
  assert rank(np.array([1.0, np.nan, 3.0]), True)['worst'] == [1]


def test_images_are_cropped_alike():
  images = [np.zeros((70, 30, 3), np.uint8), np.ones((50, 41, 3), np.uint8)]
  assert examples.crop_alike(images, 64, 8).shape == (2, 48, 24, 3)
  assert examples.crop_alike(images[:1], 64, 32).shape == (1, 64, 32, 3)
  assert examples.spread(10, 4) == [0, 3, 6, 9]
  assert examples.spread(2, 4) == [0, 1]


@browser.needed
def test_all_of_it_is_seen_on_a_screen_and_on_a_phone(full, tmp_path):
  page = tmp_path / 'report.html'
  page.write_text(full)
  said = browser.look_framed(page, tmp_path)
  assert [x.split('"')[1] for x in said] == ['broken 0 over false'] * 2


@browser.needed
def test_the_browser_does_not_run_what_was_smuggled_in(full, tmp_path):
  """Which is also how we know that an error would be seen."""
  page = tmp_path / 'report.html'
  bad = '<script>alert(1)</script><img src="data:image/png;base64,AAAA">'
  page.write_text(full.replace('</main>', bad + '<p>' + 200 * 'x' + '</main>'))
  said = browser.look_framed(page, tmp_path)
  assert any('Content Security Policy' in x for x in said)
  assert any('broken 1' in x for x in said)
  assert any('over true' in x for x in said)
