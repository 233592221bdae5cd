import numpy as np
import pytest
from PIL import Image

from examples import denoise as example
from lasers_jax import DictionaryLearning

SIGMA = 25 / 255


@pytest.fixture(scope='module')
def original():
  return example.load()[100:164, 100:164]


def model():
  return DictionaryLearning(
    64, 4, max_iter=3, tol=0, sparse_output=True, random_state=0
  )


def test_denoising_raises_psnr_by_four_decibels(original):
  noise = np.random.default_rng(0).standard_normal(original.shape, np.float32)
  noisy = original + SIGMA * noise
  restored = example.denoise(noisy, SIGMA, model())
  gain = example.psnr(original, restored) - example.psnr(original, noisy)
  assert gain > 4


def test_inpainting_beats_the_mean_of_the_neighbours_by_a_decibel(original):
  known = np.random.default_rng(0).random((64, 64, 1)) >= 0.5
  damaged = np.where(known, original, 0)
  restored = example.inpaint(damaged, known, model())
  kept = np.broadcast_to(known, original.shape)
  np.testing.assert_array_equal(restored[kept], original[kept])
  plain = example.fill(damaged, known)
  gain = example.psnr(original, restored) - example.psnr(original, plain)
  assert gain > 1


@pytest.mark.parametrize('shape', [(9, 14, 3), (8, 8, 1)])
def test_patches_add_up_to_the_picture(shape):
  picture = np.random.default_rng(0).random(shape, np.float32)
  signals, means = example.to_patches(picture)
  assert signals.shape == ((shape[0] - 7) * (shape[1] - 7), 64 * shape[2])
  np.testing.assert_allclose(signals.mean(axis=1), 0, atol=1e-6)
  back = example.from_patches(signals + means, shape)
  np.testing.assert_allclose(back, picture, atol=1e-6)


def test_a_fill_leaves_what_is_known_and_is_a_mean(original):
  known = np.random.default_rng(0).random((64, 64, 1)) >= 0.5
  flat = np.where(known, 0.3, 0).astype(np.float32) * np.ones(3, np.float32)
  np.testing.assert_allclose(example.fill(flat, known), 0.3, atol=1e-3)


def test_the_script_prints_a_table_and_draws_a_panel(
  original, tmp_path, monkeypatch, capsys
):
  Image.fromarray(example.to_uint8(original)).save(tmp_path / 'mine.png')
  monkeypatch.setattr(example, 'ATOMS', 64)
  output = tmp_path / 'panel.png'
  example.main([f'--image={tmp_path}/mine.png', f'--output={output}'])
  printed = capsys.readouterr().out
  assert printed.count('learned dictionary') == 2
  assert printed.splitlines()[-1] == str(output)
  with Image.open(output) as panel:
    assert panel.size == (3 * 74 + 10, 2 * 89 + 10)
