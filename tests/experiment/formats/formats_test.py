"""The formats of exported models, whichever it is."""

import pytest

import lasers_jax as lj
from lasers_jax.experiment.formats import FORMATS
from tests.experiment.formats.drawn import made


def test_folders_and_formats(tmp_path):
  model = made({'name': 'none'})
  with pytest.raises(lj.InputError, match='format is .tflite.') as raised:
    model.export(tmp_path / 'out', format='tflite')
  assert all(name in str(raised.value) for name in FORMATS)
  (tmp_path / 'full').mkdir()
  (tmp_path / 'full' / 'a').touch()
  for name in FORMATS:
    with pytest.raises(lj.InputError, match='full is not empty'):
      model.export(tmp_path / 'full', format=name)
    with pytest.raises(lj.InputError, match='half and licence are not of'):
      model.export(tmp_path / 'out', format=name, half=True)
  for name in (None, 'diffusers'):
    with pytest.raises(lj.InputError, match="side is of format='stablehlo'"):
      model.export(tmp_path / 'out', format=name, side=16)


@pytest.mark.parametrize('name', FORMATS)
@pytest.mark.parametrize(
  'sections, problem',
  [
    ({'decoder': {'name': 'diffusion'}}, "requires decoder.name='plain', not"),
    ({'degradation': {'name': 'inpaint'}}, 'a model without degradation'),
  ],
)
def test_only_what_decodes_codes_in_one_pass(name, sections, problem, tmp_path):
  model = made({'name': 'none'}, sections)
  with pytest.raises(lj.InputError, match=problem):
    model.export(tmp_path / 'out', format=name)
  assert not (tmp_path / 'out').exists()
