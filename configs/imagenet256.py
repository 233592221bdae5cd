"""ImageNet at 256 pixels, in the settings of papers, with batches of 256.

  python train.py --config=configs/imagenet256.py:vq+gan --workdir=runs/vqgan

The argument names the bottleneck and, after plus signs, parts; docs/recipes.md
tells where each setting is from. TFDS_DATA_DIR says where ImageNet is. A step
of training takes so many operations (GFLOP) an image:

  word         parameters   GFLOP      steps   published rFID
  vq+gan           72.9 M   1,344    200,000   7.94; 4.98 with K = 16,384 [1]
  lasers+gan      103.6 M   1,325     50,000   none; 3.20 of RQ-VAE [2]
  kl+gan           86.0 M   2,650    200,000   0.90, of OpenImages [3]
  ibq+gan         174.9 M   2,315  1,650,000   1.00 [4]
  none+gan         56.9 M   1,563  1,000,000   none
  none+swycc      288.3 M   2,178  1,000,000   none; CMMD 0.15 [5]

[1] arXiv 2012.09841, README of CompVis/taming-transformers; 16,384 codes are
--config.bottleneck.K=16384. [2] 256 codes of 16,384 an image, in arXiv
2406.11837. [3] arXiv 2112.10752, README of CompVis/latent-diffusion. [4] arXiv
2412.02692, README of TencentARC/SEED-Voken. [5] arXiv 2409.02529; of which of
its four latents is not known (--config.network.D=4, 8, 16 or 32).

Estimates by --dry_run, for a device: time by the compiler's cycles on v5e, and
at 40 % of the peak on H100, without waiting for images or other devices.

  vq+gan      v5e:16x16   3.3 of 15.8 GiB        69 ms a step       3.8 hours
  vq+gan      h100:8     21.9 of 59.3 GiB       108 ms a step       6.0 hours
  lasers+gan  v5e:16x16   3.6 of 15.8 GiB        70 ms a step       1.0 hours
  lasers+gan  h100:8     24.3 of 59.3 GiB       107 ms a step       1.5 hours
  kl+gan      v5e:16x16   3.8 of 15.8 GiB        84 ms a step       4.7 hours
  kl+gan      h100:8     28.1 of 59.3 GiB       214 ms a step        12 hours
  ibq+gan     v5e:16x16   6.3 of 15.8 GiB       117 ms a step        54 hours
  ibq+gan     h100:8     36.8 of 59.3 GiB       187 ms a step        86 hours
  none+gan    v5e:16x16   3.1 of 15.8 GiB        71 ms a step        20 hours
  none+gan    h100:8     35.9 of 59.3 GiB       126 ms a step        35 hours
  none+swycc  v5e:16x16   6.8 of 15.8 GiB        94 ms a step        26 hours
  none+swycc  h100:8     40.5 of 59.3 GiB       175 ms a step        49 hours
"""

from ml_collections import ConfigDict

from lasers_jax.experiment import presets

# An epoch is 5,004 steps. Those of SWYCC and MaskGIT are 10^6; of IBQ 330
# epochs; of RQ-VAE 10; and 40, as LlamaGen's, of the others.
STEPS = {'lasers': 50_000, 'ibq': 1_650_000, 'none': 1_000_000}


def get_config(argument: str = 'vq+gan') -> ConfigDict:
  name, *parts = argument.split('+')
  steps = 1_000_000 if 'swycc' in parts else STEPS.get(name, 200_000)
  config = {
    'steps': steps,
    'batch_size': 256,
    'data': {
      'name': 'imagenet2012',
      'side': 256,
      'resize': 256,  # the shorter side, before the crop
      'test': 'validation',  # the labels of its own test split are secret
      'workers': 16,
    },
    'evaluation': {'batch_size': 256},
    'log_every': 100,
    'evaluate_every': 25_000,
    'checkpoint_every': 2_500,
  }
  return ConfigDict(presets.published(config, argument))
