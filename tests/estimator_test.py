import copy
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import scipy.sparse
from sklearn.decomposition import sparse_encode
from sklearn.linear_model import orthogonal_mp
from sklearn.utils.estimator_checks import parametrize_with_checks

import lasers_jax
from lasers_jax.errors import InputError
from lasers_jax.estimator import DictionaryLearning
from tests.conftest import captured_log

N, D, K, S = 600, 16, 24, 2


@parametrize_with_checks([DictionaryLearning()])
def test_estimator_checks_of_scikit_learn(estimator, check):
  check(estimator)


@pytest.fixture(scope='module')
def hidden():
  """The atoms [K, D] that the signals are made of."""
  atoms = np.random.default_rng(1).standard_normal((K, D))
  return atoms / np.linalg.norm(atoms, axis=1, keepdims=True)


@pytest.fixture(scope='module')
def X(hidden):
  """Signals [N, D] of S of the hidden atoms each."""
  random = np.random.default_rng(2)
  codes = np.zeros((N, K))
  for row in codes:
    used = random.choice(K, S, replace=False)
    row[used] = random.choice([-1, 1], S) * random.uniform(1, 2, S)
  return codes @ hidden


def model(**options):
  options = {'batch_size': 200, 'random_state': 0, 'max_iter': 3, **options}
  return DictionaryLearning(K, S, **options)


def small():
  """Signals [50, 8], and an estimator of 12 atoms that is not yet fitted."""
  X = np.random.default_rng(0).standard_normal((50, 8))
  return X, DictionaryLearning(12, 2, batch_size=50, max_iter=1, random_state=0)


@pytest.fixture(scope='module')
def fitted(X):
  """An estimator that tests look at, and do not change."""
  return model().fit(X)


def test_the_package_gives_the_estimator_but_imports_it_only_then():
  program = 'import sys, lasers_jax; assert "sklearn" not in sys.modules'
  subprocess.run([sys.executable, '-c', program], check=True)
  assert lasers_jax.DictionaryLearning is DictionaryLearning
  with pytest.raises(AttributeError, match='Dictionary_Learning'):
    lasers_jax.Dictionary_Learning  # noqa: B018


@pytest.mark.parametrize('method', ['online', 'gradient', 'ksvd'])
def test_every_method_finds_hidden_atoms(X, hidden, method):
  found = model(method=method, max_iter=40, tol=0).fit(X)
  assert found.error_[-1] < 0.5 * found.error_[0]
  likeness = np.abs(found.components_ @ hidden.T).max(axis=0)
  assert np.mean(likeness > 0.97) >= 0.5


def test_components_have_norm_one_and_codes_few_atoms(X, fitted):
  norms = np.linalg.norm(fitted.components_, axis=1)
  np.testing.assert_allclose(norms, 1, atol=1e-6)
  codes = fitted.transform(X)
  assert codes.shape == (N, K)
  assert np.all(np.count_nonzero(codes, axis=1) <= S)


@pytest.mark.parametrize('tolerance', [None, 1.5])
def test_codes_are_those_of_scikit_learn(X, fitted, tolerance):
  ours, atoms = copy.deepcopy(fitted), fitted.components_.astype(float)
  if tolerance is None:
    theirs = sparse_encode(X, atoms, algorithm='omp', n_nonzero_coefs=S)
  else:
    ours.set_params(n_nonzero_coefs=4, transform_tol=tolerance)
    theirs = orthogonal_mp(atoms.T, X.T, tol=tolerance**2).T
    counts = np.count_nonzero(theirs, axis=1)
    assert counts.min() < counts.max() < 4
    # Theirs begins before it looks at the tolerance.
    theirs[np.linalg.norm(X, axis=1) <= tolerance] = 0
  same = np.all(np.isclose(ours.transform(X), theirs, atol=1e-4), axis=1)
  assert np.mean(same) > 0.99  # float32 breaks some near-ties another way


def test_sparse_output_holds_the_same_codes(X, fitted):
  dense = fitted.transform(X)
  sparse = model(sparse_output=True).fit(X).transform(X)
  assert scipy.sparse.issparse(sparse)
  assert sparse.format == 'csr'
  assert sparse.has_sorted_indices
  assert np.all(sparse.data != 0)
  np.testing.assert_array_equal(sparse.toarray(), dense)
  signals = fitted.inverse_transform(dense)
  np.testing.assert_allclose(fitted.inverse_transform(sparse), signals)
  error = np.sum((X - signals) ** 2) / np.sum(X**2)
  assert error == pytest.approx(fitted.error_[-1], rel=1e-3)


@pytest.mark.parametrize(
  'given, expected',
  [
    (np.float32, np.float32),
    (np.float64, np.float64),
    (np.float16, np.float32),
    (np.int32, np.float64),
  ],
)
def test_codes_have_the_float_type_of_the_signals(X, fitted, given, expected):
  codes = fitted.transform(X.astype(given))
  assert codes.dtype == expected
  assert fitted.inverse_transform(codes).dtype == expected


def test_a_stream_is_learned_like_the_whole(X):
  whole = model(shuffle=False, max_iter=1, dict_init=X[:K]).fit(X)
  stream = model(dict_init=X[:K])
  for start in range(0, N, 200):
    stream.partial_fit(X[start : start + 200])
  np.testing.assert_array_equal(stream.components_, whole.components_)
  assert stream.n_steps_ == whole.n_steps_ == 3


def test_signals_weigh_alike_in_a_short_batch(X):
  # The last batch is filled up with signals of zero.
  short = model(shuffle=False, max_iter=1, dict_init=X[:K]).fit(X[:250])
  zeros = np.concatenate([X[:250], np.zeros((150, D))])
  long = model(shuffle=False, max_iter=1, dict_init=X[:K]).fit(zeros)
  np.testing.assert_array_equal(short.components_, long.components_)


def test_fit_ends_where_it_no_longer_helps(X):
  early = model(max_iter=200, tol=0.05).fit(X)
  assert 1 <= early.n_iter_ < 200
  *_, before, after = early.error_
  assert before - after <= 0.05 * before
  assert len(early.error_) == early.n_iter_ + 1
  assert model(max_iter=7, tol=0).fit(X).n_iter_ == 7


def test_the_seed_decides(X, fitted):
  again = model().fit(X)
  np.testing.assert_array_equal(again.components_, fitted.components_)
  other = model(random_state=1).fit(X)
  assert not np.allclose(other.components_, fitted.components_)


def test_a_file_of_signals_is_not_copied_into_memory(tmp_path):
  n = 100_000
  shape = (n, D)
  signals = np.memmap(tmp_path / 'x', np.float32, mode='w+', shape=shape)
  rows = np.random.default_rng(0).standard_normal((1000, D))
  for start in range(0, n, 1000):
    signals[start : start + 1000] = rows
  learner = model(max_iter=1, shuffle=False)
  learner.fit(signals)  # compiles
  tracemalloc.start()
  learner.fit(signals)
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert learner.n_steps_ == 500
  # Numbers of the rows, to draw a sample, and the sample.
  assert peak < signals.nbytes / 2


def test_other_numbers_of_signals_compile_nothing_new(X, fitted):
  fitted.transform(X[:60])
  with captured_log('jax._src.interpreters.pxla') as compiled:
    for n in (1, 17, 33, 59):
      fitted.transform(X[:n])
  assert not compiled


def test_progress_is_shown_on_stderr_when_asked(X, capsys):
  model(verbose=1).fit(X)
  out, err = capsys.readouterr()
  assert not out
  assert '9/9' in err
  assert 'error=' in err
  model().fit(X)
  assert capsys.readouterr() == ('', '')


@pytest.mark.parametrize('method', ['online', 'gradient', 'ksvd'])
def test_saving_and_loading_changes_nothing(X, tmp_path, method):
  before = model(method=method, dict_init=X[:K], transform_tol=0.1).fit(X)
  before.save(tmp_path / 'model.npz')
  after = DictionaryLearning.load(tmp_path / 'model.npz')
  np.testing.assert_array_equal(after.transform(X), before.transform(X))
  kept, expected = after.get_params(), before.get_params()
  np.testing.assert_array_equal(kept.pop('dict_init'), X[:K])
  del expected['dict_init']
  assert kept == expected
  for name in ('error_', 'n_iter_', 'n_steps_', 'n_features_in_'):
    assert getattr(after, name) == getattr(before, name)
  before.partial_fit(X), after.partial_fit(X)
  np.testing.assert_array_equal(after.components_, before.components_)


def test_what_json_does_not_know_is_saved(X, tmp_path):
  path = tmp_path / 'any name'
  odd = model(
    tol=np.float32(0.5),
    batch_size=np.int64(200),
    max_iter=1,
    random_state=np.random.RandomState(0),
  )
  odd.fit(X)
  odd.feature_names_in_ = np.array([f'pixel {i}' for i in range(D)], object)
  odd.save(path)
  back = DictionaryLearning.load(path)
  assert back.tol == 0.5
  assert back.random_state is None
  np.testing.assert_array_equal(back.feature_names_in_, odd.feature_names_in_)
  assert list(back.get_feature_names_out())[:1] == ['dictionarylearning0']
  assert [x.name for x in tmp_path.iterdir()] == ['any name']


def damaged_files(good):
  yield b''
  yield b'not a model'
  yield good[: len(good) // 2]
  for place in range(40, len(good), len(good) // 20):
    yield good[:place] + bytes([good[place] ^ 255]) + good[place + 1 :]


def test_a_damaged_file_is_refused_or_harmless(X, fitted, tmp_path):
  fitted.save(tmp_path / 'good')
  codes, refused = fitted.transform(X), 0
  for content in damaged_files((tmp_path / 'good').read_bytes()):
    (tmp_path / 'bad').write_bytes(content)
    try:
      loaded = DictionaryLearning.load(tmp_path / 'bad')
    except InputError as error:
      assert "bad' is damaged" in str(error)
      refused += 1
    else:  # a byte that nothing depends on, as that of a date
      np.testing.assert_array_equal(loaded.transform(X), codes)
  assert refused >= 15


@pytest.mark.parametrize('name', ['other.npz', 'other.npy'])
def test_a_file_of_something_else_is_refused(tmp_path, name):
  write = np.savez if name.endswith('z') else np.save
  write(tmp_path / name, np.ones(3))
  with pytest.raises(InputError, match='save wrote'):
    DictionaryLearning.load(tmp_path / name)


def test_a_file_whose_state_does_not_fit_is_refused(fitted, tmp_path):
  fitted.save(tmp_path / 'good.npz')
  with np.load(tmp_path / 'good.npz') as file:
    arrays = dict(file)
  arrays['components_'] = arrays['components_'][:, :-1]
  np.savez(tmp_path / 'bad.npz', **arrays)
  with pytest.raises(InputError, match='damaged'):
    DictionaryLearning.load(tmp_path / 'bad.npz')


def test_a_missing_file_is_said_to_be_missing(tmp_path):
  with pytest.raises(FileNotFoundError):
    DictionaryLearning.load(tmp_path / 'none')


@pytest.mark.parametrize(
  'options, message',
  [
    ({'n_components': 0}, 'n_components must be a whole number from 1'),
    ({'n_components': 2.5}, 'n_components must be a whole number'),
    ({'n_nonzero_coefs': K + 1}, f'more than the {K} atoms'),
    ({'n_nonzero_coefs': 0}, 'n_nonzero_coefs must be'),
    ({'method': 'lars'}, "no method 'lars': it is online, gradient, ksvd"),
    ({'selection': 'best'}, "no selection 'best'"),
    ({'batch_size': 0}, 'batch_size must be'),
    ({'max_iter': 0}, 'max_iter must be'),
    ({'tol': -1}, 'tol must be 0 or more'),
    ({'transform_tol': float('nan')}, 'transform_tol must be 0 or more'),
    ({'dict_init': np.ones((K, D + 1))}, r'dict_init must be .* \[24, 16\]'),
  ],
)
def test_bad_parameters_are_named(X, options, message):
  with pytest.raises(InputError, match=message):
    model().set_params(**options).fit(X)


def test_bad_signals_and_codes_are_named(X, fitted):
  with pytest.raises(ValueError, match='NaN'):
    model().fit(np.where(X > 2, np.nan, X))
  with pytest.raises(ValueError, match='15 features'):
    fitted.transform(X[:, 1:])
  with pytest.raises(InputError, match='5 columns and the dictionary 24 atoms'):
    fitted.inverse_transform(np.zeros((2, 5)))


def test_defaults_come_from_the_data(X):
  default = DictionaryLearning(max_iter=1).fit(X)
  assert default.components_.shape == (D, D)
  assert np.count_nonzero(default.transform(X), axis=1).max() == 1


def test_given_atoms_set_their_number_and_may_have_any_length(X):
  given = model(max_iter=1, dict_init=X[:K]).fit(X)
  scaled = model(max_iter=1, dict_init=7 * X[:K]).set_params(n_components=None)
  np.testing.assert_allclose(
    scaled.fit(X).components_, given.components_, atol=1e-5
  )


@pytest.mark.parametrize('scale', [0.0, 1e-15, 1e15])
def test_signals_of_any_scale_are_learned(X, scale):
  learned = model(max_iter=1).fit(scale * X)
  assert np.all(np.isfinite(learned.components_))
  assert np.all(np.isfinite(learned.transform(scale * X)))


# What contradicts the state, and numbers that float32 does not hold


@pytest.mark.parametrize(
  'change, message',
  [
    ({'method': 'gradient'}, "method was 'online' .* is 'gradient' now"),
    ({'method': 'ksvd'}, "method was 'online' .* is 'ksvd' now"),
    ({'method': 'lars'}, "no method 'lars'"),
    ({'n_components': 13}, 'n_components is 13 and the dictionary has 12'),
    ({'dict_init': np.eye(8)}, r'dict_init has the shape \(8, 8\)'),
    ({'n_nonzero_coefs': 13}, 'more than the 12 atoms'),
    ({'batch_size': 0}, 'batch_size must be a whole number'),
  ],
)
def test_learning_goes_on_as_it_began_or_not_at_all(change, message):
  X, estimator = small()
  estimator.partial_fit(X)
  before = estimator.components_.copy()
  with pytest.raises(InputError, match=message):
    estimator.set_params(**change).partial_fit(X)
  np.testing.assert_array_equal(estimator.components_, before)


def test_another_method_starts_anew_by_fit_and_is_no_matter_to_a_file(tmp_path):
  X, estimator = small()
  estimator.partial_fit(X).set_params(method='gradient')
  estimator.save(tmp_path / 'file.npz')
  loaded = DictionaryLearning.load(tmp_path / 'file.npz')
  assert loaded.method == 'gradient'
  assert loaded.method_ == 'online'
  with pytest.raises(InputError, match='call fit to start anew'):
    loaded.partial_fit(X)
  assert loaded.fit(X).method_ == 'gradient'


@pytest.mark.parametrize('method', ['fit', 'partial_fit', 'transform'])
@pytest.mark.parametrize('value', [1e39, -1e300])
def test_numbers_beyond_float32_are_refused(method, value):
  X, estimator = small()
  estimator.fit(X)
  X[7, 3] = value
  with pytest.raises(ValueError, match='too large for float32'):
    getattr(estimator, method)(X)


def test_codes_beyond_float32_are_added_up_in_their_own_type():
  X, estimator = small()
  estimator.fit(X)
  signals = estimator.inverse_transform(np.full((1, 12), 1e39))
  expected = 1e39 * np.sum(np.float64(estimator.components_), axis=0)
  np.testing.assert_allclose(signals[0], expected)


def test_a_file_without_a_unit_goes_on_in_its_own(tmp_path):
  X, estimator = small()
  estimator.partial_fit(X)
  file = tmp_path / 'file.npz'
  estimator.save(file)
  arrays = dict(np.load(file))
  last = sorted(x for x in arrays if x.startswith('state_'))[-1]
  power = int(arrays.pop(last))
  for name in ('state_1', 'state_2'):  # the statistics, in a unit of 1
    arrays[name] = arrays[name] * np.float32(4.0**power)
  np.savez(file, **arrays)
  loaded = DictionaryLearning.load(file).partial_fit(X)
  np.testing.assert_allclose(
    loaded.components_, estimator.partial_fit(X).components_, atol=1e-6
  )
