"""The suite runs on the CPU, as eight devices, and strictly."""

import atexit
import ctypes
import functools
import gc
import logging
import os
import shutil
import signal
import tempfile
import types

import jax
import pytest

from tests import lowering  # noqa: F401

jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_num_cpu_devices', 8)
jax.config.update('jax_numpy_rank_promotion', 'raise')

# Compiling is most of the time that tests take, and these cut it to a third;
# `as_in_use` undoes them for tests that count the last bits. The processes
# that tests start read them from the environment.
jax.config.update('jax_disable_most_optimizations', True)
os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] = '1'
_flags = [
  os.environ.get('XLA_FLAGS', ''),
  # Each part of a program costs, and no core is idle to compile another.
  '--xla_cpu_parallel_codegen_split_count=1',
]
if jax.__version_info__ < (0, 11):  # later ones do not know it
  _flags.append('--xla_cpu_use_fusion_emitters=false')
os.environ['XLA_FLAGS'] = ' '.join(_flags)
# Of each operation it would write down ten lines of the stack.
os.environ['JAX_TRACEBACK_IN_LOCATIONS_LIMIT'] = '1'
jax.config.update('jax_traceback_in_locations_limit', 1)
# What is traced is many small objects that live long: look at them seldom.
gc.set_threshold(100_000, 50, 100)

# Programs are compiled once for all tests and for the processes they start.
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
  _cache = tempfile.mkdtemp(prefix='lasers_jax_tests_')
  os.environ['JAX_COMPILATION_CACHE_DIR'] = _cache
  atexit.register(shutil.rmtree, _cache, ignore_errors=True)
jax.config.update(
  'jax_compilation_cache_dir', os.environ['JAX_COMPILATION_CACHE_DIR']
)
# Small ones too: loading an addition takes a third of compiling it.
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)

# Who runs the suite in the background, or by nohup, ignores some signals; the
# processes that tests start would, too.
signal.signal(signal.SIGINT, signal.default_int_handler)
for _number in signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1:
  if signal.getsignal(_number) == signal.SIG_IGN:
    signal.signal(_number, signal.SIG_DFL)

# Bytes that a process of tests may hold: from the first on it drops what JAX
# compiled, and a test that ends above the second fails.
FULL, TOO_MUCH = 2.3e9, 3e9
# Folders whose files share a run that takes long.
TOGETHER = ('tests/experiment/priors',)


def pytest_collection_modifyitems(items):
  """Puts files with slow tests first: no process has to wait for them."""
  slow = {item.path for item in items if item.get_closest_marker('slow')}
  items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
  """Keeps files together that share what takes long to make.

  By --dist=loadfile alone, each process would make it for the files it has.
  """
  if config.getvalue('dist') != 'loadfile':
    return None
  from xdist.scheduler import LoadFileScheduling

  class Scheduling(LoadFileScheduling):
    def _split_scope(self, nodeid):
      file = super()._split_scope(nodeid)
      folder = file.rpartition('/')[0]
      return folder if folder in TOGETHER else file

  return Scheduling(config, log)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown():
  """Bounds what tests leave in memory.

  JAX keeps every program that it compiled, 1.4 MB and more for a single
  addition, and there are thousands.
  """
  result = yield
  held = held_bytes()
  assert held < TOO_MUCH, f'the process of this test holds {held / 1e9:.1f} GB'
  if held > FULL:
    jax.clear_caches()
    gc.collect()
    # The C library keeps what is freed, unless it is told to give it back.
    if trim := getattr(ctypes.CDLL(None), 'malloc_trim', None):
      trim(0)
  return result


def held_bytes() -> int:
  """The memory that this process has now; 0 where the system does not say."""
  try:
    with open('/proc/self/statm') as file:
      pages = int(file.read().split()[1])
  except OSError:
    return 0
  return pages * os.sysconf('SC_PAGE_SIZE')


@pytest.fixture(scope='session')
def pictures(tmp_path_factory):
  """A folder of pictures with the splits train and test."""
  from tests import tiny

  return tiny.make_pictures(tmp_path_factory.mktemp('pictures'))


@pytest.fixture(scope='session')
def tiny_run(pictures, tmp_path_factory):
  """One finished run that many tests look at, and none changes.

  Has config, workdir, first and state (the first and the last one, on the
  host), lines (of the log) and compiled (the names of what was).
  """
  from lasers_jax.experiment import loop
  from lasers_jax.experiment.hooks import Hooks
  from tests import tiny

  config = tiny.config(pictures, evaluate_every=6)
  workdir = tmp_path_factory.mktemp('tiny') / 'run'
  seen = []

  class Look(Hooks):
    def on_start(self, experiment, mesh, state):
      seen.append(tiny.copied(state))

  with (
    captured_log() as lines,
    captured_log('jax._src.interpreters.pxla') as compiled,
    jax.log_compiles(),
  ):
    state = loop.train_and_evaluate(config, str(workdir), hooks=Look())
  return types.SimpleNamespace(
    config=config,
    workdir=workdir,
    first=seen[0],
    state=tiny.on_host(state),
    lines=lines,
    compiled=[line.split()[1] for line in compiled],
  )


@pytest.fixture(scope='session')
def gs():
  """The address of a bucket of an emulator of gs://."""
  for package in ('gcp_storage_emulator', 'gcsfs'):
    pytest.importorskip(package)
  from tests import stores

  with stores.gs() as address:
    yield address


@pytest.fixture(scope='session')
def s3():
  """The address of a bucket of an emulator of s3://."""
  for package in ('moto', 's3fs'):
    pytest.importorskip(package)
  from tests import stores

  with stores.s3() as address:
    yield address


@pytest.fixture
def gs_folder(gs, request):
  """An address that no other test uses."""
  return f'{gs}/{request.node.name.replace("[", "/").replace("]", "")}'


@pytest.fixture
def copied_run(tiny_run, tmp_path):
  """A copy of the finished run, to damage or to go on with."""
  return shutil.copytree(tiny_run.workdir, tmp_path / 'run')


@pytest.fixture
def log():
  """The lines that are logged during a test."""
  with captured_log() as lines:
    yield lines


class captured_log(logging.Handler):
  """A context that gives the list of lines logged in it at INFO and above.

  By one logger alone; ours is the root, libraries log under their names.
  """

  def __init__(self, name='root'):
    super().__init__()
    self._name, self.lines = name, []

  def __enter__(self):
    logger = logging.getLogger(self._name)
    self._before = logger.level, logger.disabled
    logger.addHandler(self)
    # Whatever another test has made of the loggers of libraries.
    logger.setLevel(logging.INFO)
    logger.disabled = False
    return self.lines

  def emit(self, record):
    if record.name == self._name:
      self.lines.append(record.getMessage())

  def __exit__(self, *_):
    logger = logging.getLogger(self._name)
    logger.removeHandler(self)
    level, logger.disabled = self._before
    logger.setLevel(level)


_OPTIONS = {
  'xla_backend_optimization_level': 3,
  'xla_llvm_disable_expensive_passes': False,
}
if 'xla_cpu_use_fusion_emitters' in os.environ['XLA_FLAGS']:
  _OPTIONS['xla_cpu_use_fusion_emitters'] = True


@pytest.fixture(scope='session')
def as_in_use():
  """Compiles a function with all optimizations; other tests do without."""
  return functools.partial(jax.jit, compiler_options=_OPTIONS)
