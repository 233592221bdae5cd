"""A run and its model in a bucket, from the first step to the last file."""

import json

import numpy as np
import pytest
from PIL import Image

import lasers_jax as lj
from lasers_jax.core import storage
from lasers_jax.errors import InputError
from lasers_jax.experiment import (
  codec_files,
  codecs,
  compare,
  evaluate,
  exported,
  generate,
  loop,
)
from lasers_jax.pretrained.weights import read_weights
from lasers_jax.priors import vector
from lasers_jax.training.metric_lines import read_metrics
from tests import stores, tiny


@pytest.fixture(scope='module')
def run(tiny_run, gs):
  """The finished run, in a bucket."""
  return stores.upload(tiny_run.workdir, f'{gs}/finished')


@pytest.fixture(scope='module')
def model(run):
  return lj.load(run)


@pytest.fixture(params=['gs', 's3'])
def folder(request):
  address = request.getfixturevalue(request.param)
  return f'{address}/{request.node.originalname}'


def checkpoints(workdir) -> list[int]:
  """The steps that have a whole checkpoint."""
  above = f'{workdir}/checkpoints'
  names = storage.names(above) if storage.is_folder(above) else []
  mark = 'commit_success.txt'
  return sorted(int(x) for x in names if storage.exists(f'{above}/{x}/{mark}'))


@pytest.mark.slow
def test_a_killed_run_goes_on_bit_for_bit(pictures, gs_folder, tmp_path):
  flags = tiny.train_flags(pictures, gs_folder, steps=tiny.ENDLESS)
  killed = tiny.start('train.py', *flags)
  tiny.wait_for(lambda: max(checkpoints(gs_folder), default=0) > 3, killed)
  killed.kill()
  killed.communicate()
  kept = checkpoints(gs_folder)[-1]
  config = tiny.config(pictures, steps=kept + 3)
  other = loop.train_and_evaluate(config, str(tmp_path / 'never stopped'))
  config['evaluate_every'] = kept + 3
  state = loop.train_and_evaluate(config, gs_folder)
  tiny.assert_identical(tiny.on_host(state), tiny.on_host(other))
  assert checkpoints(gs_folder)[-1] == kept + 3
  there = [x for x in read_metrics(gs_folder) if 'loss' in x]
  here = tiny.metrics(tmp_path / 'never stopped')
  assert [x['step'] for x in there] == list(range(1, kept + 4))
  assert [x['loss'] for x in there] == [x['loss'] for x in here]
  assert storage.names(f'{gs_folder}/pictures') == [f'{kept + 3}.png']
  assert json.loads(storage.read_text(f'{gs_folder}/.lock')) == {}


def test_it_is_the_same_model(model, tiny_run):
  here = lj.load(tiny_run.workdir)
  assert (model.weights, model.step) == (here.weights, 6)
  assert model.config == here.config


def test_what_is_no_model_is_one_line(gs, s3):
  for address in gs, s3:
    with pytest.raises(InputError, match='no workdir of a run and no exported'):
      lj.load(f'{address}/nothing')
    missing = address.replace(stores.BUCKET, 'missing')
    with pytest.raises(InputError, match=f'there is no bucket {missing}'):
      lj.load(f'{missing}/run')


def test_results_and_the_report(model, folder):
  results = lj.evaluate(model, output=folder)
  assert storage.names(folder) == [
    'report.html', 'results.json', 'results.png'
  ]  # fmt: skip
  found = json.loads(storage.read_text(f'{folder}/results.json'))
  assert found['psnr'] == results['psnr']
  assert 'loss' in storage.read_text(f'{folder}/report.html')


def test_images_that_are_dumped(model, folder):
  evaluate.measure(model, dump=folder)
  assert storage.names(folder) == ['original', 'reconstruction']
  names = storage.names(f'{folder}/original')
  assert len(names) == tiny.TEST
  with storage.opened(f'{folder}/reconstruction/{names[0]}') as file:
    assert np.asarray(Image.open(file)).shape == (tiny.SIDE, tiny.SIDE, 3)


def test_an_export_is_read_from_there(model, folder):
  for _ in range(2):  # The second one takes the place of the first.
    model.export(folder)
    found = lj.load(folder)
    assert (found.weights, found.step) == (model.weights, 6)
  again = f'{folder}-again'
  found.export(again)
  assert lj.load(again).weights == model.weights
  with pytest.raises(InputError, match='is an exported model and has no check'):
    lj.load(folder, checkpoint=4)


def test_an_export_that_is_broken_off_is_no_model(model, folder, monkeypatch):
  model.export(folder)
  copy, left = exported._copy, [1, 1]

  def fail(source, target):
    if storage.is_remote(target):
      left.pop()
    copy(source, target)

  with monkeypatch.context() as patch:
    patch.setattr(exported, '_copy', fail)
    with pytest.raises(IndexError):
      model.export(folder)
  assert not exported.is_exported(folder)
  with pytest.raises(InputError):
    lj.load(folder)
  model.export(folder)
  assert lj.load(folder).weights == model.weights


def test_an_export_replaces_nothing_else(model, run, folder):
  storage.write_text(f'{folder}/notes.txt', 'mine')
  for taken in run, folder, f'{folder}/notes.txt':
    with pytest.raises(InputError, match='exists and is no exported model'):
      model.export(taken)
  assert storage.read_text(f'{folder}/notes.txt') == 'mine'


def test_images_to_files_and_back(model, folder, pictures):
  pytest.importorskip('constriction')
  model.export(f'{folder}/model')
  there, images = lj.load(f'{folder}/model'), pictures / 'test'
  stores.upload(images, f'{folder}/images')
  files = [f'{folder}/images/{x}' for x in storage.names(f'{folder}/images')]
  there.fit_codec()
  codec_files.encode_files(there, files, f'{folder}/files')
  coded = [f'{folder}/files/{x}' for x in storage.names(f'{folder}/files')]
  assert len(coded) == tiny.TEST
  codec_files.print_info(coded)
  codec_files.decode_files(there, coded, f'{folder}/back')
  for i, name in enumerate(storage.names(f'{folder}/back')):
    with storage.opened(f'{folder}/back/{name}') as file:
      decoded = np.asarray(Image.open(file))
    expected = there.decompress(storage.read_bytes(coded[i]))
    np.testing.assert_array_equal(decoded, expected)
  with pytest.raises(InputError, match=r'gone.png: .*No such file'):
    codec_files.encode_files(there, [f'{folder}/gone.png'], f'{folder}/files')


def test_the_first_state_of_a_codec_stays(model, folder):
  """A bucket has no lock: of two that write at once, one is first."""
  state = codecs.fit_state(
    model.module, model.variables, model.sample_batches(4), codecs.AS_TRAINED,
    model.weights,
  )  # fmt: skip
  longer = {k: np.append(x, 1) for k, x in state.tables.items()}
  late = state._replace(tables=longer)
  read, seen = codecs.stored_state, []

  def overtaken(*args):
    found = read(*args)
    if not seen:
      seen.append(1)
      codecs.store_state(folder, codecs.AS_TRAINED, state)
    return found

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(codecs, 'stored_state', overtaken)
    kept = codecs.store_state(folder, codecs.AS_TRAINED, late)
  assert kept.hash() == state.hash() != late.hash()
  assert codecs.states_of(folder, model.weights, {}) == [f'{folder}/codec.npz']
  assert codecs.states_of(f'{folder}/none', model.weights, {}) == []


def test_a_comparison_is_written_there(model, folder):
  entry = compare.Entry('vq', 1.0, f'{folder}/vq-1', error='no settings')
  images = [np.full((4, 5, 3), i, np.uint8) for i in range(12)]
  compare.write_reconstructions(entry.path, images)
  for found, image in zip(
    compare.read_reconstructions(entry.path), images, strict=True
  ):
    np.testing.assert_array_equal(found, image)
  entry.results = evaluate.evaluate(model, output=entry.path)
  compare.write_table([entry], folder)
  assert storage.names(folder) == [
    'curves.png', 'table.json', 'table.md', 'vq-1'
  ]  # fmt: skip


def test_samples_and_priors_are_written_there(folder):
  row = {'prior': 'pmfs:k=3', 'model': 'a'}
  images = np.zeros((4, 8, 8, 3), np.uint8)
  generate.write_prior(folder, row, images)
  assert storage.names(f'{folder}/samples') == ['pmfs-k3.json', 'pmfs-k3.png']
  prior = vector.parse('pmfs:k=3')
  latents = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
  state = prior.fit(latents)
  vector.save(f'{folder}/prior.npz', prior, state, {'weights': 'x'})
  found, _ = vector.load(f'{folder}/prior.npz', {'weights': 'x'})
  assert found == prior
  with pytest.raises(InputError, match='there is no prior at'):
    vector.load(f'{folder}/none.npz')


def test_weights_and_estimators_are_read_from_there(folder, tmp_path):
  np.savez(tmp_path / 'a.npz', kernel=np.arange(3.0))
  stores.upload(tmp_path, folder)
  (kernel,) = read_weights(f'{folder}/a.npz').values()
  np.testing.assert_array_equal(kernel, np.arange(3.0))
  with pytest.raises(InputError, match='there is no file of weights at'):
    read_weights(f'{folder}/b.npz')
  storage.write_text(f'{folder}/c.ckpt', 'x')
  with pytest.raises(
    InputError, match=f'{folder}/c.ckpt is no file of weights'
  ):
    read_weights(f'{folder}/c.ckpt')
  signals = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
  learned = lj.DictionaryLearning(n_components=6, max_iter=1).fit(signals)
  learned.save(f'{folder}/learned.npz')
  found = lj.DictionaryLearning.load(f'{folder}/learned.npz')
  np.testing.assert_array_equal(found.components_, learned.components_)


def test_a_store_that_fails_is_no_damage(model, folder, monkeypatch):
  """What cannot be read now is not to be removed, or made anew."""
  model.export(folder)
  there = lj.load(folder)

  def fail(path, *_):
    raise InputError(f'{path} cannot be read: no answer')

  monkeypatch.setattr(storage.buckets, 'info', fail)
  monkeypatch.setattr(storage.buckets, 'read', fail)
  for act in (
    lambda: lj.load(folder),
    lambda: codecs.load_state(f'{folder}/codec.npz'),
    lambda: exported.read(f'{folder}/{exported.WEIGHTS}', None, {}),
    lambda: exported.known_results(folder, 'x', {}),
    lambda: vector.load(f'{folder}/prior.npz'),
    lambda: read_weights(f'{folder}/a.npz'),
    lambda: there.export(f'{folder}-again'),
    lambda: read_metrics(folder),
  ):
    with pytest.raises(InputError, match='no answer') as error:
      act()
    assert 'damaged' not in str(error.value)


@pytest.mark.slow
def test_a_program_takes_addresses(run, s3):
  """Through its flags, in a process of its own, without a word too many."""
  flags = f'--workdir={run}', f'--output={s3}/program'
  process = tiny.start('export.py', *flags)
  said, log = process.communicate(timeout=240)
  assert not process.returncode, log
  assert said.startswith(f'{s3}/program: step 6, ')
  lines = [x for x in log.splitlines() if 'google_auth_provider' not in x]
  assert len(lines) == 1, log  # of the split that has no folder
  assert exported.is_exported(f'{s3}/program')
