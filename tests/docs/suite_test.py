"""The program that makes the result files again, by rows that take no time."""

import json
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
MODELS = [
  {'bottleneck': 'vq', 'asked_bits_per_pixel': 0.5, 'results': {'psnr': 20}},
  {'bottleneck': 'vq', 'asked_bits_per_pixel': 2.0, 'results': None},
]


@pytest.fixture(scope='module')
def suite():
  sys.path.insert(0, str(ROOT / 'benchmarks'))
  import suite

  yield suite
  sys.path.remove(str(ROOT / 'benchmarks'))


@pytest.fixture
def made(suite, tmp_path, monkeypatch):
  """Makes rows in a folder; returns the exit code."""
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'docs' / 'results').mkdir(parents=True)
  monkeypatch.setattr(suite, 'device', lambda: 'a core (cpu)')
  monkeypatch.setattr(suite.signal, 'signal', lambda *_: None)

  def make(*rows):
    monkeypatch.setattr(suite.suite_rows, 'ROWS', rows)
    monkeypatch.setattr(sys, 'argv', ['benchmarks/suite.py'])
    with pytest.raises(SystemExit) as ended:
      suite.main()
    return ended.value.code

  return make


def row(suite, code, name='a/b', found='{runs}/found.json', **fields):
  """A row of one command of Python."""
  code = code.replace('"', '\\"')
  command = f'python -c "{code}"'
  return suite.Row(name, 'file', (command,), found, **fields)


def leave(found):
  """Code that leaves a result, and counts how often it ran."""
  text = json.dumps(found).replace('null', 'None').replace('"', "'")
  text = text.replace('{', '{{').replace('}', '}}')
  return (
    'import json; open("count", "a").write("1"); '
    f'json.dump({text}, open("{{runs}}/found.json", "w"))'
  )


def results():
  return json.loads(pathlib.Path('docs/results/file.json').read_text('utf-8'))


def test_models_of_a_row_go_into_its_file(suite, made):
  assert made(row(suite, leave(MODELS), told={'seed': 3})) == 0
  found = results()
  assert found['complete']
  assert found['device'] == 'a core (cpu)'
  assert [x['name'] for x in found['rows']] == ['a/b vq 0.5', 'a/b vq 2.0']
  assert found['rows'][0]['results'] == {'psnr': 20}
  for x in found['rows']:
    assert x['seed'] == 3
    assert x['commands'][0].startswith('python -c ')


def test_a_curve_leaves_out_what_it_is_beside(suite, made):
  rows = [
    {'codec': 'JPEG', 'setting': 'quality 1'},
    {'codec': 'mine', 'setting': 'step=0.2, search 8'},
  ]
  assert made(row(suite, leave({'rows': rows, 'protocol': {'a': 1}}))) == 0
  [found] = results()['rows']
  assert found['name'] == 'a/b mine step=0.2, search 8'
  assert found['protocol'] == {'a': 1}


def test_what_curves_leave_is_where_the_rows_look(suite):
  """The folder of a curve is `MODEL/curve`, where no other is asked for."""
  for one in suite.suite_rows.files():
    *_, curve = one.commands
    assert '--output' not in curve
    model = curve.partition('--model=')[2].split()[0]
    assert one.found == f'{model}/curve/curve.json'


def test_what_is_done_is_passed_over_until_its_command_changes(suite, made):
  assert made(row(suite, leave(MODELS))) == 0
  assert made(row(suite, leave(MODELS))) == 0
  count = pathlib.Path('count')
  assert count.read_text() == '1'
  assert made(row(suite, leave(MODELS[:1]) + ' # again')) == 0
  assert count.read_text() == '11'


def test_a_row_that_fails_is_told_and_the_others_are_made(suite, made, capfd):
  fails = row(suite, 'raise SystemExit(2)', 'wrong')
  assert made(fails, row(suite, leave(MODELS))) == 1
  assert capfd.readouterr().err == 'wrong failed\n'
  assert len(results()['rows']) == 2


def test_a_program_that_was_stopped_is_called_again(suite, made):
  stopped = (
    'import os; os.path.exists("count") or exit(open("count", "w") and 75)'
  )
  commands = row(suite, stopped).commands + row(suite, leave(MODELS)).commands
  assert made(row(suite, '')._replace(commands=commands)) == 0


def test_rows_of_a_result_file_replace_those_of_their_names(suite, made):
  for value in 1, 2:
    rows = [{'name': 'x', 'value': value}, {'name': f'y{value}'}]
    found = {'command': 'c', 'complete': True, 'rows': rows}
    assert made(row(suite, leave(found).replace('true', 'True'))) == 0
  assert results()['command'] == 'c'
  rows = {x['name']: x.get('value') for x in results()['rows']}
  assert rows == {'x': 2, 'y1': None, 'y2': None}


def test_rows_are_longer_on_an_accelerator(suite):
  for device, steps in ('a core (cpu)', 10), ('a card (gpu)', 90):
    given = type('Given', (), {'device': device, 'runs': 'r'})
    one = row(suite, 'print({steps})', steps=(10, 90))
    assert suite.written(one, given) == [f'python -c "print({steps})"']


def test_the_rows_of_the_documentation(suite):
  """Each has a name and a folder of its own, and calls what there is."""
  rows = suite.suite_rows.ROWS
  assert len({x.name for x in rows}) == len(rows)
  programs = {x.stem for x in (ROOT / 'lasers_jax' / 'cli').glob('*.py')}
  for one in rows:
    assert '{runs}' in one.found
    for command in one.commands:
      program, name, *_ = command.split()
      known = {'lasers-jax': name in programs, 'python': (ROOT / name).exists()}
      assert known[program], command
