"""What is wrong with an address or a store is one line, and soon."""

import http.server
import json
import os
import subprocess
import sys
import time
import types

import pytest

from lasers_jax.core import buckets, patience, storage
from lasers_jax.errors import InputError
from tests import stores

BUCKETS = ['gs', 's3']


@pytest.fixture(params=BUCKETS)
def bucket(request):
  return request.getfixturevalue(request.param)


@pytest.mark.parametrize(
  ('path', 'plain'),
  [
    ('gs://b', 'gs://b'),
    ('gs://b/', 'gs://b'),
    ('gs://b//a/./x/../c/', 'gs://b/a/c'),
    ('gs://b/../c', 'gs://b/c'),
    ('s3://my.b-1/a', 's3://my.b-1/a'),
  ],
)
def test_addresses_have_one_form(path, plain):
  assert storage.absolute(path) == plain


@pytest.mark.parametrize(
  ('path', 'said'),
  [
    ('gcs://b/x', 'gcs://b/x is an address of gcs://, .*did you mean gs://?'),
    ('GS://b/x', 'did you mean gs://?'),
    ('s3a://b/x', 'did you mean s3://?'),
    ('http://b/x', 'is an address of http://, and only gs:// and s3:// can'),
    ('hdfs://b/x', 'is an address of hdfs://'),
    ('gs:/b/x', 'gs:/b/x is no address, which begins with gs://'),
    ('s3:b', 's3:b is no address, which begins with s3://'),
    ('gs://', 'gs:// names no bucket: gs://BUCKET/FOLDER'),
    ('s3:///x', 'names no bucket: s3://BUCKET/FOLDER'),
    ('gs://*/x', 'names no bucket'),
    ('gs://b/a*', r"nothing can be read back .* '\*' may not be in the name"),
    ('gs://b/a?x', 'nothing can be read back'),
    ('s3://b/a\\b', 'nothing can be read back'),
    ('gs://b/run[1]', 'nothing can be read back'),
    ('gs://b/a\nb', 'nothing can be read back'),
    ('gs://b/a\udcff', 'nothing can be read back'),
  ],
)
def test_addresses_that_cannot_be_used_are_one_line(path, said):
  acts = [storage.absolute]
  if '://' in path:
    acts += [storage.exists, storage.read_bytes, storage.check_folder]
  for act in acts:
    with pytest.raises(InputError, match=said) as error:
      act(path)
    assert '\n' not in str(error.value)


def test_a_bucket_that_is_not_there_is_named(bucket):
  missing = bucket.replace(stores.BUCKET, 'missing')
  said = f'there is no bucket {missing}: make it, or name another'
  for act in (
    lambda: storage.check_folder(f'{missing}/run'),
    lambda: storage.write_text(f'{missing}/run', 'x'),
    lambda: storage.written_if(f'{missing}/run', b'x', None),
    lambda: storage.check_bucket(f'{missing}/run'),
  ):
    with pytest.raises(InputError, match=said):
      act()
  storage.check_bucket(f'{bucket}/run')
  assert not storage.exists(f'{missing}/run')
  with pytest.raises(FileNotFoundError):
    storage.read_bytes(f'{missing}/run')


def answering(status: int, body: bytes, after: float = 0):
  """A store that gives one answer to everything."""

  class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self):
      self.rfile.read(int(self.headers.get('Content-Length') or 0))
      time.sleep(after)
      self.send_response(status)
      self.send_header('Content-Length', str(len(body)))
      self.end_headers()
      self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = answer

    def log_message(self, *_):
      pass

  return stores.served(Handler)


@pytest.fixture
def fresh(monkeypatch):
  """File systems that know no store yet, and repeat a request at once."""
  gcsfs = pytest.importorskip('gcsfs')
  s3fs = pytest.importorskip('s3fs')

  def forget():
    gcsfs.core.GCSFileSystem.clear_instance_cache()
    s3fs.S3FileSystem.clear_instance_cache()

  async def sleep(_):
    pass

  for module in gcsfs.retry, s3fs.core:
    fast = types.SimpleNamespace(**{**vars(module.asyncio), 'sleep': sleep})
    monkeypatch.setattr(module, 'asyncio', fast)
  forget()
  yield
  forget()


def refused(scheme: str, address: str) -> str:
  """What writing to a store at an address says."""
  with (
    stores.environment(
      STORAGE_EMULATOR_HOST=address,
      AWS_ENDPOINT_URL=address,
      AWS_DEFAULT_REGION='us-east-1',
    ),
    pytest.raises(InputError) as error,
  ):
    storage.check_folder(f'{scheme}://bucket/run')
  assert '\n' not in str(error.value)
  return str(error.value)


def as_said(scheme: str, code: int, name: str, text: str) -> bytes:
  """An error as a store words it."""
  if scheme == 'gs':
    return json.dumps({'error': {'code': code, 'message': text}}).encode()
  return f'<Error><Code>{name}</Code><Message>{text}</Message></Error>'.encode()


@pytest.mark.parametrize('scheme', BUCKETS)
def test_no_permission_is_one_line(scheme, fresh, gs, s3):
  body = as_said(scheme, 403, 'AccessDenied', 'you may not')
  with answering(403, body) as address:
    said = refused(scheme, address)
  assert f'{scheme}://bucket/run cannot be written: no permission (' in said
  assert 'you may not' in said


@pytest.mark.parametrize(
  ('code', 'text'),
  [
    (401, 'Anonymous caller does not have storage.objects.create access'),
    (403, 'Anonymous caller does not have storage.objects.create access'),
  ],
)
def test_missing_credentials_of_gs_are_one_line(code, text, fresh):
  with answering(code, as_said('gs', code, '', text)) as address:
    said = refused('gs', address)
  assert f'no credentials ({"" if code == 401 else "Forbidden"}' in said
  assert 'gcloud auth application-default login' in said


def test_missing_credentials_of_s3_are_one_line(fresh, s3, monkeypatch):
  for name in 'AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY':
    monkeypatch.delenv(name)
  monkeypatch.setenv('AWS_EC2_METADATA_DISABLED', 'true')
  monkeypatch.setenv('AWS_SHARED_CREDENTIALS_FILE', '/nowhere')
  said = refused('s3', os.environ['AWS_ENDPOINT_URL'])
  assert 'no credentials (' in said
  assert 'aws configure, or AWS_ACC' in said


@pytest.mark.parametrize('scheme', BUCKETS)
def test_no_network_is_one_line(scheme, fresh, s3):
  with answering(200, b'') as address:
    pass  # Nobody listens there now.
  said = refused(scheme, address)
  assert 'the store does not answer (' in said
  assert said.endswith('is there a network?')


@pytest.mark.parametrize('scheme', BUCKETS)
def test_a_store_that_is_silent_is_given_up(
  scheme, fresh, gs, s3, monkeypatch, log
):
  import aiohttp
  import fsspec

  limits = {
    'gs': ('gcs', 'requests_timeout', aiohttp.ClientTimeout(sock_read=0.1)),
    's3': ('s3', 'config_kwargs', {
      'read_timeout': 0.1, 'retries': {'max_attempts': 0}}),
  }  # fmt: skip
  buckets.configure()
  name, key, value = limits[scheme]
  monkeypatch.setitem(fsspec.config.conf[name], key, value)
  monkeypatch.setattr(patience, '_FIRST', 0.05)
  with answering(200, b'', after=0.3) as address:
    started = time.monotonic()
    said = refused(scheme, address)
  assert 'the store does not answer (' in said
  assert time.monotonic() - started < 5
  assert 'does not answer: waiting for 0 s' in log[0]


def test_requests_have_limits(gs, s3):
  from etils.epath import backend

  for address in storage.absolute(gs), storage.absolute(s3):
    theirs = backend.fsspec_backend.fs(address)  # of Orbax and tfds
    assert not theirs.dircache.use_listings_cache
  limits = backend.fsspec_backend.fs(gs).requests_timeout
  assert limits == buckets._system(gs)[0].requests_timeout
  assert (limits.sock_connect, limits.sock_read) == (10, 60)
  assert buckets._system(s3)[0].config_kwargs['read_timeout'] == 60


def in_a_process(code: str) -> str:
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=False
  )
  assert not done.returncode, done.stderr
  return done.stdout


def test_a_package_that_is_not_installed_is_named():
  said = in_a_process(
    'import sys\n'
    'from lasers_jax.core import storage\n'
    'from lasers_jax.errors import InputError\n'
    'for scheme, package in ("gs", "gcsfs"), ("s3", "s3fs"):\n'
    '  sys.modules[package] = None\n'
    '  try:\n'
    '    storage.exists(f"{scheme}://bucket/x")\n'
    '  except InputError as error:\n'
    '    print(error)\n'
  )
  first, second = said.splitlines()
  assert first.startswith('gs://bucket/x requires a package that is not inst')
  assert first.endswith("pip install 'lasers_jax[gcs]'")
  assert second.endswith("pip install 'lasers_jax[s3]'")


@pytest.mark.parametrize('tensorflow', ['installed', 'missing'])
def test_tensorflow_changes_nothing(tensorflow):
  """Orbax and tfds take the way that we take, whoever has installed it."""
  missing = 'sys.modules["tensorflow"] = None\n' * (tensorflow == 'missing')
  said = in_a_process(
    f'import sys\n{missing}'
    'import importlib.machinery, importlib.util, jax\n'
    'find = importlib.util.find_spec\n'
    'spec = importlib.machinery.ModuleSpec("tensorflow", None)\n'
    f'there = {tensorflow == "installed"}\n'
    'importlib.util.find_spec = lambda name, package=None: (\n'
    '  (spec if there else None) if name == "tensorflow" else find(name))\n'
    'from lasers_jax.core import storage\n'
    'from etils import epath\n'
    'for path in "gs://b/x", "s3://b/x":\n'
    '  print(type(epath.Path(path)._backend).__name__)\n'
    'assert not sys.modules.get("tensorflow")\n'
  )
  assert said.split() == ['_FileSystemSpecBackend'] * 2
