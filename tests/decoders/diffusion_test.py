"""Whole runs with a discriminator, and with a diffusion decoder."""

import json
import re
import shutil
import types

import jax
import numpy as np
import pytest
from PIL import Image

from lasers_jax.core import sharding
from lasers_jax.decoders import Draw
from lasers_jax.errors import InputError
from lasers_jax.evaluation import examples, protocol
from lasers_jax.experiment import evaluate, loop, settings
from lasers_jax.experiment.loading import load
from tests import browser, tiny

pytestmark = pytest.mark.slow

STEPS = 4
GAN = {'discriminator': dict(channels=4, num_downsamples=1, start=1, warmup=1)}
DECODER = dict(
  name='diffusion',
  channels=8,
  multipliers=(1,),
  blocks=1,
  condition_dropout=0.3,
  sampling=dict(steps=2),
)
WEIGHTS = {'pixel': 10.0, 'commitment': 0.25}


def config(pictures, name) -> dict:
  result = tiny.config(pictures, steps=STEPS, loss__weights=WEIGHTS)
  # The code that takes least time to compile: decoders do not ask for it.
  result['bottleneck'] = {'name': 'vq', 'K': 16}
  if name == 'gan':
    return {**result, **GAN}
  result['loss']['weights'] = {**WEIGHTS, 'diffusion': 1.0}
  return {**result, 'decoder': DECODER}


@pytest.fixture(scope='module', params=['gan', 'swycc'])
def run(request, pictures, tmp_path_factory):
  """A finished run that no test changes."""
  return finish(request.param, pictures, tmp_path_factory)


@pytest.fixture(scope='module')
def refined(pictures, tmp_path_factory):
  return finish('swycc', pictures, tmp_path_factory)


_FINISHED = {}


def finish(name, pictures, tmp_path_factory):
  if name not in _FINISHED:
    workdir = tmp_path_factory.mktemp(name) / 'run'
    chosen = config(pictures, name)
    state = loop.train_and_evaluate(chosen, str(workdir))
    _FINISHED[name] = types.SimpleNamespace(
      name=name, config=chosen, workdir=workdir, state=tiny.on_host(state)
    )
  return _FINISHED[name]


def test_going_on_gives_the_run_that_never_stopped(run, tmp_path):
  copy = shutil.copytree(run.workdir, tmp_path / 'run')
  shutil.rmtree(copy / 'checkpoints' / str(STEPS))
  state = loop.train_and_evaluate(run.config, str(copy))
  tiny.assert_identical(tiny.on_host(state), run.state)
  assert tiny.losses(copy) == tiny.losses(run.workdir)


def test_all_weights_have_moved(run):
  """Also those of the discriminator, and those that begin at zero."""
  moments = [name for name in run.state if '.mu' in name]
  assert any('adversary' in x for x in moments) == (run.name == 'gan')
  assert any('unet' in x for x in moments) == (run.name == 'swycc')
  assert not [name for name in moments if not run.state[name].any()]


def test_the_log_of_a_gan(pictures, tmp_path_factory):
  lines = tiny.metrics(finish('gan', pictures, tmp_path_factory).workdir)
  names = {'real_logit', 'fake_logit', 'discriminator', 'adversarial_weight'}
  assert all(names < line.keys() for line in lines)
  # It starts at step 1 and is heard from step 2 on; lines count from 1.
  assert [x['real_logit'] != 0 for x in lines] == [False, True, True, True]
  weights = [x['adversarial_weight'] > 0 for x in lines]
  assert weights == [False, False, True, True]


def test_one_device_gives_the_same_numbers(run, tmp_path):
  mesh = dict(data=1, fsdp=1, model=1)
  loop.train_and_evaluate({**run.config, 'mesh': mesh}, str(tmp_path))
  np.testing.assert_allclose(
    tiny.losses(tmp_path), tiny.losses(run.workdir), rtol=1e-5
  )


@pytest.fixture(scope='module')
def results(refined, tmp_path_factory):
  output = tmp_path_factory.mktemp('results')
  dump = str(output / 'dump')
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(examples, 'STEPS', (1,))  # each is compiled
    model = load(refined.workdir)
    found = evaluate.measure(model, output=str(output), dump=dump)
    evaluate.illustrate(found)
  return output


def test_results_of_a_diffusion_decoder(results):
  found = json.loads((results / 'results.json').read_text())
  assert found['psnr']['count'] == found['initial']['psnr']['count'] == 10
  assert found['psnr']['mean'] != found['initial']['psnr']['mean']
  assert found['protocol']['sampling']['steps'] == 2
  assert 'one sample an image' in found['protocol']['decoder']


def test_dumped_files_are_what_was_measured(refined, results):
  names = sorted(
    x.name for x in (results / 'dump' / 'reconstruction').iterdir()
  )
  assert names == sorted(f'{i}.png' for i in range(tiny.TEST))
  pairs = [
    [np.asarray(Image.open(results / 'dump' / side / name))
     for side in ('original', 'reconstruction')]
    for name in names
  ]  # fmt: skip
  a, b = np.float64(pairs).swapaxes(0, 1) / 255
  psnr = -10 * np.log10(np.mean((a - b) ** 2, axis=(1, 2, 3)))
  found = json.loads((results / 'results.json').read_text())
  np.testing.assert_allclose(psnr.mean(), found['psnr']['mean'], rtol=1e-5)


def test_the_report_shows_samples_and_steps(results):
  page = (results / 'report.html').read_text()
  samples, steps = re.findall(
    '<section id="(?:samples|steps)">(.*?)</section>', page, re.DOTALL
  )
  assert samples.count('<figcaption>sample 4<br>') == examples.SAMPLED
  rows = re.findall(r'<th scope="row">(.*?)</th>', steps)
  assert rows == ['first estimate', '1', '2']
  times = re.findall(r'>([0-9.]+)</td></tr>', steps)
  assert len(times) == 2
  assert all(float(x) > 0 for x in times)
  assert '1 bits per pixel' in samples
  assert '1 bits per pixel' in steps


@browser.needed
def test_a_browser_shows_the_report(results, tmp_path):
  said, shot = browser.look(results / 'report.html', tmp_path)
  assert said == []
  browser.assert_readable(shot)


def on_host(model):
  return jax.tree.map(np.asarray, model.variables)


def samples(refined, devices=1, batch_size=8, **sampling):
  """What the model makes of the first pictures, in the order of the split."""
  model = load(refined.workdir).with_sampling(**sampling)
  mesh, variables = sharding.make_mesh(data=devices), on_host(model)
  data = model.experiment.data
  found = {}
  for batch in data.evaluation_batches(data.open('test'), batch_size, 1):
    rows = {name: batch[name] for name in ('image', 'mask', 'index')}
    _, copies = protocol._measure_batch(
      model.module, mesh, model.decoding, (), variables, {},
      sharding.put_batch(rows, mesh),
    )  # fmt: skip
    for i, image in zip(batch['index'], np.asarray(copies), strict=True):
      found.setdefault(int(i), image)
  return np.stack([found[i] for i in range(tiny.TEST)])


@pytest.fixture(scope='module')
def plain(refined):
  return samples(refined)


def test_samples_do_not_depend_on_devices_and_batches(refined, plain):
  many = samples(refined, devices=8)
  # A whole step of uint8, where a sum is rounded another way.
  assert np.max(np.abs(many - plain)) < 1.5 / 255
  assert np.mean(many != plain) < 1e-3
  few = samples(refined, batch_size=2)
  assert np.mean(few != plain) < 1e-3


def test_another_seed_draws_other_samples(refined, plain):
  other = samples(refined, seed=1)
  assert np.all(np.any(other != plain, axis=(1, 2, 3)))


def test_guidance_acts_inside_its_interval(refined, plain):
  guided = samples(refined, guidance=2.0)
  assert np.mean(guided != plain) > 0.1
  # The two steps begin at times 1 and 0.5.
  outside = samples(refined, guidance=2.0, guidance_interval=(0.6, 0.9))
  np.testing.assert_array_equal(outside, plain)


def test_noise_is_a_function_of_the_image():
  a = Draw(np.array([3, 5], np.int32)).normal((4, 4, 3), seed=0)
  b = Draw(np.array([5], np.int32)).normal((4, 4, 3), seed=0)
  np.testing.assert_array_equal(a[1], b[0])
  c = Draw(np.array([5], np.int32), 1).normal((4, 4, 3), seed=0)
  assert np.all(c != b)


@pytest.mark.parametrize(
  'changes, line',
  [
    ({'sampling': {'steps': 0}}, 'decoder.sampling.steps is 0: .* at least 1'),
    ({'sampling': {'solver': 'euler'}}, "dpmpp_2m: 'euler'"),
    (
      {'sampling': {'guidance_interval': (0.5, 0.5)}},
      'two times, .*: 0.5, 0.5',
    ),
    (
      {'condition_dropout': 0.0, 'sampling': {'guidance': 2.0}},
      'decoder.sampling.guidance=2 needs a model trained with '
      'decoder.condition_dropout above 0',
    ),
    (
      {'condition_dropout': 1.5},
      'decoder.condition_dropout is 1.5: .* at least 0 and less',
    ),
    (
      {'training': {'signal_scale': 0.0}},
      'decoder.training.signal_scale is 0.0: .* more than 0',
    ),
    (
      {'training': {'uniform_fraction': 2.0}},
      'fraction is 2.0: .* at most 1',
    ),
    ({'multipliers': (1,) * 6}, 'multiple of 32 .*, 32 of the decoder'),
    ({'sampling': 3}, 'decoder.sampling must be a section of keys, not 3'),
    ({'samplin': {}}, 'did you mean decoder.sampling'),
    ({'name': 'difusion'}, "decoder.name is 'difusion': did you mean diff"),
    ({'name': None}, 'decoder.name is None: it must be one of plain, diff'),
  ],
)
def test_bad_settings(changes, line):
  with pytest.raises(InputError, match=line):
    settings.from_config(
      {**tiny.config('unused'), 'decoder': {**DECODER, **changes}}
    )


def test_an_unknown_key_of_the_discriminator():
  with pytest.raises(InputError, match='did you mean discriminator.channels'):
    settings.from_config(
      {**tiny.config('unused'), 'discriminator': {'chanels': 4}}
    )


def test_sampling_without_a_diffusion_decoder():
  plain = {'name': 'plain', 'sampling': {'steps': 2}}
  line = "nothing reads decoder.sampling: decoder.name='plain' has no such"
  with pytest.raises(InputError, match=line):
    settings.from_config({**tiny.config('unused'), 'decoder': plain})


def test_no_section_is_the_plain_decoder():
  config = tiny.config('unused')
  plain = {**config, 'decoder': {'name': 'plain'}}
  assert settings.with_defaults(config) == settings.with_defaults(plain)


def test_images_too_small_for_the_discriminator(pictures, tmp_path):
  chosen = {**tiny.config(pictures), 'discriminator': {'num_downsamples': 3}}
  with pytest.raises(InputError, match='at least 24x24 pixels, not 16x16'):
    loop.train_and_evaluate(chosen, str(tmp_path))
