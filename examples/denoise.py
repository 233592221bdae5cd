"""Repairs a photograph with a dictionary learned from its own patches.

  python examples/denoise.py
  python examples/denoise.py --image=mine.jpg --sigma=15 --missing=0.3

One version of the photograph gets noise, another one loses pixels. For each, a
dictionary is learned from the damaged version alone. Prints PSNR and seconds
beside methods of scikit-image, and writes docs/denoise.png. It takes under a
minute on two CPU cores, most of it compilation.

Noise: M. Elad and M. Aharon, "Image denoising via sparse and redundant
representations over learned dictionaries", IEEE TIP 15(12), 2006; patches of
all colours at once as in J. Mairal, M. Elad and G. Sapiro, "Sparse
representation for color image restoration", IEEE TIP 17(1), 2008.
Missing pixels: M. J. Fadili, J.-L. Starck and F. Murtagh, "Inpainting and
zooming using sparse representations", The Computer Journal 52(1), 2009.
"""

import argparse
import functools
import time

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from skimage import metrics, restoration
from sklearn.datasets import load_sample_image

from lasers_jax import DictionaryLearning

SIDE = 8  # of a patch, in pixels
LARGEST = 288  # side of the image
ATOMS = 512
FONT_SIZE = 15


def denoise(noisy, sigma, model):
  """Removes white noise: no patch is coded better than the noise allows.

  Args:
    noisy: float32 [h, w, c], in [0, 1] but for the noise.
    sigma: standard deviation of the noise.
    model: a DictionaryLearning, which is fitted.

  Returns:
    The image [h, w, c].
  """
  signals, means = to_patches(noisy)
  # The norm of the noise of D numbers, and a little more.
  tolerance = 1.05 * sigma * np.sqrt(signals.shape[1])
  busy = np.linalg.norm(signals, axis=1) > tolerance  # the rest is flat
  model.set_params(n_nonzero_coefs=4).fit(signals[busy])
  model.set_params(n_nonzero_coefs=8, transform_tol=tolerance)
  signals[busy] = model.inverse_transform(model.transform(signals[busy]))
  signals[~busy] = 0
  image = from_patches(signals + means, noisy.shape)
  # Equation 8 of Elad and Aharon keeps this much of what was given.
  fraction = 30 / (255 * sigma) / SIDE**2
  return (image + fraction * noisy) / (1 + fraction)


def inpaint(damaged, known, model, rounds=6):
  """Fills in missing pixels: guesses them, codes the guess, guesses better.

  Each round learns from patches of the last guess, codes all of them, to a
  lower tolerance each time, and moves the missing pixels to what the codes say
  and 0.7 of the way beyond, which saves rounds. Known pixels stay.

  Args:
    damaged: float32 [h, w, c] in [0, 1]; known: bool [h, w, 1].
    model: a DictionaryLearning, not fitted, which is.

  Returns:
    The image [h, w, c].
  """
  random = np.random.default_rng(0)
  image = fill(damaged, known)
  for level in np.geomspace(0.1, 0.03, rounds):
    signals, means = to_patches(image)
    tolerance = level * np.sqrt(signals.shape[1])
    busy = np.linalg.norm(signals, axis=1) > tolerance
    model.partial_fit(random.permutation(signals[busy])[:20480])
    model.set_params(transform_tol=tolerance)
    signals[busy] = model.inverse_transform(model.transform(signals[busy]))
    signals[~busy] = 0
    coded = from_patches(signals + means, image.shape)
    image = np.where(known, damaged, image + 1.7 * (coded - image))
  return image


def to_patches(image):
  """Returns all patches of an image [h, w, c], less the mean of each channel.

  Returns:
    Signals [N, D], D = 8·8·c, and their means [N, D].
  """
  windows = np.lib.stride_tricks.sliding_window_view(
    image, (SIDE, SIDE), axis=(0, 1)
  )
  patches = np.moveaxis(windows, 2, -1).reshape(-1, SIDE**2, image.shape[2])
  means = np.mean(patches, axis=1, keepdims=True)
  means = np.broadcast_to(means, patches.shape)
  return tuple(x.reshape(len(x), -1) for x in (patches - means, means))


def from_patches(patches, shape):
  """Averages overlapping patches [N, D] into an image of shape [h, w, c]."""
  rows, columns = (side - SIDE + 1 for side in shape[:2])
  patches = patches.reshape(rows, columns, SIDE, SIDE, shape[2])
  total, count = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
  for i in range(SIDE):
    for j in range(SIDE):
      total[i : i + rows, j : j + columns] += patches[:, :, i, j]
      count[i : i + rows, j : j + columns] += 1
  return total / count


def fill(damaged, known):
  """Gives each missing pixel a mean of the known ones around it."""
  blur = functools.partial(ndimage.gaussian_filter, sigma=(1, 1, 0))
  mean = blur(damaged * known) / (blur(known.astype(np.float32)) + 1e-6)
  return np.where(known, damaged, mean)


def load(path=None):
  """Reads the middle of an image, or a pavilion: float32 RGB in [0, 1]."""
  if path is None:
    pixels = load_sample_image('china.jpg')[20:, 70:]
  else:
    pixels = np.asarray(Image.open(path).convert('RGB'))
    top, left = (max(0, side - LARGEST) // 2 for side in pixels.shape[:2])
    pixels = pixels[top:, left:]
  return pixels[:LARGEST, :LARGEST].astype(np.float32) / 255


def to_uint8(image):
  return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


def psnr(original, image):
  """Returns the PSNR in dB, over all numbers, after rounding to 8 bits."""
  return metrics.peak_signal_noise_ratio(to_uint8(original), to_uint8(image))


def compare(title, original, methods):
  """Prints PSNR and seconds of methods {name: function that returns an image}.

  Returns:
    Images, in the same order.
  """
  print(f'{title:<40}  PSNR in dB  seconds')
  images = []
  for name, method in methods.items():
    start = time.perf_counter()
    images.append(method())
    seconds = time.perf_counter() - start
    print(f'  {name:<38} {psnr(original, images[-1]):11.2f} {seconds:8.1f}')
  return images


def compare_denoising(original, sigma, random, model):
  """Returns the noisy image, and the one that the model restores."""
  noise = random.standard_normal(original.shape, np.float32)
  noisy = original + sigma * noise
  # Strengths that suit the pavilion best.
  total_variation = functools.partial(
    restoration.denoise_tv_chambolle, noisy, 0.5 * sigma, channel_axis=-1
  )
  non_local_means = functools.partial(
    restoration.denoise_nl_means,
    noisy,
    h=0.8 * sigma,
    sigma=sigma,
    patch_size=5,
    patch_distance=6,
    fast_mode=False,
    channel_axis=-1,
  )
  methods = {
    'as it is': lambda: noisy,
    'total variation (Chambolle)': total_variation,
    'non-local means': non_local_means,
    'learned dictionary': lambda: denoise(noisy, sigma, model),
  }
  images = compare(f'Noise, sigma {255 * sigma:g}', original, methods)
  return images[0], images[-1]


def compare_inpainting(original, missing, random, model):
  """Returns the damaged image, and the one that the model restores."""
  known = random.random((*original.shape[:2], 1)) >= missing
  damaged = np.where(known, original, 0)
  methods = {
    'as it is': lambda: damaged,
    'mean of the neighbours': lambda: fill(damaged, known),
    'biharmonic equation': lambda: restoration.inpaint_biharmonic(
      damaged, ~known[..., 0], channel_axis=-1
    ),
    'learned dictionary': lambda: inpaint(damaged, known, model),
  }
  images = compare(f'{missing:.0%} of the pixels missing', original, methods)
  return images[0], images[-1]


def atoms_image(model, shape):
  """Draws atoms side by side, three times as large: uint8 [h, w, c]."""
  large, canvas = 3 * SIDE, np.full(shape, 255, np.uint8)
  down, across = (side // (large + 2) for side in shape[:2])
  tops = np.linspace(0, shape[0] - large, down).astype(int)
  lefts = np.linspace(0, shape[1] - large, across).astype(int)
  places = [(top, left) for top in tops for left in lefts]
  for (top, left), atom in zip(places, model.components_, strict=False):
    atom = 0.5 + 0.5 * atom / np.max(np.abs(atom))
    atom = to_uint8(atom).reshape(SIDE, SIDE, -1).repeat(3, 0).repeat(3, 1)
    canvas[top : top + large, left : left + large] = atom
  return canvas


def panel(rows):
  """Draws rows of (title, uint8 [h, w, 3]), all of one size, on white."""
  h, w, _ = rows[0][0][1].shape
  gap, line = 10, FONT_SIZE + 10
  size = len(rows[0]) * (w + gap) + gap, len(rows) * (h + line) + gap
  canvas = Image.new('RGB', size, 'white')
  draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(FONT_SIZE)
  for i, row in enumerate(rows):
    for j, (title, pixels) in enumerate(row):
      left, top = gap + j * (w + gap), i * (h + line)
      draw.text((left, top + 4), title, fill=(40, 40, 40), font=font)
      canvas.paste(Image.fromarray(pixels), (left, top + line))
  return canvas


def main(arguments=None):
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--image', help='a file, of which the middle is used')
  parser.add_argument('--sigma', type=float, default=25, help='noise, of 255')
  parser.add_argument('--missing', type=float, default=0.5, help='a fraction')
  parser.add_argument('--output', default='docs/denoise.png')
  flags = parser.parse_args(arguments)

  original, random = load(flags.image), np.random.default_rng(0)
  model = DictionaryLearning(
    ATOMS, max_iter=3, tol=0, sparse_output=True, random_state=0
  )
  noisy, denoised = compare_denoising(
    original, flags.sigma / 255, random, model
  )
  atoms = atoms_image(model, original.shape)
  filler = DictionaryLearning(ATOMS, 4, sparse_output=True, random_state=0)
  damaged, inpainted = compare_inpainting(
    original, flags.missing, random, filler
  )

  def titled(title, image):
    title = f'{title}: {psnr(original, image):.1f} dB'
    return title, to_uint8(image)

  rows = [
    [
      ('original', to_uint8(original)),
      titled(f'noise, sigma {flags.sigma:g}', noisy),
      titled('denoised', denoised),
    ],
    [
      ('atoms learned from the noisy image', atoms),
      titled(f'{flags.missing:.0%} of the pixels missing', damaged),
      titled('filled in', inpainted),
    ],
  ]
  panel(rows).save(flags.output)
  print(flags.output)


if __name__ == '__main__':
  main()
