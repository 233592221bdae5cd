import os
import subprocess

import pytest

from lasers_jax.core import provenance


def test_the_commit_of_a_checkout_is_known():
  known = provenance.commit()
  folder = os.path.dirname(provenance.__file__)
  words = ['git', 'rev-parse', '--short=12', 'HEAD']
  head = subprocess.run(words, cwd=folder, capture_output=True, text=True)
  if head.returncode:
    pytest.skip('not a checkout')
  assert known.removesuffix('-dirty') == head.stdout.strip()


@pytest.mark.parametrize(
  'error',
  [
    FileNotFoundError('git'),
    PermissionError('git'),
    subprocess.TimeoutExpired('git', 10),
    subprocess.CalledProcessError(128, 'git'),
    OSError(12, 'Cannot allocate memory'),
  ],
)
def test_no_commit_where_git_cannot_tell(monkeypatch, error):
  def run(*_, **__):
    raise error

  monkeypatch.setattr(provenance.subprocess, 'run', run)
  assert provenance.commit() is None


def test_a_package_inside_of_another_checkout_has_no_commit(
  tmp_path, monkeypatch
):
  git = ['git', '-c', 'user.name=a', '-c', 'user.email=a@b.c']
  subprocess.run([*git, 'init', '-q'], cwd=tmp_path, check=True)
  words = [*git, 'commit', '-q', '--allow-empty', '-m', 'another project']
  subprocess.run(words, cwd=tmp_path, check=True)
  monkeypatch.setattr(provenance, '__file__', str(tmp_path / 'program.py'))
  (tmp_path / 'program.py').write_text('')
  assert provenance.commit() is None


def test_variables_of_git_do_not_name_another_checkout(monkeypatch):
  before = provenance.commit()
  monkeypatch.setenv('GIT_DIR', '/no/such')
  assert provenance.commit() == before


def processor_of(monkeypatch, text):
  def read(_):
    if text is None:
      raise FileNotFoundError
    return text

  monkeypatch.setattr(provenance.storage, 'read_text', read)
  return provenance.processor()


def test_a_processor_is_its_model_and_its_vectors(monkeypatch):
  text = 'processor\t: 0\nmodel name\t: Epic\nmodel\t: 2\nflags\t: fpu avx2 sse'
  found = processor_of(monkeypatch, f'{text}\n\nprocessor\t: 1\nmodel\t: 3\n')
  assert found == 'Epic 2 (avx2 sse)'
  # Of another version of the kernel.
  assert processor_of(monkeypatch, f'{text} ibpb') == found
  assert processor_of(monkeypatch, f'{text} avx512f') != found
  arm = 'CPU implementer\t: 0x41\nFeatures\t: fp asimd crc32 sve\n'
  assert processor_of(monkeypatch, arm) == '0x41 (asimd sve)'
  assert processor_of(monkeypatch, None)
